//! What channels may be called, and what kind their names make them.

use serde_json::json;

use crate::support::Broker;

/// Names outside the character set or the length, each with what is wrong.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "my channel",
        "a:b",
        "a/b",
        "a#b",
        "a\\b",
        "a\"b",
        "a'b",
        "a+b",
        "a*b",
        "a!b",
        "a?b",
        "a%b",
        "a&b",
        "a~b",
        "a|b",
        "caf\u{e9}",
        "日本",
        "private-a b",
        "presence-ü",
        "cache-a:b",
        "private-encrypted-a/b",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(165));
    names.push(format!("private-{}", "x".repeat(157)));
    names
}

#[test]
fn p20_prefixes_count_with_their_dash_and_their_case() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let public = [
        "news",
        "privatefoo",
        "presencefoo",
        "cachefoo",
        "private",
        "presence",
        "cache",
        "Private-foo",
        "PRIVATE-foo",
        "Presence-foo",
        "Cache-foo",
        "my-private-orders",
        "private_foo",
        "-private-foo",
        "encrypted-foo",
    ];
    for channel in public {
        client.ask(&json!({ "channel": channel }));
        assert_eq!(client.expect_succeeded(channel), json!({}));
    }
    client.expect_silence();
}

#[test]
fn p20_private_and_presence_channels_need_auth() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let closed = [
        "private-foo",
        "private-",
        "private-cache-foo",
        "private-encrypted-foo",
        "private-encrypted-cache-foo",
        "presence-foo",
        "presence-",
        "presence-cache-foo",
        "private-presence-foo",
        "presence-private-foo",
    ];
    for channel in closed {
        client.ask(&json!({ "channel": channel }));
        let message = format!("Auth info required to subscribe to {channel}");
        client.expect_refusal(channel, "AuthError", &message);
    }
}

#[test]
fn p20_each_type_confirms_in_its_own_way() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for channel in ["private-foo", "private-", "private-encrypted-foo", "private-presence-foo"] {
        client.subscribe(channel);
    }
    for channel in ["cache-foo", "private-cache-foo", "private-encrypted-cache-foo"] {
        client.subscribe(channel);
        assert_eq!(client.expect_on(channel, "pusher:cache_miss"), json!({}));
    }
    for channel in ["presence-foo", "presence-", "presence-private-foo"] {
        let roster = client.join(channel, r#"{"user_id":"ann"}"#);
        assert_eq!(roster["ids"], json!(["ann"]));
    }
    client.join("presence-cache-foo", r#"{"user_id":"ann"}"#);
    assert_eq!(client.expect_on("presence-cache-foo", "pusher:cache_miss"), json!({}));
    client.expect_silence();
}

#[test]
fn p21_bad_names_are_refused_on_subscribe() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for name in bad_names() {
        client.ask(&json!({ "channel": name, "auth": client.token_for(&name) }));
        client.expect_error(&format!("Invalid channel name '{name}'"));
        let data = client.expect_on(&name, "pusher:subscription_error");
        assert_eq!((&data["type"], &data["status"]), (&json!("InvalidRequest"), &json!(400)));
    }
    client.expect_served();
}

#[test]
fn p21_bad_names_are_refused_on_trigger() {
    let broker = Broker::start();
    for name in bad_names() {
        let event = json!({ "name": "e", "channels": ["fine", name], "data": "" });
        broker.trigger(&event).refused(400, &format!("Invalid channel name '{name}'"));
        let event = json!({ "name": "e", "channel": name, "data": "" });
        broker.trigger(&event).refused(400, &format!("Invalid channel name '{name}'"));
    }
}

#[test]
fn p21_every_allowed_character_passes() {
    let broker = Broker::start();
    let name = "ABCXYZ-abcxyz_0189=@,.;";
    let mut client = broker.subscriber(name);
    broker.publish(name, "e", "data");
    client.expect_event(name, "e", "data");
}

#[test]
fn p21_names_of_164_characters_pass() {
    let broker = Broker::start();
    for prefix in ["", "private-", "cache-"] {
        let name = format!("{prefix}{}", "x".repeat(164 - prefix.len()));
        let mut client = broker.subscriber(&name);
        broker.publish(&name, "e", "data");
        if prefix == "cache-" {
            client.expect_on(&name, "pusher:cache_miss");
        }
        client.expect_event(&name, "e", "data");
    }
}

#[test]
fn p21_the_length_limit_can_be_set() {
    let broker = Broker::with_app("channel_name_max = 200");
    let (fits, too_long) = ("x".repeat(200), "x".repeat(201));
    let mut client = broker.subscriber(&fits);
    broker.publish(&fits, "e", "data");
    client.expect_event(&fits, "e", "data");

    client.ask(&json!({ "channel": too_long }));
    let message = client.expect_any_refusal(&too_long, "InvalidRequest");
    assert!(message.starts_with("Invalid channel name 'xxx"), "{message}");
    let event = json!({ "name": "e", "channels": [too_long], "data": "" });
    broker.trigger(&event).refused_with(400, "Invalid channel name 'xxx");
}

#[test]
fn p21_control_characters_in_names_are_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for name in ["a\nb", "a\0b", "a\u{7f}b", "a\u{1b}[31mb", "a\r\nb"] {
        client.ask(&json!({ "channel": name }));
        client.expect_error_with("Invalid channel name 'a");
        client.expect_on(name, "pusher:subscription_error");
        let event = json!({ "name": "e", "channels": [name], "data": "" });
        broker.trigger(&event).refused_with(400, "Invalid channel name 'a");
    }
}
