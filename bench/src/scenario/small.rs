//! Many channels with few subscribers: what a publish, a batch and a client event cost by themselves.

use std::io;
use std::time::{Duration, Instant};

use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

/// Backends that publish at a time.
const CALLERS: usize = 8;

/// Client events said before the load looks around: doing so after each would be most of its work.
const TOGETHER: usize = 16;

/// Events of one batch; Pusher takes ten.
const BATCH: usize = 10;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "many-channels",
            "6,000 channels with one subscriber each; 8 backends publish to one after the other, signed.",
            vec![headline("cpu_us_per_publish", "CPU per publish", "µs").times_floor(1.4)],
            many_channels,
        ),
        Scenario::new(
            "batches",
            "The same with ten events in each call.",
            vec![headline("cpu_us_per_event", "CPU per event of a batch", "µs")],
            batches,
        ),
        Scenario::new(
            "client-events",
            "500 pairs of clients on private channels tell each other something, 20,000 times a second.",
            vec![headline("cpu_us_per_event", "CPU per client event", "µs").times_floor(1.4)],
            client_events,
        ),
    ]
}

fn channel(number: usize) -> String {
    format!("room-{number}")
}

/// One subscriber for each channel. Its stream has the channel's number.
fn rooms(stage: &mut Stage, count: usize) -> io::Result<usize> {
    // So many that no channel gets another event while one is under way: between two calls there is no order.
    let count = stage.many(count).max(4 * CALLERS * BATCH);
    let ids = stage.gather(count, |at| vec![channel(at)])?;
    for (at, id) in ids.into_iter().enumerate() {
        stage.desk.ledger.owe(id, at as u16);
    }
    stage.callers(CALLERS);
    Ok(count)
}

fn many_channels(stage: &mut Stage) -> io::Result<()> {
    let rooms = rooms(stage, 6_000)?;
    let address = stage.crowd.address();
    let publishes = stage.many(100_000);
    let meter = stage.meter();
    stage.at_full_speed(publishes, |desk, number, _| {
        let room = number % rooms;
        pusher::publish(address, &channel(room), &desk.data(room as u16, Instant::now(), 100))
    })?;
    stage.settle()?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_publish", spent.cpu_us_per(publishes as u64));
    stage.figure("publishes_per_s", spent.per_second(publishes as u64));
    stage.latencies();
    Ok(())
}

fn batches(stage: &mut Stage) -> io::Result<()> {
    let rooms = rooms(stage, 6_000)?;
    let address = stage.crowd.address();
    let batches = stage.many(10_000);
    let meter = stage.meter();
    stage.at_full_speed(batches, |desk, number, _| {
        let event = |at: usize| {
            let room = (number * BATCH + at) % rooms;
            (channel(room), desk.data(room as u16, Instant::now(), 100))
        };
        let events: Vec<(String, String)> = (0..BATCH).map(event).collect();
        pusher::publish_batch(address, &events)
    })?;
    stage.settle()?;
    let spent = stage.measured(&meter);
    let events = (batches * BATCH) as u64;
    stage.figure("cpu_us_per_event", spent.cpu_us_per(events));
    stage.figure("events_per_s", spent.per_second(events));
    stage.latencies();
    Ok(())
}

fn client_events(stage: &mut Stage) -> io::Result<()> {
    let pairs = stage.many(500);
    let name = |pair: usize| format!("private-pair-{pair}");
    let ids = stage.gather(pairs * 2, |at| vec![name(at / 2)])?;
    for pair in 0..pairs {
        // What the first says, the second is owed, and the other way round.
        stage.desk.ledger.owe(ids[pair * 2 + 1], (pair * 2) as u16);
        stage.desk.ledger.owe(ids[pair * 2], (pair * 2 + 1) as u16);
    }
    let per_second = if pairs < 500 { 500.0 } else { 20_000.0 };
    let time = stage.seconds(5.0);
    let events = (per_second * time.as_secs_f64()) as usize;
    let meter = stage.meter();
    let begin = Instant::now();
    let due = |number: usize| begin + Duration::from_secs_f64(number as f64 / per_second);
    for number in 0..events {
        let from = number % (pairs * 2);
        let data = stage.desk.data(from as u16, due(number - number % TOGETHER), 100);
        stage.crowd.say(ids[from], &pusher::client_event(&name(from / 2), &data))?;
        if (number + 1).is_multiple_of(TOGETHER) {
            stage.turn(due(number + 1))?;
            while Instant::now() < due(number + 1) {
                stage.turn(due(number + 1))?;
            }
        }
    }
    stage.settle()?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_event", spent.cpu_us_per(events as u64));
    stage.figure("events_per_s", spent.per_second(events as u64));
    stage.latencies();
    Ok(())
}
