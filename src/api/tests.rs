//! The API of a node in a cluster: what it asks, and what it says when nobody answers.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_http::header;
use serde_json::{Value, json};

use crate::api::{Answer, ApiError, Resource, Signed, dispatch};
use crate::app::{App, Apps};
use crate::config::{Config, Masked};
use crate::hub::{Audience, Topic};
use crate::mirror::Message;
use crate::node::Node;
use crate::node::fake::FakeCluster;
use crate::protocol::{CachedEvent, ChannelName, Member, Query};

/// Most events of a batch.
const BATCH_MAX: usize = 10;

struct Backend {
    node: Arc<Node>,
    cluster: FakeCluster,
}

impl Backend {
    fn new() -> Self {
        let mut config = Config::default();
        config.redis.url = Masked::new("redis://nowhere");
        let app = App { cache_ttl_s: 60, ..Config::demo_app() };
        let node = Node::new(config, Apps::new([app]).expect("an app"));
        Self { cluster: FakeCluster::new(&node), node }
    }

    /// Calls, and lets the cluster answer.
    fn call(&mut self, resource: &Resource, query: &str, body: &Value) -> Result<Answer, ApiError> {
        let app = self.node.apps().by_id("1").expect("the app").clone();
        let signed = Signed { app, query: Query::parse(query).expect("a query") };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut answer = pin!(dispatch(&self.node, &signed, resource, body.as_bytes()));
        let mut cx = Context::from_waker(Waker::noop());
        // A batch asks for one event after the other.
        for _ in 0..=BATCH_MAX {
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut cx) {
                return answer;
            }
            self.cluster.work();
        }
        panic!("everything was answered")
    }

    fn get(&mut self, resource: Resource, query: &str) -> Value {
        json_of(self.call(&resource, query, &Value::Null))
    }

    fn post(&mut self, resource: Resource, body: &Value) -> Value {
        json_of(self.call(&resource, "", body))
    }

    fn joins(&mut self, channel: &str, user_id: Option<&str>) {
        let member = |id: &str| Arc::new(Member { user_id: id.into(), user_info: "{}".into() });
        self.cluster.joins_elsewhere(&topic(channel), user_id.map(member));
    }
}

fn json_of(answer: Result<Answer, ApiError>) -> Value {
    match answer.expect("no error") {
        Answer::Json(value) => value,
        Answer::Text(text) => serde_json::from_str(&text).expect("JSON"),
        Answer::Accepted => Value::Null,
    }
}

fn topic(channel: &str) -> Topic {
    let channel = ChannelName::parse(channel, 200).expect("a valid name");
    Topic { app: "1".into(), channel, audience: Audience::Subscribers }
}

#[test]
fn p80_a_publish_counts_who_is_subscribed_anywhere() {
    let mut backend = Backend::new();
    backend.joins("a", None);
    backend.joins("presence-b", Some("ann"));
    backend.joins("presence-b", Some("ann"));
    let event = json!({
        "name": "e", "data": "1", "channels": ["a", "presence-b", "empty"], "info": "user_count,subscription_count",
    });
    assert_eq!(
        backend.post(Resource::Events, &event),
        json!({ "channels": {
            "a": { "subscription_count": 1 },
            "presence-b": { "subscription_count": 2, "user_count": 1 },
            "empty": { "subscription_count": 0 },
        } })
    );
    let plain = json!({ "name": "e", "data": "1", "channel": "a" });
    assert_eq!(backend.post(Resource::Events, &plain), json!({}));
    assert_eq!(backend.node.metrics().events_of_api.get(), 4);
}

#[test]
fn a_batch_is_published_in_order_and_only_if_all_of_it_is_right() {
    let mut backend = Backend::new();
    for channel in ["a", "b"] {
        backend.joins(channel, None);
    }
    let event = |channel: &str, name: &str| json!({ "channel": channel, "name": name, "data": "" });
    let counted = |channel: &str| {
        let mut event = event(channel, "e");
        event["info"] = json!("subscription_count");
        event
    };
    let batch = json!({ "batch": [counted("a"), event("b", "1"), event("b", "2"), counted("none")] });
    let answer = backend.post(Resource::BatchEvents, &batch);
    let info = |count: u32| json!({ "subscription_count": count });
    assert_eq!(answer, json!({ "batch": [info(1), {}, {}, info(0)] }));
    let wrong = json!({ "batch": [event("a", "e"), event("not a name", "e")] });
    assert!(backend.call(&Resource::BatchEvents, "", &wrong).is_err());
    assert_eq!(backend.cluster.published(&topic("a")), ["e"]);
    assert_eq!(backend.cluster.published(&topic("b")), ["1", "2"]);
}

#[test]
fn p28_a_cached_event_is_kept_for_as_long_as_the_app_says() {
    let mut backend = Backend::new();
    let event = json!({ "name": "e", "data": "1", "channel": "cache-a" });
    backend.post(Resource::Events, &event);
    let shown = backend.get(Resource::Channel("cache-a".into()), "info=cache,subscription_count");
    let expected = json!({ "occupied": false, "subscription_count": 0, "cache": { "data": "1", "ttl": 60 } });
    assert_eq!(shown, expected);
    let event = CachedEvent::new(&topic("cache-a").channel, "\"e\"", "\"2\"");
    backend.cluster.publish(&topic("cache-a"), Message::Kept(event, Duration::from_secs(5)), None);
    let shown = backend.get(Resource::Channel("cache-a".into()), "info=cache");
    assert_eq!(shown["cache"], json!({ "data": "2", "ttl": 5 }));
}

#[test]
fn p85_channels_of_all_partitions_are_listed() {
    let mut backend = Backend::new();
    let mut expected = BTreeMap::new();
    for number in 0..200 {
        let name = format!("presence-{number}");
        backend.joins(&name, Some("ann"));
        backend.joins(&name, Some(if number % 2 == 0 { "ann" } else { "bob" }));
        expected.insert(name, json!({ "user_count": number % 2 + 1, "subscription_count": 2 }));
    }
    backend.joins("other", None);
    let query = "filter_by_prefix=presence-&info=user_count,subscription_count";
    assert_eq!(backend.get(Resource::Channels, query), json!({ "channels": expected }));
    assert_eq!(backend.get(Resource::Channels, "filter_by_prefix=o"), json!({ "channels": { "other": {} } }));
}

#[test]
fn a_channel_is_shown_as_the_cluster_has_it() {
    let mut backend = Backend::new();
    backend.joins("presence-a", Some("ann"));
    backend.joins("presence-a", Some("bob"));
    let name = || "presence-a".to_owned();
    let shown = backend.get(Resource::Channel(name()), "info=user_count,subscription_count");
    assert_eq!(shown, json!({ "occupied": true, "user_count": 2, "subscription_count": 2 }));
    let users = backend.get(Resource::Users(name()), "");
    let ids: Vec<&str> =
        users["users"].as_array().expect("users").iter().filter_map(|user| user["id"].as_str()).collect();
    assert_eq!(
        ids.into_iter().collect::<std::collections::BTreeSet<_>>(),
        std::collections::BTreeSet::from(["ann", "bob"])
    );
    assert_eq!(backend.get(Resource::Users("presence-empty".into()), ""), json!({ "users": [] }));
    let stats = backend.get(Resource::ChannelStats(name()), "");
    assert_eq!(stats, json!({ "occupied": true, "connection_count": 2, "user_count": 2 }));
}

#[test]
fn p58_users_are_terminated_everywhere() {
    let mut backend = Backend::new();
    backend.joins("#server-to-user-ann", None);
    assert_eq!(backend.post(Resource::Terminate("ann".into()), &json!({})), json!({}));
    assert_eq!(backend.post(Resource::Terminate("no body".into()), &json!({})), json!({}));
    assert_eq!(backend.cluster.published(&topic("#server-to-user-ann")), ["(disconnect)"]);
}

#[test]
fn without_the_cluster_everything_is_refused_for_now() {
    let mut backend = Backend::new();
    backend.cluster.is_away = true;
    let event = json!({ "name": "e", "data": "1", "channel": "a" });
    let batch = json!({ "batch": [event.clone()] });
    let name = || "presence-a".to_owned();
    for (resource, body) in [
        (Resource::Events, &event),
        (Resource::BatchEvents, &batch),
        (Resource::Channels, &Value::Null),
        (Resource::Channel(name()), &Value::Null),
        (Resource::Users(name()), &Value::Null),
        (Resource::ChannelStats(name()), &Value::Null),
        (Resource::Terminate("ann".into()), &Value::Null),
    ] {
        let error = backend.call(&resource, "", body).expect_err("refused");
        assert_eq!(error, ApiError::ClusterAway, "{resource:?}");
        let response = error.response();
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers().get(header::RETRY_AFTER).map(|value| value.as_bytes()),
            Some(&b"1"[..])
        );
    }
    assert_eq!(backend.node.metrics().events_of_api.get(), 0);
    // Nobody is there to answer: that is the same.
    let Backend { node, cluster } = backend;
    drop(cluster);
    let app = node.apps().by_id("1").expect("the app").clone();
    let signed = Signed { app, query: Query::default() };
    let body = event.to_string();
    let answer = pin!(dispatch(&node, &signed, &Resource::Events, body.as_bytes()));
    let polled = answer.poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Err(ApiError::ClusterAway))), "{polled:?}");
}
