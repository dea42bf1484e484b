//! Mirrors against a model of the shared state: messages, answers and letters take any time, the bus loses messages, and
//! the state loses its latest writes, everything, or a node.
//!
//! The state is assumed to show by another epoch or era that it may have lost something, to tell of edges on the bus also when nodes
//! say again what they hold, and to refuse nobody then.

mod node;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::app::App;
use crate::hub::{Audience, Topic};
use crate::mirror::simulation::node::{Book, Call, Heard, Node, Notice, Who};
use crate::mirror::simulation::state::{Part, State, Step, differences};
use crate::mirror::{Again, Message, Op, Publication, Request};
use crate::protocol::{CachedEvent, ChannelName, Frame, Member};

const TOPICS: [(&str, Audience); 6] = [
    ("news", Audience::Subscribers),
    ("presence-room", Audience::Subscribers),
    ("cache-last", Audience::Subscribers),
    ("presence-cache-both", Audience::Subscribers),
    ("#server-to-user-u", Audience::Subscribers),
    ("#server-to-user-u", Audience::Watchers),
];
const USER: usize = 4;
const WATCHERS: usize = 5;
const USERS: [&str; 3] = ["ann", "bob", "cid"];
const WORKERS: usize = 2;
const CONNECTIONS: usize = 6;
const LINGER: Duration = Duration::from_secs(2);
/// Messages in a log that keeps all.
const EVERYTHING: usize = 10_000;
const TTL: Duration = Duration::from_secs(3600);

fn topic(at: usize) -> Topic {
    let (name, audience) = TOPICS[at];
    let channel = ChannelName::parse(name, 164).expect("valid name");
    Topic { app: "1".into(), channel, audience }
}

fn index_of(topic: &Topic) -> usize {
    let is_it =
        |(name, audience): &(&str, Audience)| (*name, *audience) == (topic.channel.as_str(), topic.audience);
    TOPICS.iter().position(is_it).expect("a topic of the simulation")
}

fn counts(at: usize) -> bool {
    let topic = topic(at);
    topic.is_channel() && topic.channel.kind().is_counted()
}

#[derive(Clone, Debug)]
pub(super) enum Move {
    Listen {
        node: usize,
        connection: usize,
        at: usize,
        user: usize,
    },
    Leave {
        node: usize,
        connection: usize,
        at: usize,
    },
    Publish {
        node: usize,
        at: usize,
    },
    /// The bus, the state, or a worker does some of what waits.
    Openings(usize),
    Execute(usize, usize),
    Answer(usize, usize),
    Hear(usize, usize),
    Work(usize, usize, usize),
    /// A node does all that waits.
    Run(usize),
    Beat(usize),
    Wait(u64),
    /// The bus connection of a node breaks; so many messages still come through.
    Cut(usize, usize),
    Link(usize),
    /// The state is copied; later, the copy takes its place.
    Copy,
    FailOver {
        answers_are_lost: bool,
    },
    /// The state is on another server, with all of it.
    Restart {
        answers_are_lost: bool,
    },
    Wipe {
        bus_is_cut: bool,
        answers_are_lost: bool,
    },
    /// The lease of a node has run out, and others end what it held.
    Bury(usize),
}

/// How large a world is. Small ones get into every corner.
#[derive(Clone, Debug)]
pub(super) struct Size {
    nodes: usize,
    /// Of each node.
    connections: usize,
    /// Which topics there are.
    topics: Vec<usize>,
    /// Messages that the state keeps.
    log: usize,
}

#[derive(Debug)]
struct World {
    size: Size,
    book: Book,
    state: State,
    /// With how much history there was.
    copy: Option<(State, usize)>,
    epochs: u64,
    nodes: Vec<Node>,
    published: usize,
}

impl World {
    fn new(now: Instant, size: Size) -> Self {
        let nodes = size.nodes;
        let app =
            App { id: "1".into(), subscription_counts: true, presence_members_max: 2, ..App::default() };
        let book = Book {
            app,
            now,
            history: Vec::new(),
            numbers: HashMap::new(),
            notices: notices(nodes),
            is_whole: true,
            is_lossless: true,
            vanished: BTreeSet::new(),
        };
        let seeds = 1..=u64::try_from(nodes).expect("few");
        Self {
            state: State::new(0, nodes, size.log),
            size,
            book,
            copy: None,
            epochs: 0,
            nodes: seeds.map(|seed| Node::new(seed, LINGER)).collect(),
            published: 0,
        }
    }

    fn play(&mut self, next: Move) {
        let Size { nodes: count, connections, topics, .. } = &self.size;
        let (count, connections) = (*count, *connections);
        let at_of = |at: usize| topics[at % topics.len()];
        match next {
            Move::Listen { node, connection, at, user } => {
                let (connection, at) = (connection % connections, at_of(at));
                let is_presence = topic(at).channel.kind().is_presence();
                let member = is_presence.then(|| member(USERS[user], node % count));
                let who = Who { connection, at, member };
                self.nodes[node % count].listen(who, &self.book);
            }
            Move::Leave { node, connection, at } => {
                self.nodes[node % count].leave(connection % connections, at_of(at), &self.book);
            }
            Move::Publish { node, at } => self.publish(node % count, at_of(at)),
            Move::Openings(node) => self.openings(node % count),
            Move::Execute(node, times) => (0..times).for_each(|_| self.execute(node % count)),
            Move::Answer(node, times) => {
                (0..times).for_each(|_| self.nodes[node % count].answer(&self.book));
            }
            Move::Hear(node, times) => (0..times).for_each(|_| self.nodes[node % count].hear(&self.book)),
            Move::Work(node, worker, letters) => self.nodes[node % count].work(worker, letters, &self.book),
            Move::Run(node) => self.run(node % count),
            Move::Beat(node) => self.beat(node % count),
            Move::Wait(milliseconds) => self.wait(Duration::from_millis(milliseconds)),
            Move::Cut(node, kept) => self.cut(node % count, kept),
            Move::Link(node) => self.link(node % count),
            Move::Copy => self.copy = Some((self.state.clone(), self.book.history.len())),
            Move::FailOver { answers_are_lost } => {
                let Some((copy, published)) = self.copy.take() else { return };
                self.state = copy;
                self.book.vanished.extend(published..self.book.history.len());
                self.state.begin_again(&mut self.epochs);
                self.lose(true, answers_are_lost);
            }
            Move::Restart { answers_are_lost } => {
                self.state.begin_again(&mut self.epochs);
                self.reconnect(true, answers_are_lost);
            }
            Move::Wipe { bus_is_cut, answers_are_lost } => {
                self.state = self.state.wiped();
                self.copy = None;
                self.lose(bus_is_cut, answers_are_lost);
            }
            Move::Bury(node) => {
                let mut step = Step { epochs: &mut self.epochs, published: Vec::new() };
                self.state.bury(node % count, &mut step);
                let published = step.published;
                self.spread(published);
                (self.book.is_whole, self.book.is_lossless) = (false, false);
            }
        }
    }

    fn publish(&mut self, node: usize, at: usize) {
        if at == WATCHERS {
            return;
        }
        let topic = topic(at);
        let event = CachedEvent::new(&topic.channel, "\"e\"", &format!("\"{}\"", self.published));
        self.published += 1;
        let message = match topic.channel.kind().is_cached() {
            true => Message::Kept(event, TTL),
            false => Message::Event(event.frame),
        };
        let publication = Publication { topic, message, except: None, told: None };
        self.nodes[node].calls.push_back(Call::Asked(Op::Publish(publication)));
    }

    /// The bus connection of a node does what it is asked for.
    fn openings(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        for request in node.openings.drain(..) {
            match request {
                Request::Open(topic) if node.is_linked => {
                    node.subscribed.insert(index_of(&topic));
                    node.bus.push_back(Heard::Listening(index_of(&topic)));
                }
                Request::Close(topic) => {
                    node.subscribed.remove(&index_of(&topic));
                }
                Request::Open(_) | Request::Op(_) => {}
            }
        }
    }

    /// The state does the next call of a node.
    fn execute(&mut self, at: usize) {
        if self.nodes[at].calls.is_empty() {
            return;
        }
        let Node { steps, generation, .. } = self.nodes[at];
        if !self.state.knows(at, steps, generation) {
            self.open(at);
        }
        let Some(call) = self.nodes[at].calls.pop_front() else { return };
        if let Op::Publish(publication) = call.op() {
            let (Message::Event(frame) | Message::Kept(CachedEvent { frame, .. }, _)) = &publication.message
            else {
                return;
            };
            self.book.numbers.insert(frame.wire().clone(), self.book.history.len());
            self.book.history.push(index_of(&publication.topic));
        }
        let mut step = Step { epochs: &mut self.epochs, published: Vec::new() };
        let reply = match self.nodes[at].repeated {
            0 => self.state.execute(at, call.op(), &mut step),
            _ => self.state.repeat(at, call.op(), &mut step),
        };
        let published = step.published;
        let node = &mut self.nodes[at];
        match node.repeated {
            0 => node.steps += 1,
            _ => node.repeated -= 1,
        }
        self.nodes[at].answers.push_back((call, reply, self.book.history.len()));
        self.spread(published);
    }

    /// The bus takes messages to those who listen.
    fn spread(&mut self, published: Vec<(usize, crate::mirror::Arrival)>) {
        for (at, arrival) in published {
            for node in self.nodes.iter_mut().filter(|node| node.subscribed.contains(&at)) {
                node.bus.push_back(Heard::Message(at, arrival.clone()));
            }
        }
    }

    /// The engine of a node takes a lease again and says what the state does not know, or knows wrongly.
    fn open(&mut self, at: usize) {
        while !self.nodes[at].answers.is_empty() {
            self.nodes[at].answer(&self.book);
        }
        let node = &mut self.nodes[at];
        let again = match () {
            () if self.state.generation != node.generation => Again::Silently,
            () if self.state.held[at].is_none() => Again::No,
            () => Again::Marked,
        };
        node.generation = self.state.generation;
        node.steps = self.state.steps[at];
        node.repeated = 0;
        let there: &BTreeMap<usize, Part> = self.state.held[at].get_or_insert_default();
        // A lost lease is no lost state: but what is said again must not be refused either.
        let again = if again == Again::No { Again::Marked } else { again };
        for hold in differences(&node.told, there, again).into_iter().rev() {
            node.calls.push_front(Call::Again(Op::Hold(hold)));
        }
    }

    fn beat(&mut self, at: usize) {
        let Node { steps, generation, .. } = self.nodes[at];
        if !self.state.knows(at, steps, generation) {
            self.open(at);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.book.now += time;
        for node in &mut self.nodes {
            node.settle(&self.book);
        }
    }

    fn cut(&mut self, node: usize, kept: usize) {
        self.book.is_lossless &= self.size.log == EVERYTHING;
        let node = &mut self.nodes[node];
        if node.is_linked {
            node.is_linked = false;
            node.subscribed.clear();
            node.bus.truncate(kept);
            node.bus.push_back(Heard::Deaf);
        }
    }

    fn link(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if !node.is_linked {
            node.is_linked = true;
            node.subscribed = node.mirror.topics().map(index_of).collect();
            node.bus.extend(node.subscribed.iter().map(|at| Heard::Listening(*at)));
        }
    }

    /// The state has lost something.
    fn lose(&mut self, bus_is_cut: bool, answers_are_lost: bool) {
        (self.book.is_whole, self.book.is_lossless) = (false, false);
        self.reconnect(bus_is_cut, answers_are_lost);
    }

    /// All nodes lose connections to the state, and answers that were under way.
    fn reconnect(&mut self, bus_is_cut: bool, answers_are_lost: bool) {
        for at in 0..self.nodes.len() {
            if bus_is_cut {
                self.cut(at, 1);
            }
            let node = &mut self.nodes[at];
            if answers_are_lost {
                // Whether they were done is not known: they are asked again, but for publications. If the state has done
                // them, it does nothing again.
                let asked = node.answers.drain(..).map(|(call, ..)| call).rev();
                for call in asked.filter(|call| !matches!(call.op(), Op::Publish(_))).collect::<Vec<_>>() {
                    node.calls.push_front(call);
                    node.repeated += 1;
                }
            }
        }
    }

    fn run(&mut self, at: usize) {
        self.openings(at);
        while !self.nodes[at].calls.is_empty() {
            self.execute(at);
        }
        while !self.nodes[at].answers.is_empty() {
            self.nodes[at].answer(&self.book);
        }
        while !self.nodes[at].bus.is_empty() {
            self.nodes[at].hear(&self.book);
        }
        (0..WORKERS).for_each(|worker| self.nodes[at].work(worker, usize::MAX, &self.book));
    }

    /// Everything that waits is done, until nothing does.
    fn calm_down(&mut self) {
        for round in 0.. {
            assert!(round < 200, "it goes on and on: {self:#?}");
            for at in 0..self.nodes.len() {
                self.link(at);
                self.beat(at);
                self.run(at);
            }
            if self.nodes.iter().all(Node::is_quiet) {
                return;
            }
        }
    }

    fn check(&mut self) {
        self.calm_down();
        // Longer than anything is believed against the state, twice, since the second may follow from the first.
        for _ in 0..3 {
            self.wait(Duration::from_secs(11));
            self.calm_down();
        }
        for (number, node) in self.nodes.iter().enumerate() {
            node.check(&self.book);
            for listener in &node.listeners {
                let at = listener.who.at;
                let members = self.state.members(at);
                if self.book.is_whole {
                    assert_eq!(listener.roster, members, "{number}: {listener:#?}");
                    assert!(members.len() <= self.book.app.presence_members_max);
                }
                assert!(listener.roster.keys().eq(members.keys()), "{number}: {members:?} {listener:#?}");
                if at == WATCHERS {
                    assert_eq!(listener.online, self.state.total(USER) > 0, "{number}: {listener:#?}");
                }
                if counts(at) {
                    assert_eq!(listener.count, Some(self.state.total(at)), "{number}: {listener:#?}");
                }
            }
        }
        for (at, topic) in TOPICS.iter().enumerate() {
            let listeners = self.nodes.iter().flat_map(|node| &node.listeners);
            let listening = listeners.filter(|listener| listener.who.at == at).count();
            assert_eq!(self.state.total(at), listening as u64, "{topic:?}");
        }
    }

    /// Everybody goes, and nothing is left.
    fn end(&mut self) {
        for node in &mut self.nodes {
            for (connection, at) in
                (0..CONNECTIONS).flat_map(|each| (0..TOPICS.len()).map(move |at| (each, at)))
            {
                node.leave(connection, at, &self.book);
            }
        }
        self.calm_down();
        for _ in 0..3 {
            self.wait(Duration::from_secs(11));
            self.calm_down();
        }
        for node in &self.nodes {
            assert_eq!(node.mirror.topics().count(), 0, "{node:#?}");
            assert!(node.subscribed.is_empty(), "{node:#?}");
        }
        assert!(self.state.is_empty(), "{:#?}", self.state);
    }
}

fn member(user_id: &str, node: usize) -> Arc<Member> {
    Arc::new(Member { user_id: user_id.into(), user_info: format!("{{\"node\":{node}}}").into() })
}

/// Every frame that tells of people.
fn notices(nodes: usize) -> HashMap<bytes::Bytes, Notice> {
    let mut notices = HashMap::new();
    for (name, _) in TOPICS {
        let name = ChannelName::parse(name, 164).expect("valid name");
        for user_id in USERS {
            let removed = Frame::member_removed(&name, user_id);
            notices.insert(removed.wire().clone(), Notice::Removed(user_id.into()));
            for member in (0..nodes).map(|node| member(user_id, node)) {
                let added = Frame::member_added(&name, &member);
                notices.insert(added.wire().clone(), Notice::Added(member));
            }
        }
    }
    let online = Frame::watchlist_events(["u"], []).expect("somebody");
    notices.insert(online.wire().clone(), Notice::Online);
    let offline = Frame::watchlist_events([], ["u"]).expect("somebody");
    notices.insert(offline.wire().clone(), Notice::Offline);
    notices
}

/// Moves with so many faults among them: 0 is none, not even of the bus.
fn moves(faults: u32) -> impl Strategy<Value = Vec<Move>> {
    let (node, connection, at, user) = (0usize..4, 0..CONNECTIONS, 0..TOPICS.len(), 0..USERS.len());
    let listen = (node.clone(), connection.clone(), at.clone(), user);
    let some = 1usize..6;
    let right = prop_oneof![
        10 => listen.prop_map(|(node, connection, at, user)| Move::Listen { node, connection, at, user }),
        8 => (node.clone(), connection, at.clone())
            .prop_map(|(node, connection, at)| Move::Leave { node, connection, at }),
        8 => (node.clone(), at).prop_map(|(node, at)| Move::Publish { node, at }),
        4 => node.clone().prop_map(Move::Openings),
        8 => (node.clone(), some.clone()).prop_map(|(node, times)| Move::Execute(node, times)),
        8 => (node.clone(), some.clone()).prop_map(|(node, times)| Move::Answer(node, times)),
        8 => (node.clone(), some.clone()).prop_map(|(node, times)| Move::Hear(node, times)),
        4 => (node.clone(), 0..WORKERS, 1usize..9)
            .prop_map(|(node, worker, letters)| Move::Work(node, worker, letters)),
        8 => node.clone().prop_map(Move::Run),
        2 => node.clone().prop_map(Move::Beat),
        3 => prop_oneof![1u64..4000, Just(3000)].prop_map(Move::Wait),
    ];
    let wrong = prop_oneof![
        2 => (node.clone(), 0usize..4).prop_map(|(node, kept)| Move::Cut(node, kept)),
        3 => node.clone().prop_map(Move::Link),
        1 => Just(Move::Copy),
        1 => any::<bool>().prop_map(|answers_are_lost| Move::FailOver { answers_are_lost }),
        1 => any::<bool>().prop_map(|answers_are_lost| Move::Restart { answers_are_lost }),
        1 => any::<(bool, bool)>()
            .prop_map(|(bus_is_cut, answers_are_lost)| Move::Wipe { bus_is_cut, answers_are_lost }),
        1 => node.prop_map(Move::Bury),
    ];
    let either = prop_oneof![60 => right, faults.max(1) => wrong];
    let is_wanted = move |each: &Move| faults > 0 || !each.is_fault();
    prop::collection::vec(either, 1..160).prop_map(move |moves| moves.into_iter().filter(is_wanted).collect())
}

impl Move {
    fn is_fault(&self) -> bool {
        self.is_loss() || matches!(self, Self::Cut(..) | Self::Restart { .. })
    }

    fn is_loss(&self) -> bool {
        matches!(self, Self::Copy | Self::FailOver { .. } | Self::Wipe { .. } | Self::Bury(_))
    }
}

/// Plays all moves in one world.
pub(super) fn play(start: Instant, size: Size, moves: Vec<Move>) {
    let mut world = World::new(start, size);
    for next in moves {
        world.play(next);
    }
    world.check();
    world.end();
}

/// The state loses everything, and within moments all nodes have said again what they hold. How often anybody was told of
/// people because of that.
pub(super) fn notices_of_a_loss(start: Instant, loss: &Move) -> usize {
    let topics = vec![1, USER, WATCHERS];
    let mut world = World::new(start, Size { nodes: 3, connections: 1, topics, log: 0 });
    world.book.app.presence_members_max = USERS.len();
    for (node, at) in (0..3).flat_map(|node| [(node, 0), (node, 2)]) {
        world.play(Move::Listen { node, connection: 0, at, user: node });
    }
    world.play(Move::Listen { node: 2, connection: 0, at: 1, user: 0 });
    world.calm_down();
    world.play(Move::Copy);
    let told = |world: &World| -> usize {
        let listeners = world.nodes.iter().flat_map(|node| &node.listeners);
        listeners.map(|listener| listener.notices).sum()
    };
    let before = told(&world);
    assert!(before > 0, "who comes is told to those who are there");
    world.play(loss.clone());
    world.check();
    told(&world) - before
}

pub(super) fn cases() -> impl Strategy<Value = (Size, Vec<Move>)> {
    let topics = prop_oneof![
        Just((0..TOPICS.len()).collect::<Vec<_>>()),
        Just(vec![USER, WATCHERS]),
        (0..TOPICS.len()).prop_map(|at| vec![at]),
        Just(vec![1]),
    ];
    let log = prop_oneof![Just(0usize), Just(3), Just(EVERYTHING)];
    let size = (2usize..5, 1..=CONNECTIONS, topics, log);
    let size = size.prop_map(|(nodes, connections, topics, log)| Size { nodes, connections, topics, log });
    // Nothing goes wrong; only the bus does; much does.
    let cut = moves(6).prop_map(|moves| moves.into_iter().filter(|each| !each.is_loss()).collect());
    (size, prop_oneof![moves(0), cut, moves(8), moves(30)])
}
