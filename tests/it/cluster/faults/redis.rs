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
fn what_a_redis_counts_again_is_not_taken_for_what_it_has_lost() {
    let mut redis = RedisServer::start();
    let fleet = Fleet::with(&redis, 3, "", "");
    let mut listener = fleet[0].subscriber("news");
    let mut tell = |publisher: usize, numbers: std::ops::Range<u32>| {
        for number in numbers {
            fleet[publisher].publish("news", "e", &number.to_string());
            listener.expect_event("news", "e", &number.to_string());
        }
    };
    tell(1, 0..5);
    redis.command::<()>(&["SAVE"]);
    tell(1, 5..10);
    redis.kill();
    fleet.until_unready();
    redis.restart();
    fleet.until_ready();
    // Of this node nothing is lost: it goes on where Redis does.
    tell(2, 10..20);
    tell(1, 20..30);
    let lost = |node: usize| fleet[node].figure("fanfare_cluster_gap_messages_total{outcome=\"lost\"}");
    assert_eq!((0..3).map(lost).sum::<f64>(), 0.0);
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
