//! Opening a connection: addresses, versions, the first frame, refusals.

use std::collections::HashSet;

use serde_json::json;

use crate::support::{Broker, Client, JS_PATH, KEY, RawSocket, SECRET, until};

/// What each official client appends to host and port.
const CLIENT_PATHS: [(&str, &str); 7] = [
    ("pusher-js", JS_PATH),
    ("Java", "/app/app-key?client=java-client&protocol=5&version=2.4.4"),
    ("Java, development build", "/app/app-key?client=java-client&protocol=5&version=0.0.0-dev"),
    ("Swift", "/app/app-key?client=pusher-websocket-swift&version=10.1.10&protocol=7"),
    (".NET", "/app/app-key?protocol=5&client=pusher-dotnet-client&version=2.3.1"),
    ("Pysher", "/app/app-key?client=Pysher&version=0.6.0&protocol=6"),
    ("libPusher", "/app/app-key?protocol=6&client=libPusher&version=1.5"),
];

fn path(protocol: &str) -> String {
    format!("/app/{KEY}?protocol={protocol}&client=js&version=8.6.0")
}

/// Two apps of which the second has these settings.
fn broker_with_second_app(settings: &str, second: &str) -> Broker {
    let first = format!("[[apps]]\nid = \"1\"\nkeys = [{{ key = \"{KEY}\", secret = \"{SECRET}\" }}]\n");
    let second = format!(
        "[[apps]]\nid = \"2\"\nkeys = [{{ key = \"other-key\", secret = \"other-secret\" }}]\n{second}"
    );
    Broker::with_apps(settings, &format!("{first}{second}"))
}

const OTHER_PATH: &str = "/app/other-key?protocol=7&client=js&version=8.6.0";

#[test]
fn p1_every_official_client_connects_and_receives() {
    let broker = Broker::start();
    for (name, path) in CLIENT_PATHS {
        let mut client = Client::connect(broker.api(), path);
        client.subscribe("news");
        broker.publish("news", "hello", name);
        client.expect_event("news", "hello", name);
    }
}

#[test]
fn p1_a_prefix_before_the_path_is_accepted() {
    let broker = Broker::start();
    for prefix in ["/foo", "/foo/bar-1", "/a/b/c/d"] {
        Client::connect(broker.api(), &format!("{prefix}{JS_PATH}")).expect_served();
    }
}

#[test]
fn p1_parameters_come_in_any_order_and_unknown_ones_are_ignored() {
    let broker = Broker::start();
    for query in [
        "flash=false&version=8.6.0&client=js&protocol=7",
        "x=1&protocol=7&y",
        "protocol=7&&",
        "protocol=7&flash=true&emoji=%F0%9F%98%80&broken=%",
        "protocol=7",
    ] {
        Client::connect(broker.api(), &format!("/app/{KEY}?{query}")).expect_served();
    }
}

#[test]
fn p1_client_and_version_are_never_a_reason_to_refuse() {
    let broker = Broker::start();
    for query in ["client=&version=", "version=1.0", "client=%00%0A&version=-1", "version=x&client=y"] {
        Client::connect(broker.api(), &format!("/app/{KEY}?protocol=7&{query}")).expect_served();
    }
}

#[test]
fn p2_protocols_five_six_and_seven_are_accepted() {
    let broker = Broker::start();
    for protocol in ["5", "6", "7"] {
        Client::connect(broker.api(), &path(protocol)).expect_served();
    }
}

#[test]
fn p2_other_protocols_are_refused_as_unsupported() {
    let broker = Broker::start();
    for protocol in ["0", "1", "2", "3", "8", "9", "70", "255", "256", "263", "65543", "4294967303"] {
        broker.refused(&path(protocol), 4007);
    }
    broker.refused(&path("99999999999999999999999999"), 4007);
}

#[test]
fn p2_a_missing_protocol_is_refused() {
    let broker = Broker::start();
    broker.refused(&format!("/app/{KEY}"), 4008);
    broker.refused(&format!("/app/{KEY}?client=js&version=8.6.0"), 4008);
    broker.refused(&path(""), 4008);
}

#[test]
fn p2_a_protocol_that_is_no_integer_is_refused() {
    let broker = Broker::start();
    for protocol in ["seven", "7.0", "0x7", "7a", "%37x", "VII", "1e1"] {
        broker.refused(&path(protocol), 4006);
    }
}

#[test]
fn p3_an_unknown_key_is_refused() {
    let broker = Broker::start();
    for key in ["nobody", "APP-KEY", "app-key2", "app-ke", "app-key%20"] {
        broker.refused(&format!("/app/{key}?protocol=7"), 4001);
    }
}

#[test]
fn p3_an_app_that_is_switched_off_is_refused() {
    let broker = broker_with_second_app("", "enabled = false");
    broker.refused(OTHER_PATH, 4003);
    broker.connect().expect_served();
}

#[test]
fn p3_an_app_for_tls_only_is_refused_over_plain_tcp() {
    let broker = broker_with_second_app("", "tls_only = true");
    broker.refused(OTHER_PATH, 4000);
    broker.connect().expect_served();
}

#[test]
fn p3_a_connection_over_the_quota_of_its_app_is_refused() {
    let broker = broker_with_second_app("", "connections_max = 2");
    let _first = Client::connect(broker.api(), OTHER_PATH);
    let second = Client::connect(broker.api(), OTHER_PATH);
    broker.refused(OTHER_PATH, 4004);
    broker.refused(OTHER_PATH, 4004);
    broker.connect().expect_served();

    second.leave();

    until("a place in the quota", || {
        let frame = Client::dial(broker.api(), OTHER_PATH).next();
        frame["event"] == "pusher:connection_established"
    });
}

#[test]
fn p3_a_full_server_refuses() {
    let broker = broker_with_second_app("server.connections_max = 2", "");
    let _first = broker.connect();
    let _second = Client::connect(broker.api(), OTHER_PATH);
    broker.refused(JS_PATH, 4100);
    broker.refused(OTHER_PATH, 4100);
    broker.publish("news", "the API", "stays open");
}

#[test]
fn p3_a_wrong_path_is_refused_after_the_upgrade() {
    let broker = Broker::start();
    for path in ["/", "/nowhere?protocol=7", "/app?protocol=7", "/apples/app-key?protocol=7"] {
        broker.refused(path, 4005);
    }
    broker.refused("/app/app-key/more?protocol=7", 4005);
}

#[test]
fn p3_the_first_failure_in_order_is_told() {
    // Path before protocol, protocol before key, key before the rest.
    let broker = Broker::start();
    broker.refused("/nowhere", 4005);
    broker.refused("/app/nobody", 4008);
    broker.refused("/app/nobody?protocol=3", 4007);
    broker.refused("/app/nobody?protocol=x", 4006);
}

#[test]
fn p3_tls_is_demanded_before_an_app_is_called_disabled() {
    let broker = broker_with_second_app("", "enabled = false\ntls_only = true");
    broker.refused("/app/other-key?protocol=3", 4007);
    broker.refused(OTHER_PATH, 4000);
}

#[test]
fn p3_capacity_comes_after_the_app_and_before_its_quota() {
    let broker = broker_with_second_app("server.connections_max = 1", "enabled = false");
    let _only = broker.connect();
    broker.refused("/app/nobody?protocol=7", 4001);
    broker.refused(OTHER_PATH, 4003);

    let broker = broker_with_second_app("server.connections_max = 1", "connections_max = 1");
    let _only = Client::connect(broker.api(), OTHER_PATH);
    broker.refused(OTHER_PATH, 4100);
}

#[test]
fn p3_an_origin_that_is_not_listed_is_refused() {
    let broker = Broker::with_app("allowed_origins = [\"https://shop.example\"]");
    let foreign = [("Origin", "https://evil.example")];
    Client::dial_with(broker.api(), JS_PATH, &foreign).expect_end_with(4009);
    let lookalike = [("Origin", "https://shop.example.evil.example")];
    Client::dial_with(broker.api(), JS_PATH, &lookalike).expect_end_with(4009);

    let own = [("Origin", "https://shop.example")];
    let mut client = Client::dial_with(broker.api(), JS_PATH, &own);
    client.established();
}

#[test]
fn origins_do_not_matter_without_a_list() {
    let broker = Broker::start();
    let headers = [("Origin", "https://anywhere.example")];
    Client::dial_with(broker.api(), JS_PATH, &headers).established();
}

#[test]
fn p4_the_first_frame_tells_socket_id_and_activity_timeout() {
    let broker = Broker::start();
    let (mut socket, _) = RawSocket::upgraded(broker.address(), JS_PATH, "");
    let frame = socket.expect_json();
    assert_eq!(frame["event"], "pusher:connection_established");
    let data = crate::support::parsed(&frame["data"]);
    assert_eq!(data, json!({ "socket_id": data["socket_id"], "activity_timeout": 120 }));
    assert!(data["socket_id"].is_string());
    socket.expect_served();
}

#[test]
fn p4_the_activity_timeout_is_the_configured_one() {
    let broker = Broker::with("connection.activity_timeout_s = 33");
    assert_eq!(broker.connect().activity_timeout(), 33);
}

#[test]
fn p5_no_socket_id_is_given_twice() {
    let broker = Broker::start();
    let mut ids = HashSet::new();
    for _ in 0..10 {
        let clients: Vec<Client> = (0..50).map(|_| broker.connect()).collect();
        for client in clients {
            assert!(ids.insert(client.id().to_owned()), "{} came twice", client.id());
        }
    }
}

#[test]
fn p5_socket_ids_cannot_be_guessed_from_the_last_one() {
    let broker = Broker::start();
    let digits =
        |client: Client| -> u128 { client.id().replace('.', "").parse().expect("digits with one dot") };
    let ids: Vec<u128> = (0..8).map(|_| digits(broker.connect())).collect();
    let steps: HashSet<u128> = ids.windows(2).map(|pair| pair[0].abs_diff(pair[1])).collect();
    assert!(steps.len() > 3, "evenly spaced: {ids:?}");
    assert!(steps.iter().all(|step| *step > 100), "close together: {ids:?}");
}

#[test]
fn p60_a_connection_that_stays_anonymous_is_closed_after_the_timeout() {
    let broker = Broker::with_app("authorized_timeout_s = 1");
    let mut user = broker.signed_in("ann");
    let mut private = broker.subscriber("private-room");
    let mut member = broker.joined("presence-room", "ann");
    let anonymous = broker.connect();
    let public = broker.subscriber("public-room");

    let message = anonymous.expect_end_with(4009);
    assert_eq!(message, "Connection not authorized within timeout");
    public.expect_end_with(4009);

    user.expect_served();
    private.expect_served();
    member.expect_served();
}

#[test]
fn p60_a_failed_subscription_does_not_authorize() {
    let broker = Broker::with_app("authorized_timeout_s = 1");
    let mut client = broker.connect();
    client.ask(&json!({ "channel": "private-room", "auth": "app-key:forged" }));
    client.expect_any_refusal("private-room", "AuthError");
    client.expect_end_with(4009);
}

#[test]
fn p60_nobody_is_closed_while_it_is_switched_off() {
    let broker = Broker::of("connection.ping_after_s = 1", "client_events = true");
    let mut anonymous = broker.raw();
    for _ in 0..2 {
        let payload = anonymous.expect(crate::support::Opcode::PING);
        anonymous.send(crate::support::Opcode::PONG, &payload);
    }
    anonymous.expect_served();
}
