//! What an operator does to a running server, and what the outside world does to it. Fanfare alone is asked.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::pusher::{self, APP_ID, KEY, SECRET};
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "start",
            "The server is killed and started again 20 times, with 100 apps in its file.",
            vec![
                headline("start_ms", "median time from start to serving, 100 apps", "ms"),
                headline("start_worst_ms", "the longest", "ms").at_most(300.0),
            ],
            start,
        )
        .with(|| config("", "", OTHERS)),
        Scenario::new(
            "drain",
            "10,000 clients; the server is told to stop and closes them over 10 seconds.",
            vec![
                headline("early_percent", "how much too early the worst connection was closed, of the whole time", "%")
                    .at_most(10.0),
                headline("late_percent", "how much too late", "%").at_most(10.0),
            ],
            drain,
        )
        .with(|| config("drain.spread_s = 10", "", 0)),
        Scenario::new(
            "reload",
            "2,000 clients, 100 events a second to 100 of them, while a configuration of 10,000 apps is reloaded 5 times.",
            vec![
                headline("dropped", "connections dropped", "").at_most(0.0),
                headline("p99_times_without", "p99 latency, with reloads / without", "×"),
                headline("reload_s", "from the order to its effect", "s"),
            ],
            reload,
        )
        .with(|| config("server.watch_config = false", "", 10_000)),
        Scenario::new(
            "webhooks-down",
            "100 subscribers, 200 events a second, and channels that are occupied and vacated 1,000 times a second; first \
             without webhooks, then with a receiver that takes every connection and never answers.",
            vec![
                headline("p50_times_without", "median latency, with a dead receiver / without", "×").at_most(1.1),
                headline("p99_times_without", "p99 latency, with a dead receiver / without", "×"),
                headline("cpu_times_without", "CPU of the server, with a dead receiver / without", "×"),
                headline("rss_growth_mib", "memory for what waits", "MiB").at_most(128.0),
            ],
            webhooks_down,
        )
        .with(|| config(WEBHOOK_SETTINGS, "", 0)),
    ]
}

// The clients of the load answer no pings, and may be silent for longer than is usual.
const WEBHOOK_SETTINGS: &str = "server.watch_config = false\nconnection.ping_after_s = 86400\n\
     webhooks.allowed_networks = [\"127.0.0.0/8\"]\nwebhooks.timeout_s = 2";

/// Apps beside it where 100 are asked for.
const OTHERS: usize = 99;

/// The app that every scenario has, with settings of its own, and so many others beside it.
fn config(settings: &str, of_app: &str, others: usize) -> String {
    let app = |id: &str, key: &str, secret: &str| {
        format!("[[apps]]\nid = \"{id}\"\nkeys = [{{ key = \"{key}\", secret = \"{secret}\" }}]\n")
    };
    let mut text = format!("{settings}\n{}{of_app}\n", app(APP_ID, KEY, SECRET));
    for id in 0..others {
        text.push_str(&app(&format!("other-{id}"), &format!("key-{id}"), &format!("secret-{id}")));
    }
    text
}

fn start(stage: &mut Stage) -> io::Result<()> {
    let mut took_ms = Vec::new();
    for _ in 0..stage.many(20) {
        stage.server.kill();
        let began = Instant::now();
        stage.server.restart()?;
        stage.server.wait()?;
        took_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took_ms.sort_by(f64::total_cmp);
    let last = OTHERS - 1;
    stage.until_served(&format!("other-{last}"), &format!("key-{last}"), &format!("secret-{last}"))?;
    stage.figure("start_ms", took_ms[took_ms.len() / 2]);
    stage.figure("start_worst_ms", took_ms[took_ms.len() - 1]);
    Ok(())
}

fn drain(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(10_000);
    let ids = stage.gather(count, |_| Vec::new())?;
    for id in ids {
        stage.desk.may_go(id);
    }
    // Fewer than 100 a second are not dragged out: that shortens a rehearsal.
    let over = Duration::from_secs(10).min(Duration::from_secs(1) * count as u32 / 100);
    let started = Instant::now();
    stage.desk.goodbyes.clear();
    stage.server.signal(rustix::process::Signal::TERM)?;
    stage.until("everybody is told to go", |desk| desk.goodbyes.len() >= count)?;
    let (mut early, mut late) = (0.0_f64, 0.0_f64);
    for (turn, at) in stage.desk.goodbyes.iter().enumerate() {
        let due = over.as_secs_f64() * turn as f64 / count as f64;
        let off = (*at - started).as_secs_f64() - due;
        early = early.max(-off);
        late = late.max(off);
    }
    stage.figure("early_percent", early / over.as_secs_f64() * 100.0);
    stage.figure("late_percent", late / over.as_secs_f64() * 100.0);
    stage.until("everybody has gone", |desk| desk.gone >= count)
}

fn reload(stage: &mut Stage) -> io::Result<()> {
    let (all, listening) = (stage.many(2_000), stage.many(100));
    let ids =
        stage.gather(all, |at| vec![if at < listening { "news".into() } else { format!("own-{at}") }])?;
    for id in &ids[..listening] {
        stage.desk.ledger.owe(*id, 0);
    }
    // One, since what two publish at the same time has no order.
    stage.callers(1);
    let address = stage.crowd.address();
    let load = |stage: &mut Stage| {
        stage.desk.ledger.forget_latency();
        let time = stage.seconds(2.0);
        stage.paced(100.0, time, |desk, _, due| pusher::publish(address, "news", &desk.data(0, due, 100)))?;
        stage.settle()?;
        stage.latencies();
        Ok::<f64, io::Error>(stage.outcome.figures["latency_p99_ms"])
    };
    load(stage)?; // a warm-up
    let without = load(stage)?;
    let mut with = 0.0_f64;
    for round in 1..=5 {
        order_reload(stage, round)?;
        with = with.max(load(stage)?);
        stage.until_served(&new_app(round), "new", "s")?;
    }
    let ordered = Instant::now();
    order_reload(stage, 6)?;
    stage.until_served(&new_app(6), "new", "s")?;
    let took = ordered.elapsed();
    stage.figure("p99_times_without", with / without);
    stage.figure("reload_s", took.as_secs_f64());
    stage.figure("dropped", stage.desk.gone as f64);
    Ok(())
}

fn new_app(round: usize) -> String {
    format!("new-{round}")
}

/// One app changes, one comes, one goes, and 10,000 stay.
fn order_reload(stage: &Stage, round: usize) -> io::Result<()> {
    let new = format!(
        "connections_max = {}\n[[apps]]\nid = \"{}\"\nkeys = [{{ key = \"new\", secret = \"s\" }}]",
        100_000 + round,
        new_app(round)
    );
    stage.server.rewrite(&config("server.watch_config = false", &new, 10_000))?;
    stage.server.signal(rustix::process::Signal::HUP)
}

fn webhooks_down(stage: &mut Stage) -> io::Result<()> {
    // Connections are taken by the kernel, and nobody ever reads them.
    let receiver = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", receiver.local_addr()?);
    let listening = stage.many(100);
    let ids = stage.gather(listening, |_| vec!["news".to_owned()])?;
    for id in &ids {
        stage.desk.ledger.owe(*id, 0);
    }
    let restless = stage.gather(20, |_| Vec::new())?;
    stage.callers(1);
    let without = phase(stage, &restless, 10.0)?;
    let before = stage.server.sample().rss_bytes;
    stage.server.rewrite(&config(WEBHOOK_SETTINGS, &format!("[[apps.webhooks]]\nurl = \"{url}\""), 0))?;
    stage.server.signal(rustix::process::Signal::HUP)?;
    stage.rest(Duration::from_millis(500))?;
    let with = phase(stage, &restless, 30.0 * stage.patience)?;
    let grown = stage.server.sample().rss_bytes.saturating_sub(before);
    for (name, of) in [("p50_times_without", 0), ("p99_times_without", 1), ("cpu_times_without", 2)] {
        stage.figure(name, with[of] / without[of]);
    }
    stage.figure("rss_growth_mib", grown as f64 / 1_048_576.0);
    Ok(())
}

/// Median and p99 latency in milliseconds, and the share of a core, while channels come and go.
fn phase(stage: &mut Stage, restless: &[usize], seconds: f64) -> io::Result<[f64; 3]> {
    let address = stage.crowd.address();
    stage.desk.ledger.forget_latency();
    let time = stage.seconds(seconds);
    let meter = stage.meter();
    let mut visited: VecDeque<(usize, String)> = VecDeque::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        // 5 times 5 ms: in each, two or three channels are entered and those entered before are left.
        stage.paced(200.0, Duration::from_millis(25), |desk, _, due| {
            pusher::publish(address, "news", &desk.data(0, due, 100))
        })?;
        for at in 0..12 {
            stage.visited += 1;
            let (id, channel) = (restless[at % restless.len()], format!("room-{}", stage.visited));
            stage.subscribe(id, &channel)?;
            visited.push_back((id, channel));
        }
        while visited.len() > 100 {
            if let Some((id, channel)) = visited.pop_front() {
                stage.crowd.say(id, &pusher::unsubscribe(&channel))?;
            }
        }
    }
    for (id, channel) in visited {
        stage.crowd.say(id, &pusher::unsubscribe(&channel))?;
    }
    stage.settle()?;
    stage.measured(&meter);
    stage.latencies();
    let figures = &stage.outcome.figures;
    Ok([figures["latency_p50_ms"], figures["latency_p99_ms"], figures["server_busy_percent"]])
}
