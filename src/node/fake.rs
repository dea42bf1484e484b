//! A cluster in memory, for tests of those who wait for one: it answers when it is told to work, and not before.
//!
//! It is this node's cluster alone; what other nodes do, a test says. Times, leases and lost messages it has none of.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::app::AppId;
use crate::hub::{Audience, ChannelFull, Topic};
use crate::mirror::{
    Arrival, Change, Hold, Message, Op, Place, Publication, Reply, Request, Snapshot, partition_of,
};
use crate::node::{Away, Call, Listed, Mailbox, Node};
use crate::protocol::{CachedEvent, Member, SocketId};

pub(crate) struct FakeCluster {
    node: Arc<Node>,
    calls: Mailbox<Call>,
    /// Nothing is answered but that it is away.
    pub(crate) is_away: bool,
    states: HashMap<Topic, State>,
    listened: HashSet<Topic>,
    asked: VecDeque<(Op, Option<Caller>)>,
}

type Caller = oneshot::Sender<Result<Reply, Away>>;

#[derive(Default)]
struct State {
    place: Place,
    here: u64,
    elsewhere: u64,
    members: BTreeMap<Box<str>, Present>,
    cached: Option<(CachedEvent, Duration)>,
    /// Names of the events.
    published: Vec<String>,
}

struct Present {
    member: Arc<Member>,
    here: bool,
    elsewhere: bool,
}

impl State {
    fn total(&self) -> u64 {
        self.here + self.elsewhere
    }
}

impl FakeCluster {
    pub(crate) fn new(node: &Arc<Node>) -> Self {
        Self {
            calls: node.take_calls().expect("the calls of a cluster"),
            node: node.clone(),
            is_away: false,
            states: HashMap::new(),
            listened: HashSet::new(),
            asked: VecDeque::new(),
        }
    }

    /// Answers everything that was asked.
    pub(crate) fn work(&mut self) {
        self.work_on(|_| true);
    }

    /// Answers what was asked about some topics; the rest waits.
    pub(crate) fn work_on(&mut self, is_wanted: impl Fn(&Topic) -> bool) {
        loop {
            let mut is_idle = !self.take_calls();
            let mut left = VecDeque::new();
            while let Some((op, caller)) = self.asked.pop_front() {
                match caller {
                    Some(caller) if self.is_away => drop(caller.send(Err(Away))),
                    caller if self.is_away || !is_wanted(op.topic()) => left.push_back((op, caller)),
                    caller => {
                        is_idle = false;
                        self.answer(op, caller);
                    }
                }
            }
            self.asked = left;
            if is_idle {
                return;
            }
        }
    }

    /// What this node holds of a topic.
    pub(crate) fn held(&self, topic: &Topic) -> u64 {
        self.states.get(topic).map_or(0, |state| state.here)
    }

    /// The members of a channel, wherever they are.
    pub(crate) fn members(&self, topic: &Topic) -> Vec<&str> {
        let state = self.states.get(topic);
        state.into_iter().flat_map(|state| state.members.keys()).map(|id| &**id).collect()
    }

    /// A connection of another node comes.
    pub(crate) fn joins_elsewhere(&mut self, topic: &Topic, member: Option<Arc<Member>>) {
        let before = self.state(topic).total();
        self.state(topic).elsewhere += 1;
        if let Some(member) = member {
            self.enter(topic, &member, false);
        }
        self.tell_online(topic, before);
    }

    /// A connection of another node goes.
    pub(crate) fn leaves_elsewhere(&mut self, topic: &Topic, user_id: Option<&str>) {
        let before = self.state(topic).total();
        self.state(topic).elsewhere -= 1;
        if let Some(user_id) = user_id {
            self.exit(topic, user_id, false);
        }
        self.tell_online(topic, before);
    }

    /// Somebody publishes.
    pub(crate) fn publish(&mut self, topic: &Topic, message: Message, except: Option<SocketId>) -> Reply {
        if let Message::Kept(event, ttl) = &message {
            self.state(topic).cached = Some((event.clone(), *ttl));
        }
        let state = self.state(topic);
        state.published.push(name(&message));
        let (subscriptions, users) = (state.total(), state.members.len());
        if subscriptions > 0 || state.cached.is_some() {
            self.tell(topic, message, except);
        }
        Reply::Published { subscriptions, users }
    }

    /// The names of all events that were published.
    pub(crate) fn published(&self, topic: &Topic) -> &[String] {
        self.states.get(topic).map(|state| &*state.published).unwrap_or_default()
    }

    /// Takes what is asked. Whether there was anything.
    fn take_calls(&mut self) -> bool {
        let mut calls = Vec::new();
        self.calls.take_waiting(&mut calls);
        let some = !calls.is_empty();
        for call in calls {
            match call {
                Call::Mirror(Request::Open(topic)) => {
                    self.node.mirrored_topic(&topic, |mirror, effects| mirror.listening(&topic, effects));
                    self.listened.insert(topic);
                }
                Call::Mirror(Request::Close(topic)) => drop(self.listened.remove(&topic)),
                Call::Mirror(Request::Op(op)) => self.asked.push_back((op, None)),
                Call::Op(op, caller) => self.asked.push_back((op, Some(caller))),
                Call::List { reply, .. } if self.is_away => drop(reply.send(Err(Away))),
                Call::List { partition, app, prefix, reply } => {
                    drop(reply.send(Ok(self.list(partition, &app, &prefix))));
                }
            }
        }
        some
    }

    fn answer(&mut self, op: Op, caller: Option<Caller>) {
        let reply = self.step(&op);
        if let Some(caller) = caller {
            // Whoever has asked may have gone.
            return drop(caller.send(Ok(reply)));
        }
        let now = Instant::now();
        self.node.mirrored_topic(op.topic(), |mirror, effects| match (&op, reply) {
            (Op::Hold(hold), reply) => {
                let entered = match &hold.change {
                    Some(Change::Enters { member, .. }) => Some(&*member.user_id),
                    _ => None,
                };
                let outcome = match reply {
                    Reply::Held(place) => Ok(place),
                    _ => Err(ChannelFull),
                };
                mirror.held(&hold.topic, entered, outcome, now, effects);
            }
            (Op::Look(topic, _), Reply::Seen(snapshot)) => {
                mirror.seen(topic, *snapshot, now, effects);
            }
            _ => {}
        });
    }

    fn step(&mut self, op: &Op) -> Reply {
        match op {
            Op::Hold(hold) => self.hold(hold),
            Op::Publish(Publication { topic, message, except, .. }) => {
                self.publish(topic, message.clone(), *except)
            }
            Op::Miss(..) => Reply::Noted,
            Op::Census(topic) => Reply::Seen(Box::new(Snapshot { roster: None, ..self.snapshot(topic) })),
            Op::Look(topic, _) => Reply::Seen(Box::new(self.snapshot(topic))),
        }
    }

    fn hold(&mut self, hold: &Hold) -> Reply {
        let topic = &hold.topic;
        let before = self.state(topic).total();
        if let Some(Change::Enters { member, max }) = &hold.change {
            let members = &self.state(topic).members;
            if members.len() >= *max && !members.contains_key(&member.user_id) {
                return Reply::Full;
            }
        }
        self.state(topic).here = hold.count;
        match &hold.change {
            Some(Change::Enters { member, .. }) => self.enter(topic, member, true),
            Some(Change::Leaves(user_id)) => self.exit(topic, user_id, true),
            None => {}
        }
        let total = self.state(topic).total();
        if hold.traits.counts && total != before && total > 0 {
            self.tell(topic, Message::Count(total), None);
        }
        self.tell_online(topic, before);
        Reply::Held(self.state(topic).place)
    }

    fn enter(&mut self, topic: &Topic, member: &Arc<Member>, here: bool) {
        let members = &mut self.state(topic).members;
        let is_new = !members.contains_key(&member.user_id);
        let absent = || Present { member: member.clone(), here: false, elsewhere: false };
        let present = members.entry(member.user_id.clone()).or_insert_with(absent);
        *(if here { &mut present.here } else { &mut present.elsewhere }) = true;
        if is_new {
            self.tell(topic, Message::MemberAdded(member.clone()), None);
        }
    }

    fn exit(&mut self, topic: &Topic, user_id: &str, here: bool) {
        let members = &mut self.state(topic).members;
        let Some(present) = members.get_mut(user_id) else { return };
        *(if here { &mut present.here } else { &mut present.elsewhere }) = false;
        if !present.here && !present.elsewhere {
            members.remove(user_id);
            self.tell(topic, Message::MemberRemoved(user_id.into()), None);
        }
    }

    /// Tells those who watch a user that it has come or gone.
    fn tell_online(&mut self, topic: &Topic, before: u64) {
        let now = self.state(topic).total();
        if topic.channel.kind().is_user()
            && topic.audience == Audience::Subscribers
            && (before > 0) != (now > 0)
        {
            let watchers = Topic { audience: Audience::Watchers, ..topic.clone() };
            if self.state(&watchers).total() > 0 {
                let message = if now > 0 { Message::Online } else { Message::Offline };
                self.tell(&watchers, message, None);
            }
        }
    }

    /// The next message of a topic.
    fn tell(&mut self, topic: &Topic, message: Message, except: Option<SocketId>) {
        let state = self.state(topic);
        state.place.seq += 1;
        let arrival = Arrival { place: state.place, message, except };
        if self.listened.contains(topic) {
            self.node.arrived(topic, arrival, Instant::now());
        }
    }

    fn snapshot(&mut self, topic: &Topic) -> Snapshot {
        let own = Topic { audience: Audience::Subscribers, ..topic.clone() };
        let online = topic.audience == Audience::Watchers && self.state(&own).total() > 0;
        let state = self.state(topic);
        let roster = || state.members.values().map(|present| present.member.clone()).collect();
        Snapshot {
            place: state.place,
            subscriptions: state.total(),
            users: state.members.len(),
            roster: topic.channel.kind().is_presence().then(roster),
            cached: state.cached.clone(),
            online,
            missed: Vec::new(),
            is_all: false,
        }
    }

    fn list(&self, partition: u8, app: &AppId, prefix: &str) -> Vec<Listed> {
        let is_listed = |(topic, state): &(&Topic, &State)| {
            let name = topic.channel.as_str();
            topic.app == *app
                && topic.is_channel()
                && state.total() > 0
                && partition_of(app, name) == partition
                && name.starts_with(prefix)
        };
        let listed = |(topic, state): (&Topic, &State)| Listed {
            channel: topic.channel.clone(),
            subscriptions: state.total(),
            users: state.members.len(),
        };
        self.states.iter().filter(is_listed).map(listed).collect()
    }

    fn state(&mut self, topic: &Topic) -> &mut State {
        let fresh = || State { place: Place { epoch: 7, seq: 0 }, ..State::default() };
        self.states.entry(topic.clone()).or_insert_with(fresh)
    }
}

fn name(message: &Message) -> String {
    let (Message::Event(frame) | Message::Kept(CachedEvent { frame, .. }, _)) = message else {
        return "(disconnect)".to_owned();
    };
    let event: Value = serde_json::from_slice(frame.text()).expect("JSON");
    event["event"].as_str().expect("a name").to_owned()
}
