//! Connections that come and go, one by one and all at once; and whether anything stays behind.

use std::io;
use std::time::{Duration, Instant};

use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

/// Clients under way at a time.
const AT_A_TIME: usize = 64;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "churn",
            "20,000 clients, 64 at a time: connect, subscribe to a channel of their own, close.",
            vec![headline("cpu_us_per_cycle", "CPU per connect, subscribe, close", "µs").times_floor(2.2)],
            churn,
        ),
        Scenario::new(
            "memory-back",
            "10,000 clients connect, subscribe and leave, three times over; what the process holds each time.",
            vec![
                headline("rss_after_times_before", "memory after 10,000 have gone / before they came", "×")
                    .at_most(1.1),
                headline("rss_third_times_second", "memory with the third 10,000 / the second", "×").at_most(1.1),
            ],
            memory_back,
        )
        .beyond_floor(),
        Scenario::new(
            "reconnect-storm",
            "The server is killed and started again; 5,000 clients come back at once and subscribe.",
            vec![
                headline("cpu_us_per_return", "CPU per return after a restart", "µs"),
                headline("seconds_until_all_are_back", "time until all are back", "s"),
            ],
            storm,
        ),
    ]
}

fn own_channel(at: usize) -> Vec<String> {
    vec![format!("own-{at}")]
}

fn cycles(stage: &mut Stage, count: usize) -> io::Result<()> {
    let (ready, gone) = (stage.desk.ready, stage.desk.gone);
    let mut under_way: Vec<usize> = Vec::new();
    for at in 0..count {
        under_way.push(stage.begin(own_channel(at), at)?);
        if under_way.len() == AT_A_TIME || at + 1 == count {
            stage.until("clients subscribe", |desk| desk.ready > ready + at)?;
            for id in under_way.drain(..) {
                stage.desk.may_go(id);
                stage.crowd.leave(id)?;
            }
            stage.until("connections end", |desk| desk.gone > gone + at)?;
        }
    }
    Ok(())
}

fn churn(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(20_000);
    let warm_up = stage.many(1_000);
    cycles(stage, warm_up)?;
    let before = stage.server.sample();
    let meter = stage.meter();
    cycles(stage, count)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_cycle", spent.cpu_us_per(count as u64));
    stage.figure("cycles_per_s", spent.per_second(count as u64));
    stage.rest(Duration::from_millis(300))?;
    let after = stage.server.sample();
    stage.expect_no_more_files(&before, &after);
    stage.figure("rss_after_times_before", after.rss_bytes as f64 / before.rss_bytes as f64);
    Ok(())
}

fn memory_back(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(10_000);
    // What is made once, by the first connections, is no leak.
    let first = stage.many(1_000);
    cycles(stage, first)?;
    let pause = stage.seconds(3.0);
    stage.rest(pause)?;
    let before = stage.server.sample();
    let meter = stage.meter();
    let mut held = Vec::new();
    for _ in 0..3 {
        let ids = stage.gather(count, own_channel)?;
        held.push(stage.server.sample().rss_bytes as f64);
        stage.dismiss(&ids)?;
    }
    // An allocator may give back what is free a little later.
    stage.rest(pause * 4)?;
    stage.measured(&meter);
    let after = stage.server.sample();
    stage.expect_no_more_files(&before, &after);
    let channels = stage.ask(pusher::channels(stage.crowd.address()))?;
    if channels.contains("own-") {
        stage.fault(format!("channels that nobody is in: {channels:.200}"));
    }
    stage.figure("rss_before_mib", before.rss_bytes as f64 / 1_048_576.0);
    stage.figure("rss_after_mib", after.rss_bytes as f64 / 1_048_576.0);
    stage.figure("rss_after_times_before", after.rss_bytes as f64 / before.rss_bytes as f64);
    stage.figure("rss_third_times_second", held[2] / held[1]);
    Ok(())
}

fn storm(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(5_000);
    let wants = |at: usize| vec![format!("room-{}", at % 100), format!("private-user-{at}")];
    let ids = stage.gather(count, wants)?;
    for id in &ids {
        stage.desk.may_go(*id);
    }
    stage.server.restart()?;
    stage.until("connections end", |desk| desk.gone >= count)?;
    stage.server.wait()?;
    let meter = stage.meter();
    let begin = Instant::now();
    let ready = stage.desk.ready;
    // Nobody waits for anybody: all handshakes are under way together.
    for at in 0..count {
        stage.begin(wants(at), at)?;
        if at % 256 == 255 {
            stage.turn(Instant::now())?;
        }
    }
    stage.until("clients are back", |desk| desk.ready >= ready + count)?;
    stage.figure("seconds_until_all_are_back", begin.elapsed().as_secs_f64());
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_return", spent.cpu_us_per(count as u64));
    Ok(())
}
