//! Facts of the cluster on their way to webhooks, and word of what has become of them.
//!
//! Redis keeps a fact until it has been told, so each one goes with a [`Receipt`], which every delivery that is made of
//! it shares. How many may be under way is settled with credit: whoever takes facts out of Redis begins with some,
//! spends it on each, and has it back ([`FactAnswer::Room`]) when webhooks have room for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::hub::Occurrence;
use crate::node::{Lock, Mailbox, Node, Outlet, Weighed, hold, mailbox};

/// What webhooks are told by the cluster.
#[derive(Debug)]
pub enum News {
    /// Something happened.
    Fact(Told),
    /// Some facts that were told here are another node's to tell now: see [`Receipt::is_lost`].
    Lost,
}

/// A fact to tell.
#[derive(Debug)]
pub struct Told {
    /// What happened.
    pub occurrence: Occurrence,
    /// When, in milliseconds since 1970, by the clock of Redis.
    pub time_ms: u64,
    /// It may have been told before, by whoever had it then.
    pub again: bool,
    /// To be shared by everything that is made of it.
    pub receipt: Receipt,
}

/// What has become of facts.
#[derive(Debug)]
pub enum FactAnswer {
    /// Nothing that was made of a fact is under way any more.
    Ended {
        /// Its partition.
        partition: u8,
        /// Its id there.
        id: Box<str>,
        /// What it was told with.
        tenure: Arc<Tenure>,
        /// Everything was delivered or given up: nobody need tell it again.
        done: bool,
    },
    /// There is room for so much more.
    Room(Room),
    /// Webhooks come to their end: nothing more is told.
    Closing,
}

/// How much of facts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Room {
    /// How many.
    pub facts: usize,
    /// What they take, as [`Weighed`] says.
    pub bytes: usize,
}

/// For how long a node has the facts that it tells to itself. Those who deliver look at it before each attempt, so it
/// holds also for a process that has stood still.
#[derive(Debug)]
pub struct Tenure {
    began: Instant,
    /// It is sure for so many milliseconds from then on.
    sure_ms: AtomicU64,
    end: AtomicU8,
}

/// Another node may have taken the facts over.
const DOUBTFUL: u8 = 1;
/// Another node has.
const LOST: u8 = 2;

impl Tenure {
    /// One that is sure until then.
    pub fn until(until: Instant) -> Self {
        Self { began: until, sure_ms: AtomicU64::new(0), end: AtomicU8::new(0) }
    }

    /// It is sure until then.
    pub fn extend(&self, until: Instant) {
        let ms = until.saturating_duration_since(self.began).as_millis();
        self.sure_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Another node may tell the facts, for good.
    pub fn doubt(&self) {
        self.end.fetch_max(DOUBTFUL, Ordering::Relaxed);
    }

    /// Another node tells the facts.
    pub fn lose(&self) {
        self.end.fetch_max(LOST, Ordering::Relaxed);
    }

    /// Whether another node may tell the facts.
    pub fn is_doubtful(&self, now: Instant) -> bool {
        let sure = Duration::from_millis(self.sure_ms.load(Ordering::Relaxed));
        self.end.load(Ordering::Relaxed) >= DOUBTFUL || now.saturating_duration_since(self.began) > sure
    }

    /// Whether another node tells the facts.
    pub fn is_lost(&self) -> bool {
        self.end.load(Ordering::Relaxed) >= LOST
    }
}

/// A share in a fact's being told. When the last one has gone, the answer goes back: the fact is done only if every
/// share was [`Receipt::done`], so what is dropped by mistake or at the end is told again by another node.
#[derive(Debug)]
pub struct Receipt {
    fact: Arc<Shares>,
    done: bool,
}

#[derive(Debug)]
struct Shares {
    partition: u8,
    id: Box<str>,
    tenure: Arc<Tenure>,
    undone: AtomicBool,
    answers: UnboundedSender<FactAnswer>,
}

impl Receipt {
    /// One more share.
    pub fn share(&self) -> Self {
        Self { fact: self.fact.clone(), done: false }
    }

    /// This share has been delivered or given up.
    pub fn done(mut self) {
        self.done = true;
    }

    /// Whether another node may tell the fact, too: then the receiver should be told so.
    pub fn is_doubtful(&self, now: Instant) -> bool {
        self.fact.tenure.is_doubtful(now)
    }

    /// Whether another node tells the fact now.
    pub fn is_lost(&self) -> bool {
        self.fact.tenure.is_lost()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.done {
            self.fact.undone.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        let (partition, id, tenure) = (self.partition, std::mem::take(&mut self.id), self.tenure.clone());
        let done = !*self.undone.get_mut();
        // At the end of the process nobody need hear it.
        let _ = self.answers.send(FactAnswer::Ended { partition, id, tenure, done });
    }
}

impl Told {
    /// What it costs to have such a fact under way, in bytes.
    pub fn weight_of(occurrence: &Occurrence) -> usize {
        size_of::<Self>() + size_of::<Shares>() + occurrence.fact.weight()
    }
}

impl Weighed for Told {
    fn weight(&self) -> usize {
        Self::weight_of(&self.occurrence)
    }
}

impl Weighed for News {
    fn weight(&self) -> usize {
        match self {
            Self::Fact(told) => told.weight(),
            Self::Lost => size_of::<Self>(),
        }
    }
}

/// The ways between whoever takes facts out of Redis and whoever tells them.
#[derive(Debug)]
pub(super) struct Facts {
    news: Outlet<News>,
    mailbox: Lock<Option<Mailbox<News>>>,
    answers: UnboundedSender<FactAnswer>,
    answered: Lock<Option<UnboundedReceiver<FactAnswer>>>,
}

impl Facts {
    pub(super) fn new() -> Self {
        let (news, mailbox) = mailbox();
        let (answers, answered) = unbounded_channel();
        Self { news, mailbox: Lock::new(Some(mailbox)), answers, answered: Lock::new(Some(answered)) }
    }
}

impl Node {
    /// The mailbox of facts to tell; none if there is no cluster, or somebody has it.
    pub fn take_news(&self) -> Option<Mailbox<News>> {
        hold(&self.cluster.as_ref()?.facts.mailbox).take()
    }

    /// What becomes of facts; none if there is no cluster, or somebody has it.
    pub fn take_fact_answers(&self) -> Option<UnboundedReceiver<FactAnswer>> {
        hold(&self.cluster.as_ref()?.facts.answered).take()
    }

    /// The first share in a fact of a partition; none if there is no cluster.
    pub fn receipt(&self, partition: u8, id: Box<str>, tenure: Arc<Tenure>) -> Option<Receipt> {
        let answers = self.cluster.as_ref()?.facts.answers.clone();
        let fact = Shares { partition, id, tenure, undone: AtomicBool::new(false), answers };
        Some(Receipt { fact: Arc::new(fact), done: false })
    }

    /// Tells webhooks. The order is kept.
    pub fn tell_news(&self, news: News) {
        if let Some(cluster) = &self.cluster {
            cluster.facts.news.post(news);
        }
    }

    /// Tells whoever takes facts out of Redis.
    pub fn answer_facts(&self, answer: FactAnswer) {
        if let Some(cluster) = &self.cluster {
            // At the end of the process nobody need hear it.
            let _ = cluster.facts.answers.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Apps;
    use crate::config::{Config, Masked};

    fn clustered() -> Arc<Node> {
        let mut config = Config::default();
        config.redis.url = Masked::new("redis://127.0.0.1/");
        Node::new(config, Apps::default())
    }

    fn ended(answer: FactAnswer) -> (u8, String, bool) {
        let FactAnswer::Ended { partition, id, done, .. } = answer else { panic!("{answer:?}") };
        (partition, id.into(), done)
    }

    #[test]
    fn a_fact_is_done_when_its_last_share_is_and_none_was_dropped() {
        let node = clustered();
        let mut answers = node.take_fact_answers().expect("nobody has them");
        let tenure = Arc::new(Tenure::until(Instant::now()));
        let receipt = |id: &str| node.receipt(7, id.into(), tenure.clone()).expect("a cluster");
        let whole = receipt("1-0");
        let shares = [whole.share(), whole.share()];
        whole.done();
        assert!(answers.try_recv().is_err(), "two shares are open");
        shares.into_iter().for_each(Receipt::done);
        assert_eq!(answers.try_recv().map(ended), Ok((7, "1-0".to_owned(), true)));

        let whole = receipt("2-0");
        drop(whole.share());
        whole.done();
        assert_eq!(answers.try_recv().map(ended), Ok((7, "2-0".to_owned(), false)));
        assert!(answers.try_recv().is_err());
    }

    #[test]
    fn a_tenure_is_sure_for_its_time_and_its_end_is_for_good() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let tenure = Tenure::until(now);
        assert!(!tenure.is_doubtful(now) && tenure.is_doubtful(now + second));
        tenure.extend(now + 2 * second);
        assert!(!tenure.is_doubtful(now + 2 * second) && tenure.is_doubtful(now + 3 * second));
        tenure.doubt();
        tenure.extend(now + 9 * second);
        assert!(tenure.is_doubtful(now) && !tenure.is_lost());
        tenure.lose();
        tenure.doubt();
        assert!(tenure.is_doubtful(now) && tenure.is_lost());
    }

    #[test]
    fn without_a_cluster_there_are_no_facts() {
        let node = Node::new(Config::default(), Apps::default());
        assert!(node.take_news().is_none() && node.take_fact_answers().is_none());
        assert!(node.receipt(7, "1-0".into(), Arc::new(Tenure::until(Instant::now()))).is_none());
    }
}
