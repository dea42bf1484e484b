//! Presence channels: who is there, told to all who are.

use serde_json::{Value, json};

use crate::support::{Broker, Client, member};

const ROOM: &str = "presence-room";

/// Sends a presence subscription that must be refused, and gives the message.
#[track_caller]
fn refused(client: &mut Client, channel_data: &str) -> String {
    client.ask_to_join(ROOM, channel_data);
    client.expect_any_refusal(ROOM, "InvalidRequest")
}

#[test]
fn p31_the_snapshot_lists_everybody_and_oneself() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    let roster = ann.join(ROOM, r#"{"user_id":"ann","user_info":{"name":"Ann"}}"#);
    let expected = json!({ "count": 1, "ids": ["ann"], "hash": { "ann": { "name": "Ann" } } });
    assert_eq!(roster, expected);

    let mut ten = broker.connect();
    let roster = ten.join(ROOM, r#"{"user_id":10}"#);
    let hash = json!({ "ann": { "name": "Ann" }, "10": {} });
    assert_eq!(roster, json!({ "count": 2, "ids": ["10", "ann"], "hash": hash }));
}

#[test]
fn p31_a_snapshot_counts_users_and_not_connections() {
    let broker = Broker::start();
    let _tabs = [broker.joined(ROOM, "ann"), broker.joined(ROOM, "ann")];
    let mut bob = broker.connect();
    assert_eq!(bob.join(ROOM, &member("bob"))["count"], 2);
}

#[test]
fn p32_a_member_is_announced_to_the_others_only() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    let mut bob = broker.connect();
    bob.join(ROOM, r#"{"user_id":"bob","user_info":{"name":"Bob","age":7}}"#);
    let info = ann.expect_member_added(ROOM, "bob");
    assert_eq!(info, json!({ "name": "Bob", "age": 7 }));
    bob.expect_silence();
    ann.expect_silence();
}

#[test]
fn p32_the_second_tab_of_a_member_is_not_announced() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    let first = broker.joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");

    let mut second = broker.connect();
    assert_eq!(second.join(ROOM, &member("bob"))["ids"], json!(["ann", "bob"]));
    broker.publish(ROOM, "marker", "");
    ann.expect_event(ROOM, "marker", "");
    second.expect_event(ROOM, "marker", "");

    first.leave();
    second.unsubscribe(ROOM);
    ann.expect_member_removed(ROOM, "bob");
    ann.expect_silence();
    second.expect_silence();
}

#[test]
fn p32_a_member_is_removed_on_every_way_of_leaving() {
    let settings = "connection.ping_after_s = 1\nconnection.pong_timeout_s = 2";
    let broker = Broker::with(settings);
    let mut ann = broker.joined(ROOM, "ann");

    let mut bob = broker.joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");
    bob.unsubscribe(ROOM);
    ann.expect_member_removed(ROOM, "bob");

    bob.join(ROOM, &member("bob"));
    ann.expect_member_added(ROOM, "bob");
    bob.leave();
    ann.expect_member_removed(ROOM, "bob");

    let abandoned = broker.joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");
    drop(abandoned);
    ann.expect_member_removed(ROOM, "bob");

    let mut terminated = broker.signed_in("bob");
    terminated.join(ROOM, &member("bob"));
    ann.expect_member_added(ROOM, "bob");
    broker.terminate("bob");
    ann.expect_member_removed(ROOM, "bob");

    let mut breaker = broker.joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");
    breaker.send_message(tungstenite::Message::binary(vec![1]));
    ann.expect_member_removed(ROOM, "bob");

    let _silent = broker.joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");
    ann.expect_member_removed(ROOM, "bob");
}

#[test]
fn p32_leaving_and_returning_is_told_each_time() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    let mut bob = broker.connect();
    for round in 0..10 {
        let info = json!({ "round": round });
        let channel_data = json!({ "user_id": "bob", "user_info": info }).to_string();
        assert_eq!(bob.join(ROOM, &channel_data)["hash"]["bob"], info);
        assert_eq!(ann.expect_member_added(ROOM, "bob"), info);
        bob.unsubscribe(ROOM);
        ann.expect_member_removed(ROOM, "bob");
    }
}

#[test]
fn p32_two_channels_have_two_rosters() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    let mut bob = broker.joined("presence-other", "bob");
    assert_eq!(ann.join("presence-other", &member("ann"))["count"], 2);
    bob.expect_member_added("presence-other", "ann");
    bob.unsubscribe("presence-other");
    ann.expect_member_removed("presence-other", "bob");
    assert_eq!(broker.users(ROOM), ["ann"]);
}

#[test]
fn user_info_of_the_first_connection_stays_until_the_user_has_left() {
    let broker = Broker::start();
    let with_name = |name| json!({ "user_id": "bob", "user_info": { "name": name } }).to_string();
    let mut first = broker.connect();
    first.join(ROOM, &with_name("Bob"));
    let mut second = broker.connect();
    let roster = second.join(ROOM, &with_name("Robert"));
    assert_eq!(roster["hash"], json!({ "bob": { "name": "Bob" } }));
    let mut ann = broker.connect();
    assert_eq!(ann.join(ROOM, &member("ann"))["hash"]["bob"]["name"], "Bob");
    for client in [&mut first, &mut second] {
        client.expect_member_added(ROOM, "ann");
        client.unsubscribe(ROOM);
    }
    ann.expect_member_removed(ROOM, "bob");

    second.join(ROOM, &with_name("Robert"));

    assert_eq!(ann.expect_member_added(ROOM, "bob"), json!({ "name": "Robert" }));
}

#[test]
fn p33_numeric_ids_become_strings() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    for (literal, id) in [
        ("10", "10"),
        ("0", "0"),
        ("-7", "-7"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ] {
        let mut client = broker.connect();
        client.join(ROOM, &format!(r#"{{"user_id":{literal}}}"#));
        ann.expect_member_added(ROOM, id);
        assert_eq!(broker.users(ROOM), [id, "ann"]);
        client.leave();
        ann.expect_member_removed(ROOM, id);
    }
}

#[test]
fn p33_ten_and_its_string_are_one_user() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    let mut number = broker.connect();
    number.join(ROOM, r#"{"user_id":10}"#);
    ann.expect_member_added(ROOM, "10");
    let text = broker.joined(ROOM, "10");
    assert_eq!(broker.users(ROOM), ["10", "ann"]);
    number.unsubscribe(ROOM);
    number.expect_served();
    ann.expect_silence();
    text.leave();
    ann.expect_member_removed(ROOM, "10");
}

#[test]
fn p34_a_full_channel_refuses_the_101st_user() {
    let broker = Broker::start();
    let clients: Vec<Client> = (0..100).map(|number| broker.joined(ROOM, &format!("u{number}"))).collect();
    let mut late = broker.connect();
    late.ask_to_join(ROOM, &member("late"));
    let full = format!("Presence channel {ROOM} is full (maximum 100 members)");
    late.expect_refusal(ROOM, "LimitReached", &full);

    let mut tab = broker.connect();
    assert_eq!(tab.join(ROOM, &member("u42"))["count"], 100);

    let mut clients = clients.into_iter();
    clients.next().expect("a hundred clients").leave();
    tab.expect_member_removed(ROOM, "u0");
    assert_eq!(late.join(ROOM, &member("late"))["count"], 100);
}

#[test]
fn p34_the_limit_can_be_set() {
    let broker = Broker::with_app("presence_members_max = 2");
    let _first = broker.joined(ROOM, "ann");
    let _second = broker.joined(ROOM, "bob");
    let mut third = broker.connect();
    third.ask_to_join(ROOM, &member("cid"));
    let full = format!("Presence channel {ROOM} is full (maximum 2 members)");
    third.expect_refusal(ROOM, "LimitReached", &full);
}

#[test]
fn p35_long_user_ids_are_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for id in ["x".repeat(129), "日".repeat(129)] {
        let message = refused(&mut client, &member(&id));
        assert!(message.contains("exceeds the maximum"), "{message}");
    }
    for id in ["x".repeat(128), "日".repeat(128)] {
        let roster = client.join(ROOM, &member(&id));
        assert_eq!(roster["ids"], json!([id]));
        client.unsubscribe(ROOM);
    }
}

#[test]
fn p35_user_info_above_one_kilobyte_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let with_info = |bytes: usize| {
        let info = format!(r#"{{"pad":"{}"}}"#, "x".repeat(bytes - r#"{"pad":""}"#.len()));
        assert_eq!(info.len(), bytes);
        format!(r#"{{"user_id":"ann","user_info":{info}}}"#)
    };
    let message = refused(&mut client, &with_info(1025));
    assert!(message.contains("exceeds the maximum"), "{message}");
    client.join(ROOM, &with_info(1024));
    client.unsubscribe(ROOM);

    // The limit counts bytes: 400 characters of three bytes each are too much.
    let wide = format!(r#"{{"user_id":"ann","user_info":{{"pad":"{}"}}}}"#, "日".repeat(400));
    let message = refused(&mut client, &wide);
    assert!(message.contains("exceeds the maximum"), "{message}");
}

#[test]
fn p35_the_limit_of_user_info_can_be_set() {
    let broker = Broker::with_app("presence_user_info_bytes_max = 20");
    let mut client = broker.connect();
    let message = refused(&mut client, r#"{"user_id":"ann","user_info":{"name":"Annabel Lee"}}"#);
    assert!(message.contains("exceeds the maximum"), "{message}");
    client.join(ROOM, r#"{"user_id":"ann","user_info":{"name":"Annabel"}}"#);
}

#[test]
fn p35_user_info_that_is_no_object_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for info in ["\"Ann\"", "7", "true", "[]", "[{}]"] {
        let message = refused(&mut client, &format!(r#"{{"user_id":"ann","user_info":{info}}}"#));
        let expected = "user_info supplied to presence subscription is invalid - \
                        if supplied it must be a type of hash";
        assert_eq!(message, expected, "for {info}");
    }
    assert_eq!(broker.channels(), json!({}));
}

#[test]
fn channel_data_that_is_no_object_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel_data in ["", "ann", "[]", "\"ann\"", "7", "null", "{", "{\"user_id\":\"ann\"}}"] {
        let message = refused(&mut client, channel_data);
        assert_eq!(message, "Invalid channel_data: not a JSON object", "for {channel_data}");
    }
}

#[test]
fn channel_data_without_a_usable_user_id_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for id in ["\"\"", "true", "1.5", "1e3", "{}", "[]", "null", "[\"ann\"]"] {
        let message = refused(&mut client, &format!(r#"{{"user_id":{id}}}"#));
        assert_eq!(message, "Missing parameter: channel_data.user_id", "for {id}");
    }
    for channel_data in ["{}", r#"{"user_info":{}}"#, r#"{"id":"ann"}"#] {
        let message = refused(&mut client, channel_data);
        assert_eq!(message, "Missing parameter: channel_data.user_id", "for {channel_data}");
    }
}

#[test]
fn channel_data_that_is_no_string_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel_data in [json!({ "user_id": "ann" }), json!(7), json!(["ann"])] {
        let auth = client.token_for(&format!("{ROOM}:{channel_data}"));
        client.ask(&json!({ "channel": ROOM, "auth": auth, "channel_data": channel_data }));
        let message = client.expect_any_refusal(ROOM, "InvalidRequest");
        assert!(message.starts_with("Invalid channel_data"), "{message}");
    }
}

#[test]
fn channel_data_must_not_be_missing_without_a_signed_in_user() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.ask(&json!({ "channel": ROOM, "auth": client.token_for(ROOM) }));
    client.expect_refusal(ROOM, "InvalidRequest", "Missing parameter: data.channel_data");
}

#[test]
fn p36_a_signed_in_user_needs_no_channel_data() {
    let broker = Broker::start();
    let mut watcher = broker.joined(ROOM, "ann");
    let mut client = broker.connect();
    client.sign_in(r#"{"id":"12345","user_info":{"name":"Bob"},"extra":1}"#);
    client.ask(&json!({ "channel": ROOM, "auth": client.token_for(ROOM) }));
    let roster = client.expect_roster(ROOM);
    assert_eq!(roster["hash"], json!({ "ann": {}, "12345": { "name": "Bob" } }));
    assert_eq!(watcher.expect_member_added(ROOM, "12345"), json!({ "name": "Bob" }));
}

#[test]
fn p36_a_signed_in_user_without_info_shows_an_empty_object() {
    let broker = Broker::start();
    let mut client = broker.signed_in("bob");
    client.ask(&json!({ "channel": ROOM, "auth": client.token_for(ROOM) }));
    assert_eq!(client.expect_roster(ROOM)["hash"], json!({ "bob": {} }));
}

#[test]
fn p36_channel_data_wins_over_the_signed_in_user() {
    let broker = Broker::start();
    let mut client = broker.signed_in("bob");
    let roster = client.join(ROOM, r#"{"user_id":"mask","user_info":{"x":1}}"#);
    assert_eq!(roster["hash"], json!({ "mask": { "x": 1 } }));
    client.unsubscribe(ROOM);

    client.ask(&json!({ "channel": ROOM, "auth": client.token_for(ROOM), "channel_data": "{}" }));
    let message = client.expect_any_refusal(ROOM, "AuthError");
    assert!(message.starts_with("Invalid signature: "), "{message}");
}

#[test]
fn unicode_in_user_info_survives() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    let info = json!({ "name": "Zoë 日本 😀", "deep": { "list": [1, 1.5, null, true, "\u{2028}"] } });
    for channel_data in [
        r#"{"user_id":"zoë","user_info":{"name":"Zoë 日本 😀","deep":{"list":[1,1.5,null,true,"\u2028"]}}}"#,
        concat!(
            r#"{"user_id": "zo\u00eb", "user_info": {"name": "Zo\u00eb \u65e5\u672c \ud83d\ude00", "#,
            r#""deep": {"list": [1, 1.5, null, true, "\u2028"]}}}"#
        ),
    ] {
        let mut client = broker.connect();
        assert_eq!(client.join(ROOM, channel_data)["hash"]["zoë"], info);
        assert_eq!(ann.expect_member_added(ROOM, "zoë"), info);
        client.leave();
        ann.expect_member_removed(ROOM, "zoë");
    }
}

#[test]
fn ids_may_hold_any_characters() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    for id in ["a b", "ünï", "a\"b\\c", "a:b", "#1", "<x>", "\u{1}", "constructor", "__proto__"] {
        let mut client = broker.connect();
        let roster = client.join(ROOM, &json!({ "user_id": id }).to_string());
        assert_eq!(roster["hash"][id], json!({}));
        ann.expect_member_added(ROOM, id);
        client.leave();
        ann.expect_member_removed(ROOM, id);
    }
}

#[test]
fn a_member_sees_events_as_any_subscriber_does() {
    let broker = Broker::start();
    let mut ann = broker.joined(ROOM, "ann");
    broker.publish(ROOM, "e", "data");
    let frame = ann.next();
    assert_eq!(frame, json!({ "event": "e", "channel": ROOM, "data": "data" }));
    assert_eq!(frame.get("user_id"), None::<&Value>);
}
