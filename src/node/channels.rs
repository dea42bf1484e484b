//! What workers and timers do to the channels: in the hubs of a node that is alone, in the mirrors of one of many.
//!
//! What is counted here is what this node has. What the whole cluster has is asked in `everywhere`.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use thiserror::Error;

use crate::app::{App, AppId};
use crate::hub::{
    Audience, Body, Census, ChannelFull, Effect, Hub, Joined, Leavers, Occurrence, Publish, Subscription,
    Topic, Watched, WorkerId,
};
use crate::metrics::Dropped;
use crate::mirror::{self, Asked, Mirror, PARTITIONS, Ticket, partition_of};
use crate::node::{HUBS, Letter, Lock, Node, hold};
use crate::protocol::{ChannelName, CloseReason, Member, Roster};

/// One hub, behind its lock.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) hub: Hub,
    /// Kept, so that a command allocates nothing for its effects.
    pub(super) effects: Vec<Effect>,
}

/// Too much waits for the workers already, or for the cluster.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the workers are too far behind")]
pub struct Overloaded;

impl Node {
    /// Whether the workers keep up. To be asked before anything that makes them more to deliver.
    ///
    /// # Errors
    /// When it would only pile up: refuse it. The refusal is counted.
    pub fn check_room(&self) -> Result<(), Overloaded> {
        if !self.is_overloaded() {
            return Ok(());
        }
        self.metrics.overloads.inc();
        Err(Overloaded)
    }

    /// Whether more waits for some worker, or for the cluster, than may.
    pub fn is_overloaded(&self) -> bool {
        let max = self.config.server.mailbox_bytes_max;
        self.outlets.iter().any(|outlet| outlet.waiting.bytes.load(Ordering::Relaxed) > max)
            || self.cluster.as_ref().is_some_and(|cluster| {
                // What was taken waits for Redis now.
                let taken = usize::try_from(self.metrics.cluster.calls_taken_bytes.get()).unwrap_or_default();
                cluster.calls_bytes() + taken > max
            })
    }

    /// Whether an app may have one more channel on this node, if `channel` would be one. Two threads that ask at the same
    /// time may both hear yes.
    pub fn has_room_for(&self, app: &App, channel: &ChannelName) -> bool {
        if app.channels_max == 0 {
            return true;
        }
        let topic = || subscribers(app, channel);
        let is_there = self
            .reflected(app, channel, |mirror, _| mirror.has(&topic()))
            .unwrap_or_else(|| self.census_here(app, channel).subscriptions > 0);
        if is_there {
            return true;
        }
        let in_mirrors = (0..PARTITIONS)
            .filter_map(|partition| self.mirrored(partition, |mirror, _| mirror.occupied_count(&app.id)));
        let in_hubs = self.hubs.iter().map(|hub| hold(hub).hub.occupied_count(&app.id));
        in_mirrors.chain(in_hubs).sum::<usize>() < app.channels_max
    }

    /// See [`Hub::subscribe`]. In a cluster the answer may come later, as a letter with the ticket: see
    /// [`Mirror::subscribe`].
    ///
    /// # Errors
    /// When a presence channel has no room for another user.
    pub fn subscribe(&self, new: Subscription<'_>, ticket: Ticket) -> Result<Asked<Joined>, ChannelFull> {
        let subscribe = |mirror: &mut Mirror, effects: &mut Vec<_>| mirror.subscribe(&new, ticket, effects);
        if let Some(asked) = self.reflected(new.app, new.channel, subscribe) {
            return Ok(asked);
        }
        let joined = self.apply(&new.app.id, new.channel, |hub, effects| hub.subscribe(new, effects));
        joined.map(Asked::Now)
    }

    /// See [`Hub::unsubscribe`].
    pub fn unsubscribe(&self, old: Subscription<'_>) {
        let unsubscribe = |mirror: &mut Mirror, effects: &mut Vec<_>| mirror.unsubscribe(&old, effects);
        if self.reflected(old.app, old.channel, unsubscribe).is_none() {
            self.apply(&old.app.id, old.channel, |hub, effects| hub.unsubscribe(old, effects));
        }
    }

    /// See [`Hub::watch`]. In a cluster the answer may come later: see [`Mirror::watch`].
    pub fn watch(&self, app: &App, user: &ChannelName, worker: WorkerId, ticket: Ticket) -> Asked<Watched> {
        let asked =
            self.reflected(app, user, |mirror, effects| mirror.watch(app, user, worker, ticket, effects));
        asked.unwrap_or_else(|| Asked::Now(self.apply(&app.id, user, |hub, _| hub.watch(app, user, worker))))
    }

    /// How a user is now, for somebody who watches already; only in a cluster. See [`Mirror::watched`].
    pub fn watched(&self, app: &App, user: &ChannelName) -> Option<Watched> {
        self.reflected(app, user, |mirror, _| mirror.watched(app, user))?
    }

    /// See [`Hub::unwatch`].
    pub fn unwatch(&self, app: &App, user: &ChannelName, worker: WorkerId, now: Instant) {
        let unwatch =
            |mirror: &mut Mirror, effects: &mut Vec<_>| mirror.unwatch(app, user, worker, now, effects);
        if self.reflected(app, user, unwatch).is_none() {
            self.apply(&app.id, user, |hub, _| hub.unwatch(app, user, worker, now));
        }
    }

    /// See [`Mirror::withdraw`].
    pub fn withdraw(
        &self,
        topic: &Topic,
        member: Option<&Arc<Member>>,
        wish: (WorkerId, Ticket),
        now: Instant,
    ) -> bool {
        let withdraw =
            |mirror: &mut Mirror, effects: &mut Vec<_>| mirror.withdraw(topic, member, wish, now, effects);
        self.mirrored_topic(topic, withdraw).unwrap_or_default()
    }

    /// See [`Hub::publish`]; of a node that is alone. Ask [`Node::check_room`] before, and count the event.
    pub fn publish(&self, new: Publish<'_>) -> Census {
        let accepted = Some(new.now);
        let shard = &mut *hold(self.shard(&new.app.id, new.channel));
        self.run(shard, accepted, |hub, effects| hub.publish(new, effects))
    }

    /// See [`Hub::leavers`]. A cluster remembers them itself.
    pub fn leavers(&self) -> Vec<Leavers> {
        let apps = self.apps();
        let tells = |id: &str| apps.by_id(id).is_some_and(|app| !app.webhooks.is_empty());
        self.hubs.iter().flat_map(|hub| hold(hub).hub.leavers(tells).collect::<Vec<_>>()).collect()
    }

    /// See [`Hub::restore`].
    pub fn restore(&self, app: &App, leavers: &Leavers, now: Instant) {
        if !self.is_clustered() {
            self.apply(&app.id, &leavers.channel, |hub, _| hub.restore(app, leavers, now));
        }
    }

    /// See [`Hub::terminate`]; of a node that is alone. How many connections are ended.
    pub(super) fn terminate_here(&self, app: &App, user: &ChannelName) -> u64 {
        let body = Body::Disconnect(CloseReason::Terminated);
        self.apply(&app.id, user, |hub, effects| {
            let connections = hub.census(&app.id, user, Instant::now()).subscriptions;
            hub.terminate(app, user, body, effects);
            connections
        })
    }

    /// What this node has of a channel.
    pub fn census_here(&self, app: &App, channel: &ChannelName) -> Census {
        let now = Instant::now();
        let mirrored =
            self.reflected(app, channel, |mirror, _| mirror.census(&subscribers(app, channel), now));
        mirrored.unwrap_or_else(|| self.apply(&app.id, channel, |hub, _| hub.census(&app.id, channel, now)))
    }

    /// The users of a presence channel that are on this node.
    pub fn roster_here(&self, app: &App, channel: &ChannelName) -> Option<Arc<Roster>> {
        let here = |mirror: &mut Mirror, _: &mut Vec<_>| {
            mirror.here(&subscribers(app, channel)).map(|here| Arc::new(here.clone()))
        };
        let mirrored = self.reflected(app, channel, here);
        mirrored.unwrap_or_else(|| self.apply(&app.id, channel, |hub, _| hub.roster(&app.id, channel)))
    }

    /// Does what is due in every hub. To be called a few times a second.
    pub fn settle(&self, now: Instant) {
        // Whoever is back after a restart has never been away: then nobody's leave is told before it.
        if self.draining.load(Ordering::Relaxed) && !self.config.webhooks.state_file.is_empty() {
            return;
        }
        let apps = self.apps();
        for hub in &self.hubs {
            self.run(&mut hold(hub), None, |hub, effects| {
                hub.settle(now, |id| apps.by_id(id).map(|app| &**app), effects);
            });
        }
    }

    fn shard(&self, app: &AppId, channel: &ChannelName) -> &Lock<Shard> {
        let hash = self.hasher.hash_one((app, channel));
        let at = usize::try_from(hash % HUBS as u64).unwrap_or_default();
        &self.hubs[at]
    }

    /// Applies a command to the hub that owns the channel and hands its effects on, in order.
    pub(super) fn apply<R>(
        &self,
        app: &AppId,
        channel: &ChannelName,
        command: impl FnOnce(&mut Hub, &mut Vec<Effect>) -> R,
    ) -> R {
        self.run(&mut hold(self.shard(app, channel)), None, command)
    }

    /// Applies a command to the mirror of the channel. None if this node is alone.
    fn reflected<R>(
        &self,
        app: &App,
        channel: &ChannelName,
        command: impl FnOnce(&mut Mirror, &mut Vec<mirror::Effect>) -> R,
    ) -> Option<R> {
        self.cluster.as_ref()?;
        self.mirrored(partition_of(&app.id, channel.as_str()), command)
    }

    fn run<R>(
        &self,
        shard: &mut Shard,
        accepted: Option<Instant>,
        command: impl FnOnce(&mut Hub, &mut Vec<Effect>) -> R,
    ) -> R {
        let answer = command(&mut shard.hub, &mut shard.effects);
        for effect in shard.effects.drain(..) {
            match effect {
                Effect::Deliver(worker, delivery) => {
                    if let Some(outlet) = self.outlets.get(usize::from(worker.0)) {
                        outlet.post(Letter::Deliver(delivery, accepted));
                    }
                }
                Effect::Occurred(occurrence) => self.tell(occurrence),
            }
        }
        answer
    }

    /// Hands over what webhooks tell. Nobody waits for them: what is too much is dropped and counted.
    fn tell(&self, occurrence: Occurrence) {
        if self.occurrences.waiting.bytes.load(Ordering::Relaxed) > self.config.webhooks.queue_bytes_max {
            return self.metrics.webhooks.dropped(Dropped::Overload, 1);
        }
        self.occurrences.post(occurrence);
    }
}

/// The subscribers of a channel.
pub(super) fn subscribers(app: &App, channel: &ChannelName) -> Topic {
    Topic { app: app.id.clone(), channel: channel.clone(), audience: Audience::Subscribers }
}
