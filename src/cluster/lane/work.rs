//! What a lane has to do: work that waits, the step that is under way, and who waits for what comes of it.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::app::AppId;
use crate::cluster::script::Item;
use crate::mirror::{Op, Reply};
use crate::node::{Away, Listed};

/// Who waits for a reply.
#[derive(Debug)]
pub(super) enum Waiter {
    Nobody,
    Mirror,
    Caller(oneshot::Sender<Result<Reply, Away>>, Instant),
    Lister(oneshot::Sender<Result<Vec<Listed>, Away>>, Instant),
}

/// Something that waits for its turn.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) what: What,
    pub(super) waiter: Waiter,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum What {
    Item(Item),
    List { app: AppId, prefix: String },
}

/// A step that is under way, or must be sent again.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) items: Vec<Item>,
    pub(super) waiters: Vec<Waiter>,
    /// It may have been done.
    pub(super) in_doubt: bool,
    /// The run of Redis it was last sent to; 0 if to none.
    pub(super) run: u64,
}

impl Waiter {
    /// When it has waited long enough, if ever.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Caller(_, until) | Self::Lister(_, until) => Some(*until),
            Self::Nobody | Self::Mirror => None,
        }
    }

    /// Tells whoever waits that Redis is away. Returns how many that were.
    pub(super) fn give_up(&mut self) -> u64 {
        match std::mem::replace(self, Self::Nobody) {
            Self::Caller(caller, _) => drop(caller.send(Err(Away))),
            Self::Lister(caller, _) => drop(caller.send(Err(Away))),
            other => {
                *self = other;
                return 0;
            }
        }
        1
    }
}

/// Only publications, looks and lists of callers may be given up: what a mirror says must be said.
fn is_given_up(item: &Item, waiter: &Waiter) -> bool {
    matches!(waiter, Waiter::Nobody)
        && matches!(item, Item::Op(Op::Publish(_) | Op::Census(_) | Op::Look(..)))
}

impl Work {
    /// Nobody waits for it any more, and nobody has to know of it.
    pub(super) fn is_given_up(&self) -> bool {
        match &self.what {
            What::Item(item) => is_given_up(item, &self.waiter),
            What::List { .. } => matches!(self.waiter, Waiter::Nobody),
        }
    }
}

impl Flight {
    /// It may have been done, and cannot be done again without doing it twice.
    pub(super) fn give_up_doubtful(&mut self) -> u64 {
        let given_up = self.waiters.iter_mut().map(Waiter::give_up).sum();
        self.forget_given_up();
        given_up
    }

    /// Leaves out what nobody waits for any more.
    pub(super) fn forget_given_up(&mut self) {
        let mut keep: Vec<bool> = Vec::with_capacity(self.items.len());
        for (item, waiter) in self.items.iter().zip(&self.waiters) {
            keep.push(!is_given_up(item, waiter));
        }
        let mut kept = keep.iter();
        self.items.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.waiters.retain(|_| kept.next().copied().unwrap_or(true));
    }
}
