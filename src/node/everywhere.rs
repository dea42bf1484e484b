//! What the API asks of all nodes at once, and waits for. A node that is alone answers from its hubs, at once.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::app::App;
use crate::hub::{Census, Event, Publish};
use crate::mirror::{Message, Op, PARTITIONS, Publication, Reply, Snapshot, partition_of};
use crate::node::channels::subscribers;
use crate::node::{Away, Call, Listed, Node, hold};
use crate::protocol::{ChannelName, CloseReason, Member, Roster};

/// A channel as the API lists it.
#[derive(Clone, Debug)]
pub struct Occupied {
    /// Its name.
    pub channel: ChannelName,
    /// Its figures.
    pub census: Census,
}

/// What the cluster will say to a step. That nobody answers any more means that it is away.
pub type Promised<T> = oneshot::Receiver<Result<T, Away>>;

impl Node {
    /// Hands an event to the cluster. Events of the same channel keep the order in which they were handed over.
    pub fn publish_soon(&self, new: Publish<'_>) -> Promised<Reply> {
        self.ask_for(Op::Publish(publication(new)))
    }

    /// Hands events to the cluster. How many are subscribed to the channel of each.
    ///
    /// Events of a channel keep their order; with `in_order` all do, as far as Redis is one server.
    ///
    /// # Errors
    /// When that cannot be told: any of them may have been published or not.
    pub async fn publish_all(&self, all: Vec<Publish<'_>>, in_order: bool) -> Result<Vec<Census>, Away> {
        let mut counted = Vec::with_capacity(all.len());
        let mut promised = Vec::new();
        let mut last = None;
        for new in all {
            let partition = partition_of(&new.app.id, new.channel.as_str());
            // Each partition has an order of its own: what another one has done comes before what is said after that.
            if in_order && last.replace(partition).is_some_and(|last| last != partition) {
                count_all(&mut promised, &mut counted).await?;
            }
            promised.push(self.publish_soon(new));
        }
        count_all(&mut promised, &mut counted).await?;
        Ok(counted)
    }

    /// Ends every connection of a user. How many there were.
    ///
    /// # Errors
    /// When the cluster is away: they may go or not.
    pub async fn terminate(&self, app: &App, user: &ChannelName) -> Result<u64, Away> {
        if !self.is_clustered() {
            return Ok(self.terminate_here(app, user));
        }
        let (topic, message) = (subscribers(app, user), Message::Disconnect(CloseReason::Terminated));
        let promised = self.ask_for(Op::Publish(Publication { topic, message, except: None, told: None }));
        Ok(published(kept(promised).await?)?.0)
    }

    /// What there is to know about a channel.
    ///
    /// # Errors
    /// When the cluster is away.
    pub async fn census(&self, app: &App, channel: &ChannelName) -> Result<Census, Away> {
        if !self.is_clustered() {
            return Ok(self.census_here(app, channel));
        }
        let Snapshot { subscriptions, users, cached, .. } =
            seen(kept(self.ask_for(Op::Census(subscribers(app, channel)))).await?)?;
        Ok(Census { subscriptions, users, cached })
    }

    /// Everybody present in a channel.
    ///
    /// # Errors
    /// When the cluster is away.
    pub async fn roster(&self, app: &App, channel: &ChannelName) -> Result<Option<Arc<Roster>>, Away> {
        if !self.is_clustered() {
            return Ok(self.roster_here(app, channel));
        }
        let promised = self.ask_for(Op::Look(subscribers(app, channel), None));
        let members = seen(kept(promised).await?)?.roster;
        let roster = |members: Vec<Arc<Member>>| {
            let mut roster = Roster::default();
            for member in &members {
                roster.join(member);
            }
            Arc::new(roster)
        };
        Ok(members.map(roster))
    }

    /// Every channel of an app that has subscribers and whose name begins with `prefix`.
    ///
    /// # Errors
    /// When the cluster is away.
    pub async fn occupied(&self, app: &App, prefix: &str) -> Result<Vec<Occupied>, Away> {
        if !self.is_clustered() {
            return Ok(self.occupied_here(app, prefix));
        }
        let ask = |partition| {
            let (reply, promised) = oneshot::channel();
            let (app, prefix) = (app.id.clone(), prefix.to_owned());
            self.call(Call::List { partition, app, prefix, reply });
            promised
        };
        // All of them at once.
        let promised: Vec<Promised<Vec<Listed>>> = (0..PARTITIONS).map(ask).collect();
        let mut all = Vec::new();
        for promised in promised {
            all.extend(kept(promised).await?.into_iter().map(Occupied::from));
        }
        Ok(all)
    }

    fn occupied_here(&self, app: &App, prefix: &str) -> Vec<Occupied> {
        let mut all = Vec::new();
        for hub in &self.hubs {
            let shard = hold(hub);
            let channels = shard.hub.occupied(&app.id, prefix, Instant::now());
            all.extend(channels.map(|(channel, census)| Occupied { channel: channel.clone(), census }));
        }
        all
    }

    fn ask_for(&self, op: Op) -> Promised<Reply> {
        let (reply, promised) = oneshot::channel();
        self.call(Call::Op(op, reply));
        promised
    }
}

impl From<Listed> for Occupied {
    fn from(Listed { channel, subscriptions, users }: Listed) -> Self {
        Self { channel, census: Census { subscriptions, users, cached: None } }
    }
}

/// An event, as the cluster is told it.
fn publication(Publish { app, channel, event, except, told, .. }: Publish<'_>) -> Publication {
    let message = match event {
        Event::Kept(event) if channel.kind().is_cached() => Message::Kept(event, app.cache_ttl()),
        Event::Kept(event) => Message::Event(event.frame),
        Event::Passing(frame) => Message::Event(frame),
    };
    Publication { topic: subscribers(app, channel), message, except, told }
}

/// Waits for an answer.
async fn kept<T>(promised: Promised<T>) -> Result<T, Away> {
    promised.await.unwrap_or(Err(Away))
}

/// Waits for what became of events.
async fn count_all(promised: &mut Vec<Promised<Reply>>, counted: &mut Vec<Census>) -> Result<(), Away> {
    for promised in promised.drain(..) {
        let (subscriptions, users) = published(kept(promised).await?)?;
        counted.push(Census { subscriptions, users, cached: None });
    }
    Ok(())
}

/// Subscriptions and users of a channel that was published to.
fn published(reply: Reply) -> Result<(u64, usize), Away> {
    let Reply::Published { subscriptions, users } = reply else { return Err(Away) };
    Ok((subscriptions, users))
}

/// How a topic is.
fn seen(reply: Reply) -> Result<Snapshot, Away> {
    let Reply::Seen(snapshot) = reply else { return Err(Away) };
    Ok(*snapshot)
}
