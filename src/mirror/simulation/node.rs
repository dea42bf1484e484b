//! A node: its mirror, its lines to and from the shared state, and workers with listeners who check what they are told.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::app::App;
use crate::hub::{Body, ChannelFull, Delivery, Joined, Position, Subscription, Watched, WorkerId};
use crate::mirror::simulation::{WORKERS, index_of, topic};
use crate::mirror::{Arrival, Asked, Change, Effect, Gap, Grant, Hold, Mirror, Op, Reply, Request, Ticket};
use crate::protocol::{Frame, Member};

/// What everybody knows who looks at the whole.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) app: App,
    pub(super) now: Instant,
    /// Events in the order in which they were published: the topic of each.
    pub(super) history: Vec<usize>,
    /// Numbers of events by their frames, as far as they have been published.
    pub(super) numbers: HashMap<Bytes, usize>,
    /// What the frames say that tell of people.
    pub(super) notices: HashMap<Bytes, Notice>,
    /// The state has never lost anything, not even a node.
    pub(super) is_whole: bool,
    /// And nothing was missed that it has not kept.
    pub(super) is_lossless: bool,
    /// Events of which the state has lost every trace.
    pub(super) vanished: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(super) enum Notice {
    Added(Arc<Member>),
    Removed(Box<str>),
    Online,
    Offline,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) mirror: Mirror,
    /// To the state.
    pub(super) calls: VecDeque<Call>,
    /// So many of them, from the first, were asked before, and their answers were lost.
    pub(super) repeated: usize,
    /// From the state, with how much history there was.
    pub(super) answers: VecDeque<(Call, Reply, usize)>,
    /// To the bus.
    pub(super) openings: VecDeque<Request>,
    /// From the bus.
    pub(super) bus: VecDeque<Heard>,
    pub(super) is_linked: bool,
    pub(super) subscribed: BTreeSet<usize>,
    /// What it believes of its line to the state.
    pub(super) steps: u64,
    pub(super) generation: u64,
    /// What the state has acknowledged of what it holds.
    pub(super) told: BTreeMap<usize, Told>,
    mailboxes: Vec<VecDeque<Letter>>,
    pub(super) listeners: Vec<Listener>,
    waiting: HashMap<Ticket, Waiting>,
    next_ticket: u32,
    /// Who listens as the mirror sees it, and what each has to be given.
    granted: Vec<(usize, usize)>,
    /// Events that the mirror has delivered, and that it has told to be lost.
    delivered: BTreeSet<usize>,
    lost: BTreeSet<usize>,
}

/// Connections and members of a topic.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) count: u64,
    pub(super) members: BTreeMap<Box<str>, Arc<Member>>,
}

#[derive(Clone, Debug)]
pub(super) enum Call {
    Asked(Op),
    /// By the engine itself, to a state that has lost something.
    Again(Op),
}

impl Call {
    pub(super) fn op(&self) -> &Op {
        match self {
            Self::Asked(op) | Self::Again(op) => op,
        }
    }
}

#[derive(Debug)]
pub(super) enum Heard {
    Message(usize, Arrival),
    Listening(usize),
    Deaf,
}

#[derive(Debug)]
enum Letter {
    Deliver(Delivery),
    Granted(Ticket, Result<Grant, ChannelFull>, usize),
}

#[derive(Debug)]
struct Waiting {
    who: Who,
    is_abandoned: bool,
}

/// A membership of a connection.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) connection: usize,
    pub(super) at: usize,
    pub(super) member: Option<Arc<Member>>,
}

impl Who {
    pub(super) fn worker(&self) -> WorkerId {
        WorkerId(u16::try_from(self.connection % WORKERS).expect("few"))
    }
}

/// Somebody who was granted a place.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) who: Who,
    joined: Position,
    /// How many events had been published when it was granted.
    granted: usize,
    /// The first event that it must not miss.
    from: usize,
    heard: Vec<usize>,
    pub(super) roster: BTreeMap<Box<str>, Box<str>>,
    pub(super) online: bool,
    pub(super) count: Option<u64>,
    /// How often it was told of people.
    pub(super) notices: usize,
}

impl Node {
    pub(super) fn new(seed: u64, linger: Duration) -> Self {
        Self {
            mirror: Mirror::new(seed, linger),
            calls: VecDeque::new(),
            repeated: 0,
            answers: VecDeque::new(),
            openings: VecDeque::new(),
            bus: VecDeque::new(),
            is_linked: true,
            subscribed: BTreeSet::new(),
            steps: 0,
            generation: 0,
            told: BTreeMap::new(),
            mailboxes: (0..WORKERS).map(|_| VecDeque::new()).collect(),
            listeners: Vec::new(),
            waiting: HashMap::new(),
            next_ticket: 0,
            granted: Vec::new(),
            delivered: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Has a connection listen, if it does not.
    pub(super) fn listen(&mut self, who: Who, book: &Book) {
        let is_same = |other: &Who| other.connection == who.connection && other.at == who.at;
        let is_waiting = |waiting: &Waiting| !waiting.is_abandoned && is_same(&waiting.who);
        if self.listeners.iter().any(|listener| is_same(&listener.who))
            || self.waiting.values().any(is_waiting)
        {
            return;
        }
        let (topic, mut effects) = (topic(who.at), Vec::new());
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let granted = match who.at == super::WATCHERS {
            true => {
                let app = &book.app;
                let asked = self.mirror.watch(app, &topic.channel, who.worker(), ticket, &mut effects);
                if let Asked::Now(watched) = asked { Some(Grant::Watched(watched)) } else { None }
            }
            false => {
                let new = subscription(&who, &topic.channel, book);
                let asked = self.mirror.subscribe(&new, ticket, &mut effects);
                if let Asked::Now(joined) = asked { Some(Grant::Joined(joined)) } else { None }
            }
        };
        match granted {
            Some(grant) => {
                self.granted.push((who.at, book.history.len()));
                self.sit_down(who, grant, book.history.len(), book);
            }
            None => {
                self.waiting.insert(ticket, Waiting { who, is_abandoned: false });
            }
        }
        self.carry_out(effects, book);
    }

    /// Has a connection listen no longer.
    pub(super) fn leave(&mut self, connection: usize, at: usize, book: &Book) {
        let is_it = |who: &Who| who.connection == connection && who.at == at;
        if let Some(found) = self.listeners.iter().position(|listener| is_it(&listener.who)) {
            let listener = self.listeners.remove(found);
            self.get_up(&listener.who, listener.granted, book);
        }
        for waiting in self.waiting.values_mut().filter(|waiting| is_it(&waiting.who)) {
            waiting.is_abandoned = true;
        }
    }

    fn get_up(&mut self, who: &Who, granted: usize, book: &Book) {
        let found = self.granted.iter().position(|each| *each == (who.at, granted));
        self.granted.swap_remove(found.expect("it was granted"));
        let (topic, mut effects) = (topic(who.at), Vec::new());
        match who.at == super::WATCHERS {
            true => {
                self.mirror.unwatch(&book.app, &topic.channel, who.worker(), book.now, &mut effects);
            }
            false => self.mirror.unsubscribe(&subscription(who, &topic.channel, book), &mut effects),
        }
        self.carry_out(effects, book);
    }

    fn sit_down(&mut self, who: Who, grant: Grant, granted: usize, book: &Book) {
        let (joined, roster, online, cached) = match grant {
            Grant::Joined(Joined { position, roster, cached, .. }) => {
                let roster = roster.iter().flat_map(|roster| roster.members());
                let roster = roster.map(|member| (member.user_id.clone(), member.user_info.clone()));
                (position, roster.collect(), false, cached)
            }
            Grant::Watched(Watched { position, online, .. }) => (position, BTreeMap::new(), online, None),
        };
        if let Some(member) = &who.member {
            assert!(roster.contains_key(&member.user_id), "who joins is among the members: {who:?}");
        }
        let neighbour =
            self.listeners.iter().find(|other| other.who.at == who.at && other.who.worker() == who.worker());
        assert!(
            neighbour.is_none_or(|other| other.joined.epoch == joined.epoch),
            "one life for all: {who:?}"
        );
        // What is replayed is the latest: whatever was published behind it is still to come.
        let from = match cached.filter(|_| book.is_whole) {
            Some(Some(frame)) => book.numbers[frame.wire()] + 1,
            Some(None) => 0,
            None => granted,
        };
        let from = from.min(granted);
        let (heard, count, notices) = (Vec::new(), None, 0);
        let new = Listener { who, joined, granted, from, heard, roster, online, count, notices };
        self.listeners.push(new);
    }

    /// Hands on what the mirror wants.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>, book: &Book) {
        for effect in effects {
            match effect {
                Effect::Deliver(worker, delivery) => {
                    if let Body::Frame(frame) = &delivery.body {
                        self.delivered.extend(book.numbers.get(frame.wire()));
                    }
                    self.mailboxes[usize::from(worker.0)].push_back(Letter::Deliver(delivery));
                }
                Effect::Granted(worker, ticket, grant) => {
                    if grant.is_ok() {
                        self.granted.push((self.waiting[&ticket].who.at, book.history.len()));
                    }
                    let letter = Letter::Granted(ticket, grant, book.history.len());
                    self.mailboxes[usize::from(worker.0)].push_back(letter);
                }
                Effect::Ask(Request::Op(op)) => self.calls.push_back(Call::Asked(op)),
                Effect::Ask(request) => self.openings.push_back(request),
            }
        }
    }

    /// Gives the mirror an answer of the state.
    pub(super) fn answer(&mut self, book: &Book) {
        let Some((call, reply, published)) = self.answers.pop_front() else { return };
        let mut effects = Vec::new();
        let topic = call.op().topic();
        if let (Op::Hold(hold), Reply::Held(_)) = (call.op(), &reply) {
            self.note_told(hold);
        }
        match (&call, reply) {
            (Call::Asked(Op::Hold(hold)), reply @ (Reply::Held(_) | Reply::Full)) => {
                let entered = match &hold.change {
                    Some(Change::Enters { member, .. }) => Some(&*member.user_id),
                    _ => None,
                };
                let outcome = if let Reply::Held(place) = reply { Ok(place) } else { Err(ChannelFull) };
                self.mirror.held(topic, entered, outcome, book.now, &mut effects);
                self.carry_out(effects, book);
            }
            (Call::Again(_), Reply::Held(place)) => {
                self.mirror.held(topic, None, Ok(place), book.now, &mut effects);
                self.carry_out(effects, book);
            }
            (Call::Asked(Op::Look(_, since)), Reply::Seen(snapshot)) => {
                let is_same = since.is_some_and(|since| since.is_of_one_era(snapshot.place));
                let gap = self.mirror.seen(topic, *snapshot, book.now, &mut effects);
                self.carry_out(effects, book);
                self.note(index_of(topic), gap, is_same, published, book);
            }
            (_, Reply::Noted | Reply::Published { .. }) => {}
            (call, reply) => panic!("{reply:?} to {call:?}"),
        }
    }

    fn note_told(&mut self, hold: &Hold) {
        let at = index_of(&hold.topic);
        let told = self.told.entry(at).or_default();
        told.count = hold.count;
        match &hold.change {
            Some(Change::Enters { member, .. }) => {
                told.members.insert(member.user_id.clone(), member.clone());
            }
            Some(Change::Leaves(user_id)) => {
                told.members.remove(user_id);
            }
            None => {}
        }
        if told.count == 0 {
            self.told.remove(&at);
        }
    }

    /// Writes down which events are lost, as far as the mirror says so.
    fn note(&mut self, at: usize, gap: Gap, is_same: bool, published: usize, book: &Book) {
        let is_missing = |number: &usize| {
            book.history[*number] == at && !self.delivered.contains(number) && !self.lost.contains(number)
        };
        let missing: Vec<usize> = (0..published).filter(is_missing).collect();
        let is_owed =
            |number: &&usize| self.granted.iter().any(|(topic, granted)| *topic == at && granted <= *number);
        let is_known = |number: &&usize| !book.vanished.contains(number);
        let owed = missing.iter().filter(is_known).filter(is_owed).count() as u64;
        if gap.lost > 0 {
            assert!(!book.is_lossless, "{gap:?} for no reason");
            assert!(!is_same || owed <= gap.lost, "{owed} are lost, not {}", gap.lost);
            self.lost.extend(missing);
        }
    }

    /// Gives the mirror what has come over the bus.
    pub(super) fn hear(&mut self, book: &Book) {
        let mut effects = Vec::new();
        match self.bus.pop_front() {
            Some(Heard::Message(at, arrival)) => {
                self.mirror.arrived(&topic(at), arrival, book.now, &mut effects);
            }
            Some(Heard::Listening(at)) => self.mirror.listening(&topic(at), &mut effects),
            Some(Heard::Deaf) => self.mirror.deaf(),
            None => {}
        }
        self.carry_out(effects, book);
    }

    pub(super) fn settle(&mut self, book: &Book) {
        let mut effects = Vec::new();
        self.mirror.settle(book.now, &mut effects);
        self.carry_out(effects, book);
    }

    /// Has a worker take letters: places are taken before anything is handed out.
    pub(super) fn work(&mut self, worker: usize, letters: usize, book: &Book) {
        let mailbox = &mut self.mailboxes[worker];
        let letters: Vec<Letter> = mailbox.drain(..letters.min(mailbox.len())).collect();
        let mut deliveries = Vec::new();
        for letter in letters {
            match letter {
                Letter::Deliver(delivery) => deliveries.push(delivery),
                Letter::Granted(ticket, grant, granted) => self.granted(ticket, grant, granted, book),
            }
        }
        for Delivery { channel, audience, position, body, .. } in deliveries {
            for listener in &mut self.listeners {
                let place = topic(listener.who.at);
                let is_listening = listener.who.worker() == WorkerId(u16::try_from(worker).expect("few"))
                    && (&place.channel, place.audience) == (&channel, audience);
                if is_listening
                    && listener.joined.epoch == position.epoch
                    && listener.joined.seq < position.seq
                {
                    listener.hear(&body, book);
                }
            }
        }
    }

    fn granted(&mut self, ticket: Ticket, grant: Result<Grant, ChannelFull>, granted: usize, book: &Book) {
        let Waiting { who, is_abandoned } = self.waiting.remove(&ticket).expect("it waits");
        match grant {
            Ok(_) if is_abandoned => self.get_up(&who, granted, book),
            Ok(grant) => self.sit_down(who, grant, granted, book),
            Err(ChannelFull) => {
                assert!(book.app.presence_members_max < 3 && who.member.is_some(), "{who:?} is refused");
            }
        }
    }

    /// Nothing is under way to or from this node.
    pub(super) fn is_quiet(&self) -> bool {
        let lines = [self.calls.len(), self.answers.len(), self.openings.len(), self.bus.len()];
        lines == [0; 4] && self.mailboxes.iter().all(VecDeque::is_empty)
    }

    /// What holds when all is quiet.
    pub(super) fn check(&self, book: &Book) {
        assert!(self.waiting.is_empty(), "nobody waits: {:?}", self.waiting);
        for listener in &self.listeners {
            let from = listener.heard.first().map_or(listener.from, |first| listener.from.min(*first));
            for number in from..book.history.len() {
                let is_accounted = listener.heard.contains(&number)
                    || self.lost.contains(&number)
                    || book.vanished.contains(&number);
                assert!(
                    book.history[number] != listener.who.at || is_accounted,
                    "event {number} is lost without a word: {listener:#?}"
                );
            }
        }
    }
}

impl Listener {
    fn hear(&mut self, body: &Body, book: &Book) {
        let frame: &Frame = match body {
            Body::Frame(frame) => frame,
            Body::SubscriptionCount(count) => {
                self.count = Some(*count);
                return;
            }
            Body::Disconnect(_) => return,
        };
        if let Some(number) = book.numbers.get(frame.wire()) {
            assert!(self.heard.last().is_none_or(|last| last < number), "{number} in order, once: {self:#?}");
            self.heard.push(*number);
            return;
        }
        self.notices += 1;
        let own = self.who.member.as_ref().map(|member| &member.user_id);
        match &book.notices[frame.wire()] {
            Notice::Added(member) => {
                assert!(Some(&member.user_id) != own, "nobody is told of itself: {self:#?}");
                let before = self.roster.insert(member.user_id.clone(), member.user_info.clone());
                assert_eq!(before, None, "{member:?} is not there yet: {self:#?}");
            }
            Notice::Removed(user_id) => {
                assert!(Some(user_id) != own, "nobody is told of itself: {self:#?}");
                assert!(self.roster.remove(user_id).is_some(), "{user_id} is there: {self:#?}");
            }
            Notice::Online => assert!(!std::mem::replace(&mut self.online, true), "offline: {self:#?}"),
            Notice::Offline => assert!(std::mem::replace(&mut self.online, false), "online: {self:#?}"),
        }
    }
}

fn subscription<'a>(
    who: &'a Who,
    channel: &'a crate::protocol::ChannelName,
    book: &'a Book,
) -> Subscription<'a> {
    let (app, member, now) = (&book.app, who.member.as_ref(), book.now);
    Subscription { app, channel, worker: who.worker(), member, notice: None, now }
}
