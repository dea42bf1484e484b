//! Those who take part in a load: ears that listen all the time, guests and visitors that come and go, publishers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    super::{Device, Door, Doors, parsed},
    Caller, Heard, LifeId, Mark, Note, Notes, Numbers, Outcome, Published,
};

/// What is published to, in turn. Ears listen to all of it.
pub(crate) const CHANNELS: [&str; 10] = [
    "news-0",
    "news-1",
    "news-2",
    "private-talk-0",
    "private-talk-1",
    "cache-price",
    "private-cache-rate",
    CROWD,
    "presence-cache-crew",
    USER,
];

/// The presence channel that guests join.
pub(crate) const CROWD: &str = "presence-crowd";

/// The channel of the user as which every ear is signed in.
pub(crate) const USER: &str = "#server-to-user-ear";

/// The users that ears watch. They sign in and go, on two nodes at once now and then.
pub(crate) const VISITORS: [&str; 2] = ["visitor-0", "visitor-1"];

/// Where ears say something themselves.
const TALK: &str = "private-talk-0";

/// How long a step of a connection or a call may take. Longer than a publish waits for Redis.
const PATIENCE: Duration = Duration::from_secs(6);

/// What all who take part share.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) doors: Arc<Doors>,
    pub(crate) notes: Notes,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) play: Arc<Play>,
}

/// How far it has come.
#[derive(Debug, Default)]
pub(crate) struct Play {
    /// Nothing more is published, and guests stay.
    pub(crate) is_quiet: AtomicBool,
    /// Guests leave.
    pub(crate) is_late: AtomicBool,
    /// Everybody leaves.
    pub(crate) is_over: AtomicBool,
}

impl Play {
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::SeqCst)
    }

    fn is_late(&self) -> bool {
        self.is_late.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// A connection with what it has subscribed to.
struct Life {
    id: LifeId,
    device: Device,
    notes: Notes,
    awaited: usize,
    /// It was told how those are whom it watches.
    watches: bool,
}

/// How a guest leaves.
#[derive(Clone, Copy)]
enum Manner {
    Unsubscribes,
    Closes,
    Vanishes,
}

impl Stage {
    /// Listens to everything, on this node as long as it can be reached, and says something now and then.
    pub(crate) fn ear(&self, number: u32, home: usize) {
        let user = format!("ear-{number}");
        let mut said = 0;
        while !self.play.is_over() {
            let Some(mut life) = self.doors.of(home).and_then(|door| self.begin(&door, &user, &CHANNELS))
            else {
                pause(Duration::from_millis(50));
                continue;
            };
            let mut spoke = Instant::now();
            while life.listen(Duration::from_millis(20)) {
                if self.play.is_over() {
                    life.end(Manner::Closes);
                    return;
                }
                if !self.play.is_quiet() && life.awaited == 0 && spoke.elapsed() > Duration::from_millis(150)
                {
                    spoke = Instant::now();
                    said += 1;
                    life.say(Mark { publisher: SAID + number, number: said });
                }
            }
        }
    }

    /// Comes as one user after the other, to one or two nodes, and goes again. The last one stays to the end.
    pub(crate) fn guest(&self, number: u32) {
        for visit in 0.. {
            if self.play.is_quiet() {
                return;
            }
            let user = format!("guest-{number}-{visit}");
            let room = format!("room-{number}-{visit}");
            let channels = [&room, CROWD, "cache-price", "news-0"];
            let first = (number + visit) as usize;
            let mut lives: Vec<Life> = (first..=first + (visit % 2) as usize)
                .filter_map(|door| self.begin(&self.doors.pick(door)?, &user, &channels))
                .collect();
            let mut came = Instant::now();
            let stays = Duration::from_millis(u64::from(visit * 37 % 200));
            // Some go before they are let in.
            let is_hasty = visit % 7 == 6;
            while !lives.is_empty() && !is_hasty {
                lives.retain_mut(|life| life.listen(Duration::from_millis(10)));
                if self.play.is_quiet() {
                    // The last visit.
                    if self.play.is_late() {
                        break;
                    }
                } else if lives.iter().any(|life| life.awaited > 0) {
                    came = Instant::now();
                } else if came.elapsed() > stays {
                    break;
                }
            }
            let manner = [Manner::Unsubscribes, Manner::Closes, Manner::Vanishes][visit as usize % 3];
            lives.into_iter().for_each(|life| life.end(manner));
            pause(Duration::from_millis(100));
        }
    }

    /// Signs in as one of those who are watched, and goes, again and again. The last time it stays to the end.
    pub(crate) fn visitor(&self, number: usize) {
        let user = VISITORS[number];
        let own = format!("#server-to-user-{user}");
        for visit in 0.. {
            if self.play.is_quiet() {
                return;
            }
            let mut lives: Vec<Life> = (visit..=visit + visit % 2)
                .filter_map(|door| self.begin(&self.doors.pick(door)?, user, &[&own]))
                .collect();
            let (mut came, stays) = (Instant::now(), Duration::from_millis((visit * 67 % 300) as u64));
            while !lives.is_empty() {
                lives.retain_mut(|life| life.listen(Duration::from_millis(10)));
                if self.play.is_quiet() {
                    if self.play.is_late() {
                        break;
                    }
                } else if lives.iter().any(|life| life.awaited > 0) {
                    came = Instant::now();
                } else if came.elapsed() > stays {
                    break;
                }
            }
            lives.into_iter().for_each(|life| life.end(Manner::Closes));
            pause(Duration::from_millis(150));
        }
    }

    /// Publishes one event after the other through all nodes in turn.
    pub(crate) fn publisher(&self, number: u32, pace: Duration) {
        let mut caller = Caller::new(PATIENCE);
        let mut marks = (1..).map(|mark| Mark { publisher: number, number: mark });
        for turn in 0.. {
            if self.play.is_quiet() {
                return;
            }
            let pick = |step: usize| CHANNELS[(number as usize + turn + step) % CHANNELS.len()];
            let event = |channel: &str, mark: Mark| json!({ "name": "tick", "channel": channel, "data": mark.data() });
            let mut mark = || marks.next().expect("there is no end");
            let (path, body, marks): (_, _, Vec<(&str, Mark)>) = match turn % 5 {
                // Several at once, in order.
                3 => {
                    let marks = [(pick(0), mark()), (pick(0), mark()), (pick(1), mark())];
                    let batch: Vec<Value> =
                        marks.iter().map(|(channel, mark)| event(channel, *mark)).collect();
                    ("/batch_events", json!({ "batch": batch }), marks.into())
                }
                // One for two channels.
                4 => {
                    let (channels, mark) = ([pick(0), pick(3)], mark());
                    let body = json!({ "name": "tick", "channels": channels, "data": mark.data() });
                    ("/events", body, channels.map(|channel| (channel, mark)).into())
                }
                _ => {
                    let marks = vec![(pick(0), mark())];
                    ("/events", event(marks[0].0, marks[0].1), marks)
                }
            };
            let Some(door) = self.doors.pick(turn) else { continue };
            self.publish(&mut caller, &door, path, &body, &marks);
            pause(pace);
        }
    }

    /// Publishes, and notes what came of it.
    pub(crate) fn publish(
        &self,
        caller: &mut Caller,
        door: &Door,
        path: &str,
        body: &Value,
        marks: &[(&str, Mark)],
    ) -> Outcome {
        let request = door.api.post(path, body);
        let asked = Instant::now();
        let answer = caller.call(door.api.address(), &request);
        let answered = Instant::now();
        let outcome = match &answer {
            Ok(answer) if answer.status == 200 => Outcome::Accepted,
            Ok(answer) if answer.status == 503 && answer.retry_after.is_some() => Outcome::Refused,
            Ok(answer) => {
                self.note(Note::Wrong(format!("a publication was answered with {answer:?}")));
                Outcome::Unknown
            }
            Err(_) => Outcome::Unknown,
        };
        for (channel, mark) in marks {
            let (channel, mark) = (Arc::from(*channel), *mark);
            self.note(Note::Published(Published { channel, mark, asked, answered, outcome }));
        }
        outcome
    }

    /// Connects, and asks for everything.
    fn begin(&self, door: &Door, user: &str, channels: &[&str]) -> Option<Life> {
        let device = Device::connect(&door.api, PATIENCE).ok()?;
        let (id, notes, awaited) = (self.numbers.next(), self.notes.clone(), channels.len());
        let mut life = Life { id, device, notes, awaited, watches: false };
        life.heard(Heard::Began { node: door.node, user: user.to_owned() });
        for channel in channels {
            life.heard(Heard::Asked(Arc::from(*channel)));
            let asked = match channel.strip_prefix("#server-to-user-") {
                // Who is watched watches nobody.
                Some(id) if id == user => life.device.ask_to_sign_in(id, &[]),
                Some(id) => life.device.ask_to_sign_in(id, &VISITORS),
                None => life.device.ask(channel, user),
            };
            if asked.is_err() {
                life.heard(Heard::Lost);
                return None;
            }
        }
        Some(life)
    }

    fn note(&self, note: Note) {
        let _ = self.notes.send(note); // nobody reads them after a failure
    }
}

/// Publishers from here on are ears.
const SAID: u32 = 1000;

impl Life {
    fn heard(&self, what: Heard) {
        let _ = self.notes.send(Note::Heard(self.id, Instant::now(), what));
    }

    /// Hears what comes within a time. Whether the connection goes on.
    fn listen(&mut self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            match self.device.next(deadline.saturating_duration_since(Instant::now())) {
                Ok(Some(frame)) => self.hear(&frame),
                Ok(None) => return true,
                Err(_) => {
                    self.heard(Heard::Lost);
                    return false;
                }
            }
            if Instant::now() >= deadline {
                return true;
            }
        }
    }

    fn hear(&mut self, frame: &Value) {
        let channel = || Arc::from(frame["channel"].as_str().unwrap_or_default());
        let user = || parsed(&frame["data"])["user_id"].as_str().unwrap_or_default().to_owned();
        let what = match frame["event"].as_str().unwrap_or_default() {
            "pusher_internal:subscription_succeeded" => {
                self.awaited = self.awaited.saturating_sub(1);
                Heard::Joined(channel(), roster(&parsed(&frame["data"])))
            }
            "pusher:signin_success" => {
                self.awaited = self.awaited.saturating_sub(1);
                let user_data = parsed(&parsed(&frame["data"])["user_data"]);
                let id = user_data["id"].as_str().unwrap_or_default();
                Heard::Joined(Arc::from(format!("#server-to-user-{id}")), None)
            }
            "pusher_internal:watchlist_events" => self.watched(&parsed(&frame["data"])["events"]),
            "pusher_internal:subscription_count" => {
                let count = parsed(&frame["data"])["subscription_count"].as_u64().unwrap_or_default();
                Heard::Counted(channel(), count)
            }
            "pusher_internal:member_added" => Heard::Added(channel(), user()),
            "pusher_internal:member_removed" => Heard::Removed(channel(), user()),
            "pusher:cache_miss" => Heard::Missed(channel()),
            "tick" | "client-tick" => match frame["data"].as_str().and_then(Mark::parse) {
                Some(mark) => Heard::Event(channel(), mark),
                None => Heard::Complaint(frame.to_string()),
            },
            // Before the connection is closed for it.
            "pusher:error" if frame["data"]["code"] == 4200 => return,
            _ => Heard::Complaint(frame.to_string()),
        };
        self.heard(what);
    }

    /// What a frame says of those who are watched: the first one of all of them, then of one each.
    fn watched(&mut self, events: &Value) -> Heard {
        let mut told: Vec<(String, bool)> = Vec::new();
        for event in events.as_array().into_iter().flatten() {
            let ids = event["user_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
            told.extend(ids.map(|id| (id.to_owned(), event["name"] == "online")));
        }
        if !std::mem::replace(&mut self.watches, true) {
            return Heard::Watches(told);
        }
        match &mut told[..] {
            [(user, is_online)] => Heard::Turned(std::mem::take(user), *is_online),
            _ => Heard::Complaint(events.to_string()),
        }
    }

    fn say(&mut self, mark: Mark) {
        let asked = Instant::now();
        let event = json!({ "event": "client-tick", "channel": TALK, "data": mark.data() });
        let (channel, outcome) = (Arc::from(TALK), Outcome::Said);
        // Noted first: others may hear it before we know that it was sent.
        let _ =
            self.notes.send(Note::Published(Published { channel, mark, asked, answered: asked, outcome }));
        let _ = self.device.send(&event); // the next listening will tell
    }

    fn end(mut self, manner: Manner) {
        self.heard(Heard::Leaves);
        match manner {
            Manner::Closes => self.device.close(),
            Manner::Vanishes => drop(self.device),
            Manner::Unsubscribes => {
                for channel in [CROWD, "news-0"] {
                    let data = json!({ "channel": channel });
                    let _ = self.device.send(&json!({ "event": "pusher:unsubscribe", "data": data }));
                }
                self.device.close();
            }
        }
    }
}

/// Who is there, in the data of a presence channel's confirmation.
fn roster(data: &Value) -> Option<Vec<String>> {
    let ids = data["presence"]["ids"].as_array()?;
    Some(ids.iter().map(|id| id.as_str().unwrap_or_default().to_owned()).collect())
}

/// The pace of somebody who is not in a hurry.
fn pause(time: Duration) {
    thread::park_timeout(time);
}
