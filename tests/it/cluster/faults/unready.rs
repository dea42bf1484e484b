//! What a node says and does while Redis is away.

use serde_json::{Value, json};

use crate::support::{Client, Fleet, Http, RedisServer, Reply, Request};

/// Sends a request that may be answered with 503.
#[track_caller]
fn answer(fleet: &Fleet, node: usize, request: &Request) -> Reply {
    let mut http: Http = fleet[node].http();
    http.send(request.bytes());
    http.reply()
}

#[track_caller]
fn expect_unavailable(fleet: &Fleet, node: usize, request: &Request) {
    let reply = answer(fleet, node, request);
    assert_eq!(reply.status, 503, "{reply:?}");
    let seconds = reply.header("retry-after").expect("a hint when to come back");
    assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{reply:?}");
}

#[test]
fn while_redis_is_away_nodes_refuse_what_concerns_others_and_keep_their_clients() {
    let mut redis = RedisServer::start();
    let fleet = Fleet::with(&redis, 2, "redis.publish_timeout_ms = 500", "client_events = true");
    assert_eq!(fleet.readiness(0).1["checks"]["redis"], "ok");
    let mut clients: Vec<Client> =
        (0..2).map(|node| fleet[node].joined("presence-room", &format!("u{node}"))).collect();
    clients[0].expect_member_added("presence-room", "u1");

    redis.kill();
    fleet.until_unready();
    for node in [0, 1] {
        let complaint = fleet.readiness(node).1["checks"]["redis"].to_string();
        assert!(complaint.contains("away"), "{complaint}");
        let event = json!({ "name": "e", "channel": "presence-room", "data": "x" });
        expect_unavailable(&fleet, node, &fleet[node].post("/events", &event));
        let batch = json!({ "batch": [event] });
        expect_unavailable(&fleet, node, &fleet[node].post("/batch_events", &batch));
        for path in ["/channels", "/channels/presence-room", "/channels/presence-room/users"] {
            expect_unavailable(&fleet, node, &fleet[node].get(path));
        }
        let path = "/users/ann/terminate_connections";
        expect_unavailable(&fleet, node, &fleet[node].post(path, &json!({})));
    }
    // Sockets stay, and new ones come.
    clients[0].expect_served();
    clients[0].say("presence-room", "client-x", &json!(1));
    let refusal = clients[0].expect_error_code(&Value::Null);
    assert!(refusal.contains("try again"), "{refusal}");
    let mut late = fleet[0].connect();
    late.ask(&json!({ "channel": "news" }));
    late.expect_served();

    redis.restart();
    late.expect_succeeded("news");
    fleet.until_ready();
    assert_eq!(fleet.readiness(0).1["checks"]["redis"], "ok");
    fleet[1].publish("news", "e", "x");
    late.expect_event("news", "e", "x");
    for (node, client) in clients.iter_mut().enumerate() {
        fleet[1 - node].publish("presence-room", "e", "back");
        client.expect_event("presence-room", "e", "back");
        fleet[node].users("presence-room");
    }
}

#[test]
fn a_node_that_finds_no_redis_waits_for_it() {
    let mut redis = RedisServer::start();
    redis.kill();
    let fleet = Fleet::unready(&redis, 1);
    assert_eq!(fleet.readiness(0).0, 503);
    let mut client = fleet[0].connect();
    client.ask(&json!({ "channel": "news" }));
    client.expect_served();
    redis.restart();
    client.expect_succeeded("news");
    fleet.until_ready();
    fleet[0].publish("news", "e", "x");
    client.expect_event("news", "e", "x");
}

#[test]
fn a_node_with_the_wrong_password_is_not_ready_and_says_why() {
    let redis = RedisServer::with_password(&[]);
    let wrong = format!("redis.url = \"{}\"", redis.url().replace(crate::support::PASSWORD, "guessed"));
    let fleet = Fleet::unready(&wrong, 1);
    fleet.until_complaint(0, "assword");
}
