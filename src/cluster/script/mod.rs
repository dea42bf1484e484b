//! The scripts that run in Redis: their arguments and their answers.
//!
//! What is shared is divided into partitions, and nothing in one refers to another. The keys of one begin with
//! `{prefix}:{{number}}:`, so that all of them are in one slot of a Redis Cluster:
//!
//! | key | what |
//! | --- | --- |
//! | `meta` | `layout`; `gen`, drawn when the partition came into being; `run` of the server, and the `era` of what it sends; `owner`, `taken`, `told` of the facts, and how many were `lost`; `log`: which part is written to, and its bytes; `dead`: who lies in the grave |
//! | `nodes` | sorted: nodes, by the end of their leases (ms) |
//! | `held:<node>` | `#`: its last step; `<app>\0s<channel>` and `<app>\0w<channel>`: its subscribers and watchers; `<app>\0s<channel>\0<user>`: the members they are |
//! | `grave` | the same of a dead node, until it is removed |
//! | `topics:<app>` | of each channel that somebody is subscribed to: place, subscriptions, users, traits, when the count was told |
//! | `users:<app>` | the same of users who are signed in, and of those who are watched |
//! | `members:<app>:<channel>` | on how many nodes each user is, and the user's info |
//! | `cache:<app>:<channel>` | the event to replay, or that a miss was told |
//! | `due` | sorted: leaves and counts that webhooks or subscribers are to be told, by their time (ms) |
//! | `facts` | stream: what webhooks are to be told |
//! | `log:0`, `log:1` | the latest messages of all topics |
//!
//! On the bus there are `bus:<app>:s<channel>`, `bus:<app>:w<channel>` and `wake`, behind the same beginning.

mod answers;
mod space;
#[cfg(test)]
mod tests;

use std::time::Duration;

use thiserror::Error;

use crate::hub::{Occurrence, Topic};
use crate::mirror::Op;

pub use crate::cluster::script::answers::{fault, listed, opened, pulse, replies, taken};
pub use crate::cluster::script::space::{SCRIPTS, Space};

/// How the state is laid out. Nodes that know another layout keep away.
pub const LAYOUT: u64 = 1;

/// A script's text and what it is called by.
#[derive(Debug)]
pub struct Script {
    /// For logs and metrics.
    pub name: &'static str,
    /// Lua.
    pub source: &'static str,
}

/// A script with everything it is given.
#[derive(Debug)]
pub struct Invocation {
    /// Which.
    pub script: &'static Script,
    /// Every key that it may touch, all of one partition.
    pub keys: Vec<Vec<u8>>,
    /// Its arguments, but for the last one: the run of the server, which only the connection knows.
    pub args: Vec<Vec<u8>>,
}

/// Why a script has done nothing.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Fault {
    /// The partition does not know this node: its lease ran out and was claimed, or Redis has lost everything.
    #[error("the node has no lease")]
    Fenced,
    /// Redis has lost the latest steps of this node: it is at this one.
    #[error("the state is at step {0}")]
    Behind(u64),
    /// The state was made by a version of Fanfare with another layout.
    #[error("the state in Redis has layout {found}, this version needs {needed}")]
    Layout {
        /// What is there.
        found: u64,
        /// What this version reads and writes.
        needed: u64,
    },
    /// It has not answered as a script of this version should.
    #[error("an answer that makes no sense: {0}")]
    Nonsense(String),
}

/// What Redis knows this node holds in a partition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Opened {
    /// Drawn when the partition came into being. Another one than before: everything was lost.
    pub generation: u64,
    /// What the node holds, by topic: connections, and ids of members.
    pub held: Vec<Holding>,
}

/// What a node holds of a topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holding {
    /// The topic.
    pub topic: Topic,
    /// Connections.
    pub count: u64,
    /// Ids of the users they are, in a presence channel.
    pub members: Vec<Box<str>>,
}

/// What a beat tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pulse {
    /// The last step of this node that was done.
    pub step: u64,
    /// The nodes that have a lease, with what is left of it in milliseconds; below 0 if it ran out.
    pub nodes: Vec<(String, i64)>,
    /// What is due by now, or the first of it.
    pub due: Vec<Due>,
    /// In how many milliseconds the next is due, if there is one.
    pub next_due_ms: Option<u64>,
    /// A claimed node, if there is one, with some topics of which its part is still to be removed.
    pub dead: Option<(String, Vec<Topic>)>,
    /// Facts that were dropped since the partition came into being, since too many waited.
    pub facts_lost: u64,
    /// Facts that wait to be told by webhooks.
    pub facts: u64,
}

/// Something of a topic that ends, or is told, by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Due {
    /// The topic.
    pub topic: Topic,
    /// What.
    pub what: DueKind,
}

/// What is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DueKind {
    /// Nobody has come back to the channel.
    Vacated,
    /// The user has not come back.
    Removed(Box<str>),
    /// A count that was held back.
    Count,
}

/// One part of a step.
#[derive(Clone, Debug)]
pub enum Item {
    /// Of this node. It has a [`Reply`](crate::mirror::Reply).
    Op(Op),
    /// Does what is due, if it still is.
    Settle(Due),
    /// Takes the lease away from a node, if it ran out. Nothing happens while what another one held is still being removed.
    Claim(String),
    /// Removes a claimed node's part of a topic, as if its connections had gone.
    Bury(String, Topic),
}

/// What every step begins with.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// This node.
    pub node: &'a str,
    /// One more than the step before. With the number of the step before, nothing is published again, and everything
    /// else is told as it is.
    pub number: u64,
    /// Random: epochs are made of it.
    pub nonce: u64,
    /// How long a leave may be undone before webhooks tell it.
    pub debounce: Duration,
    /// Bytes of each of the two parts of the log; 0 for none.
    pub log_bytes: usize,
    /// Most facts that may wait.
    pub outbox_max: usize,
    /// The server is one of a Redis Cluster, whose bus is divided like its keys.
    pub sharded: bool,
}

/// Facts for webhooks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Taken {
    /// In order.
    pub facts: Vec<TakenFact>,
    /// The node that takes the facts of this partition; another one than the asker has the turn.
    pub owner: String,
}

/// A fact that webhooks tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TakenFact {
    /// Names it when it is done.
    pub id: String,
    /// When it happened, in milliseconds since 1970, by the clock of Redis.
    pub time_ms: u64,
    /// What happened.
    pub occurrence: Occurrence,
    /// It may have been told before.
    pub again: bool,
}

/// How the script calls it.
fn due_letter(what: &DueKind) -> &'static str {
    match what {
        DueKind::Count => "c",
        DueKind::Removed(_) => "m",
        DueKind::Vacated => "v",
    }
}
