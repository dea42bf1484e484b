//! Connections that do nothing: what they hold, what it cost to let them in, and to hear that they live.

use std::io;
use std::time::Duration;

use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "idle",
            "10,000 clients connect, subscribe to one of 100 channels and keep still; then each says pusher:ping.",
            vec![
                headline("rss_bytes_per_connection", "memory per idle connection", "B").at_most(2_500.0),
                headline("cpu_us_per_handshake", "CPU per handshake and subscription", "µs"),
                headline("cpu_us_per_heartbeat", "CPU per heartbeat", "µs"),
            ],
            |stage| idle(stage, 10_000, 1),
        ),
        Scenario::new(
            "idle-ten",
            "10,000 clients with ten subscriptions each, to 100 channels.",
            vec![headline("rss_bytes_per_connection", "memory per idle connection", "B").at_most(3_500.0)],
            |stage| idle(stage, 10_000, 10),
        ),
        Scenario::new(
            "idle-tls",
            "5,000 clients connect with TLS 1.3, subscribe to one of 100 channels and keep still; then each says pusher:ping.",
            vec![
                headline("rss_bytes_per_connection", "memory per idle connection with TLS", "B").at_most(6_000.0),
                headline("cpu_us_per_handshake", "CPU per handshakes of both kinds and subscription", "µs"),
            ],
            |stage| idle(stage, 5_000, 1),
        )
        .secure(),
    ]
}

fn idle(stage: &mut Stage, clients: usize, channels: usize) -> io::Result<()> {
    let clients = stage.many(clients);
    // A first one, so that what is made once is not counted.
    stage.gather(1, |_| vec!["warm".to_owned()])?;
    let before = stage.server.sample();
    let meter = stage.meter();
    let ids = stage.gather(clients, |at| {
        (0..channels).map(|number| format!("room-{}", (at + number) % 100)).collect()
    })?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_handshake", spent.cpu_us_per(clients as u64));
    stage.figure("handshakes_per_s", spent.per_second(clients as u64));
    stage.rest(Duration::from_millis(500))?;
    let held = stage.server.sample().rss_bytes.saturating_sub(before.rss_bytes);
    stage.figure("rss_bytes_per_connection", held as f64 / clients as f64);
    let meter = stage.meter();
    let pongs = stage.desk.pongs;
    for id in &ids {
        stage.crowd.say(*id, pusher::PING)?;
    }
    stage.until("pongs", |desk| desk.pongs >= pongs + ids.len() as u64)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_heartbeat", spent.cpu_us_per(clients as u64));
    Ok(())
}
