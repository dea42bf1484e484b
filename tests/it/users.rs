//! Users: signing in, watching each other, messages to one user, termination.

use serde_json::{Value, json};

use crate::support::{Broker, Client, KEY, SECRET, member, token, user, watcher};

#[test]
fn p50_a_sign_in_is_confirmed_with_the_user_data_as_it_came() {
    let broker = Broker::start();
    for user_data in [
        r#"{"id":"12345"}"#,
        r#"{"id": "12345"}"#,
        r#"{"id":"12345","user_info":{"name":"Ann"},"watchlist":[]}"#,
        "{\n\t\"user_info\":{\"name\":\"Zo\\u00eb 日本\"},\"id\":\"12345\",\"extra\":[1.0,null]}",
    ] {
        let mut client = broker.connect();
        client.sign_in(user_data);
        client.expect_silence();
    }
}

/// Tries to sign in with a correctly signed `user_data` and expects this error.
#[track_caller]
fn check_refused(user_data: &str, part: &str) {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.ask_to_sign_in(user_data);
    client.expect_error_with(part);
    expect_not_signed_in(&mut client);
}

/// Asserts that a presence channel knows no user behind this connection.
#[track_caller]
fn expect_not_signed_in(client: &mut Client) {
    client.ask(&json!({ "channel": "presence-x", "auth": client.token_for("presence-x") }));
    client.expect_refusal("presence-x", "InvalidRequest", "Missing parameter: data.channel_data");
}

#[test]
fn p51_user_data_must_be_an_object_with_a_string_id() {
    for user_data in [
        "",
        "ann",
        "[]",
        "\"ann\"",
        "7",
        "null",
        "{",
        "{}",
        r#"{"id":""}"#,
        r#"{"id":12345}"#,
        r#"{"id":null}"#,
        r#"{"id":["a"]}"#,
        r#"{"user_id":"ann"}"#,
        r#"{"id":true}"#,
    ] {
        check_refused(user_data, "user_data");
    }
}

#[test]
fn p51_ids_outside_the_character_set_or_too_long_are_refused() {
    let ids = ["a b", "a:b", "a/b", "a#b", "ünï", "a\nb", "a*", "a+b", "a\"b"];
    for id in ids.map(str::to_owned).into_iter().chain(["x".repeat(129)]) {
        check_refused(&user(&id), "Invalid user id");
    }
}

#[test]
fn p51_every_allowed_character_and_length_passes() {
    let broker = Broker::start();
    for id in ["ABCxyz019_-=@,.;".to_owned(), "x".repeat(128), "0".to_owned()] {
        let mut client = broker.signed_in(&id);
        broker.publish(&format!("#server-to-user-{id}"), "e", "data");
        client.expect_event(&format!("#server-to-user-{id}"), "e", "data");
    }
}

#[test]
fn p51_user_info_and_watchlist_of_the_wrong_type_are_refused() {
    for rest in [r#""user_info":7"#, r#""watchlist":"u2""#, r#""watchlist":[1]"#] {
        check_refused(&format!(r#"{{"id":"ann",{rest}}}"#), "Invalid user_data");
    }
}

#[test]
fn p51_missing_parameters_are_named() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let user_data = user("ann");
    let auth = client.token_for(&format!(":user::{user_data}"));
    for (data, message) in [
        (json!({ "user_data": user_data }), "Missing parameter: data.auth"),
        (json!({ "user_data": user_data, "auth": null }), "Missing parameter: data.auth"),
        (json!({}), "Missing parameter: data.auth"),
        (json!({ "auth": auth }), "Missing parameter: data.user_data"),
        (json!({ "auth": auth, "user_data": null }), "Missing parameter: data.user_data"),
        (
            json!({ "auth": "no colon", "user_data": user_data }),
            "Invalid format: auth must have the format key:signature",
        ),
    ] {
        client.send(&json!({ "event": "pusher:signin", "data": data }));
        client.expect_error(message);
    }
    client.send(&json!({ "event": "pusher:signin" }));
    client.expect_error("Missing parameter: data.auth");
    expect_not_signed_in(&mut client);
}

#[test]
fn p51_a_wrong_key_or_signature_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let user_data = user("ann");
    let text = format!("{}::user::{user_data}", client.id());
    let mut sign_in = |auth: String| {
        let data = json!({ "auth": auth, "user_data": user_data });
        client.send(&json!({ "event": "pusher:signin", "data": data }));
        client.expect_error_code(&Value::Null)
    };

    let message = sign_in(token("other-key", SECRET, &text));
    assert!(message.contains("Invalid key in") && message.contains("'other-key'"), "{message}");
    for auth in [
        token(KEY, "other-secret", &text),
        token(KEY, SECRET, &format!("1.1::user::{user_data}")),
        token(KEY, SECRET, &text.replace("::user::", ":")),
        token(KEY, SECRET, &text).to_uppercase().replace("APP-KEY", KEY),
        format!("{KEY}::user::{}", token("", SECRET, &text).trim_start_matches(':')),
    ] {
        let message = sign_in(auth);
        let expected = format!("Invalid signature: Expected HMAC SHA256 hex digest of {text}");
        assert!(message.starts_with(&expected), "{message}");
    }
    expect_not_signed_in(&mut client);
}

#[test]
fn p52_the_same_user_may_sign_in_again() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.sign_in(r#"{"id":"ann","user_info":{"name":"Ann"}}"#);
    client.sign_in(r#"{"id":"ann","user_info":{"name":"Anna"}}"#);
    client.ask(&json!({ "channel": "presence-x", "auth": client.token_for("presence-x") }));
    assert_eq!(client.expect_roster("presence-x")["hash"], json!({ "ann": { "name": "Anna" } }));
    broker.publish("#server-to-user-ann", "e", "once");
    client.expect_event("#server-to-user-ann", "e", "once");
    client.expect_silence();
}

#[test]
fn p52_signing_in_again_replaces_the_watchlist() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    let offline = |id: &str| json!([{ "name": "offline", "user_ids": [id] }]);
    assert_eq!(ann.watch(&watcher("ann", &["bob"])), offline("bob"));
    assert_eq!(ann.watch(&watcher("ann", &["cid"])), offline("cid"));
    let _bob = broker.signed_in("bob");
    ann.expect_silence();
    let _cid = broker.signed_in("cid");
    ann.expect_watched("online", "cid");
}

#[test]
fn p52_another_user_on_the_same_connection_is_refused() {
    let broker = Broker::start();
    let mut client = broker.signed_in("ann");
    client.ask_to_sign_in(&user("bob"));
    client.expect_error("Connection already signed in as a different user");
    broker.publish("#server-to-user-bob", "e", "data");
    broker.publish("#server-to-user-ann", "e", "data");
    client.expect_event("#server-to-user-ann", "e", "data");
    client.expect_silence();
}

#[test]
fn p53_only_the_first_hundred_of_a_long_watchlist_count() {
    let broker = Broker::start();
    let _first = broker.signed_in("u0");
    let ids: Vec<String> = (0..101).map(|number| format!("u{number}")).collect();
    let mut ann = broker.connect();
    ann.sign_in(&json!({ "id": "ann", "watchlist": ids }).to_string());
    let message = ann.expect_error_code(&json!(4302));
    assert!(message.contains("100"), "{message}");
    let events = ann.expect_watchlist();
    assert_eq!(told(&events, "online"), ["u0"]);
    let mut offline = ids[1..100].to_vec();
    offline.sort();
    assert_eq!(told(&events, "offline"), offline);

    let _beyond = broker.signed_in("u100");
    ann.expect_silence();
    let _within = broker.signed_in("u99");
    ann.expect_watched("online", "u99");
}

/// The sorted ids told under `name`.
fn told(events: &Value, name: &str) -> Vec<String> {
    let events = events.as_array().expect("a list of events");
    let mut ids: Vec<String> = Vec::new();
    for event in events.iter().filter(|event| event["name"] == name) {
        let told = event["user_ids"].as_array().expect("a list of ids");
        assert!(!told.is_empty(), "{event}");
        ids.extend(told.iter().map(|id| id.as_str().expect("a string").to_owned()));
    }
    ids.sort();
    ids
}

#[test]
fn p54_a_message_reaches_each_connection_of_its_user_once() {
    let broker = Broker::start();
    let channel = "#server-to-user-ann";
    let mut plain = broker.signed_in("ann");
    let mut subscribed = broker.signed_in("ann");
    subscribed.subscribe(channel);
    let mut other = broker.signed_in("bob");
    let mut anonymous = broker.connect();
    let mut namesake = broker.joined("presence-room", "ann");

    broker.publish(channel, "hello", "{\"x\":1}");

    plain.expect_event(channel, "hello", "{\"x\":1}");
    subscribed.expect_event(channel, "hello", "{\"x\":1}");
    for client in [&mut plain, &mut subscribed, &mut other, &mut anonymous, &mut namesake] {
        client.expect_silence();
    }
}

#[test]
fn p54_a_user_is_reached_after_unsubscribing_and_left_alone_after_going() {
    let broker = Broker::start();
    let channel = "#server-to-user-ann";
    let mut client = broker.signed_in("ann");
    client.subscribe(channel);
    client.unsubscribe(channel);
    client.expect_silence();
    broker.publish(channel, "e", "data");
    client.expect_event(channel, "e", "data");
    client.leave();
    broker.publish(channel, "e", "nobody is there");
}

#[test]
fn p54_unsubscribing_ones_own_channel_is_silent_and_does_not_sign_out() {
    let broker = Broker::start();
    let mut watcher = broker.connect();
    watcher.watch(&watcher_of(&["ann"]));
    let channel = "#server-to-user-ann";
    let mut client = broker.signed_in("ann");
    watcher.expect_watched("online", "ann");
    client.unsubscribe(channel); // though it never subscribed
    client.expect_silence();
    watcher.expect_silence();
    broker.publish(channel, "e", "1");
    client.expect_event(channel, "e", "1");
    client.subscribe(channel);
    client.unsubscribe(channel);
    client.expect_silence();
    watcher.expect_silence();
    broker.publish(channel, "e", "2");
    client.expect_event(channel, "e", "2");
    broker.terminate("ann");
    client.expect_end_with(4009);
}

fn watcher_of(watchlist: &[&str]) -> String {
    watcher("watcher", watchlist)
}

#[test]
fn p54_messages_to_users_go_beside_others_and_exclude_sockets() {
    let broker = Broker::start();
    let mut first = broker.signed_in("ann");
    let mut second = broker.signed_in("ann");
    first.subscribe("news");
    let body = json!({
        "name": "e", "channels": ["news", "#server-to-user-ann"], "data": "d",
        "socket_id": second.id(),
    });
    broker.trigger(&body).ok();
    let mut channels = [first.next(), first.next()].map(|frame| frame["channel"].to_string());
    channels.sort();
    assert_eq!(channels, ["\"#server-to-user-ann\"", "\"news\""]);
    second.expect_silence();
}

#[test]
fn p54_an_invalid_user_in_a_channel_name_is_refused() {
    let broker = Broker::start();
    for name in ["#server-to-user-", "#server-to-user-a b", "#server-to-user-ü", "#other", "#"] {
        let event = json!({ "name": "e", "channels": [name], "data": "" });
        broker.trigger(&event).refused(400, &format!("Invalid channel name '{name}'"));
    }
    let long = format!("#server-to-user-{}", "x".repeat(129));
    let event = json!({ "name": "e", "channels": [long], "data": "" });
    broker.trigger(&event).refused_with(400, "Invalid channel name '#server-to-user-xxx");
}

#[test]
fn p55_ones_own_channel_may_be_subscribed_and_no_others() {
    let broker = Broker::start();
    let mut client = broker.signed_in("ann");
    for channel in ["#server-to-user-bob", "#server-to-user-", "#server-to-user-an", "#ann"] {
        client.ask(&json!({ "channel": channel, "auth": client.token_for(channel) }));
        client.expect_error(&format!("Not authorized to subscribe to {channel}"));
        client.expect_on(channel, "pusher:subscription_error");
    }
    client.ask(&json!({ "channel": "#server-to-user-ann", "auth": "" }));
    assert_eq!(client.expect_succeeded("#server-to-user-ann"), json!({}));
}

#[test]
fn channels_of_users_are_not_listed_or_counted() {
    let broker = Broker::with_app("subscription_counts = true\nclient_events = true");
    let mut client = broker.signed_in("ann");
    client.subscribe("#server-to-user-ann");
    client.expect_served();
    assert_eq!(broker.channels(), json!({}));
    client.say("#server-to-user-ann", "client-x", &json!("hello"));
    client.expect_error("Client event rejected - only supported on private and presence channels");
}

#[test]
fn p56_one_frame_tells_who_is_online_and_who_is_not() {
    let broker = Broker::start();
    let _bob = broker.signed_in("bob");
    let mut ann = broker.connect();
    let events = ann.watch(&watcher("ann", &["bob", "cid", "dan"]));
    assert_eq!(told(&events, "online"), ["bob"]);
    assert_eq!(told(&events, "offline"), ["cid", "dan"]);
    assert_eq!(events.as_array().map(Vec::len), Some(2));
    ann.expect_silence();
}

#[test]
fn p56_empty_lists_are_left_out() {
    let broker = Broker::start();
    let _bob = broker.signed_in("bob");
    let online = json!([{ "name": "online", "user_ids": ["bob"] }]);
    assert_eq!(broker.connect().watch(&watcher("ann", &["bob"])), online);
    let offline = json!([{ "name": "offline", "user_ids": ["cid"] }]);
    assert_eq!(broker.connect().watch(&watcher("ann", &["cid", "cid"])), offline);
    let strange = json!([{ "name": "offline", "user_ids": ["no id"] }]);
    assert_eq!(broker.connect().watch(&watcher("ann", &["no id", "no id"])), strange);
    broker.connect().sign_in(&watcher("ann", &[]));
}

#[test]
fn p56_a_user_may_watch_itself() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    let events = ann.watch(&watcher("ann", &["ann"]));
    assert_eq!(told(&events, "online"), ["ann"]);
    ann.expect_silence();
}

#[test]
fn p56_watching_can_be_switched_off() {
    let broker = Broker::with_app("watchlist = false");
    let mut ann = broker.connect();
    ann.sign_in(&watcher("ann", &["bob"]));
    let _bob = broker.signed_in("bob");
    ann.expect_silence();
}

#[test]
fn p57_watchers_hear_of_the_first_and_the_last_connection() {
    let broker = Broker::start();
    let mut tabs = [broker.connect(), broker.connect()];
    for tab in &mut tabs {
        tab.watch(&watcher("ann", &["bob"]));
    }
    let first = broker.signed_in("bob");
    for tab in &mut tabs {
        tab.expect_watched("online", "bob");
    }
    let second = broker.signed_in("bob");
    first.leave();
    for tab in &mut tabs {
        tab.expect_silence();
    }
    drop(second);
    for tab in &mut tabs {
        tab.expect_watched("offline", "bob");
        tab.expect_silence();
    }
}

#[test]
fn p57_membership_without_sign_in_is_not_online() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    ann.watch(&watcher("ann", &["bob"]));
    let _member = broker.joined("presence-room", "bob");
    ann.expect_silence();
}

#[test]
fn p57_users_of_another_app_are_strangers() {
    let apps = r#"
[[apps]]
id = "1"
keys = [{ key = "app-key", secret = "app-secret" }]
[[apps]]
id = "2"
keys = [{ key = "other-key", secret = "other-secret" }]
"#;
    let broker = Broker::with_apps("", apps);
    let mut ann = broker.connect();
    ann.watch(&watcher("ann", &["bob"]));
    let other = broker.of_app("2", "other-key", "other-secret");
    let mut bob = Client::connect(&other, "/app/other-key?protocol=7");
    bob.sign_in(&user("bob"));
    ann.expect_silence();
    broker.terminate("bob");
    broker.publish("#server-to-user-bob", "e", "data");
    bob.expect_silence();
}

#[test]
fn p58_terminating_closes_every_connection_of_the_user() {
    let broker = Broker::start();
    let first = broker.signed_in("ann");
    let second = broker.signed_in("ann");
    let mut bob = broker.signed_in("bob");
    let mut namesake = broker.connect();
    namesake.join("presence-room", &member("ann"));
    let mut anonymous = broker.connect();

    broker.terminate("ann");

    for client in [first, second] {
        assert_eq!(client.expect_end_with(4009), "You got disconnected by the app.");
    }
    for client in [&mut bob, &mut namesake, &mut anonymous] {
        client.expect_silence();
    }
    broker.signed_in("ann").expect_silence();
}

#[test]
fn p58_terminating_tells_watchers_and_rosters() {
    let broker = Broker::start();
    let mut bob = broker.connect();
    bob.watch(&watcher("bob", &["ann"]));
    let mut ann = broker.signed_in("ann");
    bob.expect_watched("online", "ann");
    bob.join("presence-room", &member("bob"));
    ann.join("presence-room", &member("ann"));
    bob.expect_member_added("presence-room", "ann");
    broker.terminate("ann");
    let mut events = [bob.next(), bob.next()].map(|frame| frame["event"].to_string());
    events.sort();
    let expected = ["\"pusher_internal:member_removed\"", "\"pusher_internal:watchlist_events\""];
    assert_eq!(events, expected);
    ann.expect_end_with(4009);
}

#[test]
fn p58_terminating_somebody_unknown_is_a_success() {
    let broker = Broker::start();
    broker.terminate("nobody");
    let reply = broker.post("/users/a%40b/terminate_connections", &json!({})).send();
    assert_eq!(reply.ok(), json!({}));
}

#[test]
fn p58_the_user_in_the_path_is_percent_decoded() {
    let broker = Broker::start();
    let ann = broker.signed_in("ann@home");
    broker.terminate("ann%40home");
    ann.expect_end_with(4009);
}

#[test]
fn p59_python_terminates_without_the_app_in_the_path() {
    let broker = Broker::start();
    let ann = broker.signed_in("ann");
    let reply = broker.request("POST", "/users/ann/terminate_connections", "{}").send();
    assert_eq!(reply.ok(), json!({}));
    ann.expect_end_with(4009);
}

#[test]
fn p59_the_short_path_finds_its_app_by_the_key() {
    let broker = Broker::start();
    let path = "/users/ann/terminate_connections";
    let stranger = broker.of_app("1", "nobody", SECRET);
    stranger.request("POST", path, "{}").send().refused(401, "Unknown auth_key");
    let request = broker.request("POST", path, "{}");
    request.send_signed("00").refused_with(401, "Invalid signature");
}
