//! The hub and the nodes side by side: everything is told to both, and both must say the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::app::{App, Webhook};
use fanfare::cluster::script::Item;
use fanfare::hub::{
    Audience, Body, ClientEventFact, Effect, Event, Fact, Hub, Publish, Subscription, Topic, WorkerId,
};
use fanfare::mirror::{
    Again, Change, Hold, Message, Op, Place, Publication, Reply, Snapshot, Traits, partition_of,
};
use fanfare::protocol::{CachedEvent, ChannelName, CloseReason, Frame, Member, SocketId};

use super::happened::{Happened, as_body};
use super::nodes::{DEBOUNCE, LEASE, Nodes, number};
use crate::support::RedisServer;

pub(super) const NODES: usize = 3;
pub(super) const WORKERS: usize = 2;
pub(super) const USERS: [&str; 4] = ["ann", "b \"1\"", "c\0\u{e9}", "dan"];

/// Everything happens in this one.
const PARTITION: u8 = 17;

/// What names begin with: those of the app that has everything, then those of the one that has nothing.
const FULL: [&str; 7] = [
    "news",
    "private-a",
    "cache-c",
    "presence-room",
    "presence-cache-p",
    "#server-to-user-ann",
    "#server-to-user-bob",
];
const BARE: [&str; 3] = ["news", "presence-room", "cache-c"];

/// Both of them.
pub(super) struct World {
    hub: Hub,
    beginning: Instant,
    apps: [App; 2],
    /// Channels, with the number of their app.
    channels: Vec<(usize, ChannelName)>,
    connections: Vec<Connection>,
    nodes: Nodes,
    made: usize,
}

/// A place among the listeners of a channel.
#[derive(Clone, Debug)]
struct Connection {
    node: usize,
    worker: usize,
    app: usize,
    topic: Topic,
    member: Option<Arc<Member>>,
}

impl World {
    pub(super) fn new(server: &RedisServer, sharded: bool, log_bytes: usize) -> Self {
        let app =
            |id: &str| App { id: id.into(), presence_members_max: 2, cache_ttl_s: 30, ..App::default() };
        let webhooks = vec![Webhook::default()];
        let apps = [App { subscription_counts: true, webhooks, ..app("1:a") }, app("2")];
        let in_partition = |app: usize, name: &str| {
            let names = (0..).map(|number| format!("{name}{number}"));
            let mut names = names.filter(|name| partition_of(&apps[app].id, name) == PARTITION);
            (app, ChannelName::parse(&names.next().expect("a name"), 164).expect("a name"))
        };
        let full = FULL.iter().map(|name| in_partition(0, name));
        let channels: Vec<_> = full.chain(BARE.iter().map(|name| in_partition(1, name))).collect();
        let topics: Vec<Topic> = channels
            .iter()
            .flat_map(|(app, channel)| {
                let topic =
                    |audience| Topic { app: apps[*app].id.clone(), channel: channel.clone(), audience };
                [topic(Audience::Subscribers), topic(Audience::Watchers)]
            })
            .filter(|topic| topic.audience == Audience::Subscribers || topic.channel.kind().is_user())
            .collect();
        let mut nodes = Nodes::new(server, sharded, PARTITION, NODES, &topics);
        nodes.log_bytes = log_bytes;
        let (hub, beginning) = (Hub::new(7, DEBOUNCE), Instant::now());
        Self { hub, beginning, apps, channels, connections: Vec::new(), nodes, made: 0 }
    }

    fn now(&self) -> Instant {
        self.beginning + self.nodes.now()
    }

    fn topic(&self, channel: usize, audience: Audience) -> (usize, Topic) {
        let (app, channel) = &self.channels[channel % self.channels.len()];
        (*app, Topic { app: self.apps[*app].id.clone(), channel: channel.clone(), audience })
    }

    /// The channel of a user, and whether there is one behind that number.
    fn users_topic(&self, user: usize, audience: Audience) -> (usize, Topic) {
        self.topic(5 + user % 2, audience)
    }

    /// A connection comes, unless there is no room for it.
    pub(super) fn join(&mut self, node: usize, worker: usize, channel: usize, user: usize, twice: bool) {
        let (app, topic) = self.topic(channel, Audience::Subscribers);
        self.made += 1;
        let user_info = format!("{{\"n\":{}}}", self.made).into();
        let member = topic.channel.kind().is_presence().then(|| {
            let user_id = USERS[user % USERS.len()].into();
            Arc::new(Member { user_id, user_info })
        });
        let new = Connection { node, worker, app, topic, member };
        let was_empty = self.total(&new.topic) == 0;
        let mut effects = Vec::new();
        let joined = self.hub.subscribe(subscription(&self.apps, &new, true, self.now()), &mut effects);
        let happened = Happened::of(effects, |_| true);

        self.connections.push(new.clone());
        let is_here = |other: &&Connection| {
            other.node == node && other.topic == new.topic && other.user_id() == new.user_id()
        };
        let is_first = new.member.is_some() && self.connections.iter().filter(is_here).count() == 1;
        let max = self.apps[app].presence_members_max;
        let enters = new.member.clone().filter(|_| is_first).map(|member| Change::Enters { member, max });
        let hold = self.hold(node, app, &new.topic, enters);
        let look = Item::Op(Op::Look(new.topic.clone(), None));
        let replies = self.nodes.step(node, twice, &[Item::Op(Op::Hold(hold)), look]);
        let [held, Reply::Seen(seen)] = &replies[..] else { panic!("{replies:?}") };
        match joined {
            Err(_) => {
                assert_eq!(*held, Reply::Full);
                self.connections.pop();
            }
            Ok(joined) => {
                assert_eq!(*held, Reply::Held(seen.place), "what it led to is not behind it");
                if let Some(cached) = joined.cached {
                    assert_eq!(cached, seen.cached.as_ref().map(|(event, _)| event.frame.clone()));
                    if cached.is_none() {
                        let traits = Traits::of(&self.apps[app], &new.topic);
                        self.nodes.step(node, twice, &[Item::Op(Op::Miss(new.topic.clone(), traits))]);
                    }
                }
            }
        }
        // The hub tells those who are there already; on the bus everybody listens.
        let is_own = |(topic, body): &(Topic, Body)| {
            let own = new.member.as_ref().map(|member| Frame::member_added(&topic.channel, member));
            was_empty && own.is_some_and(|own| *body == Body::Frame(own))
        };
        self.compare_happened(happened, |told| !is_own(told));
    }

    /// One of the connections goes.
    pub(super) fn leave(&mut self, which: usize, twice: bool) {
        if self.connections.is_empty() {
            return;
        }
        let old = self.connections.remove(which % self.connections.len());
        let mut effects = Vec::new();
        self.unsubscribe(&old, &mut effects);
        let hold = self.hold(old.node, old.app, &old.topic, self.leaves(&old));
        self.nodes.step(old.node, twice, &[Item::Op(Op::Hold(hold))]);
        self.compare_happened(Happened::of(effects, |_| true), |_| true);
    }

    /// Many connections come at once to a channel without members, and are told of one by one in one step.
    pub(super) fn crowd(&mut self, node: usize, channel: usize, count: usize, twice: bool) {
        let (app, topic) = self.topic(channel, Audience::Subscribers);
        let (mut effects, mut items) = (Vec::new(), Vec::new());
        for at in 0..count {
            let new = Connection { node, worker: at % WORKERS, app, topic: topic.clone(), member: None };
            let joined = self.hub.subscribe(subscription(&self.apps, &new, true, self.now()), &mut effects);
            joined.expect("room for everybody");
            self.connections.push(new);
            items.push(Item::Op(Op::Hold(self.hold(node, app, &topic, None))));
        }
        self.nodes.step(node, twice, &items);
        self.compare_happened(Happened::of(effects, |_| true), |_| true);
    }

    /// All connections of a node go at once, and are told of one by one in one step.
    pub(super) fn leave_all(&mut self, node: usize, twice: bool) {
        let (mut effects, mut items) = (Vec::new(), Vec::new());
        while let Some(at) = self.connections.iter().position(|it| it.node == node) {
            let old = self.connections.remove(at);
            self.unsubscribe(&old, &mut effects);
            items.push(Item::Op(Op::Hold(self.hold(node, old.app, &old.topic, self.leaves(&old)))));
        }
        self.nodes.step(node, twice, &items);
        self.compare_happened(Happened::of(effects, |_| true), |_| true);
    }

    fn unsubscribe(&mut self, old: &Connection, effects: &mut Vec<Effect>) {
        let now = self.now();
        match old.topic.audience {
            Audience::Subscribers => {
                self.hub.unsubscribe(subscription(&self.apps, old, false, now), effects);
            }
            Audience::Watchers => {
                self.hub.unwatch(&self.apps[old.app], &old.topic.channel, old.worker_id(), now);
            }
        }
    }

    fn leaves(&self, old: &Connection) -> Option<Change> {
        let is_left = |other: &Connection| {
            other.node == old.node && other.topic == old.topic && other.user_id() == old.user_id()
        };
        let user_id = old.user_id().filter(|_| !self.connections.iter().any(is_left));
        user_id.map(|user_id| Change::Leaves(user_id.into()))
    }

    /// Somebody begins to watch a user.
    pub(super) fn watch(&mut self, node: usize, worker: usize, user: usize, twice: bool) {
        let (app, topic) = self.users_topic(user, Audience::Watchers);
        let new = Connection { node, worker, app, topic, member: None };
        let watched = self.hub.watch(&self.apps[app], &new.topic.channel, new.worker_id());
        self.connections.push(new.clone());
        let hold = self.hold(node, app, &new.topic, None);
        let look = Item::Op(Op::Look(new.topic.clone(), None));
        let replies = self.nodes.step(node, twice, &[Item::Op(Op::Hold(hold)), look]);
        let [Reply::Held(_), Reply::Seen(seen)] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(seen.online, watched.online);
        self.compare_happened(Happened::default(), |_| true);
    }

    /// A backend publishes.
    pub(super) fn publish(&mut self, node: usize, channel: usize, twice: bool) {
        let (app, topic) = self.topic(channel, Audience::Subscribers);
        self.made += 1;
        let event = CachedEvent::new(&topic.channel, "\"e\"", &format!("\"{}\"", self.made));
        let ttl = self.apps[app].cache_ttl();
        let (event, message) = match topic.channel.kind().is_cached() {
            true => (Event::Kept(event.clone()), Message::Kept(event, ttl)),
            false => (Event::Passing(event.frame.clone()), Message::Event(event.frame)),
        };
        self.say(node, app, topic, event, message, None, twice);
    }

    /// One of the connections sends something to the others of its channel.
    pub(super) fn client_event(&mut self, which: usize, twice: bool) {
        if self.connections.is_empty() {
            return;
        }
        let sender = self.connections[which % self.connections.len()].clone();
        if !sender.topic.is_channel() {
            return;
        }
        self.made += 1;
        let (name, data) = ("\"client-e\"", format!("\"{}\\\"\"", self.made));
        let frame = Frame::client_event(&sender.topic.channel, name, &data, sender.user_id());
        let told = ClientEventFact {
            event: name.into(),
            data: data.into(),
            socket_id: SocketId::from_random(self.made as u128),
            user_id: sender.user_id().map(Into::into),
        };
        let tells = !self.apps[sender.app].webhooks.is_empty();
        let told = tells.then(|| Box::new(told));
        let (event, message) = (Event::Passing(frame.clone()), Message::Event(frame));
        self.say(sender.node, sender.app, sender.topic, event, message, told, twice);
    }

    #[expect(clippy::too_many_arguments, reason = "the same for both sides")]
    fn say(
        &mut self,
        node: usize,
        app: usize,
        topic: Topic,
        event: Event,
        message: Message,
        told: Option<Box<ClientEventFact>>,
        twice: bool,
    ) {
        let except = self.made.is_multiple_of(2).then(|| SocketId::from_random(self.made as u128));
        let mut effects = Vec::new();
        let (now, channel) = (self.now(), &topic.channel);
        let publish = Publish { app: &self.apps[app], channel, event, except, told: told.clone(), now };
        let census = self.hub.publish(publish, &mut effects);
        let publication = Publication { topic, message, except, told };
        let replies = self.nodes.step(node, twice, &[Item::Op(Op::Publish(publication))]);
        let expected = Reply::Published { subscriptions: census.subscriptions, users: census.users };
        assert_eq!(replies, [expected]);
        self.compare_happened(Happened::of(effects, |_| true), |_| true);
    }

    /// The connections of a user are ended.
    pub(super) fn terminate(&mut self, node: usize, user: usize, twice: bool) {
        let (app, topic) = self.users_topic(user, Audience::Subscribers);
        let mut effects = Vec::new();
        let body = Body::Disconnect(CloseReason::Terminated);
        self.hub.terminate(&self.apps[app], &topic.channel, body, &mut effects);
        let message = Message::Disconnect(CloseReason::Terminated);
        let publication = Publication { topic, message, except: None, told: None };
        self.nodes.step(node, twice, &[Item::Op(Op::Publish(publication))]);
        self.compare_happened(Happened::of(effects, |_| true), |_| true);
    }

    /// Time goes by.
    pub(super) fn wait(&mut self, time: Duration, by: usize, twice: bool) {
        self.nodes.wait(time);
        let mut effects = Vec::new();
        let apps = &self.apps;
        self.hub.settle(
            self.beginning + self.nodes.now(),
            |id| apps.iter().find(|app| *app.id == *id),
            &mut effects,
        );
        self.nodes.settle(by, twice, None);
        self.compare_happened(Happened::of(effects, |_| true), |_| true);
    }

    /// A node goes without a word.
    pub(super) fn die(&mut self, dead: usize, twice: bool) {
        let by = (dead + 1) % NODES;
        let counted = self.connections.iter().filter(|it| it.node == dead);
        if counted.clone().any(|it| self.total(&it.topic) > 100) {
            return; // the hub tells numbers one by one, and begins its pauses at another one
        }
        let name = self.nodes.nodes[dead].name.clone();
        self.nodes.step(by, twice, &[Item::Claim(name)]);
        assert!(self.nodes.beat(dead).is_ok(), "its lease had not run out");
        self.nodes.wait(LEASE);
        let mut effects = Vec::new();
        let apps = &self.apps;
        self.hub.settle(
            self.beginning + self.nodes.now(),
            |id| apps.iter().find(|app| *app.id == *id),
            &mut effects,
        );
        self.nodes.settle(by, twice, Some(dead));
        let is_alive = |worker: WorkerId| usize::from(worker.0) / WORKERS != dead;
        let mut happened = Happened::of(effects, is_alive);

        let mut effects = Vec::new();
        let gone: Vec<Connection> = self.connections.extract_if(.., |it| it.node == dead).collect();
        for old in &gone {
            self.unsubscribe(old, &mut effects);
        }
        self.nodes.bury(dead, by, twice);
        let mut then = Happened::of(effects, is_alive);
        then.keep_last_counts(|channel| self.census_of(channel) > 0);
        happened.told.extend(then.told);
        happened.facts.extend(then.facts);
        happened.told.sort_by_cached_key(|told| format!("{told:?}"));
        // Nobody listens to what the dead were told.
        let alive: Vec<Topic> = self.connections.iter().map(|it| it.topic.clone()).collect();
        self.compare_any_order(happened, |(topic, _)| alive.contains(topic));
    }

    /// Numbers of steps that are not due change nothing.
    pub(super) fn stray(&mut self, node: usize, offset: i64) {
        let state = self.nodes.state();
        let (_, topic) = self.topic(0, Audience::Subscribers);
        let frame = Frame::event(&topic.channel, "\"stray\"", "\"\"");
        let stray = Publication { topic, message: Message::Event(frame), except: None, told: None };
        let done = self.nodes.step_aside(node, offset, &[Item::Op(Op::Publish(stray))]);
        assert!(matches!(done, Err(fanfare::cluster::script::Fault::Behind(_))), "{done:?}");
        assert_eq!(self.nodes.state(), state);
        self.compare_happened(Happened::default(), |_| true);
    }

    /// Somebody who has heard everything up to some message asks what came after it.
    pub(super) fn look_back(&mut self, node: usize, channel: usize, back: usize, twice: bool) {
        let (_, topic) = self.topic(channel, Audience::Subscribers);
        let last = self.nodes.look(node, false, &[(topic.clone(), None)])[0].place;
        let heard = self.nodes.heard.get(&topic).cloned().unwrap_or_default();
        let life: Vec<_> = heard.iter().filter(|arrival| arrival.place.epoch == last.epoch).collect();
        let from = life.len().saturating_sub(back);
        let since = Place { epoch: last.epoch, seq: life.get(from).map_or(last.seq, |it| it.place.seq - 1) };
        let snapshots = self.nodes.look(node, twice, &[(topic.clone(), Some(since))]);
        let expected: Vec<_> = life[from..].iter().map(|it| (*it).clone()).collect();
        let Snapshot { place, roster, missed, is_all, .. } = &snapshots[0];
        assert!(!is_all || *missed == expected, "{missed:?} is not all of {expected:?}");
        match self.nodes.log_bytes {
            0 => assert_eq!(missed.len(), 0),
            1..1_000_000 => assert!(expected.ends_with(missed), "{missed:?} of {expected:?}"),
            _ => assert_eq!((missed, *is_all), (&expected, last.epoch != 0)),
        }
        assert_eq!(*place, last);
        assert_eq!(last == Place::default(), self.total(&topic) == 0);
        assert_eq!(roster.is_some(), *place != since && topic.channel.kind().is_presence());
    }

    /// Redis is another one, with everything that was there.
    pub(super) fn restart(&mut self) {
        self.nodes.run = self.nodes.run.map(|run| run + 1);
    }

    /// As if Redis had lost the latest messages of a topic: what is left begins another life.
    pub(super) fn look_from_the_future(&mut self, node: usize, channel: usize, twice: bool) {
        let (_, topic) = self.topic(channel, Audience::Subscribers);
        let before = self.nodes.look(node, false, &[(topic.clone(), None)])[0].place;
        let since = Place { seq: before.seq + 3, ..before };
        let snapshot = &self.nodes.look(node, twice, &[(topic.clone(), Some(since))])[0];
        assert_eq!(snapshot.place.epoch != before.epoch, self.total(&topic) > 0);
        assert_eq!((number(snapshot.place), snapshot.missed.len(), snapshot.is_all), (0, 0, false));
    }

    /// What both say of everything there is.
    pub(super) fn compare(&mut self, node: usize, twice: bool) {
        let looks: Vec<(Topic, Option<Place>)> = (0..self.channels.len())
            .flat_map(|at| {
                [Audience::Subscribers, Audience::Watchers].map(|audience| self.topic(at, audience).1)
            })
            .filter(|topic| topic.audience == Audience::Subscribers || topic.channel.kind().is_user())
            .map(|topic| (topic, None))
            .collect();
        let now = self.now();
        let snapshots = self.nodes.look(node, twice, &looks);
        for ((topic, _), snapshot) in looks.iter().zip(snapshots) {
            let Topic { app, channel, audience } = topic;
            let census = self.hub.census(app, channel, now);
            if *audience == Audience::Watchers {
                assert_eq!(snapshot.online, census.subscriptions > 0, "{channel}");
                continue;
            }
            let found = (snapshot.subscriptions, snapshot.users, snapshot.cached);
            assert_eq!(found, (census.subscriptions, census.users, census.cached), "{channel}");
            let mut roster: Vec<Member> =
                self.hub.roster(app, channel).iter().flat_map(|roster| roster.members().cloned()).collect();
            roster.sort_by(|a, b| a.user_id.cmp(&b.user_id));
            let found = snapshot.roster.map(|members| {
                let mut members: Vec<Member> = members.iter().map(|member| (**member).clone()).collect();
                members.sort_by(|a, b| a.user_id.cmp(&b.user_id));
                members
            });
            assert_eq!(found, channel.kind().is_presence().then_some(roster), "{channel}");
        }
        for (app, prefix) in [(0, ""), (0, "p"), (0, "#"), (1, ""), (1, "presence-")] {
            let app = &self.apps[app].id;
            let occupied = self.hub.occupied(app, prefix, now);
            let mut expected: Vec<_> = occupied
                .map(|(channel, census)| (channel.to_string(), census.subscriptions, census.users))
                .collect();
            expected.sort();
            let listed = self.nodes.list(app, prefix).into_iter();
            let found: Vec<_> =
                listed.map(|it| (it.channel.to_string(), it.subscriptions, it.users)).collect();
            assert_eq!(found, expected, "{prefix:?}");
        }
    }

    /// When everybody has gone and everything was told, nothing is left.
    pub(super) fn end(&mut self) {
        (0..NODES).for_each(|node| self.leave_all(node, false));
        self.wait(DEBOUNCE, 0, false);
        self.compare(0, false);
        for at in 0..NODES {
            self.nodes.leave(at);
        }
        let kept = ["meta", "facts", "log:0", "log:1", "clock"];
        for key in self.nodes.state().into_keys() {
            let key = String::from_utf8(key).expect("text");
            let name = key.split_once("}:").expect("a key of the partition").1;
            // What is cached goes when it is time.
            assert!(kept.contains(&name) || name.starts_with("cache:"), "{name} is left");
        }
    }

    fn total(&self, topic: &Topic) -> usize {
        self.connections.iter().filter(|connection| connection.topic == *topic).count()
    }

    fn census_of(&self, channel: &str) -> usize {
        self.connections.iter().filter(|it| it.topic.channel.as_str() == channel).count()
    }

    /// What a node says of a topic now.
    fn hold(&self, node: usize, app: usize, topic: &Topic, change: Option<Change>) -> Hold {
        let here = self.connections.iter().filter(|it| it.node == node && it.topic == *topic);
        let (count, traits) = (here.count() as u64, Traits::of(&self.apps[app], topic));
        Hold { topic: topic.clone(), count, change, traits, again: Again::No }
    }

    fn compare_happened(&mut self, expected: Happened, is_heard: impl Fn(&(Topic, Body)) -> bool) {
        let mut found: Vec<(Topic, Body)> = self.nodes.news().into_iter().map(as_body).collect();
        found.retain(&is_heard);
        let by_topic = |told: Vec<(Topic, Body)>| {
            let mut topics: HashMap<Topic, Vec<Body>> = HashMap::new();
            for (topic, body) in told {
                topics.entry(topic).or_default().push(body);
            }
            topics
        };
        assert_eq!(by_topic(found), by_topic(expected.told));
        self.compare_facts(expected.facts);
    }

    fn compare_any_order(&mut self, expected: Happened, is_heard: impl Fn(&(Topic, Body)) -> bool) {
        let mut found: Vec<(Topic, Body)> = self.nodes.news().into_iter().map(as_body).collect();
        found.retain(&is_heard);
        found.sort_by_cached_key(|told| format!("{told:?}"));
        assert_eq!(found, expected.told);
        self.compare_facts(expected.facts);
    }

    fn compare_facts(&mut self, expected: Vec<(String, Fact)>) {
        let found = self.nodes.facts();
        assert!(found.iter().all(|fact| !fact.again));
        let found = found.into_iter().map(|fact| (fact.occurrence.channel.to_string(), fact.occurrence.fact));
        let by_channel = |facts: Vec<(String, Fact)>| {
            let mut channels: HashMap<String, Vec<Fact>> = HashMap::new();
            for (channel, fact) in facts {
                channels.entry(channel).or_default().push(fact);
            }
            // The hub tells of a miss before it counts, the nodes when they know of it.
            for facts in channels.values_mut() {
                facts.sort_by_key(|fact| *fact == Fact::CacheMissed);
            }
            channels
        };
        assert_eq!(by_channel(found.collect()), by_channel(expected));
    }
}

impl Connection {
    fn worker_id(&self) -> WorkerId {
        WorkerId(u16::try_from(self.node * WORKERS + self.worker).expect("few workers"))
    }

    fn user_id(&self) -> Option<&str> {
        self.member.as_ref().map(|member| &*member.user_id)
    }
}

fn subscription<'a>(apps: &'a [App; 2], of: &'a Connection, joins: bool, now: Instant) -> Subscription<'a> {
    let channel = &of.topic.channel;
    let notice = match (&of.member, joins) {
        (Some(member), true) => Some(Frame::member_added(channel, member)),
        (Some(member), false) => Some(Frame::member_removed(channel, &member.user_id)),
        (None, true) => Frame::watchlist_events(channel.user_id(), []),
        (None, false) => Frame::watchlist_events([], channel.user_id()),
    };
    Subscription {
        app: &apps[of.app],
        channel,
        worker: of.worker_id(),
        member: of.member.as_ref(),
        notice,
        now,
    }
}
