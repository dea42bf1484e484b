//! One event, many subscribers.

use std::io;
use std::time::{Duration, Instant};

use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

const CHANNEL: &str = "arena";

pub(super) fn all() -> Vec<Scenario> {
    let mut all = Vec::new();
    for (subscribers, per_second) in [(100, 400.0), (1_000, 50.0), (10_000, 5.0)] {
        for (bytes, name) in [(100, "100b"), (1_024, "1k"), (10_000, "10k")] {
            // The same number of bytes a second is not the point, the load's core is.
            let per_second = if bytes > 5_000 { per_second / 2.0 } else { per_second };
            let headline = headline("cpu_us_per_delivery", "CPU per delivery", "µs");
            let headline =
                if bytes == 100 && subscribers == 1_000 { headline.times_floor(1.15) } else { headline };
            all.push(Scenario::new(
                format!("fan-out-{subscribers}-{name}"),
                format!("{per_second} events of {bytes} bytes a second to {subscribers} subscribers."),
                vec![headline],
                move |stage| fan_out(stage, subscribers, bytes, per_second),
            ));
        }
    }
    all.push(Scenario::new(
        "publishers-8",
        "8 backends publish to 1,000 subscribers, each as fast as it is answered.",
        vec![
            headline("cpu_us_per_delivery", "CPU per delivery, 8 publishers", "µs").times_floor(0.25),
            headline("us_per_delivery", "time per delivery", "µs"),
        ],
        publishers,
    ));
    all.push(Scenario::new(
        "latency",
        "100 events a second to 1,000 subscribers; how late each delivery is, from when its event was due.",
        vec![
            headline("latency_p99_ms", "p99 latency", "ms").times_floor(1.2),
            headline("latency_p50_ms", "median latency", "ms"),
            headline("cpu_us_per_delivery", "CPU per delivery", "µs"),
        ],
        |stage| fan_out(stage, 1_000, 100, 100.0),
    ));
    all
}

fn subscribers(stage: &mut Stage, count: usize, streams: u16) -> io::Result<u64> {
    let count = stage.many(count);
    for id in stage.gather(count, |_| vec![CHANNEL.to_owned()])? {
        for stream in 0..streams {
            stage.desk.ledger.owe(id, stream);
        }
    }
    Ok(count as u64)
}

fn fan_out(stage: &mut Stage, count: usize, bytes: usize, per_second: f64) -> io::Result<()> {
    let count = subscribers(stage, count, 1)?;
    stage.callers(1);
    let address = stage.crowd.address();
    let load = |stage: &mut Stage, time: Duration| {
        let events = stage.paced(per_second, time, |desk, _, due| {
            pusher::publish(address, CHANNEL, &desk.data(0, due, bytes))
        })?;
        stage.settle().map(|()| events)
    };
    let warm_up = stage.seconds(0.5);
    load(stage, warm_up)?;
    stage.desk.ledger.forget_latency();
    let meter = stage.meter();
    let time = stage.seconds(4.0);
    let events = load(stage, time)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_delivery", spent.cpu_us_per(events * count));
    stage.figure("deliveries_per_s", spent.per_second(events * count));
    stage.latencies();
    Ok(())
}

fn publishers(stage: &mut Stage) -> io::Result<()> {
    const PUBLISHERS: u16 = 8;
    let count = subscribers(stage, 1_000, PUBLISHERS)?;
    let callers = stage.callers(usize::from(PUBLISHERS));
    let address = stage.crowd.address();
    let events = stage.many(2_000);
    let meter = stage.meter();
    // Each publisher has a stream of its own: between them there is no order.
    stage.at_full_speed(events, |desk, _, caller| {
        let data = desk.data((caller - callers[0]) as u16, Instant::now(), 100);
        pusher::publish(address, CHANNEL, &data)
    })?;
    stage.settle()?;
    let spent = stage.measured(&meter);
    let deliveries = events as u64 * count;
    stage.figure("cpu_us_per_delivery", spent.cpu_us_per(deliveries));
    stage.figure("us_per_delivery", spent.time.as_secs_f64() * 1e6 / deliveries as f64);
    stage.latencies();
    Ok(())
}
