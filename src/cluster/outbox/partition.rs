//! What this node has to do with the facts of one partition.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::outbox::turns::Trouble;
use crate::cluster::script::TakenFact;
use crate::node::Tenure;

/// Who has the turn takes every so often, though nobody has said that there is something.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who should have the turn asks every so often whether it can be had.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Who has the turn and should not have it takes nothing for so long, so that everything it took comes to its end and the
/// turn can be given back …
const HOLD: Duration = Duration::from_secs(2);

/// … but only so often: a receiver that fails keeps a fact under way for minutes, and others must not wait for that.
const HOLD_EVERY: Duration = Duration::from_secs(30);

/// The first pause after something went wrong, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Facts that were forgotten in Redis and are remembered here: a replica that becomes the master may have them still.
const REMEMBERED: usize = 256;

/// Most facts that are forgotten with one call.
const DONE_MAX: usize = 500;

/// A partition, as seen from this node.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) role: Role,
    /// This node should have the turn.
    pub(super) is_preferred: bool,
    /// The script on its way that concerns the turn.
    pub(super) asked: Option<Asked>,
    /// Redis may have given the turn to this node without its having heard of it.
    is_unsure: bool,
    /// Something may have been added since it was asked.
    woken: bool,
    /// When to ask next.
    ask_at: Instant,
    asking: Pauses,
    /// Nothing is taken before this, and when that is said next.
    hold: (Instant, Instant),
    /// The last fact that was taken; empty is the beginning.
    cursor: String,
    /// For how long this node has to itself what it takes now.
    tenure: Arc<Tenure>,
    /// Until when it has its lease for certain.
    sure_until: Instant,
    /// What webhooks have under way.
    told: HashMap<Box<str>, Arc<Tenure>>,
    /// What was told and is to be forgotten by Redis.
    ended: Vec<String>,
    /// What is on its way to being forgotten.
    ending: Vec<String>,
    forgetting: Pauses,
    /// What was told: of `ended`, `ending` and `remembered`.
    over: HashSet<String>,
    remembered: VecDeque<String>,
}

/// What this node is for a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Others take its facts.
    Bystander,
    /// It should have the turn, and asks for it.
    Candidate,
    /// It has the turn.
    Owner,
}

/// A script on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// For so many facts, from the beginning or from the last one on.
    Take(usize),
    /// To have the turn back.
    Release,
}

/// How often something went wrong, and until when it is not tried again.
#[derive(Debug)]
struct Pauses {
    failures: u32,
    until: Instant,
}

impl Partition {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            role: Role::Bystander,
            is_preferred: false,
            asked: None,
            is_unsure: false,
            woken: false,
            ask_at: now,
            asking: Pauses::new(now),
            hold: (now, now),
            cursor: String::new(),
            tenure: Arc::new(Tenure::until(now)),
            sure_until: now,
            told: HashMap::new(),
            ended: Vec::new(),
            ending: Vec::new(),
            forgetting: Pauses::new(now),
            over: HashSet::new(),
            remembered: VecDeque::new(),
        }
    }

    /// It may be asked at once.
    pub(super) fn ask_now(&mut self, now: Instant) {
        self.woken = true;
        self.ask_at = self.ask_at.min(now);
    }

    /// There may be new facts.
    pub(super) fn wake(&mut self, now: Instant) {
        // Who waits for the turn gains nothing by asking for it with each fact.
        if self.role == Role::Owner || self.asked.is_some() {
            self.ask_now(now);
        }
    }

    /// What Redis has may not be what it had: everything that is there is looked at again, and told unless it is under
    /// way or over.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.cursor.clear();
        self.asking = Pauses::new(now);
        self.forgetting = Pauses::new(now);
        self.ask_now(now);
    }

    /// The node has its lease until then.
    pub(super) fn is_sure_until(&mut self, until: Instant, now: Instant) {
        if now > self.sure_until {
            // It may have been without it since it last heard.
            self.doubt();
            self.begin_again(now);
        }
        self.sure_until = until;
        self.tenure.extend(until);
    }

    /// Others may tell what is under way here.
    pub(super) fn doubt(&mut self) {
        self.told.values().for_each(|tenure| tenure.doubt());
        self.tenure = Arc::new(Tenure::until(self.sure_until));
    }

    /// Whether the turn is neither had nor asked for, and nothing is to be done to make sure.
    pub(super) fn may_step_back(&self) -> bool {
        self.role == Role::Candidate && self.asked.is_none() && !self.is_unsure
    }

    /// Whether nothing is under way, neither to receivers nor to being forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.told.is_empty() && self.ended.is_empty() && self.ending.is_empty()
    }

    /// When it is to be asked for facts; none if it is not, or not before something happens.
    pub(super) fn takes_at(&self) -> Option<Instant> {
        let may = self.role == Role::Owner || (self.role == Role::Candidate && self.is_preferred);
        (may && self.asked.is_none()).then(|| {
            let from = self.ask_at.max(self.asking.until);
            // Who is to give the turn back waits for what it has told.
            if self.is_preferred { from } else { from.max(self.hold.0) }
        })
    }

    /// When the turn is to be given back; none if it is not, or not before something happens.
    pub(super) fn releases_at(&self, is_closing: bool) -> Option<Instant> {
        let may = self.asked.is_none() && (self.role == Role::Owner || self.is_unsure) && self.is_idle();
        (may && (is_closing || !self.is_preferred)).then_some(self.asking.until)
    }

    /// When Redis is to forget facts; none if there are none, or not before something happens.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        (!self.ended.is_empty() && self.ending.is_empty()).then_some(self.forgetting.until)
    }

    /// Holds back now and then, if the turn is to be given back.
    pub(super) fn hold_back(&mut self, now: Instant) {
        if self.role == Role::Owner && !self.is_preferred && self.hold.1 <= now {
            self.hold = (now + HOLD, now + HOLD_EVERY);
        }
    }

    /// Facts are asked for: from where on.
    pub(super) fn start_taking(&mut self, max: usize) -> String {
        // Without anything under way the beginning is where it goes on, and nothing can have been overlooked.
        if self.is_idle() {
            self.cursor.clear();
        }
        self.asked = Some(Asked::Take(max));
        self.is_unsure = true;
        self.woken = false;
        self.cursor.clone()
    }

    /// The turn is given back.
    pub(super) fn start_releasing(&mut self) {
        self.asked = Some(Asked::Release);
    }

    /// Facts are to be forgotten: which.
    pub(super) fn start_forgetting(&mut self) -> Vec<String> {
        let rest = self.ended.split_off(self.ended.len().min(DONE_MAX));
        self.ending = std::mem::replace(&mut self.ended, rest);
        self.ending.clone()
    }

    /// They have been forgotten, or not.
    pub(super) fn forgotten(&mut self, answer: Result<(), Trouble>, now: Instant) {
        let ending = take(&mut self.ending);
        match answer {
            Ok(()) => {
                self.forgetting = Pauses::new(now);
                self.remembered.extend(ending);
                let too_many = self.remembered.len().saturating_sub(REMEMBERED);
                for id in self.remembered.drain(..too_many) {
                    self.over.remove(&id);
                }
            }
            Err(trouble) => {
                self.forgetting.failed(trouble, now);
                self.ended.extend(ending);
            }
        }
    }

    /// Redis has not answered, or not well.
    pub(super) fn failed(&mut self, trouble: Trouble, now: Instant) {
        self.asking.failed(trouble, now);
        self.ask_at = now;
    }

    /// This node has the turn: those of these facts that are to be told.
    pub(super) fn take_over(
        &mut self,
        facts: Vec<TakenFact>,
        max: usize,
        now: Instant,
    ) -> Vec<(TakenFact, Arc<Tenure>)> {
        self.asking = Pauses::new(now);
        self.is_unsure = false;
        self.role = Role::Owner;
        let are_more = facts.len() >= max || self.woken;
        self.ask_at = if are_more { now } else { now + LOOK_EVERY };
        if let Some(last) = facts.last() {
            self.cursor.clone_from(&last.id);
        }
        facts.into_iter().filter_map(|fact| self.begin(fact)).collect()
    }

    /// None if it is under way, or over.
    fn begin(&mut self, fact: TakenFact) -> Option<(TakenFact, Arc<Tenure>)> {
        if self.over.contains(&fact.id) {
            // Redis may have forgotten that it had forgotten it.
            if let Some(at) = self.remembered.iter().position(|id| *id == fact.id) {
                self.ended.extend(self.remembered.remove(at));
            }
            return None;
        }
        if self.told.contains_key(&*fact.id) {
            return None;
        }
        self.told.insert(fact.id.as_str().into(), self.tenure.clone());
        Some((fact, self.tenure.clone()))
    }

    /// Another node has the turn. Returns whether something was under way here: that node tells it now.
    pub(super) fn leave_to_others(&mut self, now: Instant) -> bool {
        self.step_back(now);
        let told = take(&mut self.told);
        told.values().for_each(|tenure| tenure.lose());
        !told.is_empty()
    }

    /// The turn has been given back, or is another's.
    pub(super) fn step_back(&mut self, now: Instant) {
        self.asking = Pauses::new(now);
        self.is_unsure = false;
        self.role = if self.is_preferred { Role::Candidate } else { Role::Bystander };
        self.ask_at = now + ASK_EVERY;
        self.cursor.clear();
        self.tenure = Arc::new(Tenure::until(self.sure_until));
    }

    /// Nothing that was made of a fact is under way any more.
    pub(super) fn ended(&mut self, id: Box<str>, tenure: &Arc<Tenure>, done: bool, now: Instant) {
        // It may be told a second time by now, if the turn was lost and is back.
        let is_this = self.told.get(&id).is_some_and(|told| Arc::ptr_eq(told, tenure));
        if is_this {
            self.told.remove(&id);
        }
        if done && self.over.insert(id.to_string()) {
            self.ended.push(id.into_string());
        } else if !done && is_this {
            // Nobody tells it.
            self.begin_again(now);
        }
    }
}

impl Pauses {
    fn new(now: Instant) -> Self {
        Self { failures: 0, until: now }
    }

    fn failed(&mut self, trouble: Trouble, now: Instant) {
        let (first, longest) = PAUSE;
        let doubled = first * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.until = now + if trouble == Trouble::Lasting { longest } else { doubled.min(longest) };
    }
}
