//! Which workers have somebody to serve.

use crate::hub::effect::WorkerId;

/// How many connections each worker has in an audience. Only workers that have some take room.
#[derive(Debug, Default)]
pub(crate) struct Spread(Vec<(WorkerId, u32)>);

impl Spread {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.0.iter().map(|(worker, _)| *worker)
    }

    /// Adds a connection.
    pub(crate) fn add(&mut self, worker: WorkerId) {
        match self.0.iter_mut().find(|entry| entry.0 == worker) {
            Some((_, count)) => *count += 1,
            None => self.0.push((worker, 1)),
        }
    }

    /// Takes a connection away. True if it was the last of all.
    pub(crate) fn remove(&mut self, worker: WorkerId) -> bool {
        let Some(at) = self.0.iter().position(|entry| entry.0 == worker) else { return false };
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.swap_remove(at);
        }
        self.0.is_empty()
    }
}
