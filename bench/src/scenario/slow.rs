//! Clients that hold others up, if they can: slow ones, and very many.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::crowd::{Crowd, Heard};
use crate::ledger;
use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "slow-readers",
            "200 subscribers, 50 events of 10,000 bytes a second; then the same while 20 more never read.",
            vec![
                headline("p99_times_without", "p99 of the healthy, with slow readers / without", "×")
                    .at_most(1.2),
                headline("rss_growth_mib", "memory for 20 slow readers", "MiB"),
            ],
            slow_readers,
        ),
        Scenario::new(
            "burst",
            "1,000 clients stop reading while 1 MiB is published to each of them, and read again.",
            vec![
                headline("rss_after_times_before", "memory after 1 MiB to every socket / before", "×")
                    .at_most(1.1),
                headline("rss_peak_mib", "memory at the peak", "MiB"),
            ],
            burst,
        )
        .beyond_floor(),
        Scenario::new(
            "crowd",
            "5 events a second to 10,000 subscribers of one channel; how long the pongs of a client beside them take.",
            vec![
                headline("others_p99_ms", "p99 of a pong beside 10,000 subscribers", "ms"),
                headline("others_max_ms", "longest wait for a pong", "ms").at_most(20.0),
            ],
            crowd,
        ),
    ]
}

const BYTES: usize = 10_000;

fn slow_readers(stage: &mut Stage) -> io::Result<()> {
    stage.crowd.use_small_segments();
    let healthy = stage.many(200);
    let slow = stage.many(20).min(healthy);
    let ids = stage.gather(healthy, |_| vec!["arena".to_owned()])?;
    for id in ids {
        stage.desk.ledger.owe(id, 0);
    }
    stage.callers(1);
    let address = stage.crowd.address();
    let load = |stage: &mut Stage| {
        stage.desk.ledger.forget_latency();
        let time = stage.seconds(5.0);
        stage
            .paced(50.0, time, |desk, _, due| pusher::publish(address, "arena", &desk.data(0, due, BYTES)))?;
        stage.settle()?;
        stage.latencies();
        Ok::<f64, io::Error>(stage.outcome.figures["latency_p99_ms"])
    };
    load(stage)?; // a warm-up
    let without = load(stage)?;
    let before = stage.server.sample().rss_bytes;
    for id in stage.gather(slow, |_| vec!["arena".to_owned()])? {
        stage.crowd.stop_reading(id);
        stage.desk.may_go(id);
    }
    let meter = stage.meter();
    let with = load(stage)?;
    stage.measured(&meter);
    let grown = stage.server.sample().rss_bytes.saturating_sub(before);
    stage.figure("p99_without_ms", without);
    stage.figure("p99_times_without", with / without);
    stage.figure("rss_growth_mib", grown as f64 / 1_048_576.0);
    Ok(())
}

fn burst(stage: &mut Stage) -> io::Result<()> {
    stage.crowd.use_small_segments();
    let count = stage.many(1_000).max(100);
    // Not more than Fanfare's limit for what waits, above which it gives a client up.
    let events = 1_048_576 / BYTES;
    let ids = stage.gather(count, |at| vec![format!("own-{at}")])?;
    for (at, id) in ids.iter().enumerate() {
        stage.desk.ledger.owe(*id, at as u16);
    }
    stage.callers(8);
    let address = stage.crowd.address();
    let publish = |stage: &mut Stage, rounds: usize| {
        stage.at_full_speed(count * rounds, |desk, number, _| {
            let at = number % count;
            pusher::publish(address, &format!("own-{at}"), &desk.data(at as u16, Instant::now(), BYTES))
        })
    };
    // Everybody has had an event: what is made once is made.
    publish(stage, 1)?;
    stage.settle()?;
    let before = stage.server.sample();
    let meter = stage.meter();
    for id in &ids {
        stage.crowd.stop_reading(*id);
    }
    publish(stage, events)?;
    let peak = stage.server.sample();
    for id in &ids {
        stage.crowd.read_again(*id)?;
    }
    stage.settle()?;
    let pause = stage.seconds(12.0);
    stage.rest(pause)?;
    stage.measured(&meter);
    let after = stage.server.sample();
    stage.figure("rss_before_mib", before.rss_bytes as f64 / 1_048_576.0);
    stage.figure("rss_peak_mib", peak.rss_bytes as f64 / 1_048_576.0);
    stage.figure("rss_after_mib", after.rss_bytes as f64 / 1_048_576.0);
    stage.figure("rss_after_times_before", after.rss_bytes as f64 / before.rss_bytes as f64);
    Ok(())
}

fn crowd(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(10_000);
    for id in stage.gather(count, |_| vec!["arena".to_owned()])? {
        stage.desk.ledger.owe(id, 0);
    }
    stage.callers(2);
    let address = stage.crowd.address();
    let time = stage.seconds(8.0);
    // A thread of its own: the crowd's loop is as busy as the server while it reads 10,000 sockets.
    let bystander = thread::spawn(move || pings(address, time));
    let meter = stage.meter();
    let events =
        stage.paced(5.0, time, |desk, _, due| pusher::publish(address, "arena", &desk.data(0, due, 100)))?;
    stage.settle()?;
    let spent = stage.measured(&meter);
    let waits = bystander.join().map_err(|_| io::Error::other("the bystander has panicked"))??;
    stage.figure("cpu_us_per_delivery", spent.cpu_us_per(events * count as u64));
    stage.figure("others_p50_ms", waits.value_at_quantile(0.5) as f64 / 1e6);
    stage.figure("others_p99_ms", waits.value_at_quantile(0.99) as f64 / 1e6);
    stage.figure("others_max_ms", waits.max() as f64 / 1e6);
    stage.latencies();
    Ok(())
}

/// One client that pings every 5 ms, whether it has been answered or not. How late the pongs were, in
/// nanoseconds from when their pings were due.
fn pings(address: SocketAddr, time: Duration) -> io::Result<Histogram<u64>> {
    const EVERY: Duration = Duration::from_millis(5);
    // Before the crowd's thread, which has the same core. Without the right to do so, it may wait for it.
    let _ = rustix::process::nice(-15);
    let mut crowd = Crowd::new(vec![address], None)?;
    let id = crowd.client_of(0)?;
    let mut waits = ledger::histogram();
    let mut open = false;
    let mut asked: VecDeque<Instant> = VecDeque::new();
    let end = Instant::now() + time;
    let mut due = Instant::now() + EVERY;
    // Those still unanswered at the end have a little longer.
    while Instant::now() < end || (!asked.is_empty() && Instant::now() < end + Duration::from_secs(1)) {
        if open && due < end && Instant::now() >= due {
            crowd.say(id, pusher::PING)?;
            asked.push_back(due);
            due += EVERY;
        }
        crowd.turn(due.min(Instant::now() + EVERY), &mut |_, _, heard| {
            match heard {
                Heard::Opened(_) => open = true,
                Heard::Closed => return Err(io::Error::other("the bystander's connection was closed")),
                Heard::Message(_) => waits.saturating_record(asked.pop_front().map_or(0, nanos_since)),
                Heard::Reply(..) => {}
            }
            Ok(())
        })?;
        if !open {
            due = Instant::now() + EVERY;
        }
    }
    match asked.is_empty() && !waits.is_empty() {
        true => Ok(waits),
        false => Err(io::Error::other("the bystander's pings were not answered")),
    }
}

fn nanos_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
