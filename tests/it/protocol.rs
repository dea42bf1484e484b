//! What clients may say, and what every frame they hear looks like.

use serde_json::{Value, json};

use crate::support::{Broker, user};

#[test]
fn p7_a_ping_is_answered_whatever_its_data() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for ping in [
        r#"{"event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"event":"pusher:ping","data":""}"#,
        r#"{"event":"pusher:ping","data":null}"#,
        r#"{"event":"pusher:ping","data":"{}"}"#,
        r#"{"event":"pusher:ping","data":17,"channel":null}"#,
    ] {
        client.send_text(ping);
        client.expect(&json!({ "event": "pusher:pong", "data": "{}" }));
    }
}

#[test]
fn a_pong_nobody_asked_for_is_ignored() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for pong in [r#"{"event":"pusher:pong"}"#, r#"{"event":"pusher:pong","data":{}}"#] {
        client.send_text(pong);
    }
    client.send_text(r#"{"event":"pusher:pong","data":""}"#);
    client.expect_served();
    client.expect_silence();
}

#[test]
fn p12_event_errors_never_close_the_connection() {
    let broker = Broker::with_app("client_events = true\nclient_events_per_s = 1");
    let mut client = broker.subscriber("private-room");
    for _ in 0..20 {
        client.say("private-room", "client-x", &json!(1));
    }
    client.expect_error_code(&json!(4301));
    client.ping();
    loop {
        let frame = client.next();
        if frame["event"] == "pusher:pong" {
            break;
        }
        assert_eq!(frame["data"]["code"], 4301, "{frame}");
    }

    let watchlist: Vec<String> = (0..101).map(|number| format!("u{number}")).collect();
    let user_data = json!({ "id": "ann", "watchlist": watchlist }).to_string();
    client.sign_in(&user_data);
    client.expect_error_code(&json!(4302));
    client.expect_watchlist();
    client.expect_served();
}

#[test]
fn p13_errors_about_a_message_have_an_object_with_a_null_code() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.send_text("nonsense");
    let error = json!({ "code": null, "message": "Received invalid JSON" });
    client.expect(&json!({ "event": "pusher:error", "data": error }));
}

#[test]
fn p14_data_is_a_string_in_every_kind_of_frame() {
    // The client checks this of each frame it reads; here is one of every kind.
    let broker = Broker::with_app("client_events = true\nsubscription_counts = true");
    let mut ann = broker.connect();
    ann.ask(&json!({ "channel": "cache-news" }));
    let mut events = Vec::new();
    let mut read = |client: &mut crate::support::Client, count: usize| {
        events.extend((0..count).map(|_| client.next()["event"].clone()));
    };
    read(&mut ann, 3);
    ann.ask_to_join("presence-room", &json!({ "user_id": 10 }).to_string());
    read(&mut ann, 1);
    ann.ask_to_sign_in(&json!({ "id": "10", "watchlist": ["bob"] }).to_string());
    read(&mut ann, 2);
    let mut bob = broker.connect();
    bob.join("presence-room", &json!({ "user_id": "bob" }).to_string());
    read(&mut ann, 1);
    bob.say("presence-room", "client-x", &json!(null));
    read(&mut ann, 1);
    bob.sign_in(&user("bob"));
    read(&mut ann, 1);
    bob.unsubscribe("presence-room");
    read(&mut ann, 1);
    ann.ping();
    read(&mut ann, 1);
    events.sort_by_key(Value::to_string);
    let expected = json!([
        "client-x",
        "pusher:cache_miss",
        "pusher:pong",
        "pusher:signin_success",
        "pusher_internal:member_added",
        "pusher_internal:member_removed",
        "pusher_internal:subscription_count",
        "pusher_internal:subscription_succeeded",
        "pusher_internal:subscription_succeeded",
        "pusher_internal:watchlist_events",
        "pusher_internal:watchlist_events",
    ]);
    assert_eq!(Value::Array(events), expected);
}

/// Sends each text and expects `message`; the connection works on after each.
#[track_caller]
fn check_errors<'a>(cases: impl IntoIterator<Item = (&'a str, String)>) {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    for (text, message) in cases {
        client.send_text(text);
        client.expect_error(&message);
        broker.publish("news", "still", "here");
        client.expect_event("news", "still", "here");
    }
}

#[test]
fn p15_text_that_is_not_a_json_object_is_an_error() {
    let broken = ["", " ", "hello", "{", r#"{"event":"pusher:ping""#, "{'event':'x'}", "{}{}"];
    let other = ["[]", r#"[{"event":"pusher:ping"}]"#, r#""pusher:ping""#, "1", "null", "true"];
    let cases = broken.into_iter().chain(other);
    check_errors(cases.map(|text| (text, "Received invalid JSON".to_owned())));
}

#[test]
fn p15_deeply_nested_json_is_an_error_and_no_more() {
    let deep = "[".repeat(20_000);
    check_errors([(deep.as_str(), "Received invalid JSON".to_owned())]);
    let broker = Broker::start();
    let mut client = broker.connect();
    let nested = format!("{deep}{}", "]".repeat(20_000));
    client.send_text(&format!(r#"{{"event":"pusher:ping","data":{nested}}}"#));
    let frame = client.next();
    assert!(frame["event"] == "pusher:pong" || frame["event"] == "pusher:error", "{frame}");
    client.expect_served();
}

#[test]
fn p15_a_message_without_a_string_event_is_an_error() {
    let cases = [
        "{}",
        r#"{"data":{}}"#,
        r#"{"event":null}"#,
        r#"{"event":7,"data":{}}"#,
        r#"{"event":{"name":"pusher:ping"}}"#,
        r#"{"event":["pusher:ping"]}"#,
        r#"{"Event":"pusher:ping"}"#,
    ];
    check_errors(cases.map(|text| (text, "Missing parameter: event".to_owned())));
}

#[test]
fn p15_an_unknown_event_is_an_error() {
    let events = [
        "hello",
        "pusher:unknown",
        "pusher:connection_established",
        "pusher:error",
        "pusher:signin_success",
        "pusher:cache_miss",
        "pusher_internal:subscription_succeeded",
        "pusher_internal:member_added",
        "Pusher:subscribe",
        "Client-x",
        "client",
        "",
    ];
    let frames = events.map(|event| json!({ "event": event, "data": {}, "channel": "news" }).to_string());
    let messages = events.map(|event| format!("Unsupported event received on socket: {event}"));
    check_errors(frames.iter().map(String::as_str).zip(messages));
}

#[test]
fn p15_long_names_are_cut_in_messages() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for long in ["x".repeat(20_000), "日".repeat(10_000)] {
        client.send(&json!({ "event": long, "data": {} }));
        let message = client.expect_error_code(&Value::Null);
        assert!(message.starts_with("Unsupported event received on socket: "), "{message}");
        assert!(message.len() < 1_000, "{} bytes", message.len());

        client.ask(&json!({ "channel": long }));
        let message = client.expect_error_code(&Value::Null);
        assert!(message.starts_with("Invalid channel name '"), "{message}");
        assert!(message.len() < 1_000, "{} bytes", message.len());
        // Whether a channel of such a name is told too is left open; nobody hears it whole.
        client.ping();
        loop {
            let frame = client.next();
            assert!(frame.to_string().len() < 3_000, "{} bytes", frame.to_string().len());
            if frame["event"] == "pusher:pong" {
                break;
            }
        }
    }
}

#[test]
fn data_of_a_pusher_event_may_be_a_string_holding_json() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.ask(&json!(r#"{"channel":"news"}"#));
    assert_eq!(client.expect_succeeded("news"), json!({}));

    client.send(&json!({ "event": "pusher:unsubscribe", "data": r#"{"channel":"news"}"# }));
    client.subscribe("news");

    let auth = client.token_for(&format!(":user::{}", user("ann")));
    let data = json!({ "auth": auth, "user_data": user("ann") }).to_string();
    client.send(&json!({ "event": "pusher:signin", "data": data }));
    client.expect_signed_in(&user("ann"));
}

#[test]
fn escapes_and_spaces_in_a_message_do_not_matter() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.send_text(
        " { \"data\" : { \"channel\" : \"n\\u0065ws\" } ,\n\"event\"\t:\"pusher\\u003asubscribe\" } ",
    );
    client.expect_succeeded("news");
}
