//! What a topic has only while something of it is awaited.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::hub::WorkerId;
use crate::mirror::{Arrival, Place, Ticket};

/// Messages that may wait until it is known how a topic is; above it they are let go, which shows as a gap.
const EARLY_MAX: usize = 4096;

/// The same, in bytes of messages.
const EARLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Questions without an answer, and whoever waits for one. Most topics have none of it most of the time.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Looks without an answer. Only the last one counts: what was asked before it may be outdated.
    pub(super) looks: u32,
    /// The bus was cut off since the last answer: what was published meanwhile never arrives.
    pub(super) was_cut: bool,
    /// Who waits for the topic.
    pub(super) waiting: Vec<Waiting>,
    /// Who waits for a user to be a member, by user.
    pub(super) newcomers: BTreeMap<Box<str>, Newcomer>,
    /// Users who are members when the mirror has come so far, in that order.
    pub(super) entered: VecDeque<(Place, Box<str>)>,
    /// What has arrived and waits until it is known how the topic is.
    pub(super) early: Early,
    /// What the state no longer says, and is believed for a while.
    pub(super) doubts: Doubts,
    /// The topic is listed as one to be closed, if it still may by then.
    pub(super) closes: Option<Instant>,
}

/// A connection that has been asked for and not granted yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) worker: WorkerId,
    pub(super) ticket: Ticket,
}

/// A user who is here and not yet known to be a member.
#[derive(Debug, Default)]
pub(super) struct Newcomer {
    /// How many others waited when the user came: while nobody is let in, the order of those who wait.
    pub(super) before: usize,
    /// When the mirror has come here, the user is among the members it knows. None: it is not known whether there is room.
    pub(super) entered: Option<Place>,
    pub(super) waiting: Vec<Waiting>,
}

/// Messages that came while it was not known what is before them.
#[derive(Debug, Default)]
pub(super) struct Early {
    arrivals: Vec<Arrival>,
    bytes: usize,
}

/// What was so and may be so, though the state does not say so.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Members, and until when they are believed to be there.
    pub(super) members: BTreeMap<Box<str>, Instant>,
    /// Until when the user is believed to be online.
    pub(super) online: Option<Instant>,
    /// The topic is listed as one with doubts.
    pub(super) is_listed: bool,
}

impl Unsettled {
    /// Nothing is awaited any more.
    pub(super) fn is_idle(&self) -> bool {
        self.looks == 0
            && !self.was_cut
            && self.waiting.is_empty()
            && self.newcomers.is_empty()
            && self.entered.is_empty()
            && self.early.arrivals.is_empty()
            && self.doubts.is_empty()
            && !self.doubts.is_listed
            && self.closes.is_none()
    }
}

impl Early {
    /// Keeps a message; if there is no room, only that one.
    pub(super) fn push(&mut self, arrival: Arrival) {
        if self.arrivals.len() >= EARLY_MAX || self.bytes >= EARLY_BYTES_MAX {
            *self = Self::default();
        }
        self.bytes += arrival.message.weight();
        self.arrivals.push(arrival);
    }

    /// Lets go of the messages of all lives but one.
    pub(super) fn keep_epoch(&mut self, epoch: u64) {
        self.arrivals.retain(|arrival| arrival.place.epoch == epoch);
        self.bytes = self.arrivals.iter().map(|arrival| arrival.message.weight()).sum();
    }

    /// All of it.
    pub(super) fn take(&mut self) -> Vec<Arrival> {
        std::mem::take(self).arrivals
    }
}

impl Doubts {
    /// When the first of them is to be decided.
    pub(super) fn next(&self) -> Option<Instant> {
        self.members.values().copied().chain(self.online).min()
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.online.is_none()
    }
}
