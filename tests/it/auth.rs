//! Tokens: who may enter a private or presence channel.

use serde_json::json;

use crate::support::{Broker, Client, KEY, SECRET, hmac_hex, token};

const ROOM: &str = "private-room";

/// Asserts that a token is refused for its signature.
#[track_caller]
fn expect_invalid_signature(client: &mut Client, channel: &str, rest: &str, signature: &str) {
    let message = client.expect_any_refusal(channel, "AuthError");
    let id = client.id();
    let expected =
        format!("Invalid signature: Expected HMAC SHA256 hex digest of {id}:{rest}, but got {signature}");
    assert_eq!(message, expected);
}

/// The signature half of a token.
fn signature_of(token: &str) -> String {
    token.split_once(':').expect("a colon").1.to_owned()
}

#[test]
fn p40_the_documented_vectors_are_what_these_stories_sign() {
    let secret = "7ad3773142a6692b25b8";
    for (text, signature) in [
        ("1234.1234:private-foobar", "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
        (
            r#"1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#,
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
        ),
        (
            r#"1234.1234:presence-room:{"user_id":"u1","user_info":{"name":"Zoë 日本"}}"#,
            "1a950e59e55cdfec71f97ee6ac49d22677b21e377f474bd2bb47481e6cdec22a",
        ),
        (
            r#"1234.1234:presence-room:{"user_id": "u1", "user_info": {"name": "Zo\u00eb \u65e5\u672c"}}"#,
            "9bfe812bccafa43f65a3cefb35ed587a93bed070382aa5b1236987eac7348034",
        ),
        (
            r#"1234.1234::user::{"id":"12345"}"#,
            "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
        ),
    ] {
        assert_eq!(hmac_hex(secret, text), signature, "{text}");
    }
}

#[test]
fn p40_tokens_in_the_shapes_of_the_sdks_verify() {
    let broker = Broker::start();
    for channel in
        ["private-foobar", "private-encrypted-foobar", "private-cache-foobar", "private-a@b=c,d;e.f_g"]
    {
        let mut client = broker.connect();
        client.ask(&json!({ "channel": channel, "auth": client.token_for(channel) }));
        assert_eq!(client.expect_succeeded(channel), json!({}));
    }
    for channel_data in [
        r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#,
        r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#,
        r#"{"user_id":"u1","user_info":{"name":"Zoë 日本"}}"#,
        r#"{"user_id": "u1", "user_info": {"name": "Zo\u00eb \u65e5\u672c"}}"#,
        "{\n  \"user_id\" : \"u1\",\n  \"user_info\" : {}\n}",
        r#"{"user_info":{"url":"https:\/\/a\/b"},"user_id":"u1","other":[1]}"#,
    ] {
        broker.connect().join("presence-foobar", channel_data);
    }
}

#[test]
fn p40_any_other_byte_in_the_signature_fails() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let signature = signature_of(&client.token_for(ROOM));
    for position in 0..signature.len() {
        let mut bytes = signature.clone().into_bytes();
        bytes[position] = if bytes[position] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(bytes).expect("hex");
        client.ask(&json!({ "channel": ROOM, "auth": format!("{KEY}:{changed}") }));
        expect_invalid_signature(&mut client, ROOM, ROOM, &changed);
    }
    client.subscribe(ROOM);
}

#[test]
fn p40_a_signature_is_lower_case_hex_of_full_length() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let signature = signature_of(&client.token_for(ROOM));
    for changed in [
        signature.to_uppercase(),
        signature[..63].to_owned(),
        format!("{signature}0"),
        format!("{signature} "),
        format!(" {signature}"),
        format!("{signature}:{signature}"),
        String::new(),
    ] {
        client.ask(&json!({ "channel": ROOM, "auth": format!("{KEY}:{changed}") }));
        expect_invalid_signature(&mut client, ROOM, ROOM, &changed);
    }
}

#[test]
fn p40_a_token_is_good_for_its_own_channel_only() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for other in ["private-rooms", "private-roo", "private-ROOM", "presence-room", ""] {
        let auth = client.token_for(other);
        client.ask(&json!({ "channel": ROOM, "auth": auth }));
        expect_invalid_signature(&mut client, ROOM, ROOM, &signature_of(&auth));
    }
}

#[test]
fn p41_a_signature_of_other_channel_data_fails() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let channels = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    let pusher = r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#;
    let auth = client.token_for(&format!("presence-foobar:{pusher}"));
    client.ask(&json!({ "channel": "presence-foobar", "auth": auth, "channel_data": channels }));
    let rest = format!("presence-foobar:{channels}");
    expect_invalid_signature(&mut client, "presence-foobar", &rest, &signature_of(&auth));

    client.ask(&json!({ "channel": "presence-foobar", "auth": auth, "channel_data": pusher }));
    client.expect_roster("presence-foobar");
}

#[test]
fn p42_channel_data_is_signed_to_the_byte() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let auth = client.token_for(r#"presence-room:{"user_id":"u1"}"#);
    for channel_data in
        [r#"{"user_id": "u1"}"#, r#"{"user_id":"u1"} "#, r#"{"user_id":"\u0075\u0031"}"#, "{}", ""]
    {
        client.ask(&json!({ "channel": "presence-room", "auth": auth, "channel_data": channel_data }));
        let rest = format!("presence-room:{channel_data}");
        expect_invalid_signature(&mut client, "presence-room", &rest, &signature_of(&auth));
    }
}

#[test]
fn p42_channel_data_is_part_of_the_signature_on_private_channels_too() {
    let broker = Broker::start();
    for channel_data in ["", "{\"x\":1}", "{}", "any text: at all"] {
        let mut client = broker.connect();
        let auth = client.token_for(ROOM);
        client.ask(&json!({ "channel": ROOM, "auth": auth, "channel_data": channel_data }));
        let rest = format!("{ROOM}:{channel_data}");
        expect_invalid_signature(&mut client, ROOM, &rest, &signature_of(&auth));

        let auth = client.token_for(&rest);
        client.ask(&json!({ "channel": ROOM, "auth": auth, "channel_data": channel_data }));
        client.expect_succeeded(ROOM);
        client.unsubscribe(ROOM);

        client.ask(&json!({ "channel": ROOM, "auth": auth }));
        expect_invalid_signature(&mut client, ROOM, ROOM, &signature_of(&auth));
    }
}

#[test]
fn p43_missing_or_empty_auth_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in [ROOM, "presence-room", "private-encrypted-room"] {
        for data in [
            json!({ "channel": channel }),
            json!({ "channel": channel, "auth": "" }),
            json!({ "channel": channel, "auth": null }),
            json!({ "channel": channel, "channel_data": r#"{"user_id":"ann"}"# }),
        ] {
            client.ask(&data);
            let message = format!("Auth info required to subscribe to {channel}");
            client.expect_refusal(channel, "AuthError", &message);
        }
    }
}

#[test]
fn p43_a_token_with_another_key_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let text = format!("{}:{ROOM}", client.id());
    for key in ["other-key", "APP-KEY", "", "app-key ", "app"] {
        client.ask(&json!({ "channel": ROOM, "auth": token(key, SECRET, &text) }));
        let message = format!("Invalid key in subscription auth data: '{key}'");
        client.expect_refusal(ROOM, "AuthError", &message);
    }
}

#[test]
fn p43_a_token_without_a_colon_or_of_another_type_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let signature = signature_of(&client.token_for(ROOM));
    for auth in [json!(signature), json!(KEY), json!(format!("{KEY};{signature}"))] {
        client.ask(&json!({ "channel": ROOM, "auth": auth }));
        client.expect_any_refusal(ROOM, "AuthError");
    }
    for auth in [json!(7), json!({ "auth": client.token_for(ROOM) }), json!([]), json!(true)] {
        client.ask(&json!({ "channel": ROOM, "auth": auth }));
        client.expect_any_refusal(ROOM, "AuthError");
    }
    assert_eq!(broker.channels(), json!({}));
}

#[test]
fn p43_a_token_made_for_another_socket_is_refused() {
    let broker = Broker::start();
    let first = broker.connect();
    let auth = first.token_for(ROOM);
    let mut second = broker.connect();
    second.ask(&json!({ "channel": ROOM, "auth": auth }));
    expect_invalid_signature(&mut second, ROOM, ROOM, &signature_of(&auth));
}

#[test]
fn a_connection_survives_its_refusals_and_may_try_again() {
    let broker = Broker::start();
    let mut client = broker.connect();
    // What Pysher sends after a reconnect: a token for its old socket.
    client.ask(&json!({ "channel": ROOM, "auth": token(KEY, SECRET, "1.1:private-room") }));
    client.expect_any_refusal(ROOM, "AuthError");
    client.subscribe(ROOM);
    broker.publish(ROOM, "e", "data");
    client.expect_event(ROOM, "e", "data");
}

#[test]
fn each_key_of_an_app_has_its_own_secret() {
    let apps = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }, { key = "new-key", secret = "new-secret" }]
[[apps]]
id = "2"
keys = [{ key = "other-key", secret = "other-secret" }]
"#;
    let broker = Broker::with_apps("", apps);
    // Whichever key the connection was opened with, every key of the app signs.
    for path in ["/app/app-key?protocol=7", "/app/new-key?protocol=7"] {
        let mut client = Client::connect(broker.api(), path);
        let text = format!("{}:{ROOM}", client.id());
        for auth in [token("app-key", "new-secret", &text), token("new-key", "app-secret", &text)] {
            client.ask(&json!({ "channel": ROOM, "auth": auth }));
            expect_invalid_signature(&mut client, ROOM, ROOM, &signature_of(&auth));
        }
        client.ask(&json!({ "channel": ROOM, "auth": token("other-key", "other-secret", &text) }));
        let foreign = "Invalid key in subscription auth data: 'other-key'";
        client.expect_refusal(ROOM, "AuthError", foreign);
        for (key, secret) in [("app-key", "app-secret"), ("new-key", "new-secret")] {
            client.ask(&json!({ "channel": ROOM, "auth": token(key, secret, &text) }));
            client.expect_succeeded(ROOM);
            client.unsubscribe(ROOM);
        }
    }
}

#[test]
fn p45_encrypted_payloads_pass_through_untouched() {
    let broker = Broker::start();
    let channel = "private-encrypted-foobar";
    let mut client = broker.subscriber(channel);
    let data = concat!(
        r#"{"nonce":"YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4","#,
        r#""ciphertext":"Mpagzc2JhH+0iU7qvMLGs+w4h0SgIJRwAWMiBlpZSQ=="}"#
    );
    broker.publish(channel, "my-event", data);
    client.expect_event(channel, "my-event", data);
    broker.publish(channel, "plain", "not encrypted at all");
    client.expect_event(channel, "plain", "not encrypted at all");
}

#[test]
fn the_shared_secret_of_an_encrypted_channel_is_not_the_servers_business() {
    let broker = Broker::start();
    let channel = "private-encrypted-foobar";
    let mut client = broker.connect();
    let auth = client.token_for(channel);
    client.ask(&json!({ "channel": channel, "auth": auth, "shared_secret": "c2VjcmV0" }));
    client.expect_succeeded(channel);
}

#[test]
fn long_signatures_are_cut_in_messages() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.ask(&json!({ "channel": ROOM, "auth": format!("{KEY}:{}", "f".repeat(20_000)) }));
    let message = client.expect_any_refusal(ROOM, "AuthError");
    assert!(message.len() < 1_500, "{} bytes", message.len());
    client.ask(&json!({ "channel": ROOM, "auth": format!("{}:00", "k".repeat(20_000)) }));
    let message = client.expect_any_refusal(ROOM, "AuthError");
    assert!(message.starts_with("Invalid key in subscription auth data: 'kkk"), "{message}");
    assert!(message.len() < 1_500, "{} bytes", message.len());
}
