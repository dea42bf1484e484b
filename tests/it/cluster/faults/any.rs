//! Faults as they come: some at random, in any order, under one load.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{Fleet, Load, RedisServer, Trouble, until_within};

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    NodeDies,
    NodeStops,
    NodeFreezes,
    RedisHalts,
    RedisDies,
    RedisIsEmptied,
    BusIsCut,
    CommandsAreCut,
}

const FAULTS: [Fault; 8] = [
    Fault::NodeDies,
    Fault::NodeStops,
    Fault::NodeFreezes,
    Fault::RedisHalts,
    Fault::RedisDies,
    Fault::RedisIsEmptied,
    Fault::BusIsCut,
    Fault::CommandsAreCut,
];

/// A cluster in bad luck.
struct Victim {
    fleet: Fleet,
    load: Load,
    redis: RedisServer,
    luck: StdRng,
}

impl Victim {
    fn suffer(&mut self, fault: Fault) {
        let node = self.luck.random_range(0..3);
        let moment = Duration::from_millis(self.luck.random_range(0..1500));
        match fault {
            Fault::NodeDies => {
                self.load.trouble(Trouble::Ends(node));
                self.fleet.kill(node);
                self.last(moment);
                self.fleet.restart(node);
            }
            Fault::NodeStops => {
                self.load.trouble(Trouble::Ends(node));
                self.fleet.stop(node);
                self.last(moment);
                self.fleet.restart(node);
            }
            Fault::NodeFreezes => {
                self.load.trouble(Trouble::CutOff(node));
                self.fleet.freeze(node);
                self.last(moment * 4);
                self.fleet.thaw(node);
            }
            Fault::RedisHalts => {
                self.load.trouble(Trouble::RedisAway);
                self.redis.pause();
                self.last(moment * 4);
                self.redis.resume();
            }
            Fault::RedisDies => {
                self.load.trouble(Trouble::RedisForgets);
                self.redis.kill();
                self.last(moment);
                self.redis.restart();
            }
            Fault::RedisIsEmptied => {
                self.load.trouble(Trouble::RedisForgets);
                self.redis.command::<()>(&["FLUSHALL"]);
            }
            Fault::BusIsCut => self.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]),
            Fault::CommandsAreCut => self.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]),
        }
    }

    /// Lets the fault go on for a time.
    fn last(&self, time: Duration) {
        let began = Instant::now();
        until_within(time * 2 + Duration::from_secs(1), "some time has passed", || began.elapsed() >= time);
    }
}

#[test]
fn whatever_goes_wrong_one_after_the_other_the_truth_comes_out() {
    let seed = std::env::var("IT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("IT_SEED={seed}");
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 3);
    let load = Load::begin(&fleet);
    let mut victim = Victim { fleet, load, redis, luck: StdRng::seed_from_u64(seed) };
    for _ in 0..4 {
        let fault = FAULTS[victim.luck.random_range(0..FAULTS.len())];
        println!("{fault:?}");
        victim.suffer(fault);
        // The next one may come before all is well again.
        if victim.luck.random() {
            victim.load.recover(&victim.fleet);
        }
    }
    let mended = Instant::now();
    let Victim { fleet, load, .. } = victim;
    load.finish(&fleet, mended);
}
