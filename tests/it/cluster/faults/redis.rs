//! A Redis that ends, halts and forgets.

use std::time::{Duration, Instant};

use crate::support::{Fleet, Load, RedisServer, Trouble, until_within};

#[test]
fn a_redis_that_comes_back_with_its_data_has_cost_nothing_but_time() {
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::RedisAway);
    redis.kill();
    load.until_refused(&fleet);
    fleet.until_unready();
    redis.restart();
    let mended = Instant::now();
    load.recover(&fleet);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}

#[test]
fn a_redis_that_comes_back_with_nothing_is_told_everything_again() {
    let mut redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::RedisForgets);
    redis.kill();
    load.until_refused(&fleet);
    fleet.until_unready();
    redis.restart();
    let mended = Instant::now();
    load.recover(&fleet);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}

#[test]
fn a_redis_that_is_emptied_is_told_everything_again() {
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::RedisForgets);
    redis.command::<()>(&["FLUSHALL"]);
    let mended = Instant::now();
    load.recover(&fleet);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}

#[test]
fn a_redis_that_halts_for_twenty_seconds_costs_nobody_a_connection() {
    const HALT: Duration = Duration::from_secs(20);
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::RedisAway);
    redis.pause();
    let paused = Instant::now();
    load.until_refused(&fleet);
    fleet.until_unready();
    until_within(HALT * 2, "twenty seconds have passed", || paused.elapsed() >= HALT);
    redis.resume();
    let mended = Instant::now();
    load.recover(&fleet);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, mended);
    assert_eq!(summary.dropped, 0, "{summary:?}");
}
