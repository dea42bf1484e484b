//! Deliveries that were given up, kept for whoever wants to know of them or to try them again.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::without_credentials;
use crate::protocol::ChannelName;
use crate::webhook::body::body;
use crate::webhook::delivery::{DeliveryId, Endpoint};
use crate::webhook::{DeadLetter, Selection};

/// A delivery that was given up.
#[derive(Clone, Debug)]
pub(super) struct Dead {
    pub(super) id: DeliveryId,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) time_ms: u64,
    pub(super) events: String,
    pub(super) count: usize,
    pub(super) channels: Vec<ChannelName>,
    pub(super) attempts: u32,
    /// It may have been told before.
    pub(super) again: bool,
    pub(super) error: String,
    /// What it took in the queue, in bytes.
    pub(super) weight: usize,
}

/// The newest of them, bounded in number and bytes.
#[derive(Debug)]
pub(super) struct DeadLetters {
    all: VecDeque<Dead>,
    bytes: usize,
    max: usize,
    bytes_max: usize,
}

impl DeadLetters {
    pub(super) fn new(max: usize, bytes_max: usize) -> Self {
        Self { all: VecDeque::new(), bytes: 0, max, bytes_max }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Dead> {
        self.all.iter()
    }

    /// Keeps one more, and lets the oldest go for it if need be.
    pub(super) fn add(&mut self, dead: Dead) {
        self.bytes += dead.weight;
        self.all.push_back(dead);
        while self.all.len() > self.max || self.bytes > self.bytes_max {
            let Some(oldest) = self.all.pop_front() else { break };
            self.bytes -= oldest.weight;
        }
    }

    /// Those that are asked for, newest first.
    pub(super) fn select(&self, selection: &Selection) -> Vec<DeadLetter> {
        self.all.iter().rev().filter(|dead| dead.is_in(selection)).map(DeadLetter::from).collect()
    }

    /// Takes out those that are asked for, oldest first.
    pub(super) fn take(&mut self, selection: &Selection) -> Vec<Dead> {
        let all = std::mem::take(&mut self.all).into_iter();
        let (taken, kept): (Vec<_>, Vec<_>) = all.partition(|dead| dead.is_in(selection));
        self.all = kept.into();
        self.bytes -= taken.iter().map(|dead| dead.weight).sum::<usize>();
        taken
    }
}

impl Dead {
    fn is_in(&self, selection: &Selection) -> bool {
        match selection {
            Selection::All => true,
            Selection::App(app) => self.endpoint.app == *app,
            Selection::Id(id) => DeliveryId::parse(id) == Some(self.id),
        }
    }
}

impl From<&Dead> for DeadLetter {
    fn from(dead: &Dead) -> Self {
        Self {
            id: dead.id.to_string(),
            app: dead.endpoint.app.clone(),
            url: without_credentials(&dead.endpoint.url),
            body: body(dead.time_ms, &dead.events),
            time_ms: dead.time_ms,
            attempts: dead.attempts,
            error: dead.error.clone(),
        }
    }
}
