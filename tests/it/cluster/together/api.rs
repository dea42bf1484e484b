//! What every node says over the API: the same.

use serde_json::{Value, json};

use super::super::Cluster;
use crate::support::{Api, until_equal};

/// Waits until every node answers with this.
#[track_caller]
fn expect_everywhere(cluster: &Cluster, wanted: &Value, ask: impl Fn(&Api) -> Value) {
    for (number, node) in cluster.nodes() {
        until_equal(&format!("the answer of node {number}"), wanted, || ask(node.api()));
    }
}

#[test]
fn p82_the_channels_of_all_nodes_are_listed() {
    let cluster = Cluster::of(3);
    expect_everywhere(&cluster, &json!({}), Api::channels);
    let _clients = [
        cluster[0].subscriber("news"),
        cluster[1].subscriber("news"),
        cluster[1].subscriber("private-a"),
        cluster[2].joined("presence-a", "ann"),
        cluster[0].joined("presence-a", "ann"),
        cluster[1].joined("presence-a", "bob"),
        cluster[1].joined("presence-b", "bob"),
        cluster[1].signed_in("bob"),
    ];
    cluster[0].publish("cache-nobody-listens", "e", "x");
    let all = json!({ "news": {}, "private-a": {}, "presence-a": {}, "presence-b": {} });
    expect_everywhere(&cluster, &all, Api::channels);
    let users = json!({ "presence-a": { "user_count": 2 }, "presence-b": { "user_count": 1 } });
    expect_everywhere(&cluster, &users, |node| {
        let request = node.get("/channels").param("filter_by_prefix", "presence-");
        request.param("info", "user_count").send().ok()["channels"].clone()
    });
    let counts = json!({ "news": { "subscription_count": 2 } });
    expect_everywhere(&cluster, &counts, |node| {
        let request = node.get("/channels").param("filter_by_prefix", "ne");
        request.param("info", "subscription_count").send().ok()["channels"].clone()
    });
}

#[test]
fn p82_many_channels_of_all_nodes_are_listed() {
    const EACH: usize = 150;
    let cluster = Cluster::of(2);
    let mut clients = [cluster[0].connect(), cluster[1].connect()];
    let mut wanted = json!({});
    for (node, client) in clients.iter_mut().enumerate() {
        for number in 0..EACH {
            let channel = format!("room-{node}-{number}");
            client.subscribe(&channel);
            wanted[channel] = json!({});
        }
    }
    expect_everywhere(&cluster, &wanted, Api::channels);
}

#[test]
fn p83_p85_one_channel_is_counted_over_all_nodes() {
    let cluster = Cluster::of(2);
    let empty = json!({ "occupied": false, "subscription_count": 0 });
    expect_everywhere(&cluster, &empty, |node| node.channel("news", "subscription_count"));
    let first = cluster[0].subscriber("news");
    let _others = [cluster[1].subscriber("news"), cluster[1].subscriber("news")];
    let three = json!({ "occupied": true, "subscription_count": 3 });
    expect_everywhere(&cluster, &three, |node| node.channel("news", "subscription_count"));
    first.leave();
    let two = json!({ "occupied": true, "subscription_count": 2 });
    expect_everywhere(&cluster, &two, |node| node.channel("news", "subscription_count"));

    let _members = [
        cluster[0].joined("presence-room", "ann"),
        cluster[1].joined("presence-room", "ann"),
        cluster[1].joined("presence-room", "bob"),
    ];
    let members = json!({ "occupied": true, "subscription_count": 3, "user_count": 2 });
    let both = "subscription_count,user_count";
    expect_everywhere(&cluster, &members, |node| node.channel("presence-room", both));
}

#[test]
fn p83_every_node_knows_what_is_cached() {
    let cluster = Cluster::of(2);
    expect_everywhere(&cluster, &Value::Null, |node| node.channel("cache-news", "cache")["cache"].clone());
    cluster[0].publish("cache-news", "e", "{\"x\" : 1}");
    expect_everywhere(&cluster, &json!("{\"x\" : 1}"), |node| {
        let cache = node.channel("cache-news", "cache")["cache"].clone();
        let ttl = cache["ttl"].as_u64().expect("seconds");
        assert!((1790..=1800).contains(&ttl), "{cache}");
        cache["data"].clone()
    });
}

#[test]
fn p84_the_users_of_all_nodes_are_listed_once() {
    let cluster = Cluster::of(2);
    let users = |node: &Api| json!(node.users("presence-room"));
    expect_everywhere(&cluster, &json!([]), users);
    let ann = cluster[0].joined("presence-room", "ann");
    let _others = [cluster[1].joined("presence-room", "ann"), cluster[1].joined("presence-room", "bob")];
    expect_everywhere(&cluster, &json!(["ann", "bob"]), users);
    ann.leave();
    expect_everywhere(&cluster, &json!(["ann", "bob"]), users);
}

#[test]
fn p80_p81_what_is_asked_with_an_event_is_counted_over_all_nodes() {
    let cluster = Cluster::of(2);
    let _clients = [
        cluster[0].subscriber("news"),
        cluster[1].subscriber("news"),
        cluster[0].joined("presence-room", "ann"),
        cluster[1].joined("presence-room", "ann"),
    ];
    let info = "user_count,subscription_count";
    let event =
        json!({ "name": "e", "channels": ["news", "presence-room", "empty"], "data": "x", "info": info });
    let counts = json!({
        "news": { "subscription_count": 2 },
        "presence-room": { "subscription_count": 2, "user_count": 1 },
        "empty": { "subscription_count": 0 },
    });
    expect_everywhere(&cluster, &counts, |node| node.trigger(&event).ok()["channels"].clone());
    let batch = json!({ "batch": [
        { "name": "e", "channel": "news", "data": "x", "info": "subscription_count" },
        { "name": "e", "channel": "empty", "data": "x" },
        { "name": "e", "channel": "presence-room", "data": "x", "info": "user_count" },
    ]});
    let wanted = json!([{ "subscription_count": 2 }, {}, { "user_count": 1 }]);
    expect_everywhere(&cluster, &wanted, |node| {
        node.post("/batch_events", &batch).send().ok()["batch"].clone()
    });
}

#[test]
fn a_batch_with_a_mistake_is_published_on_no_node() {
    let cluster = Cluster::of(2);
    let mut client = cluster[1].subscriber("news");
    let batch = json!({ "batch": [
        { "name": "e", "channel": "news", "data": "x" },
        { "name": "e", "channel": "not a name", "data": "x" },
    ]});
    assert_eq!(cluster[0].post("/batch_events", &batch).send().status, 400);
    cluster[0].publish("news", "marker", "");
    client.expect_event("news", "marker", "");
}
