//! Client events: what clients tell each other.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Broker, Client, member, until};

const ROOM: &str = "private-room";

#[test]
fn p65_they_are_off_by_default() {
    let broker = Broker::with_app("");
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);
    ann.say(ROOM, "client-x", &json!("hello"));
    ann.expect_error(
        "To send client events, you must enable this feature in the Settings page of your \
         dashboard.",
    );
    bob.expect_silence();
}

#[test]
fn p65_channel_and_data_must_be_there() {
    let broker = Broker::start();
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);
    for frame in [
        json!({ "event": "client-x" }),
        json!({ "event": "client-x", "channel": ROOM }),
        json!({ "event": "client-x", "data": {} }),
        json!({ "event": "client-x", "channel": null, "data": {} }),
        json!({ "event": "client-x", "channel": 7, "data": {} }),
        json!({ "event": "client-x", "channel": [ROOM], "data": {} }),
    ] {
        ann.send(&frame);
        ann.expect_error("Invalid client event (must contain channel and data)");
    }
    bob.expect_silence();
}

#[test]
fn p65_only_private_and_presence_channels_carry_them() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    let mut bob = broker.connect();
    for channel in ["news", "cache-news", "privatefoo"] {
        for client in [&mut ann, &mut bob] {
            client.subscribe(channel);
            if channel.starts_with("cache-") {
                client.expect_on(channel, "pusher:cache_miss");
            }
        }
        ann.say(channel, "client-x", &json!("hello"));
        let message = "Client event rejected - only supported on private and presence channels";
        ann.expect_error(message);
        bob.expect_silence();
    }
}

#[test]
fn p65_the_sender_must_be_subscribed() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    let mut bob = broker.subscriber(ROOM);
    let message = format!("Cannot broadcast client event (connection not subscribed to channel {ROOM})");
    ann.say(ROOM, "client-x", &json!("hello"));
    ann.expect_error(&message);
    ann.subscribe(ROOM);
    ann.unsubscribe(ROOM);
    ann.say(ROOM, "client-x", &json!("hello"));
    ann.expect_error(&message);
    bob.expect_silence();
}

#[test]
fn p65_the_name_must_begin_with_client() {
    let broker = Broker::start();
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);
    for name in ["x", "Client-x", "client_x", "server-client-x", "client", " client-x"] {
        ann.say(ROOM, name, &json!("hello"));
        ann.expect_error(&format!("Unsupported event received on socket: {name}"));
    }
    bob.expect_silence();
    ann.say(ROOM, "client-", &json!("only the prefix"));
    bob.expect_event(ROOM, "client-", "only the prefix");
}

#[test]
fn p66_everybody_else_hears_them() {
    let broker = Broker::start();
    let mut ann = broker.subscriber(ROOM);
    let mut others: Vec<Client> = (0..4).map(|_| broker.subscriber(ROOM)).collect();
    let mut elsewhere = broker.subscriber("private-other");
    ann.say(ROOM, "client-x", &json!("hello"));
    for client in &mut others {
        client.expect_event(ROOM, "client-x", "hello");
        client.expect_silence();
    }
    ann.expect_silence();
    elsewhere.expect_silence();
}

#[test]
fn p66_encrypted_and_cached_variants_carry_them() {
    let broker = Broker::start();
    for channel in ["private-encrypted-room", "private-cache-room", "private-encrypted-cache-room"] {
        let mut ann = broker.subscriber(channel);
        let mut bob = broker.subscriber(channel);
        if channel.contains("cache") {
            ann.expect_on(channel, "pusher:cache_miss");
            bob.expect_on(channel, "pusher:cache_miss");
        }
        ann.say(channel, "client-x", &json!("hello"));
        bob.expect_event(channel, "client-x", "hello");
        ann.expect_silence();
    }
}

#[test]
fn p66_other_connections_of_the_same_user_hear_them() {
    let broker = Broker::start();
    let room = "presence-room";
    let mut first = broker.signed_in("ann");
    first.join(room, &member("ann"));
    let mut second = broker.signed_in("ann");
    second.join(room, &member("ann"));
    first.say(room, "client-x", &json!("hello"));
    let frame = json!({ "event": "client-x", "channel": room, "data": "hello", "user_id": "ann" });
    second.expect(&frame);
    first.expect_silence();
}

#[test]
fn p67_data_becomes_a_string_whatever_it_was() {
    let broker = Broker::with_app("client_events = true\nclient_events_per_s = 100");
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);
    for (sent, heard) in [
        (r#""text""#, "text"),
        (r#""""#, ""),
        (r#""{\"a\" : 1}""#, "{\"a\" : 1}"),
        (r#"{"a":1}"#, r#"{"a":1}"#),
        (r#"{ "b" : [ 1 , 2 ] , "a" : null }"#, r#"{"b":[1,2],"a":null}"#),
        ("[]", "[]"),
        ("17", "17"),
        ("1.5", "1.5"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("true", "true"),
        ("null", "null"),
        ("\"Zo\\u00eb 日本 \\ud83d\\ude00 \\n\"", "Zoë 日本 😀 \n"),
    ] {
        ann.send_text(&format!(r#"{{"event":"client-x","channel":"{ROOM}","data":{sent}}}"#));
        bob.expect_event(ROOM, "client-x", heard);
    }
    ann.send_text(&format!(r#"{{"event":"client-x","channel":"{ROOM}","data":{{"k":"Zoë \" \u2028"}}}}"#));
    let data = bob.next()["data"].clone();
    assert_eq!(crate::support::parsed(&data), json!({ "k": "Zoë \" \u{2028}" }));
}

#[test]
fn p68_presence_channels_tell_who_spoke() {
    let broker = Broker::start();
    let room = "presence-room";
    let mut ann = broker.connect();
    ann.join(room, r#"{"user_id":10}"#);
    let mut bob = broker.joined(room, "bob");
    ann.expect_member_added(room, "bob");

    ann.send(&json!({ "event": "client-x", "channel": room, "data": 1, "user_id": "forged" }));
    bob.expect(&json!({ "event": "client-x", "channel": room, "data": "1", "user_id": "10" }));

    let mut cid = broker.signed_in("cid");
    cid.ask(&json!({ "channel": room, "auth": cid.token_for(room) }));
    cid.expect_roster(room);
    bob.expect_member_added(room, "cid");
    cid.say(room, "client-x", &json!(2));
    bob.expect(&json!({ "event": "client-x", "channel": room, "data": "2", "user_id": "cid" }));
}

#[test]
fn p68_private_channels_do_not_even_for_signed_in_users() {
    let broker = Broker::start();
    let mut ann = broker.signed_in("ann");
    ann.subscribe(ROOM);
    let mut bob = broker.subscriber(ROOM);
    ann.send(&json!({ "event": "client-x", "channel": ROOM, "data": "d", "user_id": "ann" }));
    bob.expect_event(ROOM, "client-x", "d");
}

/// Reads what became of a burst: how many of `sent` were refused with 4301.
#[track_caller]
fn refusals(client: &mut Client) -> usize {
    client.ping();
    let mut refused = 0;
    loop {
        let frame = client.next();
        if frame["event"] == "pusher:pong" {
            return refused;
        }
        assert_eq!(frame["event"], "pusher:error", "{frame}");
        assert_eq!(frame["data"]["code"], 4301, "{frame}");
        let message = frame["data"]["message"].as_str().expect("a message");
        assert!(message.contains("limit"), "{message}");
        refused += 1;
    }
}

#[test]
fn p69_the_eleventh_in_a_second_is_dropped() {
    let broker = Broker::start();
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);
    let started = Instant::now();
    for number in 0..60 {
        ann.say(ROOM, "client-x", &json!(number));
    }
    let refused = refusals(&mut ann);
    let refilled = started.elapsed().as_millis() / 100 + 1;
    let accepted = 60 - refused;
    assert!(refused > 0 && accepted >= 10, "{refused} refused");
    assert!(accepted as u128 <= 10 + refilled, "{accepted} accepted");

    for number in 0..10 {
        bob.expect_event(ROOM, "client-x", &number.to_string());
    }
    for _ in 10..accepted {
        assert_eq!(bob.next()["event"], "client-x");
    }
    bob.expect_silence();
}

#[test]
fn p69_the_limit_spans_the_channels_of_a_connection_and_no_other() {
    let broker = Broker::with_app("client_events = true\nclient_events_per_s = 2");
    let mut ann = broker.subscriber(ROOM);
    ann.subscribe("private-other");
    let mut bob = broker.subscriber(ROOM);
    let started = Instant::now();
    for _ in 0..15 {
        ann.say(ROOM, "client-x", &json!(1));
        ann.say("private-other", "client-x", &json!(1));
    }
    let refused = refusals(&mut ann) as u128;
    let refilled = started.elapsed().as_millis() / 500 + 1;
    assert!(refused >= 30 - 2 - refilled, "{refused} refused");
    bob.say(ROOM, "client-y", &json!("another connection"));
    ann.expect_event(ROOM, "client-y", "another connection");
}

#[test]
fn p69_events_are_allowed_again_after_a_while() {
    let broker = Broker::with_app("client_events = true\nclient_events_per_s = 1");
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);
    ann.say(ROOM, "client-x", &json!("first"));
    bob.expect_event(ROOM, "client-x", "first");
    let started = Instant::now();
    until("another event is allowed", || {
        ann.say(ROOM, "client-x", &json!("again"));
        refusals(&mut ann) == 0
    });
    assert!(started.elapsed().as_millis() < 5_000);
    bob.expect_event(ROOM, "client-x", "again");
    bob.expect_silence();
}

#[test]
fn p69_refused_events_cost_nothing() {
    // A thousand refusals do not put off the next permission.
    let broker = Broker::with_app("client_events = true\nclient_events_per_s = 1");
    let mut ann = broker.subscriber(ROOM);
    for _ in 0..1_000 {
        ann.say(ROOM, "client-x", &json!(1));
    }
    assert!(refusals(&mut ann) > 900);
    let started = Instant::now();
    until("another event is allowed", || {
        ann.say(ROOM, "client-x", &json!(2));
        refusals(&mut ann) == 0
    });
    assert!(started.elapsed().as_millis() < 5_000);
}

#[test]
fn long_names_and_large_data_are_refused() {
    let broker = Broker::start();
    let mut ann = broker.subscriber(ROOM);
    let mut bob = broker.subscriber(ROOM);

    ann.say(ROOM, "client-x", &json!("x".repeat(10_241)));
    let message = "The data content of this event exceeds the allowed maximum (10240 bytes)";
    ann.expect_error(message);
    ann.say(ROOM, "client-x", &json!("日".repeat(3_414)));
    ann.expect_error(message);
    ann.say(ROOM, &format!("client-{}", "x".repeat(194)), &json!("x"));
    ann.expect_error_code(&Value::Null);
    bob.expect_silence();

    ann.say(ROOM, "client-x", &json!("x".repeat(10_240)));
    bob.expect_event(ROOM, "client-x", &"x".repeat(10_240));
    let name = format!("client-{}", "x".repeat(193));
    ann.say(ROOM, &name, &json!("x"));
    bob.expect_event(ROOM, &name, "x");
}

#[test]
fn a_client_event_to_nobody_is_accepted() {
    let broker = Broker::start();
    let mut ann = broker.subscriber(ROOM);
    ann.say(ROOM, "client-x", &json!("hello?"));
    ann.expect_silence();
}
