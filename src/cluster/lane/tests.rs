//! A lane against a Redis that loses answers, steps, leases and everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::cluster::script::{Holding, Opened, Pulse};
use crate::hub::{Audience, Topic};
use crate::mirror::{Hold, Message, Place, Publication, Traits};
use crate::protocol::{ChannelName, Frame, Member};

const LIMITS: Limits = Limits {
    lease: Duration::from_secs(10),
    patience: Duration::from_secs(3),
    debounce: Duration::from_secs(3),
};

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).expect("a valid name")
}

fn topic(number: u8) -> Topic {
    let channel = channel(&format!("presence-{number}"));
    Topic { app: "1".into(), channel, audience: Audience::Subscribers }
}

fn publication(number: u32) -> Op {
    let frame = Frame::event(&channel("presence-0"), "\"e\"", &number.to_string());
    Op::Publish(Publication { topic: topic(0), message: Message::Event(frame), except: None, told: None })
}

/// The part of Redis that matters to a lane.
#[derive(Clone, Debug, Default)]
struct Model {
    generation: u64,
    /// None: the node has no lease.
    step: Option<u64>,
    held: Vec<Holding>,
    /// Every publication that was done.
    published: Vec<String>,
}

impl Model {
    fn open(&mut self, number: u64) -> Answered {
        self.step = Some(number);
        Answered::Opened(Opened { generation: self.generation, held: self.held.clone() })
    }

    fn beat(&self) -> Answered {
        match self.step {
            Some(step) => Answered::Pulse(Pulse { step, ..Pulse::default() }),
            None => Answered::Fenced,
        }
    }

    fn step(&mut self, number: u64, items: &[Item]) -> Answered {
        let again = match self.step {
            None => return Answered::Fenced,
            Some(step) if step == number => true,
            Some(step) if step + 1 == number => false,
            Some(_) => return Answered::Behind,
        };
        self.step = Some(number);
        let mut replies = Vec::new();
        for item in items {
            let Item::Op(op) = item else { continue };
            replies.push(match op {
                Op::Hold(hold) => {
                    self.hold(hold);
                    Reply::Held(Place { epoch: 1, seq: number })
                }
                Op::Publish(publication) => {
                    if let Message::Event(frame) = &publication.message
                        && !again
                    {
                        self.published.push(String::from_utf8_lossy(frame.text()).into_owned());
                    }
                    Reply::Published { subscriptions: 0, users: 0 }
                }
                _ => Reply::Noted,
            });
        }
        Answered::Replies(replies)
    }

    fn hold(&mut self, hold: &Hold) {
        let at = match self.held.iter().position(|held| held.topic == hold.topic) {
            Some(at) => at,
            None => {
                self.held.push(Holding { topic: hold.topic.clone(), count: 0, members: Vec::new() });
                self.held.len() - 1
            }
        };
        let held = &mut self.held[at];
        held.count = hold.count;
        match &hold.change {
            Some(Change::Enters { member, .. }) if !held.members.contains(&member.user_id) => {
                held.members.push(member.user_id.clone());
            }
            Some(Change::Leaves(user_id)) => held.members.retain(|id| id != user_id),
            _ => {}
        }
        if held.count == 0 && held.members.is_empty() {
            self.held.remove(at);
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A user of a channel comes if it is not there, and goes if it is.
    Toggle(u8, u8),
    Publish,
    /// The lane may go on; the answer comes, or what else happens to it.
    Go(Fate),
    Wait(u16),
    /// The lease runs out and everything is removed.
    Bury,
    /// Everything is forgotten.
    Flush,
    /// A copy is made, and later returned to.
    Copy,
    Regress,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    NotRun,
    /// Done, and the answer is lost.
    Lost,
    /// Not done, and nobody knows.
    Cut,
}

struct Trial {
    lane: Lane,
    model: Model,
    copy: Option<Model>,
    run: u64,
    now: Instant,
    /// Users by channel, as they should be held.
    truth: Vec<(u8, u8)>,
    callers: Vec<(u32, oneshot::Receiver<Result<Reply, Away>>)>,
}

impl Trial {
    fn new() -> Self {
        Self {
            lane: Lane::new(LIMITS),
            model: Model::default(),
            copy: None,
            run: 1,
            now: Instant::now(),
            truth: Vec::new(),
            callers: Vec::new(),
        }
    }

    fn toggle(&mut self, channel: u8, user: u8) {
        let id: Box<str> = format!("u{user}").into();
        let change = match self.truth.iter().position(|each| *each == (channel, user)) {
            Some(at) => {
                self.truth.swap_remove(at);
                Change::Leaves(id)
            }
            None => {
                self.truth.push((channel, user));
                let member = Arc::new(Member { user_id: id, user_info: "{}".into() });
                Change::Enters { member, max: 100 }
            }
        };
        let count = self.truth.iter().filter(|each| each.0 == channel).count() as u64;
        let traits = Traits { tells: true, counts: false };
        let hold = Hold { topic: topic(channel), count, change: Some(change), traits, again: Again::No };
        self.lane.tell(Op::Hold(hold));
    }

    fn go(&mut self, fate: Fate) {
        let Some(command) = self.lane.next(self.run, self.now) else { return };
        let mut run = || match &command {
            Command::Open => self.model.open(self.lane.start()),
            Command::Beat => self.model.beat(),
            Command::Step => self.model.step(self.lane.number(), self.lane.items()),
            Command::List { .. } => Answered::Listed(Vec::new()),
            Command::Leave => Answered::Left,
        };
        let answered = match fate {
            Fate::Answered => run(),
            Fate::NotRun => Answered::NotRun,
            Fate::Cut => Answered::Unknown,
            Fate::Lost => {
                run();
                Answered::Unknown
            }
        };
        self.lane.answered(answered, self.now);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Toggle(channel, user) => self.toggle(channel, user),
            Event::Publish => {
                let (sender, receiver) = oneshot::channel();
                let number = u32::try_from(self.callers.len()).expect("few");
                self.lane.ask(publication(number), sender, self.now);
                self.callers.push((number, receiver));
            }
            Event::Go(fate) => self.go(fate),
            Event::Wait(ms) => {
                self.now += Duration::from_millis(ms.into());
                self.lane.expire(self.now);
            }
            Event::Bury => {
                self.model.step = None;
                self.model.held.clear();
            }
            Event::Flush => {
                let published = std::mem::take(&mut self.model.published);
                self.model = Model { generation: self.model.generation + 1, published, ..Model::default() };
            }
            Event::Copy => self.copy = Some(self.model.clone()),
            Event::Regress => {
                if let Some(copy) = self.copy.take() {
                    self.run += 1;
                    // What was published cannot be taken back.
                    let published = std::mem::take(&mut self.model.published);
                    self.model = Model { published, ..copy };
                }
            }
        }
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_millis(1100);
            self.lane.expire(self.now);
            self.go(Fate::Answered);
        }
    }

    fn check(&mut self) {
        let mut held: Vec<(String, u64, Vec<Box<str>>)> = Vec::new();
        for Holding { topic, count, members } in &self.model.held {
            let mut members = members.clone();
            members.sort();
            held.push((topic.channel.to_string(), *count, members));
        }
        held.sort();
        let mut truth: Vec<(String, u64, Vec<Box<str>>)> = Vec::new();
        for channel in 0..3 {
            let mut users: Vec<Box<str>> = self
                .truth
                .iter()
                .filter(|each| each.0 == channel)
                .map(|each| format!("u{}", each.1).into())
                .collect();
            users.sort();
            if !users.is_empty() {
                truth.push((topic(channel).channel.to_string(), users.len() as u64, users));
            }
        }
        assert_eq!(held, truth, "Redis knows what the node holds");
        let count = |number: u32| {
            let data = format!("\"data\":{number}}}");
            self.model.published.iter().filter(|text| text.ends_with(&data)).count()
        };
        for (number, receiver) in &mut self.callers {
            let times = count(*number);
            match receiver.try_recv().expect("everybody is answered") {
                Ok(_) => assert_eq!(times, 1, "event {number} was accepted"),
                Err(Away) => assert!(times <= 1, "event {number} was refused and sent {times} times"),
            }
        }
        let order: Vec<usize> = self
            .model
            .published
            .iter()
            .map(|text| {
                let data = text.rsplit(':').next().expect("data").trim_end_matches('}');
                data.parse().expect("a number")
            })
            .collect();
        assert!(order.is_sorted(), "events keep their order: {order:?}");
    }
}

/// How the hold of the user who comes now is said.
fn said_of_newcomer(trial: &mut Trial) -> Again {
    trial.toggle(0, 0);
    while trial.lane.next(trial.run, trial.now).is_some_and(|command| !matches!(command, Command::Step)) {
        let beat = trial.model.beat();
        trial.lane.answered(beat, trial.now);
    }
    let last = trial.lane.items().last();
    let Some(Item::Op(Op::Hold(hold))) = last else { panic!("{last:?} instead of a hold") };
    let again = hold.again;
    let answered = trial.model.step(trial.lane.number(), trial.lane.items());
    trial.lane.answered(answered, trial.now);
    again
}

#[test]
fn while_others_may_still_tell_what_was_lost_nothing_is_new_for_certain() {
    let mut trial = Trial::new();
    trial.go(Fate::Answered);
    assert_eq!(said_of_newcomer(&mut trial), Again::No);
    trial.happen(Event::Flush);
    trial.now += LIMITS.lease / 5;
    // A beat finds that nothing is known, then the lease is taken again.
    trial.go(Fate::Answered);
    trial.go(Fate::Answered);
    assert_eq!(said_of_newcomer(&mut trial), Again::Marked);
    trial.now += LIMITS.lease;
    assert_eq!(said_of_newcomer(&mut trial), Again::No);
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::NotRun),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Cut),
    ]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u8..3, 0u8..3).prop_map(|(channel, user)| Event::Toggle(channel, user)),
        4 => Just(Event::Publish),
        10 => fates().prop_map(Event::Go),
        4 => (0u16..2000).prop_map(Event::Wait),
        1 => Just(Event::Bury),
        1 => Just(Event::Flush),
        1 => Just(Event::Copy),
        1 => Just(Event::Regress),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_redis_loses_holdings_are_restated_and_events_are_sent_once(
        happens in prop::collection::vec(events(), 1..120),
    ) {
        let mut trial = Trial::new();
        for event in happens {
            trial.happen(event);
        }
        trial.calm();
        trial.check();
    }
}
