//! Connections to Redis that are lost, while Redis is well.

use std::time::Instant;

use crate::support::{Fleet, Load, RedisCluster, RedisServer, until};

/// Ends the connections by which these many nodes listen, once they all do.
fn kill_bus(redis: &RedisServer, nodes: usize) {
    let listening = || redis.command::<String>(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().count();
    until("all nodes listen", || listening() >= nodes);
    redis.command::<()>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
}

#[test]
fn what_is_missed_while_the_bus_is_cut_is_delivered_later() {
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    for _ in 0..3 {
        kill_bus(&redis, 3);
        load.go_on(&fleet, 30);
    }
    let summary = load.finish(&fleet, Instant::now());
    assert_eq!((summary.refused, summary.dropped), (0, 0), "{summary:?}");
}

#[test]
fn what_is_asked_on_a_connection_that_is_cut_is_done_once() {
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 2);
    let mut load = Load::begin(&fleet);
    for _ in 0..3 {
        redis.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
        load.go_on(&fleet, 30);
    }
    let summary = load.finish(&fleet, Instant::now());
    assert_eq!((summary.refused, summary.dropped), (0, 0), "{summary:?}");
}

#[test]
fn the_bus_of_a_redis_cluster_heals_too() {
    let redis = RedisCluster::start();
    let fleet = Fleet::start(&redis, 2);
    let mut load = Load::begin(&fleet);
    for _ in 0..3 {
        redis.nodes.iter().for_each(|node| kill_bus(node, 2));
        load.go_on(&fleet, 30);
    }
    let summary = load.finish(&fleet, Instant::now());
    assert_eq!((summary.refused, summary.dropped), (0, 0), "{summary:?}");
}
