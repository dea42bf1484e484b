//! Facts on their way from Redis to webhooks: each is told once by the cluster, whoever dies when.
//!
//! ```text
//!  Redis: facts of a partition ─ take ─▶ turns ─ News ─▶ webhooks ─ deliveries, each with a share of a receipt
//!            ▲                             │  ▲                        │
//!            └──────────── done ───────────┘  └────── FactAnswer ──────┘
//! ```
//!
//! The script that changes a channel writes down in the same step what webhooks are to tell of it. From there one node
//! takes it, in order: the one that has the partition's turn. Which one should have it, all nodes know alike (`share`);
//! which one has it, Redis knows. It is forgotten there when everything that was made of it has been delivered or given
//! up. If its node dies before, or has to let go, the next one takes it again, marked: it may have been told already.
//!
//! [`Outbox::start`] begins the task that runs the scripts which [`Turns`], a plain value, wants to be run.
//!
//! Invariants: a node has a fact under way only once; it takes facts in their order and hands them on in it.
//! Not here: who is told, and when that is given up (`webhook`); the scripts (`script`).

mod partition;
mod share;
#[cfg(test)]
mod tests;
mod turns;

use std::future::pending;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::cluster::outbox::turns::{Action, Trouble, Turns};
use crate::cluster::script::{Fault, Invocation, Space, Taken, taken};
use crate::cluster::servers::{RunError, Servers};
use crate::control::vital;
use crate::node::{FactAnswer, News, Node, Told};

/// Answers of webhooks that are read at a time.
const ANSWERS: usize = 1024;

/// How often it is said that Redis refuses.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// The way to the task that takes facts out of Redis. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Outbox {
    words: UnboundedSender<Word>,
}

/// What the task is told.
#[derive(Debug)]
enum Word {
    Follow(u8, Vec<String>),
    Wake(u8),
    Reconnected,
    Doubt(u8),
    Finish(oneshot::Sender<()>),
}

impl Outbox {
    /// Begins to take facts for a node of this name, in a runtime for local tasks. It takes none before it is told which
    /// nodes there are.
    ///
    /// None if the node is not one of many, or somebody takes its facts already.
    pub fn start(space: Space, servers: Rc<Servers>, node: Arc<Node>, name: &str) -> Option<Self> {
        let answers = node.take_fact_answers()?;
        let lease = Duration::from_secs(node.config().redis.lease_s);
        let (words, heard) = unbounded_channel();
        let turns = Turns::new(name, lease, Instant::now());
        let task = Task { space, servers, node, turns, runs: JoinSet::new(), said: None };
        vital("facts for webhooks are taken no longer", task.run(heard, answers));
        Some(Self { words })
    }

    /// A beat has told that these nodes have a lease in a partition: every node knows from that whose turn it should be.
    /// To be called with every beat, also if they are the same: it says that this node's lease is good, too.
    pub fn follow(&self, partition: u8, live: Vec<String>) {
        self.say(Word::Follow(partition, live));
    }

    /// There may be new facts: something was said on the partition's wake topic, or that is listened to again.
    pub fn wake(&self, partition: u8) {
        self.say(Word::Wake(partition));
    }

    /// Redis was away and answers again: what it has may not be what it had. While it is away nothing need be said.
    pub fn reconnected(&self) {
        self.say(Word::Reconnected);
    }

    /// The node may have been without its lease in a partition, or the partition has lost something: others may have
    /// taken over.
    pub fn doubt(&self, partition: u8) {
        self.say(Word::Doubt(partition));
    }

    /// Takes nothing more, has Redis forget what was told, and gives all turns back. To be called when webhooks have
    /// come to their end, and to be waited for within a time: it goes on until Redis has heard all that.
    pub async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        self.say(Word::Finish(done));
        // The task ends with the process.
        let _ = finished.await;
    }

    fn say(&self, word: Word) {
        // The task ends with the process.
        let _ = self.words.send(word);
    }
}

/// Runs the scripts that the turns want.
struct Task {
    space: Space,
    servers: Rc<Servers>,
    node: Arc<Node>,
    turns: Turns,
    runs: JoinSet<Ran>,
    /// When a refusal was last put into the log.
    said: Option<Instant>,
}

/// A script that was run.
enum Ran {
    Take(u8, Result<Taken, Problem>),
    Done(u8, Result<(), Problem>),
}

/// Why one was not.
enum Problem {
    Run(RunError),
    Answer(Fault),
}

impl Task {
    async fn run(mut self, mut words: UnboundedReceiver<Word>, mut answers: UnboundedReceiver<FactAnswer>) {
        let mut answered = Vec::new();
        let mut finishing = Vec::new();
        loop {
            let now = Instant::now();
            while let Some(action) = self.turns.next(now) {
                self.carry_out(action);
            }
            if self.turns.is_over() {
                for done in finishing.drain(..) {
                    // Nobody need wait for it.
                    let _: Result<(), ()> = oneshot::Sender::send(done, ());
                }
            }
            tokio::select! {
                word = words.recv() => match word {
                    Some(Word::Finish(done)) => {
                        self.turns.close(Instant::now());
                        finishing.push(done);
                    }
                    Some(word) => self.hear(word),
                    None => return,
                },
                1.. = answers.recv_many(&mut answered, ANSWERS) => {
                    answered.drain(..).for_each(|answer| self.turns.answered(answer, Instant::now()));
                }
                Some(ran) = self.runs.join_next() => match ran {
                    Ok(ran) => self.ran(ran),
                    // The partition would wait for its answer for ever otherwise.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => resume_unwind(panic),
                        Err(_) => return,
                    },
                },
                () = sleep(self.turns.wake_at(now)) => {}
            }
        }
    }

    fn hear(&mut self, word: Word) {
        let now = Instant::now();
        match word {
            Word::Follow(partition, live) => self.turns.follow(partition, &live, now),
            Word::Wake(partition) => self.turns.wake(partition, now),
            Word::Reconnected => self.turns.reconnected(now),
            Word::Doubt(partition) => self.turns.doubt(partition, now),
            Word::Finish(_) => self.turns.close(now),
        }
    }

    fn carry_out(&mut self, action: Action) {
        let node = self.turns.name();
        match action {
            Action::Listen(partition) => self.servers.listen(self.space.wake_topic(partition)),
            Action::Unlisten(partition) => self.servers.unlisten(&self.space.wake_topic(partition)),
            Action::Take { partition, after, max } => {
                let invocation = self.space.take(partition, node, &after, max, false);
                self.take(partition, invocation);
            }
            Action::Release(partition) => {
                let invocation = self.space.take(partition, node, "", 0, true);
                self.take(partition, invocation);
            }
            Action::Done { partition, ids } => {
                let invocation = self.space.done(partition, &ids);
                let (servers, node) = (self.servers.clone(), self.node.clone());
                self.runs.spawn_local(async move {
                    let done = timed(&servers, &node, &invocation).await;
                    Ran::Done(partition, done.map(drop).map_err(Problem::Run))
                });
            }
            Action::Tell { partition, fact, tenure } => {
                let Some(receipt) = self.node.receipt(partition, fact.id.into(), tenure) else { return };
                let (occurrence, time_ms, again) = (fact.occurrence, fact.time_ms, fact.again);
                self.node.tell_news(News::Fact(Told { occurrence, time_ms, again, receipt }));
            }
            Action::TellLost => self.node.tell_news(News::Lost),
        }
    }

    fn take(&mut self, partition: u8, invocation: Invocation) {
        let (servers, node) = (self.servers.clone(), self.node.clone());
        self.runs.spawn_local(async move {
            let answer = timed(&servers, &node, &invocation).await.map_err(Problem::Run);
            Ran::Take(partition, answer.and_then(|value| taken(value).map_err(Problem::Answer)))
        });
    }

    fn ran(&mut self, ran: Ran) {
        let now = Instant::now();
        match ran {
            Ran::Take(partition, answer) => {
                let answer = answer.map_err(|problem| self.trouble(partition, &problem));
                self.turns.taken(partition, answer, now);
            }
            Ran::Done(partition, answer) => {
                let answer = answer.map_err(|problem| self.trouble(partition, &problem));
                self.turns.done(partition, answer, now);
            }
        }
    }

    fn trouble(&mut self, partition: u8, problem: &Problem) -> Trouble {
        let error = match problem {
            Problem::Run(error @ (RunError::NotRun(_) | RunError::Unknown(_))) => {
                tracing::debug!(partition, %error, "facts for webhooks cannot be had now");
                return Trouble::Passing;
            }
            Problem::Run(error) => error.to_string(),
            Problem::Answer(fault) => fault.to_string(),
        };
        if self.said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!(partition, error, "Redis does not give the facts for webhooks");
        }
        Trouble::Lasting
    }
}

/// Runs a script, and has the metrics know how long it took.
async fn timed(servers: &Servers, node: &Node, invocation: &Invocation) -> Result<Value, RunError> {
    let began = Instant::now();
    let answer = servers.run(invocation).await;
    node.metrics().cluster.ran(invocation.script.name, began.elapsed());
    answer
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
