//! The mirrors, running, and the outlet to whoever speaks with the other nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::app::AppId;
use crate::hub::Topic;
use crate::metrics::OfCluster;
use crate::mirror::{Arrival, Effect, Mirror, Op, PARTITIONS, Reply, Request, partition_of};
use crate::node::facts::Facts;
use crate::node::{Letter, Lock, Mailbox, Node, Outlet, Weighed, hold, mailbox};
use crate::protocol::ChannelName;

/// A topic stays open for so long after its last listener has gone: pages are reloaded.
const LINGER: Duration = Duration::from_secs(2);

/// What a node of a cluster has beside other nodes.
#[derive(Debug)]
pub(super) struct Cluster {
    /// One for each partition.
    mirrors: Box<[Lock<MirrorShard>]>,
    calls: Outlet<Call>,
    /// Until the cluster begins.
    mailbox: Lock<Option<Mailbox<Call>>>,
    pub(super) facts: Facts,
    status: ArcSwap<ClusterStatus>,
}

#[derive(Debug)]
struct MirrorShard {
    mirror: Mirror,
    /// Kept, so that a command allocates nothing for its effects.
    effects: Vec<Effect>,
}

/// What is asked of the cluster. Calls about the same topic are carried out in order.
#[derive(Debug)]
pub enum Call {
    /// A mirror wants something.
    Mirror(Request),
    /// Somebody waits for the reply to a step. A publication is given up after `redis.publish_timeout_ms`.
    Op(Op, oneshot::Sender<Result<Reply, Away>>),
    /// The occupied channels of an app in one partition, whose names begin with a prefix.
    List {
        /// Which partition.
        partition: u8,
        /// Whose channels.
        app: AppId,
        /// How their names begin.
        prefix: String,
        /// For the answer.
        reply: oneshot::Sender<Result<Vec<Listed>, Away>>,
    },
}

/// An occupied channel, as the cluster counts it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Its name.
    pub channel: ChannelName,
    /// Its subscriptions.
    pub subscriptions: u64,
    /// Distinct users, in a presence channel.
    pub users: usize,
}

/// Redis cannot be reached, so nothing can be said or done that concerns other nodes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("Redis is away")]
pub struct Away;

/// How the cluster is, seen from here.
#[derive(Clone, Debug, Default)]
pub struct ClusterStatus {
    /// How this node is called.
    pub node: String,
    /// Since when commands or bus are cut off; none if they are not. A node begins like that.
    pub away_since: Option<Instant>,
    /// What is wrong then, in a sentence, without secrets.
    pub trouble: Option<String>,
    /// The nodes that hold a lease.
    pub nodes: Vec<Lease>,
    /// When the lease was renewed, in the partition where that is longest ago; none before all partitions have it.
    pub renewed: Option<Instant>,
}

/// The lease of a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The name it has given itself, and what makes it unique.
    pub node: String,
    /// How much is left of its lease.
    pub left: Duration,
}

impl Weighed for Call {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Mirror(Request::Op(op)) | Self::Op(op, _) => op.weight(),
                Self::Mirror(Request::Open(_) | Request::Close(_)) | Self::List { .. } => 0,
            }
    }
}

impl Cluster {
    pub(super) fn new() -> Self {
        let (calls, mailbox) = mailbox();
        let mirror =
            || Lock::new(MirrorShard { mirror: Mirror::new(rand::random(), LINGER), effects: Vec::new() });
        Self {
            mirrors: (0..PARTITIONS).map(|_| mirror()).collect(),
            calls,
            mailbox: Lock::new(Some(mailbox)),
            facts: Facts::new(),
            status: ArcSwap::from_pointee(ClusterStatus {
                away_since: Some(Instant::now()),
                trouble: Some("not connected yet".to_owned()),
                ..ClusterStatus::default()
            }),
        }
    }

    /// What waits to be asked, in bytes.
    pub(super) fn calls_bytes(&self) -> usize {
        self.calls.waiting.bytes.load(Ordering::Relaxed)
    }

    /// For the metrics page.
    pub(super) fn figures(&self) -> OfCluster {
        let status = self.status.load();
        let mut figures = OfCluster {
            away: status.away_since.map(|since| since.elapsed()),
            lease_age: status.renewed.map(|renewed| renewed.elapsed()),
            nodes: status.nodes.len(),
            calls: self.calls.waiting.letters.load(Ordering::Relaxed),
            calls_bytes: self.calls_bytes(),
            ..OfCluster::default()
        };
        for mirror in &self.mirrors {
            let shard = hold(mirror);
            figures.topics += shard.mirror.topics().count();
            figures.tickets += shard.mirror.waiting();
        }
        figures
    }

    fn mirror_of(&self, app: &str, channel: &ChannelName) -> &Lock<MirrorShard> {
        &self.mirrors[usize::from(partition_of(app, channel.as_str()))]
    }
}

impl Node {
    /// Whether this node is one of many.
    pub fn is_clustered(&self) -> bool {
        self.cluster.is_some()
    }

    /// The mailbox of calls to the cluster; none if there is no cluster, or somebody has it.
    pub fn take_calls(&self) -> Option<Mailbox<Call>> {
        hold(&self.cluster.as_ref()?.mailbox).take()
    }

    /// How the cluster is; none if there is none.
    pub fn cluster_status(&self) -> Option<Arc<ClusterStatus>> {
        self.cluster.as_ref().map(|cluster| cluster.status.load_full())
    }

    /// Tells how the cluster is. Outages are counted here.
    pub fn set_cluster_status(&self, status: ClusterStatus) {
        let Some(cluster) = &self.cluster else { return };
        let now = status.away_since;
        let before = cluster.status.swap(Arc::new(status)).away_since;
        match (before, now) {
            (None, Some(_)) => self.metrics.cluster.went_away(),
            (Some(since), None) => self.metrics.cluster.came_back(since.elapsed()),
            _ => {}
        }
    }

    /// Asks the cluster for something.
    pub fn call(&self, call: Call) {
        if let Some(cluster) = &self.cluster {
            cluster.calls.post(call);
        }
    }

    /// Applies a command to the mirror of a partition and hands its effects on, in order, under its lock. None if there
    /// is no cluster.
    pub fn mirrored<R>(
        &self,
        partition: u8,
        command: impl FnOnce(&mut Mirror, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        let lock = self.cluster.as_ref()?.mirrors.get(usize::from(partition))?;
        Some(self.reflect(lock, None, command))
    }

    /// A message has come over the bus: see [`Mirror::arrived`]. Workers are told when, so that it is known how long
    /// they take.
    pub fn arrived(&self, topic: &Topic, arrival: Arrival, now: Instant) {
        if let Some(cluster) = &self.cluster {
            let lock = cluster.mirror_of(&topic.app, &topic.channel);
            self.reflect(lock, Some(now), |mirror, effects| mirror.arrived(topic, arrival, now, effects));
        }
    }

    /// As [`Node::mirrored`], for the partition of a topic.
    pub fn mirrored_topic<R>(
        &self,
        topic: &Topic,
        command: impl FnOnce(&mut Mirror, &mut Vec<Effect>) -> R,
    ) -> Option<R> {
        let lock = self.cluster.as_ref()?.mirror_of(&topic.app, &topic.channel);
        Some(self.reflect(lock, None, command))
    }

    fn reflect<R>(
        &self,
        lock: &Lock<MirrorShard>,
        arrived: Option<Instant>,
        command: impl FnOnce(&mut Mirror, &mut Vec<Effect>) -> R,
    ) -> R {
        let MirrorShard { mirror, effects } = &mut *hold(lock);
        let answer = command(mirror, effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver(worker, delivery) => {
                    if let Some(outlet) = self.outlets.get(usize::from(worker.0)) {
                        outlet.post(Letter::Deliver(delivery, arrived));
                    }
                }
                Effect::Granted(worker, ticket, grant) => {
                    if let Some(outlet) = self.outlets.get(usize::from(worker.0)) {
                        outlet.post(Letter::Granted(ticket, grant));
                    }
                }
                Effect::Ask(request) => self.call(Call::Mirror(request)),
            }
        }
        answer
    }
}
