//! A load that goes on while things go wrong, and checks everything that clients, API and webhooks are told.
//!
//! Ears listen to every channel, some on each node, and come back whenever they are lost. Guests come to the presence
//! channel and to rooms of their own, on one or two nodes, and go; visitors sign in, whom ears watch. Publishers number their events and note which were
//! accepted. When all is over and well again ([`Load::finish`]), the notes must fit:
//!
//! - every connection has heard the events of a channel in one and the same order, none twice, and none before it was
//!   subscribed; and every event that was accepted while it was, up to the last thing it has heard;
//! - an event that was accepted before another was sent comes before it;
//! - what was refused was refused for a reason;
//! - who is there, as each connection was told step by step, is who is there; and so say all nodes over the API;
//! - webhooks have told of each coming and going once.

mod actors;
mod caller;
mod ledger;
mod note;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Door, Fleet, HEALED_WITHIN, until_within};

use actors::{CHANNELS, CROWD, Play, Stage};
use caller::{Answered, Caller};
use ledger::Ledger;
pub(crate) use ledger::Trouble;
use note::{Heard, LifeId, Mark, Note, Notes, Numbers, Outcome, Published};
use told::Told;

/// A load under way.
pub(crate) struct Load {
    stage: Stage,
    inbox: Receiver<Note>,
    ledger: Ledger,
    told: Told,
    ears: Vec<JoinHandle<()>>,
    guests: Vec<JoinHandle<()>>,
    publishers: Vec<JoinHandle<()>>,
}

/// What a load was.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Events that were accepted.
    pub(crate) accepted: usize,
    /// Events that were refused.
    pub(crate) refused: usize,
    /// Refused ones that were delivered all the same.
    pub(crate) came_although_refused: usize,
    /// Events without an answer.
    pub(crate) unknown: usize,
    /// Connections that ended without having been asked to.
    pub(crate) dropped: usize,
    /// Events that came to somebody, each as often as it did.
    pub(crate) delivered: usize,
    /// Deliveries of webhooks that were marked as repetitions.
    pub(crate) redeliveries: usize,
    /// How long it took after the last fault until everything was as it should be.
    pub(crate) healed_after: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, refused, came_although_refused: came, unknown, .. } = self;
        let Self { dropped, delivered, redeliveries, healed_after, .. } = self;
        write!(
            to,
            "{accepted} events accepted, {refused} refused ({came} of them came), {unknown} unanswered; "
        )?;
        write!(
            to,
            "{delivered} delivered; {dropped} connections dropped; {redeliveries} webhooks repeated; "
        )?;
        write!(to, "well after {healed_after:?}")
    }
}

/// The publisher of the last events.
const LAST: u32 = u32::MAX;

impl Load {
    /// Begins on all nodes, and waits until it is under way.
    #[track_caller]
    pub(crate) fn begin(fleet: &Fleet) -> Self {
        let nodes = fleet.nodes().count();
        let (notes, inbox) = channel();
        let (doors, numbers, play) = (fleet.doors().clone(), Arc::default(), Arc::default());
        let stage = Stage { doors, notes, numbers, play };
        let start = |work: Box<dyn FnOnce(Stage) + Send>| {
            let stage = stage.clone();
            std::thread::spawn(move || work(stage))
        };
        let ears = (0..2 * nodes).map(|number| {
            let ear = u32::try_from(number).expect("few");
            start(Box::new(move |stage| stage.ear(ear, number % nodes)))
        });
        let ears = ears.collect();
        let guests = (0..2).map(|number| start(Box::new(move |stage| stage.guest(number))));
        let visitors = (0..2).map(|number| start(Box::new(move |stage| stage.visitor(number))));
        let guests = guests.chain(visitors).collect();
        let pace = Duration::from_millis(25);
        let publishers =
            (0..3).map(|number| start(Box::new(move |stage| stage.publisher(number, pace)))).collect();
        let (ledger, told) = (Ledger::default(), Told::default());
        let mut load = Self { stage, inbox, ledger, told, ears, guests, publishers };
        until_within(HEALED_WITHIN, "everybody listens", || {
            load.read(fleet);
            load.ledger.is_settled() && load.ledger.open().filter(|life| life.is_ear()).count() == 2 * nodes
        });
        load.go_on(fleet, 30);
        load
    }

    /// Waits until so many more events were accepted.
    #[track_caller]
    pub(crate) fn go_on(&mut self, fleet: &Fleet, more: usize) {
        let wanted = self.ledger.count(Outcome::Accepted) + more;
        until_within(HEALED_WITHIN, "more events are accepted", || {
            self.read(fleet);
            self.ledger.count(Outcome::Accepted) >= wanted
        });
    }

    /// Waits until an event was refused.
    #[track_caller]
    pub(crate) fn until_refused(&mut self, fleet: &Fleet) {
        until_within(HEALED_WITHIN, "events are refused", || {
            self.read(fleet);
            self.ledger.count(Outcome::Refused) > 0
        });
    }

    /// Waits until clients of the other nodes have been told that all members on this node have gone.
    #[track_caller]
    pub(crate) fn until_given_up(&mut self, fleet: &Fleet, node: usize) {
        let mut left = Vec::new();
        let told = within(HEALED_WITHIN, || {
            self.read(fleet);
            let users = |is_there: bool| {
                let lives = self.ledger.open().filter(move |life| (life.node == node) == is_there);
                lives.map(|life| life.user.clone()).collect::<BTreeSet<String>>()
            };
            let there: BTreeSet<String> = &users(true) - &users(false);
            let others = self.ledger.open().filter(|life| life.node != node && life.is_ear());
            let rosters = others.filter_map(|life| Some((life, &life.stints.get(CROWD)?.roster)));
            let seen =
                rosters.flat_map(|(life, roster)| roster.intersection(&there).map(move |user| (life, user)));
            left = seen.map(|(life, user)| format!("{} still sees {user}", life.user)).collect();
            left.is_empty()
        });
        assert!(told, "node {node} was not given up:\n{}", first_of(&left));
    }

    /// From now on something is wrong on purpose.
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        self.ledger.begin(trouble, Instant::now());
    }

    /// Whatever was wrong has been mended, and is over when all nodes are ready and have accepted something.
    #[track_caller]
    pub(crate) fn recover(&mut self, fleet: &Fleet) {
        fleet.until_ready();
        self.until_accepted_everywhere();
        self.read(fleet);
        self.ledger.end_all(Instant::now());
    }

    /// Waits until every node publishes on every channel.
    #[track_caller]
    fn until_accepted_everywhere(&mut self) {
        let mut caller = Caller::new(Duration::from_secs(6));
        let doors = self.stage.doors.all_open();
        let mut left: Vec<(&Door, &str)> =
            doors.iter().flat_map(|door| CHANNELS.map(|channel| (door, channel))).collect();
        let accepted = within(HEALED_WITHIN, || {
            left.retain(|(door, channel)| !self.publish_last(&mut caller, door, channel).0);
            left.is_empty()
        });
        let left: Vec<_> = left.iter().map(|(door, channel)| (door.node, channel)).collect();
        assert!(accepted, "no events are accepted within {HEALED_WITHIN:?} by node and channel {left:?}");
    }

    /// Publishes something that is to be waited for. Whether it was accepted.
    fn publish_last(&self, caller: &mut Caller, door: &Door, channel: &str) -> (bool, Mark) {
        let mark = Mark { publisher: LAST, number: self.stage.numbers.next() };
        let body = json!({ "name": "tick", "channel": channel, "data": mark.data() });
        let outcome = self.stage.publish(caller, door, "/events", &body, &[(channel, mark)]);
        (outcome == Outcome::Accepted, mark)
    }

    /// Ends the load, and holds everything that was noted to what must be; `healed` is when the last fault was mended.
    #[track_caller]
    pub(crate) fn finish(mut self, fleet: &Fleet, mended: Instant) -> Summary {
        self.recover(fleet);
        let play = self.stage.play.clone();
        play.is_quiet.store(true, Ordering::SeqCst);
        self.publishers.drain(..).for_each(join);
        self.expect_last_events(fleet);
        let healed_after = self.expect_truth(fleet, mended);
        play.is_late.store(true, Ordering::SeqCst);
        self.guests.drain(..).for_each(join);
        self.read(fleet);
        until_within(HEALED_WITHIN, "guests have left", || {
            self.read(fleet);
            self.wrong_rosters().is_empty()
        });
        play.is_over.store(true, Ordering::SeqCst);
        self.ears.drain(..).for_each(join);
        self.expect_webhooks(fleet);
        let wrong = self.ledger.violations();
        assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), first_of(&wrong));
        let summary = Summary {
            accepted: self.ledger.count(Outcome::Accepted),
            refused: self.ledger.count(Outcome::Refused),
            came_although_refused: self.ledger.came_although_refused(),
            unknown: self.ledger.count(Outcome::Unknown),
            dropped: self.ledger.lives.values().filter(|life| life.is_dropped).count(),
            delivered: self.ledger.deliveries(),
            redeliveries: self.told.redeliveries(),
            healed_after,
        };
        println!("{summary}");
        summary
    }

    /// Reads what was noted and told up to now.
    fn read(&mut self, fleet: &Fleet) {
        for note in self.inbox.try_iter() {
            self.ledger.enter(note);
        }
        for hook in fleet.backend().so_far() {
            self.told.take(&hook);
        }
    }

    /// Publishes a last event on every channel, and waits until everybody has it.
    #[track_caller]
    fn expect_last_events(&mut self, fleet: &Fleet) {
        until_within(HEALED_WITHIN, "everybody has what was asked for", || {
            self.read(fleet);
            self.ledger.is_settled()
        });
        let mut caller = Caller::new(Duration::from_secs(6));
        let mut last: BTreeMap<&str, Mark> = BTreeMap::new();
        for channel in CHANNELS {
            until_within(HEALED_WITHIN, &format!("a last event on {channel}"), || {
                let door = self.stage.doors.pick(0).expect("an open door");
                let (is_accepted, mark) = self.publish_last(&mut caller, &door, channel);
                last.insert(channel, mark);
                is_accepted
            });
        }
        let mut deaf = String::new();
        let heard = within(HEALED_WITHIN, || {
            self.read(fleet);
            let missing = self.ledger.open().flat_map(|life| {
                let lacks = |(channel, mark): &(&&str, &Mark)| {
                    life.stints.contains_key(**channel) && !life.has_heard(channel, **mark)
                };
                last.iter()
                    .filter(lacks)
                    .map(|(channel, _)| format!("{} on node {}: {channel}", life.user, life.node))
            });
            deaf = missing.collect::<Vec<_>>().join("\n");
            deaf.is_empty()
        });
        assert!(heard, "the last event has not come to\n{deaf}");
    }

    /// Waits until clients and all nodes know who is there, and tells how long that took.
    #[track_caller]
    fn expect_truth(&mut self, fleet: &Fleet, mended: Instant) -> Duration {
        let mut caller = Caller::new(Duration::from_secs(6));
        let mut wrong = Vec::new();
        let left = HEALED_WITHIN.saturating_sub(mended.elapsed());
        let found = within(left, || {
            self.read(fleet);
            wrong = self.wrong_rosters();
            for door in self.stage.doors.all_open() {
                wrong.extend(self.wrong_answers(&mut caller, &door));
            }
            wrong.is_empty()
        });
        assert!(found, "not the truth within {HEALED_WITHIN:?}:\n{}", first_of(&wrong));
        mended.elapsed()
    }

    /// Who was told something else than who is there.
    fn wrong_rosters(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let occupied = self.ledger.occupied();
        for life in self.ledger.open() {
            for (channel, stint) in life.stints.iter().filter(|(channel, _)| channel.starts_with("presence-"))
            {
                let (seen, truth) = (&stint.roster, self.ledger.users(channel));
                if *seen != truth {
                    let (user, node) = (&life.user, life.node);
                    wrong.push(format!("{user} on node {node}, {channel}: {seen:?} instead of {truth:?}"));
                }
            }
            let online = self.ledger.online();
            for (watched, is_online) in &life.watched {
                if online.contains(&watched[..]) != *is_online {
                    wrong.push(format!(
                        "{} on node {}: {watched} is online: {is_online}",
                        life.user, life.node
                    ));
                }
            }
            for (channel, stint) in &life.stints {
                let (told, truth) = (stint.count, occupied.get(&channel[..]));
                if told.is_some() && told != truth.copied() {
                    wrong.push(format!(
                        "{} on node {}, {channel}: {told:?} instead of {truth:?}",
                        life.user, life.node
                    ));
                }
            }
        }
        wrong
    }

    /// What a node says over the API that is not so.
    fn wrong_answers(&self, caller: &mut Caller, door: &Door) -> Vec<String> {
        let mut ask = |path: &str, info: &str| -> Result<Value, String> {
            let request = door.api.get(path);
            let request = if info.is_empty() { request } else { request.param("info", info) };
            let answered: Answered =
                caller.call(door.api.address(), &request).map_err(|error| error.to_string())?;
            answered.json()
        };
        let occupied = self.ledger.occupied();
        let mut wrong = Vec::new();
        let mut expect = |what: &str, seen: Result<Value, String>, truth: Value| {
            if seen.as_ref() != Ok(&truth) {
                wrong.push(format!("node {}, {what}: {seen:?} instead of {truth}", door.node));
            }
        };
        let all: BTreeMap<_, _> = occupied.keys().map(|channel| (channel, json!({}))).collect();
        expect("channels", ask("/channels", "").map(|answer| answer["channels"].clone()), json!(all));
        for (channel, count) in &occupied {
            let seen = ask(&format!("/channels/{channel}"), "subscription_count");
            expect(channel, seen, json!({ "occupied": true, "subscription_count": count }));
        }
        for channel in occupied.keys().filter(|channel| channel.starts_with("presence-")) {
            let users = self.ledger.users(channel);
            let seen = ask(&format!("/channels/{channel}"), "user_count");
            expect(channel, seen, json!({ "occupied": true, "user_count": users.len() }));
            let seen = ask(&format!("/channels/{channel}/users"), "").map(|answer| {
                let ids = answer["users"].as_array().into_iter().flatten();
                let mut ids: Vec<_> = ids.filter_map(|user| user["id"].as_str().map(str::to_owned)).collect();
                ids.sort_unstable();
                json!(ids)
            });
            expect(&format!("users of {channel}"), seen, json!(users));
        }
        wrong
    }

    /// Waits until webhooks have told everything, and nothing more.
    #[track_caller]
    fn expect_webhooks(&mut self, fleet: &Fleet) {
        let mut wrong = Vec::new();
        let told = within(HEALED_WITHIN, || {
            self.read(fleet);
            wrong = self.told.violations(&self.ledger);
            wrong.is_empty()
        });
        assert!(told, "{} things are wrong with webhooks:\n{}", wrong.len(), first_of(&wrong));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a failure they would go on.
        let Play { is_quiet, is_late, is_over } = &*self.stage.play;
        [is_quiet, is_late, is_over].into_iter().for_each(|flag| flag.store(true, Ordering::SeqCst));
    }
}

#[track_caller]
fn join(thread: JoinHandle<()>) {
    thread.join().expect("a thread of the load, which has said why");
}

/// Whether it comes to be within a time.
fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(50)); // leaves the processor to the brokers
    }
}

/// Enough of a list to see what it is about.
fn first_of(lines: &[String]) -> String {
    lines.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
}
