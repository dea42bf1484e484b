//! `POST /batch_events`: several events at once.

use serde_json::{Value, json};

use crate::support::{Broker, Reply};

fn send(broker: &Broker, batch: &Value) -> Reply {
    broker.post("/batch_events", &json!({ "batch": batch })).send()
}

fn event(channel: &str, name: &str, data: &str) -> Value {
    json!({ "channel": channel, "name": name, "data": data })
}

#[test]
fn p81_ten_events_pass_in_their_order() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let batch: Vec<Value> = (0..10).map(|number| event("news", "e", &number.to_string())).collect();
    let reply = send(&broker, &json!(batch));
    assert_eq!(reply.body, "{}");
    assert_eq!(reply.ok(), json!({}));
    for number in 0..10 {
        client.expect_event("news", "e", &number.to_string());
    }
}

#[test]
fn p81_eleven_events_are_too_many() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let batch = vec![event("news", "e", ""); 11];
    send(&broker, &json!(batch)).refused(400, "Batch too large (11 > 10)");
    client.expect_silence();
}

#[test]
fn p81_the_size_of_a_batch_can_be_set() {
    let broker = Broker::with_app("batch_events_max = 3");
    let batch = vec![event("news", "e", ""); 3];
    send(&broker, &json!(batch)).ok();
    let batch = vec![event("news", "e", ""); 4];
    send(&broker, &json!(batch)).refused(400, "Batch too large (4 > 3)");
}

#[test]
fn p81_each_event_needs_a_channel_of_its_own() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for entry in [
        json!({ "name": "e", "data": "d" }),
        json!({ "name": "e", "data": "d", "channels": ["news"] }),
        json!({ "name": "e", "data": "d", "channel": null }),
    ] {
        let reply = send(&broker, &json!([event("news", "e", "d"), entry]));
        reply.refused(400, "Missing required parameter: channel");
    }
    client.expect_silence();
}

#[test]
fn p81_each_event_is_checked_like_a_single_one_and_nothing_is_published() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let too_much = "The data content of this event exceeds the allowed maximum (10240 bytes)";
    for (entry, status, message) in [
        (json!({ "channel": "a", "data": "d" }), 400, "Missing required parameter: name"),
        (json!({ "channel": "a", "name": 7, "data": "d" }), 400, "Expected name parameter to be a string"),
        (event("a", "pusher:x", "d"), 400, "Invalid event name 'pusher:x'"),
        (event("a", &"x".repeat(201), "d"), 400, "Event name too long (201 > 200)"),
        (event("a b", "e", "d"), 400, "Invalid channel name 'a b'"),
        (json!({ "channel": "a", "name": "e" }), 400, "Missing required parameter: data"),
        (json!({ "channel": "a", "name": "e", "data": null }), 400, "Missing required parameter: data"),
        (event("a", "e", &"x".repeat(10_241)), 413, too_much),
        (
            json!({ "channel": "a", "name": "e", "data": "", "socket_id": "abc" }),
            400,
            "Invalid socket_id 'abc'",
        ),
        (
            json!({ "channel": "a", "name": "e", "data": "", "info": "users" }),
            400,
            "info should be a comma separated list of attributes",
        ),
    ] {
        send(&broker, &json!([event("news", "e", "d"), entry])).refused(status, message);
    }
    client.expect_silence();
}

#[test]
fn p81_a_batch_must_be_an_array_of_objects() {
    let broker = Broker::start();
    for body in [
        json!({}),
        json!({ "batch": null }),
        json!({ "batch": {} }),
        json!({ "batch": "x" }),
        json!({ "batch": [7] }),
        json!({ "batch": [null] }),
        json!({ "batch": [[]] }),
        json!({ "batch": [event("a", "e", ""), "x"] }),
    ] {
        let reply = broker.post("/batch_events", &body).send();
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        assert!(!reply.text().is_empty());
    }
    for body in ["[]", "x", "7", "{\"batch\":[}"] {
        let reply = broker.post_bytes("/batch_events", body).send();
        reply.refused(400, "Invalid JSON provided");
    }
}

#[test]
fn p81_an_empty_batch_is_a_success() {
    let broker = Broker::start();
    let reply = send(&broker, &json!([]));
    assert_eq!(reply.body, "{}");
    reply.ok();
}

#[test]
fn p81_info_stands_at_the_index_of_its_event() {
    let broker = Broker::start();
    let _tabs = [broker.joined("presence-a", "ann"), broker.joined("presence-a", "ann")];
    let batch = json!([
        { "channel": "b", "name": "e", "data": "" },
        { "channel": "presence-a", "name": "e", "data": "", "info": "user_count,subscription_count" },
        { "channel": "b", "name": "e", "data": "", "info": "user_count" },
        { "channel": "b", "name": "e", "data": "", "info": "subscription_count" },
        { "channel": "presence-a", "name": "e", "data": "", "info": null },
    ]);
    let expected = json!({ "batch": [
        {},
        { "user_count": 1, "subscription_count": 2 },
        {},
        { "subscription_count": 0 },
        {},
    ]});
    assert_eq!(send(&broker, &batch).ok(), expected);
}

#[test]
fn p81_events_go_to_their_channels_and_spare_their_sockets() {
    let broker = Broker::start();
    let mut first = broker.subscriber("a");
    let mut second = broker.subscriber("a");
    second.subscribe("private-encrypted-b");
    let mut ann = broker.signed_in("ann");
    let batch = json!([
        { "channel": "a", "name": "e", "data": "1", "socket_id": first.id() },
        { "channel": "private-encrypted-b", "name": "e", "data": "2" },
        { "channel": "a", "name": "e", "data": "3" },
        { "channel": "#server-to-user-ann", "name": "e", "data": { "x": 4 } },
    ]);
    send(&broker, &batch).ok();
    first.expect_event("a", "e", "3");
    first.expect_silence();
    let mut heard: Vec<String> = (0..3).map(|_| second.next()["data"].to_string()).collect();
    let position = |data: &str| heard.iter().position(|heard| heard == data);
    assert!(position("\"1\"") < position("\"3\""), "{heard:?}");
    heard.sort();
    assert_eq!(heard, ["\"1\"", "\"2\"", "\"3\""]);
    ann.expect_event("#server-to-user-ann", "e", "{\"x\":4}");
}

#[test]
fn p77_each_event_of_a_batch_may_be_as_large_as_a_single_one() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    // Escaped six times over, ten such events come close to 620 KB.
    let data = "\u{1}".repeat(10_240);
    let batch: Vec<Value> = (0..10).map(|_| event("news", "e", &data)).collect();
    send(&broker, &json!(batch)).ok();
    for _ in 0..10 {
        client.expect_event("news", "e", &data);
    }
}
