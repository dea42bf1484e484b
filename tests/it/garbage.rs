//! Noise on the port: whatever comes, the broker lives.

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, TestRunner},
};
use serde_json::json;

use crate::support::{Broker, Http, JS_PATH, Opcode, RawSocket, frame};

/// Feeds one broker with random input, each case on a connection of its own, then asks it for a
/// sign of life.
fn survives<S: Strategy>(cases: u32, strategy: &S, feed: impl Fn(&Broker, S::Value)) {
    let broker = Broker::start();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(strategy, |input| {
        feed(&broker, input);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    broker.expect_healthy();
    assert_eq!(broker.stop().code, Some(0));
}

#[test]
fn random_bytes_do_no_harm() {
    survives(150, &vec(any::<u8>(), 0..2_000), |broker, bytes| {
        let mut socket = RawSocket::tcp(broker.address());
        let _ = socket.try_send_bytes(&bytes);
    });
}

#[test]
fn nearly_valid_requests_do_no_harm() {
    let method = prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("X")];
    let path = "/(apps|app|users|%)?/?[1%./?&=a-z]{0,20}";
    let header = "(Content-Length|Transfer-Encoding|Upgrade|Connection|Host): ?[a-z0-9,-]{0,12}";
    let strategy = (method, path, vec(header, 0..5), vec(any::<u8>(), 0..100));
    survives(150, &strategy, |broker, (method, path, headers, body)| {
        let mut http = Http::connect(broker.address());
        let head = format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
        let _ = http.try_send(head);
        let _ = http.try_send(&body);
    });
}

#[test]
fn random_frames_do_no_harm() {
    let control = (any::<bool>(), 0..16_u8, vec(any::<u8>(), 0..200));
    let strategy = vec(control, 1..12);
    survives(150, &strategy, |broker, frames| {
        let mut socket = broker.raw();
        for (last, opcode, payload) in frames {
            if socket.try_send_bytes(&frame(last, Opcode(opcode), &payload)).is_err() {
                break;
            }
        }
    });
}

#[test]
fn random_bytes_after_the_upgrade_do_no_harm() {
    survives(150, &vec(any::<u8>(), 0..500), |broker, bytes| {
        let mut socket = broker.raw();
        let _ = socket.try_send_bytes(&bytes);
    });
}

/// JSON values, a few levels deep, with the words of the protocol among the strings.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let words = prop_oneof![
        Just("pusher:subscribe"),
        Just("pusher:unsubscribe"),
        Just("pusher:signin"),
        Just("pusher:ping"),
        Just("client-x"),
        Just("private-room"),
        Just("presence-room"),
        Just("cache-news"),
        Just("#server-to-user-ann"),
        Just("app-key:00"),
        Just("{\"user_id\":1}"),
        Just(""),
    ];
    let leaf = prop_oneof![
        words.prop_map(|word| json!(word)),
        any::<String>().prop_map(|text| json!(text)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(|truth| json!(truth)),
        Just(json!(null)),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        let key = prop_oneof![
            Just("event".to_owned()),
            Just("data".to_owned()),
            Just("channel".to_owned()),
            Just("auth".to_owned()),
            Just("channel_data".to_owned()),
            Just("user_data".to_owned()),
            any::<String>(),
        ];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|list| json!(list)),
            vec((key, inner), 0..5)
                .prop_map(|pairs| json!(pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>())),
        ]
    })
}

#[test]
fn random_json_is_answered_or_ignored_and_the_connection_lives() {
    survives(100, &vec(any_json(), 1..6), |broker, messages| {
        let mut client = broker.connect();
        for message in messages {
            client.send(&message);
        }
        client.ping();
        while client.next()["event"] != "pusher:pong" {}
    });
}

#[test]
fn random_messages_of_the_protocol_are_answered_or_ignored() {
    let event = prop_oneof![
        Just("pusher:subscribe"),
        Just("pusher:unsubscribe"),
        Just("pusher:signin"),
        Just("client-x"),
    ];
    survives(150, &(event, any_json(), any_json()), |broker, (event, data, channel)| {
        let mut client = broker.subscriber("private-room");
        client.send(&json!({ "event": event, "data": data, "channel": channel }));
        client.send(&json!({ "event": event, "data": { "channel": channel, "auth": data } }));
        client.send(&json!({
            "event": event, "channel": "private-room",
            "data": { "channel": "presence-room", "auth": "app-key:00", "channel_data": data },
        }));
        client.ping();
        while client.next()["event"] != "pusher:pong" {}
    });
}

#[test]
fn random_bodies_are_refused_or_accepted_and_never_a_server_error() {
    // The API client of these stories fails at any 5xx.
    let path = prop_oneof![Just("/events"), Just("/batch_events"), Just("/users/a/terminate_connections")];
    let body = prop_oneof![
        any_json().prop_map(|value| value.to_string().into_bytes()),
        any_json().prop_map(|value| json!({ "name": "e", "channel": value, "data": value })
            .to_string()
            .into_bytes()),
        any_json().prop_map(|value| json!({ "batch": [value, value] }).to_string().into_bytes()),
        vec(any::<u8>(), 0..300),
    ];
    survives(150, &(path, body), |broker, (path, body)| {
        let reply = broker.post_bytes(path, body).send();
        assert!(reply.status == 200 || (400..500).contains(&reply.status), "{reply:?}");
    });
}

#[test]
fn random_queries_are_refused_or_accepted_and_never_a_server_error() {
    let path = prop_oneof![
        "/channels/[a-z%0-9@#:-]{0,30}",
        "/channels/presence-[a-z]{0,5}/[a-z]{0,5}",
        Just("/channels".to_owned()),
    ];
    let query = "[a-zA-Z_]{0,6}(\\[\\])?=[a-z_,%0-9+]{0,10}(&[a-z_=&%]{0,20})?";
    survives(150, &(path, query), |broker, (path, query)| {
        let mut http = Http::connect(broker.address());
        let path = path.replace('#', "%23");
        http.send(format!("GET /apps/1{path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let reply = http.reply();
        assert!((400..500).contains(&reply.status), "{reply:?}");
        let param = query.split('&').next().and_then(|pair| pair.split_once('='));
        let (key, value) = param.expect("an equals sign");
        let request = broker.get(&path).param(key, value);
        let status = request.send().status;
        assert!(status == 200 || (400..500).contains(&status), "{status}");
    });
}

#[test]
fn random_addresses_are_refused_or_accepted_after_the_upgrade() {
    let strategy = "/[a-z/%0-9]{0,20}(\\?[a-z=&%0-9]{0,30})?";
    survives(150, &strategy, |broker, path| {
        if path.starts_with("/apps/") || path.contains("/users/") {
            return;
        }
        let request = crate::support::upgrade_request(&path, "");
        let mut socket = RawSocket::tcp(broker.address());
        socket.send_bytes(request.as_bytes());
        let head = socket.read_head();
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 4"), "{path}: {head}");
        assert_ne!(path, JS_PATH);
    });
}
