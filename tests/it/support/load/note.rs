//! What those who take part in a load note down, each for itself and in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::Sender,
    },
    time::Instant,
};

/// The number of an event: unique, and in its data.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Mark {
    /// Who has published it.
    pub(crate) publisher: u32,
    /// Its number among the publisher's.
    pub(crate) number: u32,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// 200.
    Accepted,
    /// 503.
    Refused,
    /// No answer.
    Unknown,
    /// A client event, which has none.
    Said,
}

/// One event on one channel.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) channel: Arc<str>,
    pub(crate) mark: Mark,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) outcome: Outcome,
}

/// The number of a connection.
pub(crate) type LifeId = u32;

/// What happens in the life of a connection.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// It is connected to this node, and will be this user where users are asked for.
    Began { node: usize, user: String },
    /// It has asked for a channel.
    Asked(Arc<str>),
    /// It is subscribed. Of a presence channel: who is there.
    Joined(Arc<str>, Option<Vec<String>>),
    /// An event.
    Event(Arc<str>, Mark),
    /// A cache channel has nothing to replay.
    Missed(Arc<str>),
    /// A member has come.
    Added(Arc<str>, String),
    /// A member has gone.
    Removed(Arc<str>, String),
    /// How many subscribe to a channel.
    Counted(Arc<str>, u64),
    /// Whether users who are watched are online, as it was told once for all of them.
    Watches(Vec<(String, bool)>),
    /// A watched user has come, or gone.
    Turned(String, bool),
    /// An error, or what nobody expects.
    Complaint(String),
    /// It leaves everything, on purpose.
    Leaves,
    /// The connection has been lost, or closed by the broker.
    Lost,
}

/// A line of the notes.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Published(Published),
    Heard(LifeId, Instant, Heard),
    /// Somebody was told what no broker should say.
    Wrong(String),
}

/// Where notes are put.
pub(crate) type Notes = Sender<Note>;

/// Numbers for connections.
#[derive(Debug, Default)]
pub(crate) struct Numbers(AtomicU32);

impl Numbers {
    pub(crate) fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Mark {
    /// The data of the event.
    pub(crate) fn data(self) -> String {
        format!("{}-{}", self.publisher, self.number)
    }

    /// Out of the data of an event.
    pub(crate) fn parse(data: &str) -> Option<Self> {
        let (publisher, number) = data.split_once('-')?;
        Some(Self { publisher: publisher.parse().ok()?, number: number.parse().ok()? })
    }
}
