//! A mirror to be told things, and what it wants then in words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::hub::{Audience, Body, ChannelFull, Subscription, Topic, WorkerId};
use crate::mirror::{
    Arrival, Asked, Change, Effect, Gap, Grant, Message, Mirror, Op, Place, Request, Snapshot, Ticket,
};
use crate::protocol::{ChannelName, Frame, Member};

pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const TTL: Duration = Duration::from_secs(60);

pub(super) fn name(text: &str) -> ChannelName {
    ChannelName::parse(text, 164).expect("valid name")
}

pub(super) fn topic(text: &str) -> Topic {
    let (text, audience) = match text.strip_prefix("watch ") {
        Some(text) => (text, Audience::Watchers),
        None => (text, Audience::Subscribers),
    };
    Topic { app: "1".into(), channel: name(text), audience }
}

pub(super) fn member(user_id: &str) -> Arc<Member> {
    described(user_id, "{}")
}

pub(super) fn described(user_id: &str, user_info: &str) -> Arc<Member> {
    Arc::new(Member { user_id: user_id.into(), user_info: user_info.into() })
}

pub(super) fn place(epoch: u64, seq: u64) -> Place {
    Place { epoch, seq }
}

pub(super) fn event(number: u64) -> Message {
    Message::Event(Frame::event(&name("news"), "\"e\"", &format!("\"{number}\"")))
}

pub(super) fn arrival(epoch: u64, seq: u64, message: Message) -> Arrival {
    Arrival { place: place(epoch, seq), message, except: None }
}

/// Event number `seq`, at that place.
pub(super) fn nth(epoch: u64, seq: u64) -> Arrival {
    arrival(epoch, seq, event(seq))
}

pub(super) fn added(user_id: &str) -> Message {
    Message::MemberAdded(member(user_id))
}

pub(super) fn removed(user_id: &str) -> Message {
    Message::MemberRemoved(user_id.into())
}

pub(super) fn at(epoch: u64, seq: u64) -> Snapshot {
    Snapshot { place: place(epoch, seq), ..Snapshot::default() }
}

pub(super) fn with(epoch: u64, seq: u64, users: &[&str]) -> Snapshot {
    let roster = Some(users.iter().map(|user_id| member(user_id)).collect());
    Snapshot { roster, ..at(epoch, seq) }
}

pub(super) fn missing(epoch: u64, seq: u64, missed: Vec<Arrival>) -> Snapshot {
    Snapshot { missed, ..at(epoch, seq) }
}

/// A mirror, and what it wants, in words.
pub(super) struct Bench {
    pub(super) mirror: Mirror,
    pub(super) app: App,
    now: Instant,
    pub(super) effects: Vec<Effect>,
}

impl Bench {
    pub(super) fn new(now: Instant) -> Self {
        let app = App { id: "1".into(), presence_members_max: 100, ..App::default() };
        Self { mirror: Mirror::new(7, LINGER), app, now, effects: Vec::new() }
    }

    /// A connection comes; its worker is the ticket modulo 2. How it is seated, or "later".
    pub(super) fn join(&mut self, text: &str, user_id: &str, ticket: u32) -> String {
        let Topic { channel, audience, .. } = topic(text);
        let worker = worker(ticket);
        if audience == Audience::Watchers {
            let asked = self.mirror.watch(&self.app, &channel, worker, Ticket(ticket), &mut self.effects);
            return if let Asked::Now(watched) = asked {
                told(&Grant::Watched(watched))
            } else {
                "later".into()
            };
        }
        let member = (!user_id.is_empty()).then(|| member(user_id));
        let new = Subscription {
            app: &self.app,
            channel: &channel,
            worker,
            member: member.as_ref(),
            notice: None,
            now: self.now,
        };
        let asked = self.mirror.subscribe(&new, Ticket(ticket), &mut self.effects);
        if let Asked::Now(joined) = asked { told(&Grant::Joined(joined)) } else { "later".into() }
    }

    pub(super) fn leave(&mut self, text: &str, user_id: &str, ticket: u32) {
        let Topic { channel, audience, .. } = topic(text);
        let (worker, now, effects) = (worker(ticket), self.now, &mut self.effects);
        if audience == Audience::Watchers {
            self.mirror.unwatch(&self.app, &channel, worker, now, effects);
            return;
        }
        let member = (!user_id.is_empty()).then(|| member(user_id));
        let (app, member) = (&self.app, member.as_ref());
        let old = Subscription { app, channel: &channel, worker, member, notice: None, now };
        self.mirror.unsubscribe(&old, effects);
    }

    pub(super) fn listening(&mut self, text: &str) {
        self.mirror.listening(&topic(text), &mut self.effects);
    }

    pub(super) fn held(&mut self, text: &str, entered: &str, place: Place) {
        let entered = (!entered.is_empty()).then_some(entered);
        self.mirror.held(&topic(text), entered, Ok(place), self.now, &mut self.effects);
    }

    pub(super) fn full(&mut self, text: &str, user_id: &str) {
        let refusal = Err(ChannelFull);
        self.mirror.held(&topic(text), Some(user_id), refusal, self.now, &mut self.effects);
    }

    pub(super) fn seen(&mut self, text: &str, snapshot: Snapshot) -> Gap {
        self.mirror.seen(&topic(text), snapshot, self.now, &mut self.effects)
    }

    pub(super) fn arrives(&mut self, text: &str, arrival: Arrival) {
        self.mirror.arrived(&topic(text), arrival, self.now, &mut self.effects);
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.mirror.settle(self.now, &mut self.effects);
    }

    /// What the mirror has wanted since it was last asked.
    pub(super) fn wants(&mut self) -> Vec<String> {
        self.effects.drain(..).map(|effect| in_words(&effect)).collect()
    }

    /// A topic with one subscriber, whose replica is at this snapshot.
    pub(super) fn open(&mut self, text: &str, user_id: &str, snapshot: Snapshot) {
        let place = snapshot.place;
        assert_eq!(self.join(text, user_id, 0), "later");
        self.listening(text);
        self.held(text, user_id, place);
        self.seen(text, snapshot);
        let wants = self.wants();
        assert!(wants.iter().any(|want| want.starts_with("grant 0")), "{wants:?}");
    }
}

pub(super) fn worker(ticket: u32) -> WorkerId {
    WorkerId(u16::try_from(ticket % 2).expect("small"))
}

pub(super) fn words(topic: &Topic) -> String {
    let watch = if topic.audience == Audience::Watchers { "watch " } else { "" };
    format!("{watch}{}", topic.channel)
}

/// What somebody is told who is seated.
pub(super) fn told(grant: &Grant) -> String {
    let Grant::Joined(joined) = grant else {
        let Grant::Watched(watched) = grant else { unreachable!() };
        return if watched.online { "online" } else { "offline" }.into();
    };
    let roster = joined.roster.iter().flat_map(|roster| roster.members());
    let mut said: Vec<String> = roster.map(|member| member.user_id.to_string()).collect();
    said.sort();
    said.extend(joined.cached.iter().map(|cached| cached.as_ref().map_or("miss".into(), text)));
    if said.is_empty() { "now".into() } else { said.join(" ") }
}

pub(super) fn text(frame: &Frame) -> String {
    let frame: serde_json::Value = serde_json::from_slice(frame.text()).expect("JSON");
    let data = frame["data"].as_str().map(|data| serde_json::from_str(data).unwrap_or(data.into()));
    let data: serde_json::Value = data.unwrap_or_else(|| frame["data"].clone());
    let user_id = || data["user_id"].as_str().expect("a user");
    match frame["event"].as_str().expect("an event") {
        "pusher_internal:member_added" => format!("+{}", user_id()),
        "pusher_internal:member_removed" => format!("-{}", user_id()),
        "pusher_internal:watchlist_events" => data["events"][0]["name"].as_str().expect("a name").into(),
        _ => format!("e{}", data.as_str().map_or(data.to_string(), str::to_owned)),
    }
}

pub(super) fn in_words(effect: &Effect) -> String {
    match effect {
        Effect::Ask(Request::Open(topic)) => format!("open {}", words(topic)),
        Effect::Ask(Request::Close(topic)) => format!("close {}", words(topic)),
        Effect::Ask(Request::Op(Op::Hold(hold))) => {
            let change = match &hold.change {
                Some(Change::Enters { member, .. }) => format!(" +{}", member.user_id),
                Some(Change::Leaves(user_id)) => format!(" -{user_id}"),
                None => String::new(),
            };
            format!("hold {} {}{change}", words(&hold.topic), hold.count)
        }
        Effect::Ask(Request::Op(Op::Look(topic, None))) => format!("look {}", words(topic)),
        Effect::Ask(Request::Op(Op::Look(topic, Some(since)))) => {
            format!("look {} since {}.{}", words(topic), since.epoch, since.seq)
        }
        Effect::Ask(Request::Op(Op::Miss(topic, _))) => format!("miss {}", words(topic)),
        Effect::Ask(Request::Op(op)) => panic!("{op:?}"),
        Effect::Granted(_, ticket, Ok(grant)) => format!("grant {}: {}", ticket.0, told(grant)),
        Effect::Granted(_, ticket, Err(ChannelFull)) => format!("grant {}: full", ticket.0),
        Effect::Deliver(worker, delivery) => match &delivery.body {
            Body::Frame(frame) => format!("{}: {}", worker.0, text(frame)),
            Body::SubscriptionCount(count) => format!("{}: count {count}", worker.0),
            Body::Disconnect(_) => format!("{}: disconnect", worker.0),
        },
    }
}
