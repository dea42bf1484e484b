//! What runs in Redis decides like the hub: the same sequence of operations, told to both, leads to the same.
//!
//! The nodes are played here: each says to a real Redis what a node would say. Their clock is a key, and every access to a
//! key that a script has not declared is an error.

mod happened;
mod nodes;
mod rules;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::world::{NODES, USERS, WORKERS, World};
use crate::support::{RedisServer, until};

/// Times after which something ends: leaves, pauses between counts, quiet after a miss, cached events.
const EDGES_MS: &[u64] = &[1, 2999, 3000, 4999, 5000, 9999, 10_000, 29_999, 30_000];

#[derive(Clone, Debug)]
enum Action {
    Join { worker: usize, channel: usize, user: usize },
    Crowd { channel: usize, count: usize },
    Leave { which: usize },
    LeaveAll,
    Watch { worker: usize, user: usize },
    Publish { channel: usize },
    ClientEvent { which: usize },
    Terminate { user: usize },
    Wait { ms: u64 },
    Die,
    Stray { offset: i64 },
    LookBack { channel: usize, back: usize },
    LookFromTheFuture { channel: usize },
    Restart,
}

/// Something a node does, and whether the answer is lost, so that it is done twice.
#[derive(Clone, Debug)]
struct Move {
    node: usize,
    twice: bool,
    action: Action,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let channel = || 0usize..10;
    let action = prop_oneof![
        10 => (0..WORKERS, channel(), 0..USERS.len())
            .prop_map(|(worker, channel, user)| Action::Join { worker, channel, user }),
        8 => (0usize..1000).prop_map(|which| Action::Leave { which }),
        1 => Just(Action::LeaveAll),
        2 => (0..WORKERS, 0usize..2).prop_map(|(worker, user)| Action::Watch { worker, user }),
        4 => channel().prop_map(|channel| Action::Publish { channel }),
        2 => (0usize..1000).prop_map(|which| Action::ClientEvent { which }),
        1 => (0usize..2).prop_map(|user| Action::Terminate { user }),
        5 => prop_oneof![1u64..4000, 1u64..40_000, prop::sample::select(EDGES_MS)].prop_map(|ms| Action::Wait { ms }),
        1 => (0usize..2, 90usize..110).prop_map(|(channel, count)| Action::Crowd { channel, count }),
        1 => Just(Action::Die),
        1 => prop_oneof![Just(1i64), Just(2)].prop_map(|offset| Action::Stray { offset }),
        2 => (channel(), 0usize..20).prop_map(|(channel, back)| Action::LookBack { channel, back }),
        1 => channel().prop_map(|channel| Action::LookFromTheFuture { channel }),
        1 => Just(Action::Restart),
    ];
    let one = (0..NODES, prop::bool::weighted(0.3), action);
    prop::collection::vec(one.prop_map(|(node, twice, action)| Move { node, twice, action }), 1..100)
}

fn play(world: &mut World, moves: Vec<Move>) {
    for Move { node, twice, action } in moves {
        match action {
            Action::Join { worker, channel, user } => world.join(node, worker, channel, user, twice),
            Action::Crowd { channel, count } => world.crowd(node, channel, count, twice),
            Action::LeaveAll => world.leave_all(node, twice),
            Action::Leave { which } => world.leave(which, twice),
            Action::Watch { worker, user } => world.watch(node, worker, user, twice),
            Action::Publish { channel } => world.publish(node, channel, twice),
            Action::ClientEvent { which } => world.client_event(which, twice),
            Action::Terminate { user } => world.terminate(node, user, twice),
            Action::Wait { ms } => world.wait(Duration::from_millis(ms), node, twice),
            Action::Die => world.die(node, twice),
            Action::Stray { offset } => world.stray(node, offset),
            Action::LookBack { channel, back } => world.look_back(node, channel, back, twice),
            Action::LookFromTheFuture { channel } => world.look_from_the_future(node, channel, twice),
            Action::Restart => world.restart(),
        }
        world.compare(node, twice);
    }
    world.end();
}

#[track_caller]
fn agree(server: &RedisServer, sharded: bool, cases: u32) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let log_bytes = prop_oneof![Just(0usize), Just(700), Just(1 << 20)];
    let outcome = TestRunner::new(config).run(&(log_bytes, moves()), |(log_bytes, moves)| {
        play(&mut World::new(server, sharded, log_bytes), moves);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn under_random_operations_many_nodes_are_as_one_hub() {
    agree(&RedisServer::start(), false, 50);
}

#[test]
fn in_a_redis_cluster_many_nodes_are_as_one_hub() {
    let server = RedisServer::with(&["--cluster-enabled", "yes"]);
    let mut redis = server.connect();
    let mut cluster = |words: &[&str]| -> String {
        deadpool_redis::redis::cmd("CLUSTER").arg(words).query(&mut redis).expect("an answer")
    };
    cluster(&["ADDSLOTSRANGE", "0", "16383"]);
    until("a cluster of one", || cluster(&["INFO"]).contains("cluster_state:ok"));
    agree(&server, true, 15);
}
