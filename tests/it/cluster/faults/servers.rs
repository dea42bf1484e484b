//! Fail-overs of Sentinels and of a Redis Cluster, and slots that move.

use std::time::Instant;

use crate::support::{Fleet, Load, RedisCluster, Sentinels, Trouble};

#[test]
fn a_replica_that_sentinels_promote_is_followed() {
    let mut redis = Sentinels::start();
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    // A replica may lack the latest.
    load.trouble(Trouble::RedisForgets);
    redis.servers[0].kill();
    redis.expect_master(1);
    let mended = Instant::now();
    load.recover(&fleet);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}

#[test]
fn a_replica_that_a_redis_cluster_promotes_is_followed() {
    let mut redis = RedisCluster::with_replicas();
    let fleet = Fleet::start(&redis, 2);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::RedisForgets);
    let slots: Vec<u16> = (0..64).map(|partition| slot_of(&redis, partition)).collect();
    let slot = *slots.iter().find(|slot| redis.owner(**slot) == 0).expect("a partition of the first master");
    redis.nodes[0].kill();
    redis.expect_owner(slot, 3);
    let mended = Instant::now();
    load.recover(&fleet);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}

#[test]
fn slots_move_to_another_server_and_nothing_is_refused_or_lost() {
    let redis = RedisCluster::start();
    let fleet = Fleet::start(&redis, 2);
    let mut load = Load::begin(&fleet);
    let slots: Vec<u16> = (0..64).map(|partition| slot_of(&redis, partition)).collect();
    let moving: Vec<u16> = slots.into_iter().filter(|slot| redis.owner(*slot) == 0).collect();
    assert!(moving.len() > 10, "{moving:?}");
    for slot in moving {
        redis.begin_move(slot, 1);
        load.go_on(&fleet, 1);
        redis.move_keys(slot, 1);
        redis.finish_move(slot, 1);
    }
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, Instant::now());
    assert_eq!((summary.refused, summary.dropped), (0, 0), "{summary:?}");
}

fn slot_of(redis: &RedisCluster, partition: u8) -> u16 {
    redis.slot(&format!("fanfare:{{{partition}}}:nodes"))
}
