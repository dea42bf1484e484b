//! Nodes that a Redis makes one: what the way through it costs, and what happens when a node dies.
//!
//! Nodes and Redis share cores where there are fewer of them than processes. So rates are those of this machine; CPU per
//! unit of work is not.

use std::io;
use std::time::{Duration, Instant};

use crate::pusher;
use crate::redis::Work;
use crate::scenario::stage::{Desk, Stage};
use crate::scenario::{Scenario, headline};

/// Backends that publish at a time.
const CALLERS: usize = 8;

/// The one channel of a scenario that has one.
const ARENA: &str = "presence-arena";

pub(super) fn all() -> Vec<Scenario> {
    let publish = |nodes: usize| {
        Scenario::new(
            format!("cluster-publish-{nodes}"),
            format!(
                "2,000 channels with one subscriber each, over {nodes} node(s); 8 backends publish to one node after the \
                 other; then the same with one node that has no Redis."
            ),
            vec![
                headline("cpu_us_per_publish", "CPU per publish, of nodes and Redis", "µs"),
                headline("cpu_us_per_publish_times_local", "the same / without Redis", "×"),
                headline("us_per_publish", "time per publish", "µs"),
            ],
            many_channels,
        )
        .nodes(nodes)
        .against_local()
    };
    vec![
        publish(1),
        publish(2),
        publish(4),
        Scenario::new(
            "cluster-latency",
            "100 events a second to 100 subscribers on two nodes; then the same with one node that has no Redis.",
            vec![
                headline("latency_p50_ms_added", "median latency, added by Redis", "ms"),
                headline("latency_p99_ms_added", "p99 latency, added by Redis", "ms"),
                headline("latency_p50_ms", "median latency", "ms"),
            ],
            latency,
        )
        .nodes(2)
        .against_local(),
        Scenario::new(
            "cluster-cost",
            "Two nodes: 1,000 channels are opened, 1,000 clients join one that is open, and events are published, first \
             one at a time and then by 8 backends; what Redis has to do for it.",
            vec![
                headline("redis_scripts_per_publish", "scripts per publish, one at a time", ""),
                headline("redis_bytes_per_publish", "bytes in and out of Redis per publish", "B"),
                headline("redis_cpu_us_per_publish", "CPU of Redis per publish", "µs"),
                headline("redis_scripts_per_opening", "scripts per channel opened", ""),
                headline("redis_scripts_per_joining", "scripts per subscription to an open channel", ""),
            ],
            cost,
        )
        .nodes(2),
        Scenario::new(
            "cluster-bystander",
            "8 backends publish to 2,000 channels whose subscribers are all on one of two nodes; what that costs the other.",
            vec![
                headline("bystander_cpu_us_per_publish", "CPU of the other node per publish", "µs"),
                headline("bystander_bus_messages", "messages that the other node heard", ""),
            ],
            bystander,
        )
        .nodes(2),
        Scenario::new(
            "cluster-presence",
            "10,000 users join one presence channel over two nodes, 250 at a time.",
            vec![
                headline("cpu_us_per_join", "CPU per join, of nodes and Redis", "µs"),
                headline("cpu_us_per_member_added", "CPU per member_added delivered", "µs"),
                headline("redis_cpu_us_per_join", "CPU of Redis per join", "µs"),
            ],
            presence,
        )
        .nodes(2),
        Scenario::new(
            "cluster-node-death",
            "One of two nodes is killed; its 5,000 clients come back to the other at once, and ten members do not.",
            vec![
                headline("seconds_until_all_are_back", "time until all are back", "s"),
                headline("cpu_us_per_return", "CPU per return, of the node and Redis", "µs"),
                headline("seconds_until_members_left", "time until the dead node's members have left", "s")
                    .at_most(15.0),
            ],
            node_death,
        )
        .ours()
        .nodes(2),
    ]
}

fn channel(number: usize) -> String {
    format!("room-{number}")
}

/// One subscriber for each channel, on the node that `node_of` says. Its stream has the channel's number.
fn rooms(stage: &mut Stage, count: usize, node_of: impl Fn(usize) -> usize) -> io::Result<usize> {
    // So many that no channel gets another event while one is under way: between two calls there is no order.
    let count = stage.many(count).max(8 * CALLERS);
    let ready = stage.desk.ready;
    for at in 0..count {
        let id = stage.begin_at(node_of(at), vec![channel(at)], at)?;
        stage.desk.ledger.owe(id, at as u16);
        stage.until("clients subscribe", |desk| desk.ready + CALLERS > ready + at)?;
    }
    stage.until("clients subscribe", |desk| desk.ready >= ready + count)?;
    Ok(count)
}

fn publish_to(stage: &mut Stage, rooms: usize, publishes: usize) -> io::Result<()> {
    let address = stage.crowd.address();
    stage.at_full_speed(publishes, |desk, number, _| {
        let room = number % rooms;
        pusher::publish(address, &channel(room), &desk.data(room as u16, Instant::now(), 100))
    })?;
    stage.settle()
}

fn many_channels(stage: &mut Stage) -> io::Result<()> {
    let nodes = stage.crowd.nodes();
    let rooms = rooms(stage, 2_000, |at| at % nodes)?;
    stage.callers(CALLERS);
    let warm_up = stage.many(2_000);
    publish_to(stage, rooms, warm_up)?;
    stage.desk.ledger.forget_latency();
    let publishes = stage.many(40_000);
    let meter = stage.meter();
    publish_to(stage, rooms, publishes)?;
    let spent = stage.measured(&meter);
    let count = publishes as u64;
    stage.figure("cpu_us_per_publish", spent.cpu_us_per(count));
    stage.figure("us_per_publish", spent.time.as_secs_f64() * 1e6 / publishes as f64);
    stage.figure("deliveries_per_s", spent.per_second(count));
    if stage.redis.is_some() {
        stage.figure("redis_cpu_us_per_publish", spent.redis_cpu.as_secs_f64() * 1e6 / publishes as f64);
    }
    stage.latencies();
    Ok(())
}

fn latency(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(100);
    for id in stage.gather(count, |_| vec!["arena".to_owned()])? {
        stage.desk.ledger.owe(id, 0);
    }
    // One, since what two publish at the same time has no order.
    stage.callers(1);
    let address = stage.crowd.address();
    for (seconds, is_warm_up) in [(0.5, true), (4.0, false)] {
        let (time, meter) = (stage.seconds(seconds), stage.meter());
        let events = stage
            .paced(100.0, time, |desk, _, due| pusher::publish(address, "arena", &desk.data(0, due, 100)))?;
        stage.settle()?;
        if is_warm_up {
            stage.desk.ledger.forget_latency();
        } else {
            let spent = stage.measured(&meter);
            stage.figure("cpu_us_per_delivery", spent.cpu_us_per(events * count as u64));
        }
    }
    stage.latencies();
    Ok(())
}

/// What Redis does while something happens, beside what it does anyway.
struct Account {
    /// Of each second.
    background: Work,
    over: Duration,
}

impl Account {
    fn begin(stage: &mut Stage) -> io::Result<Self> {
        let over = stage.seconds(5.0);
        let before = work(stage)?;
        stage.rest(over)?;
        Ok(Self { background: work(stage)?.since(&before), over })
    }

    /// Notes what Redis has done since `before` for each of so many things.
    fn enter(&self, stage: &mut Stage, what: &str, count: usize, since: &(Work, Instant)) -> io::Result<()> {
        let (before, began) = since;
        let done = work(stage)?.since(before);
        let shares = began.elapsed().as_secs_f64() / self.over.as_secs_f64();
        let each = |all: f64, background: f64| ((all - background * shares) / count as f64).max(0.0);
        let of = |work: &Work| {
            [work.scripts() as f64, work.commands() as f64, work.bytes() as f64, work.cpu.as_secs_f64() * 1e6]
        };
        let names = ["scripts", "commands", "bytes", "cpu_us"];
        for ((name, all), background) in names.iter().zip(of(&done)).zip(of(&self.background)) {
            stage.figure(&format!("redis_{name}_per_{what}"), each(all, background));
        }
        Ok(())
    }
}

fn work(stage: &Stage) -> io::Result<Work> {
    stage.redis.as_ref().map_or_else(|| Ok(Work::default()), |redis| redis.work())
}

fn cost(stage: &mut Stage) -> io::Result<()> {
    let count = stage.many(1_000).max(8 * CALLERS);
    let joiners = stage.gather(count, |_| Vec::new())?;
    let openers = stage.gather(count, |_| Vec::new())?;
    let account = Account::begin(stage)?;
    let now = |stage: &Stage| io::Result::Ok((work(stage)?, Instant::now()));

    // One at a time, so that nothing travels together.
    let before = now(stage)?;
    let ready = stage.desk.ready;
    for (at, id) in openers.iter().enumerate() {
        stage.subscribe(*id, &channel(at))?;
        stage.desk.ledger.owe(*id, at as u16);
        stage.until("channels open", |desk| desk.ready > ready + at)?;
    }
    account.enter(stage, "opening", count, &before)?;

    let before = now(stage)?;
    let ready = stage.desk.ready;
    for (at, id) in joiners.iter().enumerate() {
        stage.subscribe(*id, "everybody")?;
        stage.until("clients subscribe", |desk| desk.ready > ready + at)?;
    }
    account.enter(stage, "joining", count, &before)?;

    stage.callers(1);
    let publishes = stage.many(4_000);
    let before = now(stage)?;
    publish_to(stage, count, publishes)?;
    account.enter(stage, "publish", publishes, &before)?;
    stage.callers(CALLERS - 1);
    let before = now(stage)?;
    publish_to(stage, count, publishes)?;
    account.enter(stage, "publish_of_8", publishes, &before)
}

fn bystander(stage: &mut Stage) -> io::Result<()> {
    let rooms = rooms(stage, 2_000, |_| 0)?;
    stage.callers_of(CALLERS, |_, _| 0);
    let idle_for = stage.seconds(5.0);
    let cpu = |stage: &Stage| stage.others[0].sample().cpu;
    let heard = |stage: &Stage| stage.others[0].figure("fanfare_cluster_bus_messages_total");
    let before = cpu(stage);
    stage.rest(idle_for)?;
    let idle = (cpu(stage) - before).as_secs_f64() / idle_for.as_secs_f64();
    let publishes = stage.many(40_000);
    // Pages are asked for outside of what is measured: they cost something themselves.
    let heard_before = heard(stage);
    let (before, meter) = (cpu(stage), stage.meter());
    publish_to(stage, rooms, publishes)?;
    let busy = (cpu(stage) - before).as_secs_f64();
    let spent = stage.measured(&meter);
    let extra = (busy - idle * spent.time.as_secs_f64()).max(0.0);
    stage.figure("bystander_cpu_us_per_publish", extra * 1e6 / publishes as f64);
    stage.figure("cpu_us_per_publish", spent.cpu_us_per(publishes as u64));
    if let (Some(before), Some(now)) = (heard_before, heard(stage)) {
        stage.figure("bystander_bus_messages", now - before);
        stage.expect("messages that the other node heard", (now - before) as u64, 0);
    }
    Ok(())
}

fn presence(stage: &mut Stage) -> io::Result<()> {
    const WAVE: usize = 250;
    let members = stage.many(10_000);
    // Each knows all others in the end: because they were there, or because it was told.
    let known = |desk: &Desk| desk.members_met + desk.member_added;
    let due = |members: usize| (members * (members - 1)) as u64;
    let ids = stage.gather(members, |_| Vec::new())?;
    let meter = stage.meter();
    let ready = stage.desk.ready;
    let mut joined = 0;
    for wave in ids.chunks(WAVE) {
        for id in wave {
            stage.subscribe(*id, ARENA)?;
        }
        joined += wave.len();
        stage.until("members join", |desk| desk.ready >= ready + joined && known(desk) >= due(joined))?;
    }
    let spent = stage.measured(&meter);
    let count = members as u64;
    stage.figure("cpu_us_per_join", spent.cpu_us_per(count));
    stage.figure("cpu_us_per_member_added", spent.cpu_us_per(stage.desk.member_added.max(1)));
    stage.figure("redis_cpu_us_per_join", spent.redis_cpu.as_secs_f64() * 1e6 / members as f64);
    stage.figure("joins_per_s", spent.per_second(count));
    stage.expect_count("members after the joins", ARENA, "user_count", count)?;
    let known = known(&stage.desk);
    stage.expect("members that members know", known, due(members));
    Ok(())
}

fn node_death(stage: &mut Stage) -> io::Result<()> {
    let (count, lost) = (stage.many(5_000), stage.many(10));
    let wants = |at: usize| vec![format!("room-{}", at % 100), format!("private-user-{at}")];
    let observer = stage.begin_at(0, vec![ARENA.to_owned()], count + lost)?;
    stage.until("the observer joins", |desk| desk.ready >= 1)?;
    let mut doomed = Vec::new();
    for at in 0..count + lost {
        let wants = if at < count { wants(at) } else { vec![ARENA.to_owned()] };
        doomed.push(stage.begin_at(1, wants, at)?);
        stage.until("clients subscribe", |desk| desk.ready + 64 > at)?;
    }
    stage.until("clients subscribe", |desk| desk.ready > count + lost)?;
    for id in &doomed {
        stage.desk.may_go(*id);
    }
    stage.others[0].kill();
    let died = Instant::now();
    stage.until("connections end", |desk| desk.gone >= count + lost)?;

    let meter = stage.meter();
    let (begin, ready) = (Instant::now(), stage.desk.ready);
    // Nobody waits for anybody: all handshakes are under way together.
    for at in 0..count {
        stage.begin_at(0, wants(at), at)?;
        if at % 256 == 255 {
            stage.turn(Instant::now())?;
        }
    }
    stage.until("clients are back", |desk| desk.ready >= ready + count)?;
    stage.figure("seconds_until_all_are_back", begin.elapsed().as_secs_f64());
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_return", spent.cpu_us_per(count as u64));

    let left = |desk: &Desk| desk.removals_seen_by(&[observer]) >= lost as u64;
    stage.until("the dead node's members leave", left)?;
    stage.figure("seconds_until_members_left", died.elapsed().as_secs_f64());
    stage.expect_count("members after the death", ARENA, "user_count", 1)
}
