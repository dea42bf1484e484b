//! What the log must not say, and how it says the rest.

use serde_json::{Value, json};

use crate::support::{
    Broker, Client, Finished, JS_PATH, RawSocket, SECRET, subscribe_frame, token, upgrade_request,
};

/// Everything in a story that must never be logged.
struct Secrets(Vec<String>);

/// Lives through every kind of request with payloads and credentials, and gives them.
fn live(broker: &Broker) -> Secrets {
    let mut secrets = vec![SECRET.to_owned()];
    let mut secret = |text: &str| {
        secrets.push(text.to_owned());
        text.to_owned()
    };

    let mut ann = broker.connect();
    let channel_data = json!({
        "user_id": "ann", "user_info": { "name": secret("hush-user-info") },
    })
    .to_string();
    ann.join("presence-room", &channel_data);
    secret(&signature(&ann.token_for(&format!("presence-room:{channel_data}"))));
    ann.subscribe("private-room");
    secret(&signature(&ann.token_for("private-room")));
    let user_data = json!({ "id": "ann", "user_info": { "mail": secret("hush-user-data") } }).to_string();
    ann.sign_in(&user_data);
    secret(&signature(&ann.token_for(&format!(":user::{user_data}"))));

    let mut bob = broker.subscriber("private-room");
    ann.say("private-room", "client-x", &json!(secret("hush-client-event")));
    bob.expect_event("private-room", "client-x", "hush-client-event");
    ann.say("nowhere", "client-x", &json!(secret("hush-refused-client-event")));
    ann.next();
    ann.send_text(&secret("hush-not-json"));
    ann.next();
    ann.send(&json!({ "event": "unknown", "data": secret("hush-unknown-event") }));
    ann.next();
    ann.ask(&json!({ "channel": "private-x", "auth": format!("app-key:{}", secret("hush-forged")) }));
    ann.expect_any_refusal("private-x", "AuthError");

    let event = json!({ "name": "e", "channel": "private-room", "data": secret("hush-api-event") });
    let request = broker.post("/events", &event);
    secret(&request.signature());
    request.send().ok();
    request.send_signed(&secret("hush-forged-signature")).refused_with(401, "Invalid signature");
    bob.expect_event("private-room", "e", "hush-api-event");
    broker.post_bytes("/events", secret("hush-broken-body")).send();
    let wrong = token("", SECRET, "anything").trim_start_matches(':').to_owned();
    broker.get("/channels").send_signed(&secret(&wrong));
    broker.publish("cache-x", "e", &secret("hush-cached"));
    broker.subscriber("cache-x").expect_event("cache-x", "e", "hush-cached");
    Secrets(secrets)
}

fn signature(token: &str) -> String {
    token.split_once(':').expect("a colon").1.to_owned()
}

#[track_caller]
fn expect_discreet(finished: &Finished, Secrets(secrets): &Secrets) {
    let said = format!("{}{}", finished.stdout, finished.stderr);
    for secret in secrets {
        let line = said.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "{secret:?} was logged");
    }
    assert!(said.contains("TRACE"), "nothing was logged at all:\n{said}");
}

#[test]
fn secrets_signatures_and_payloads_are_never_logged() {
    let broker = Broker::with("log.level = \"trace\"");
    let secrets = live(&broker);
    expect_discreet(&broker.stop(), &secrets);
}

#[test]
fn json_logs_are_as_discreet_and_one_object_a_line() {
    let broker = Broker::with("log.level = \"trace\"\nlog.format = \"json\"");
    let secrets = live(&broker);
    let finished = broker.stop();
    expect_discreet(&finished, &secrets);
    for line in finished.stderr.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry.is_object(), "{line}");
    }
}

/// Says hostile names wherever a client may choose one.
fn say_hostile_names(broker: &Broker) {
    let hostile = "x\r\nERROR forged entry\u{1b}[2J\u{7}\u{7f}\u{85}\u{9b}\u{2028}end";
    let mut client = broker.connect();
    client.send(&json!({ "event": hostile, "data": {} }));
    client.next();
    client.ask(&json!({ "channel": hostile }));
    client.ping();
    while client.next()["event"] != "pusher:pong" {}
    client.subscribe("private-room");
    client.say("private-room", &format!("client-{hostile}"), &json!(1));
    client.join("presence-room", &json!({ "user_id": hostile }).to_string());
    client.ask_to_sign_in(&json!({ "id": hostile }).to_string());
    client.next();
    broker.publish("private-room", hostile, "d");
    broker.trigger(&json!({ "name": "e", "channel": hostile, "data": "" }));
    let path = "/app/x%0D%0AERROR%20forged%20entry%1B[2J?protocol=7&client=a%0AERROR%20forged%20entry";
    broker.refused(path, 4001);
    broker.get("/channels/x%0AERROR%20forged%20entry").send();
    broker.post("/users/x%0AERROR%20forged%20entry/terminate_connections", &json!({})).send();
    let origin = [("Origin", "https://x\tERROR")];
    Client::dial_with(broker.api(), JS_PATH, &origin).established();
    let mut raw = RawSocket::tcp(broker.address());
    raw.send_bytes(upgrade_request(JS_PATH, "Sec-WebSocket-Protocol: a\u{1b}b\r\n").as_bytes());
    raw.expect_any_answer();
}

#[test]
fn control_characters_in_names_are_escaped() {
    for format in ["text", "json"] {
        let broker = Broker::with(&format!("log.level = \"trace\"\nlog.format = \"{format}\""));
        say_hostile_names(&broker);
        let finished = broker.stop();
        assert!(finished.stderr.contains("TRACE"), "nothing was logged at all");
        for line in finished.stderr.lines() {
            assert!(!line.trim_start().starts_with("ERROR forged"), "a forged entry: {line:?}");
            let control = line
                .chars()
                .find(|character| character.is_control() || ['\u{2028}', '\u{2029}'].contains(character));
            assert_eq!(control, None, "{line:?}");
        }
    }
}

#[test]
fn long_names_are_cut() {
    for format in ["text", "json"] {
        let broker = Broker::with(&format!("log.level = \"trace\"\nlog.format = \"{format}\""));
        let long = "y".repeat(20_000);
        let mut client = broker.connect();
        client.send(&json!({ "event": long, "data": {} }));
        client.next();
        client.ask(&json!({ "channel": long }));
        client.say(&long, "client-x", &json!(1));
        client.ping();
        while client.next()["event"] != "pusher:pong" {}
        broker.refused(&format!("/app/{long}?protocol=7"), 4001);
        broker.refused(&format!("/{long}?protocol=7"), 4005);
        broker.trigger(&json!({ "name": long, "channel": long, "data": "" }));
        broker.get(&format!("/channels/{long}")).send();
        drop(client);
        let finished = broker.stop();
        assert!(finished.stderr.contains("TRACE"), "nothing was logged at all");
        for line in finished.stderr.lines() {
            assert!(line.len() < 4_000, "{} bytes: {line:.200}…", line.len());
        }
    }
}

#[test]
fn the_default_level_says_little_about_single_messages() {
    let broker = Broker::start();
    let mut client = broker.raw();
    for number in 0..100 {
        client.send_text(&subscribe_frame(&format!("c{number}")));
        client.expect_succeeded(&format!("c{number}"));
        broker.publish(&format!("c{number}"), "e", "d");
        client.expect_json();
    }
    drop(client);
    let finished = broker.stop();
    assert!(finished.stderr.lines().count() < 50, "{}", finished.stderr);
}

#[test]
fn logs_go_to_the_error_stream() {
    let broker = Broker::with("log.level = \"trace\"");
    let id = broker.connect().id().to_owned();
    broker.expect_healthy();
    let finished = broker.stop();
    assert!(!finished.stdout.contains(&id), "{}", finished.stdout);
    assert!(finished.stderr.contains(&id), "{}", finished.stderr);
}
