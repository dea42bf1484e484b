//! A bit of everything at once, as on an ordinary day.

use std::io;
use std::time::Instant;

use crate::pusher;
use crate::scenario::stage::Stage;
use crate::scenario::{Scenario, headline};

/// The stream of the news; those behind it are the rooms'.
const NEWS: u16 = 0;

const ROOMS: usize = 200;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "day",
            "2,000 clients in rooms of ten, 500 of them on a news channel too; 200 room events, 2 news events and 400 \
             client events a second, while 50 clients a second come, join a presence channel and go.",
            vec![
                headline("server_busy_percent", "share of a core", "%"),
                headline("latency_p99_ms", "p99 latency", "ms"),
            ],
            day,
        )
        .beyond_floor(),
    ]
}

fn room(number: usize) -> String {
    format!("private-room-{number}")
}

fn day(stage: &mut Stage) -> io::Result<()> {
    let rooms = stage.many(ROOMS);
    let clients = rooms * 10;
    let wants = |at: usize| {
        let news = at.is_multiple_of(4).then(|| "news".to_owned());
        std::iter::once(room(at % rooms)).chain(news).collect()
    };
    let ids = stage.gather(clients, wants)?;
    // A room has one stream of the backend, and one of the client who talks in it.
    let talk = |room: usize| (1 + rooms + room) as u16;
    for (at, id) in ids.iter().enumerate() {
        stage.desk.ledger.owe(*id, (1 + at % rooms) as u16);
        if at.is_multiple_of(4) {
            stage.desk.ledger.owe(*id, NEWS);
        }
        if at >= rooms {
            stage.desk.ledger.owe(*id, talk(at % rooms));
        }
    }
    stage.callers(4);
    let address = stage.crowd.address();
    let meter = stage.meter();
    let time = stage.seconds(8.0);
    let slots = (time.as_secs_f64() * 100.0) as usize;
    let mut guests = Vec::new();
    let mut came = 0;
    let begin = Instant::now();
    for slot in 0..slots {
        let due = begin + time * slot as u32 / slots as u32;
        while Instant::now() < due {
            stage.turn(due)?;
        }
        for number in [slot * 2, slot * 2 + 1] {
            let data = stage.desk.data((1 + number % rooms) as u16, due, 200);
            publish(stage, pusher::publish(address, &room(number % rooms), &data))?;
        }
        if slot % 50 == 0 {
            let data = stage.desk.data(NEWS, due, 1_000);
            publish(stage, pusher::publish(address, "news", &data))?;
        }
        for number in slot * 4..slot * 4 + 4 {
            let talker = number % rooms;
            let data = stage.desk.data(talk(talker), due, 60);
            stage.crowd.say(ids[talker], &pusher::client_event(&room(talker), &data))?;
        }
        if slot % 2 == 0 {
            guests.push(stage.begin(vec![format!("presence-lobby-{}", came % 20)], came)?);
            came += 1;
        }
        if guests.len() > 20 {
            let guest = guests.remove(0);
            stage.desk.may_go(guest);
            stage.crowd.leave(guest)?;
        }
    }
    stage.settle()?;
    stage.measured(&meter);
    stage.latencies();
    let ready = clients + came;
    stage.until("guests subscribe", |desk| desk.ready >= ready)?;
    stage.dismiss(&guests)?;
    stage.expect_count("guests left behind", "presence-lobby-0", "user_count", 0)?;
    Ok(())
}

/// Calls the API as soon as somebody is free to.
fn publish(stage: &mut Stage, request: Vec<u8>) -> io::Result<()> {
    stage.until("a free caller", |desk| !desk.idle.is_empty())?;
    match stage.desk.idle.pop() {
        Some(caller) => stage.crowd.call(caller, request),
        None => Ok(()),
    }
}
