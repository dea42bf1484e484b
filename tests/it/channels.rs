//! Subscribing, unsubscribing and the delivery of events.

use serde_json::{Value, json};

use crate::support::{Broker, Client};

#[test]
fn a_hash_leads_to_the_channels_of_users_alone() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in ["#server-to-user-ann", "#anything", "#"] {
        client.ask(&json!({ "channel": channel }));
        let message = client.expect_error_code(&Value::Null);
        assert_eq!(message, format!("Not authorized to subscribe to {channel}"));
        client.expect_on(channel, "pusher:subscription_error");
    }
}

#[test]
fn p22_a_public_channel_takes_no_auth_empty_auth_or_any() {
    let broker = Broker::start();
    for data in [
        json!({ "channel": "news" }),
        json!({ "channel": "news", "auth": "" }),
        json!({ "channel": "news", "auth": null }),
        json!({ "channel": "news", "auth": "stale-key:00", "channel_data": "{}" }),
        json!({ "channel": "news", "extra": [1, 2], "channel_data": "" }),
    ] {
        let mut client = broker.connect();
        client.ask(&data);
        assert_eq!(client.expect_succeeded("news"), json!({}));
        broker.publish("news", "e", "data");
        client.expect_event("news", "e", "data");
    }
}

#[test]
fn p23_subscription_succeeded_comes_once_and_before_any_event() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.ask(&json!({ "channel": "news" }));
    client.expect(&json!({
        "event": "pusher_internal:subscription_succeeded", "channel": "news", "data": "{}",
    }));
    broker.publish("news", "first", "1");
    client.expect_event("news", "first", "1");
    client.expect_silence();
}

#[test]
fn p23_many_subscriptions_of_one_connection_are_all_confirmed() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for number in 0..500 {
        client.ask(&json!({ "channel": format!("team-{number}") }));
    }
    for number in 0..500 {
        client.expect_succeeded(&format!("team-{number}"));
    }
    for number in [0, 250, 499] {
        broker.publish(&format!("team-{number}"), "e", "data");
        client.expect_event(&format!("team-{number}"), "e", "data");
    }
}

#[test]
fn p24_a_second_subscription_is_an_error_and_changes_nothing() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for _ in 0..2 {
        client.ask(&json!({ "channel": "news" }));
        client.expect_error("Existing subscription to channel news");
    }
    broker.publish("news", "once", "data");
    client.expect_event("news", "once", "data");
    client.expect_silence();
    assert_eq!(broker.channel("news", "subscription_count")["subscription_count"], 1);

    client.unsubscribe("news");
    client.expect_served();
    assert_eq!(broker.channels(), json!({}));
}

#[test]
fn p24_a_second_subscription_of_a_member_changes_nothing() {
    let broker = Broker::start();
    let mut bob = broker.joined("presence-room", "bob");
    let mut ann = broker.joined("presence-room", "ann");
    bob.expect_member_added("presence-room", "ann");

    ann.ask_to_join("presence-room", r#"{"user_id":"other"}"#);
    ann.expect_error("Existing subscription to channel presence-room");
    ann.ask(&json!({ "channel": "presence-room" }));
    ann.expect_error("Existing subscription to channel presence-room");

    bob.expect_silence();
    assert_eq!(broker.users("presence-room"), ["ann", "bob"]);
}

#[test]
fn p25_unsubscribing_is_silent_and_ends_the_events() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    client.unsubscribe("news");
    client.expect_silence();
    broker.publish("news", "late", "data");
    client.expect_silence();
}

#[test]
fn p25_unsubscribing_what_is_not_subscribed_is_an_error() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let message =
        |channel: &str| format!("No current subscription to channel {channel}, or subscription in progress");
    client.unsubscribe("news");
    client.expect_error(&message("news"));
    client.subscribe("news");
    client.unsubscribe("News");
    client.expect_error(&message("News"));
    client.unsubscribe("news");
    client.unsubscribe("news");
    client.expect_error(&message("news"));
    client.expect_silence();
}

#[test]
fn p25_unsubscribing_without_a_channel_is_an_error() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for data in [json!({}), json!({ "channel": null }), json!({ "channel": 7 }), json!(null)] {
        client.send(&json!({ "event": "pusher:unsubscribe", "data": data }));
        client.expect_error("Missing parameter: data.channel");
    }
    client.send(&json!({ "event": "pusher:unsubscribe" }));
    client.expect_error("Missing parameter: data.channel");
    client.expect_silence();
}

#[test]
fn p26_nothing_is_delivered_once_the_unsubscribe_has_been_processed() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let mut other = broker.subscriber("news");
    for round in 0..50 {
        client.subscribe("news");
        let data = round.to_string();
        broker.publish("news", "before", &data);
        client.expect_event("news", "before", &data);
        client.unsubscribe("news");
        client.expect_served();
        broker.publish("news", "after", &data);
        other.expect_event("news", "before", &data);
        other.expect_event("news", "after", &data);
    }
    client.expect_silence();
}

#[test]
fn a_channel_can_be_left_and_entered_again() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    client.unsubscribe("news");
    client.subscribe("news");
    broker.publish("news", "e", "once");
    client.expect_event("news", "e", "once");
    client.expect_silence();
}

#[test]
fn p27_a_refused_subscription_is_told_twice() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.ask(&json!({ "channel": "private-room" }));
    let message = "Auth info required to subscribe to private-room";
    let error = json!({ "code": null, "message": message });
    client.expect(&json!({ "event": "pusher:error", "data": error }));
    let error = json!({ "type": "AuthError", "error": message, "status": 401 });
    assert_eq!(client.expect_on("private-room", "pusher:subscription_error"), error);
    client.expect_silence();
}

#[test]
fn p27_the_second_telling_can_be_switched_off() {
    let broker = Broker::with("connection.subscription_errors = false");
    let mut client = broker.connect();
    client.ask(&json!({ "channel": "private-room" }));
    client.expect_error("Auth info required to subscribe to private-room");
    client.expect_silence();
}

#[test]
fn subscribing_without_a_channel_name_is_an_error() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let no_channel = [
        json!({}),
        json!({ "channel": null }),
        json!({ "channel": 7 }),
        json!({ "channel": ["news"] }),
        json!({ "channel": { "name": "news" } }),
        json!({ "auth": "app-key:00" }),
        json!(null),
        json!(3),
        json!([]),
    ];
    for data in no_channel {
        client.ask(&data);
        client.expect_error("Missing parameter: data.channel");
    }
    client.send(&json!({ "event": "pusher:subscribe", "channel": "news" }));
    client.expect_error("Missing parameter: data.channel");
    client.expect_silence();
}

#[test]
fn p38_events_keep_their_order() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = (0..4).map(|_| broker.subscriber("news")).collect();
    for number in 0..200 {
        broker.publish("news", "e", &number.to_string());
    }
    for client in &mut clients {
        for number in 0..200 {
            client.expect_event("news", "e", &number.to_string());
        }
    }
}

#[test]
fn p39_data_arrives_byte_for_byte() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let every_ascii: String = (0..128u8).map(char::from).collect();
    for data in [
        "",
        " ",
        "{}",
        "null",
        "17",
        "not json",
        "{\"a\" : 1 ,\"a\":2}",
        "\"quoted\"",
        "back\\slash \\u00e9 \\n",
        "new\nline\r\n\ttab",
        "/slash\\/",
        "<script>&amp;</script>",
        "Zoë 日本 😀 e\u{301}",
        "\u{2028}\u{2029}\u{feff}\u{200d}",
        "\u{ffff}\u{10ffff}",
        "1e400 12345678901234567890 1.0",
        &every_ascii,
    ] {
        broker.publish("news", "e", data);
        client.expect_event("news", "e", data);
    }
}

#[test]
fn p39_event_names_arrive_as_published() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for name in [
        "App\\Events\\OrderShipped",
        ".dotted.name",
        "with space",
        "日本",
        "quote\"d",
        "client-x",
        "a\nb",
        "0",
        "🎉",
    ] {
        broker.publish("news", name, "data");
        client.expect_event("news", name, "data");
    }
}

#[test]
fn events_reach_only_their_channel_and_their_app() {
    let apps = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }]
[[apps]]
id = "2"
keys = [{ key = "other-key", secret = "other-secret" }]
"#;
    let broker = Broker::with_apps("", apps);
    let mut own = broker.subscriber("news");
    let mut elsewhere = broker.subscriber("sports");
    let other = broker.of_app("2", "other-key", "other-secret");
    let mut foreign = Client::connect(&other, "/app/other-key?protocol=7");
    foreign.subscribe("news");

    broker.publish("news", "e", "data");

    own.expect_event("news", "e", "data");
    elsewhere.expect_silence();
    foreign.expect_silence();
    assert_eq!(other.channel("news", "subscription_count")["subscription_count"], 1);
}

#[test]
fn a_subscription_before_established_was_read_is_handled() {
    let broker = Broker::start();
    let mut client = Client::dial(broker.api(), crate::support::JS_PATH);
    client.ask(&json!({ "channel": "news" }));
    client.ping();
    client.established();
    client.expect_succeeded("news");
    client.expect(&json!({ "event": "pusher:pong", "data": "{}" }));
}
