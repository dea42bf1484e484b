//! Many nodes as one, over Redis.

mod agreement;
mod faults;
mod load;
mod operators;
mod servers;
mod together;

use std::ops::Deref;

use crate::support::{Fleet, RedisServer};

/// Nodes on a Redis of their own.
struct Cluster {
    fleet: Fleet,
    /// Ends after them.
    _redis: RedisServer,
}

impl Cluster {
    /// So many nodes with client events.
    fn of(nodes: usize) -> Self {
        Self::with(nodes, "", "client_events = true")
    }

    /// So many nodes with an app of these settings.
    fn with_app(nodes: usize, app: &str) -> Self {
        Self::with(nodes, "", app)
    }

    fn with(nodes: usize, settings: &str, app: &str) -> Self {
        let redis = RedisServer::start();
        let fleet = Fleet::with(&redis, nodes, settings, app);
        Self { fleet, _redis: redis }
    }
}

impl Deref for Cluster {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        &self.fleet
    }
}
