//! Cache channels: the last published event waits for whoever comes.

use serde_json::{Value, json};

use crate::support::{Broker, Client, until};

const TYPES: [&str; 4] =
    ["cache-news", "private-cache-news", "private-encrypted-cache-news", "presence-cache-news"];

/// Subscribes to a channel of any type and reads only the confirmation.
#[track_caller]
fn enter(client: &mut Client, channel: &str) {
    if channel.starts_with("presence-") {
        client.join(channel, r#"{"user_id":"ann"}"#);
    } else {
        client.subscribe(channel);
    }
}

#[test]
fn p28_the_last_event_follows_the_confirmation() {
    let broker = Broker::start();
    for channel in TYPES {
        broker.publish(channel, "old", "1");
        broker.publish(channel, "new", "{\"number\": 2}");
        let mut client = broker.connect();
        enter(&mut client, channel);
        client.expect_event(channel, "new", "{\"number\": 2}");
        client.expect_silence();
    }
}

#[test]
fn p28_the_cached_event_comes_before_anything_newer() {
    let broker = Broker::start();
    broker.publish("cache-news", "cached", "1");
    let mut client = broker.connect();
    client.ask(&json!({ "channel": "cache-news" }));
    client.ask(&json!({ "channel": "ready" }));
    client.expect_succeeded("cache-news");
    client.expect_event("cache-news", "cached", "1");
    client.expect_succeeded("ready");
    broker.publish("cache-news", "newer", "2");
    client.expect_event("cache-news", "newer", "2");
}

#[test]
fn p28_those_already_there_get_no_replay() {
    let broker = Broker::start();
    let mut first = broker.subscriber("cache-news");
    first.expect_on("cache-news", "pusher:cache_miss");
    broker.publish("cache-news", "e", "data");
    first.expect_event("cache-news", "e", "data");

    let mut second = broker.subscriber("cache-news");
    second.expect_event("cache-news", "e", "data");

    first.expect_silence();
}

#[test]
fn p28_an_event_to_several_channels_and_each_of_a_batch_are_cached() {
    let broker = Broker::start();
    let channels = ["cache-a", "b", "cache-c"];
    broker.trigger(&json!({ "name": "e", "channels": channels, "data": "1" })).ok();
    for channel in ["cache-a", "cache-c"] {
        broker.subscriber(channel).expect_event(channel, "e", "1");
    }

    let batch = json!({ "batch": [
        { "name": "first", "channel": "cache-a", "data": "2" },
        { "name": "last", "channel": "cache-a", "data": "3" },
    ]});
    broker.post("/batch_events", &batch).send().ok();
    broker.subscriber("cache-a").expect_event("cache-a", "last", "3");
}

#[test]
fn p28_an_event_that_excludes_a_socket_is_cached_for_it_too() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let body = json!({ "name": "e", "channel": "cache-news", "data": "1", "socket_id": client.id() });
    broker.trigger(&body).ok();
    client.subscribe("cache-news");
    client.expect_event("cache-news", "e", "1");
}

#[test]
fn p28_client_events_are_never_cached() {
    let broker = Broker::start();
    let mut ann = broker.subscriber("private-cache-room");
    ann.expect_on("private-cache-room", "pusher:cache_miss");
    let mut bob = broker.subscriber("private-cache-room");
    bob.expect_on("private-cache-room", "pusher:cache_miss");
    ann.say("private-cache-room", "client-x", &json!("fleeting"));
    bob.expect_event("private-cache-room", "client-x", "fleeting");

    let mut late = broker.subscriber("private-cache-room");
    late.expect_on("private-cache-room", "pusher:cache_miss");

    broker.publish("private-cache-room", "e", "lasting");
    ann.expect_event("private-cache-room", "e", "lasting");
    ann.say("private-cache-room", "client-x", &json!("fleeting"));
    ann.expect_served();
    let mut later = broker.subscriber("private-cache-room");
    later.expect_event("private-cache-room", "e", "lasting");
    later.expect_silence();
}

#[test]
fn p28_a_cached_event_expires() {
    let broker = Broker::with_app("cache_ttl_s = 1");
    broker.publish("cache-news", "e", "data");
    until("the end of the cached event", || broker.channel("cache-news", "cache")["cache"].is_null());
    let mut client = broker.subscriber("cache-news");
    assert_eq!(client.expect_on("cache-news", "pusher:cache_miss"), json!({}));
    client.expect_silence();
}

#[test]
fn p28_the_time_to_live_starts_again_with_each_event() {
    let ttl = |broker: &Broker| {
        let cache = broker.channel("cache-news", "cache")["cache"].clone();
        cache["ttl"].as_u64().unwrap_or_else(|| panic!("no ttl in {cache}"))
    };
    let broker = Broker::start();
    broker.publish("cache-news", "e", "1");
    assert!((1790..=1800).contains(&ttl(&broker)));

    let broker = Broker::with_app("cache_ttl_s = 5");
    broker.publish("cache-news", "e", "1");
    until("the passing of a second or two", || ttl(&broker) <= 3);
    broker.publish("cache-news", "e", "2");
    assert!(ttl(&broker) >= 4);
}

#[test]
fn p29_an_empty_cache_is_told_to_the_subscriber_alone() {
    let broker = Broker::start();
    for channel in TYPES {
        let mut first = broker.connect();
        enter(&mut first, channel);
        first.expect(&json!({ "event": "pusher:cache_miss", "channel": channel, "data": "{}" }));
        let mut second = broker.connect();
        enter(&mut second, channel);
        second.expect(&json!({ "event": "pusher:cache_miss", "channel": channel, "data": "{}" }));
        first.expect_silence();
        second.expect_silence();
    }
}

#[test]
fn p30_the_cache_outlives_its_last_subscriber() {
    let broker = Broker::start();
    let mut client = broker.subscriber("cache-news");
    client.expect_on("cache-news", "pusher:cache_miss");
    broker.publish("cache-news", "e", "data");
    client.expect_event("cache-news", "e", "data");
    client.unsubscribe("cache-news");
    client.expect_served();
    assert_eq!(broker.channels(), json!({}));

    client.subscribe("cache-news");
    client.expect_event("cache-news", "e", "data");
    client.leave();
    broker.subscriber("cache-news").expect_event("cache-news", "e", "data");
}

#[test]
fn names_that_only_look_cached_are_not() {
    let broker = Broker::start();
    for channel in ["cachefoo", "my-cache-foo", "private-foo", "Cache-foo", "private-cachefoo"] {
        broker.publish(channel, "e", "data");
        let mut client = broker.subscriber(channel);
        client.expect_silence();
    }
}

#[test]
fn a_cached_event_keeps_its_bytes() {
    let broker = Broker::start();
    let data = "Zoë \u{2028} \\ \" \n {\"a\" : 1.0}";
    broker.publish("cache-news", "App\\Event \"x\"", data);
    broker.subscriber("cache-news").expect_event("cache-news", "App\\Event \"x\"", data);
    let cache = broker.channel("cache-news", "cache")["cache"].clone();
    assert_eq!(cache["data"], Value::from(data));
}
