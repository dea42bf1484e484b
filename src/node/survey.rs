//! What operators ask about the node as a whole.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use crate::app::{App, AppId};
use crate::hub::WorkerId;
use crate::inspect::Question;
use crate::mirror::PARTITIONS;
use crate::node::{Letter, Node, Outlet, Waiting, hold};
use crate::protocol::ChannelName;

/// What an app has on this node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Open connections.
    pub connections: usize,
    /// Channels with subscribers.
    pub channels: usize,
    /// Subscriptions of all channels.
    pub subscriptions: u64,
}

impl Node {
    /// Puts a question into a worker's mailbox. Its answer never comes if there is no such worker.
    pub fn ask(&self, worker: WorkerId, question: Question) {
        if let Some(outlet) = self.outlets.get(usize::from(worker.0)) {
            outlet.post(Letter::Ask(Box::new(question)));
        }
    }

    /// The workers, each with the letters and bytes that wait in its mailbox.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, usize, usize)> {
        (0..).map(WorkerId).zip(&self.outlets).map(|(worker, Outlet { waiting, .. })| {
            let Waiting { letters, bytes } = &**waiting;
            (worker, letters.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
        })
    }

    /// Whether connections are being closed because the node stops.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What each app has on this node, counted from state.
    pub fn footprints(&self) -> HashMap<AppId, Footprint> {
        let mut footprints: HashMap<AppId, Footprint> = HashMap::new();
        for (app, usage) in &**self.usages.load() {
            footprints.entry(app.clone()).or_default().connections = usage.open.load(Ordering::Relaxed);
        }
        let mut add = |app: &AppId, channel: &ChannelName, subscriptions| {
            if let Some(footprint) = footprints.get_mut(app)
                && subscriptions > 0
                && !channel.kind().is_user()
            {
                footprint.channels += 1;
                footprint.subscriptions += subscriptions;
            }
        };
        for hub in &self.hubs {
            for (app, channels) in hold(hub).hub.all() {
                channels.for_each(|(channel, subscriptions, _)| add(app, channel, subscriptions));
            }
        }
        for partition in 0..PARTITIONS {
            self.mirrored(partition, |mirror, _| {
                mirror.occupied(None).for_each(|(app, channel, count, _)| add(app, channel, count));
            });
        }
        footprints
    }

    /// The first `limit` channels of an app, by name, that have subscribers on this node, begin with `prefix` and come
    /// behind `after`.
    pub fn channels_after(&self, app: &App, prefix: &str, after: &str, limit: usize) -> Vec<ChannelName> {
        let mut first: BTreeSet<Ordered> = BTreeSet::new();
        let mut consider = |name: &ChannelName| {
            let is_last =
                first.len() >= limit && first.last().is_some_and(|last| last.0.as_str() < name.as_str());
            if name.as_str() <= after || is_last {
                return;
            }
            first.insert(Ordered(name.clone()));
            if first.len() > limit {
                first.pop_last();
            }
        };
        for hub in &self.hubs {
            hold(hub).hub.occupied_names(&app.id, prefix).for_each(&mut consider);
        }
        for partition in 0..PARTITIONS {
            self.mirrored(partition, |mirror, _| {
                let names = mirror.occupied(Some(&app.id)).map(|(_, name, ..)| name);
                let named = |name: &&ChannelName| !name.kind().is_user() && name.as_str().starts_with(prefix);
                names.filter(named).for_each(&mut consider);
            });
        }
        first.into_iter().map(|name| name.0).collect()
    }
}

/// A channel in the order of names.
#[derive(Eq, PartialEq)]
struct Ordered(ChannelName);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
