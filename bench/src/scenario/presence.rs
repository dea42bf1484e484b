//! Joins and leaves, told to everybody present.

use std::io;
use std::time::Instant;

use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

const ARENA: &str = "presence-arena";

pub(super) fn all() -> Vec<Scenario> {
    let big = |members: usize| {
        Scenario::new(
            format!("presence-{members}"),
            format!(
                "{members} users join one presence channel at once, and a tenth of them leaves it again."
            ),
            vec![
                headline("cpu_us_per_member_added", "CPU per member_added delivered", "µs"),
                headline("cpu_us_per_member_removed", "CPU per member_removed delivered", "µs"),
            ],
            move |stage| one_channel(stage, members),
        )
        .beyond_floor()
    };
    vec![
        big(250),
        big(500),
        big(1_000),
        big(2_000),
        Scenario::new(
            "presence-small",
            "500 presence channels of 10: 5,000 users join at once, and leave again.",
            vec![headline("cpu_us_per_join", "CPU per join", "µs")],
            small_channels,
        )
        .beyond_floor(),
    ]
}

/// The k-th to join is told to the k - 1 before.
fn told(members: usize) -> u64 {
    (members * (members - 1) / 2) as u64
}

fn one_channel(stage: &mut Stage, members: usize) -> io::Result<()> {
    let members = stage.many(members);
    let due = told(members);
    let ids = stage.gather(members, |_| Vec::new())?;
    let meter = stage.meter();
    let ready = stage.desk.ready;
    for id in &ids {
        stage.subscribe(*id, ARENA)?;
    }
    stage.until("members join", |desk| desk.ready >= ready + members && desk.member_added >= due)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_member_added", spent.cpu_us_per(due));
    stage.figure("cpu_us_per_join", spent.cpu_us_per(members as u64));
    stage.figure("seconds_to_join", spent.time.as_secs_f64());
    stage.expect_count("members after the joins", ARENA, "user_count", members as u64)?;
    let meter = stage.meter();
    // Most stay, and all of them see each go. What those who go see of each other is too little to matter.
    let (stay, go) = ids.split_at((members * 9 / 10).max(1));
    let due_removed = (stay.len() * go.len()) as u64;
    for id in go {
        stage.crowd.say(*id, &pusher::unsubscribe(ARENA))?;
    }
    stage.until("members leave", |desk| desk.removals_seen_by(stay) >= due_removed)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_member_removed", spent.cpu_us_per(due_removed));
    stage.expect_count("members after a tenth has left", ARENA, "user_count", stay.len() as u64)?;
    let (added, removed) = (stage.desk.member_added, stage.desk.removals_seen_by(stay));
    stage.expect("member_added", added, due);
    stage.expect("member_removed seen by those who stay", removed, due_removed);
    Ok(())
}

fn small_channels(stage: &mut Stage) -> io::Result<()> {
    const SIZE: usize = 10;
    let channels = stage.many(500);
    let users = channels * SIZE;
    let due = channels as u64 * told(SIZE);
    // The connection that asks is there from now on.
    stage.expect_count("members before anybody came", "presence-room-0", "user_count", 0)?;
    let before = stage.server.sample();
    let ids = stage.gather(users, |_| Vec::new())?;
    let name = |at: usize| format!("presence-room-{}", at % channels);
    let meter = stage.meter();
    let ready = stage.desk.ready;
    for (at, id) in ids.iter().enumerate() {
        stage.subscribe(*id, &name(at))?;
        // The clients must hear meanwhile, too.
        if at % 64 == 63 {
            stage.turn(Instant::now())?;
        }
    }
    stage.until("members join", |desk| desk.ready >= ready + users && desk.member_added >= due)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_join", spent.cpu_us_per(users as u64));
    stage.figure("joins_per_s", spent.per_second(users as u64));
    stage.expect_count("members of a small channel", &name(0), "user_count", SIZE as u64)?;
    let meter = stage.meter();
    stage.dismiss(&ids)?;
    stage.until_closed(&before)?;
    let spent = stage.measured(&meter);
    stage.figure("cpu_us_per_leave", spent.cpu_us_per(users as u64));
    stage.expect_count("members after all have left", &name(0), "user_count", 0)?;
    Ok(())
}
