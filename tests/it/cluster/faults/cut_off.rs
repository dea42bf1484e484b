//! A node that is cut off from Redis, and from nobody else.

use std::time::Instant;

use serde_json::json;

use crate::support::{Answer, Backend, Fleet, Island, Load, RedisServer, Trouble, until};

/// Where islands are, so that their backends may be told.
const NETWORKS: &str = "webhooks.allowed_networks = [\"198.18.0.0/15\"]";

/// A receiver of webhooks that the island and all others reach.
fn backend_for(island: &Island) -> Backend {
    Backend::listen((island.clients_host(), 0).into(), |_| Answer::Status(200))
}

#[test]
fn an_island_is_reached_over_one_link_while_the_other_is_cut() {
    let Some(island) = Island::new() else { return };
    let fleet = Fleet::telling(backend_for(&island), &String::new(), 0, NETWORKS, "");
    let node = island.node(&fleet, "");
    let mut client = node.subscriber("news");
    island.cut();
    node.publish("news", "e", "x");
    client.expect_event("news", "e", "x");
    island.mend();
    until("its webhook is told", || !fleet.backend().so_far().is_empty());
}

#[test]
fn a_node_that_is_cut_off_keeps_its_clients_is_given_up_and_catches_up() {
    let Some(island) = Island::new() else { return };
    let host = island.redis_host().to_string();
    let redis = RedisServer::with(&["--bind", "127.0.0.1", &host, "--protected-mode", "no"]);
    let app = "client_events = true\nsubscription_counts = true";
    let mut fleet = Fleet::telling(backend_for(&island), &redis, 2, NETWORKS, app);
    let far = redis.url().replace("127.0.0.1", &host);
    fleet.add(island.node(&fleet, &far));
    fleet.until_ready();
    let mut load = Load::begin(&fleet);

    load.trouble(Trouble::CutOff(2));
    fleet.doors().shut(2);
    island.cut();
    load.until_given_up(&fleet, 2);
    load.go_on(&fleet, 30);
    assert_eq!(fleet.readiness(2).0, 503);
    let mut client = fleet[2].connect();
    client.expect_served();
    let event = json!({ "name": "e", "channel": "news", "data": "x" });
    let mut http = fleet[2].http();
    http.send(fleet[2].post("/events", &event).bytes());
    assert_eq!(http.reply().status, 503);
    client.leave();

    island.mend();
    let mended = Instant::now();
    fleet.until_ready();
    fleet.doors().open(2);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}
