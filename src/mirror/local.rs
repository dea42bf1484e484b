//! What this node has of the channels, whatever the others have; and wishes that are taken back.

use std::sync::Arc;
use std::time::Instant;

use crate::hub::{Census, Topic};
use crate::mirror::channel::{Channel, Out, Stage};
use crate::mirror::unsettled::Waiting;
use crate::mirror::{Effect, Mirror, Ticket, WorkerId};
use crate::protocol::{Member, Roster};

impl Mirror {
    /// Takes back a connection's wish to listen, as this member in a presence channel. Nothing will be granted then.
    ///
    /// False if it is too late for that: the answer is on its way, or the cluster was asked to let the user in and must
    /// have answered before the user can leave. Then [`Effect::Granted`] comes, and whoever gets a place has to give it
    /// back.
    pub fn withdraw(
        &mut self,
        topic: &Topic,
        member: Option<&Arc<Member>>,
        (worker, ticket): (WorkerId, Ticket),
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let waiting = Waiting { worker, ticket };
        let withdraw = |channel: &mut Channel, out: &mut Out<'_>| channel.withdraw(member, waiting, out);
        self.change(topic, now, effects, withdraw).unwrap_or_default()
    }

    /// What this node has of a channel: those who are subscribed, the users it holds, and what is cached.
    pub fn census(&self, topic: &Topic, now: Instant) -> Census {
        let Some(channel) = self.topics.get(topic) else { return Census::default() };
        let cached = channel.cached.as_ref().and_then(|cached| {
            let left = cached.1.saturating_duration_since(now);
            (!left.is_zero()).then(|| (cached.0.clone(), left))
        });
        Census {
            subscriptions: channel.listeners.total(),
            users: channel.presence.as_ref().map_or(0, |presence| presence.here.len()),
            cached,
        }
    }

    /// The users of a presence channel that this node holds.
    pub fn here(&self, topic: &Topic) -> Option<&Roster> {
        Some(&self.topics.get(topic)?.presence.as_ref()?.here)
    }

    /// Whether anybody here listens to a topic, or waits for it.
    pub fn has(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|channel| channel.held > 0)
    }

    /// How many channels of an app somebody here listens to, or waits for; users' own are left out.
    pub fn occupied_count(&self, app: &str) -> usize {
        self.occupied.get(app).copied().unwrap_or_default()
    }

    /// Somebody here holds a topic, after nobody did.
    pub(super) fn occupy(&mut self, topic: &Topic) {
        if topic.is_channel() {
            *self.occupied.entry(topic.app.clone()).or_default() += 1;
        }
    }

    /// Nobody here holds a topic any more.
    pub(super) fn vacate(&mut self, topic: &Topic) {
        if topic.is_channel()
            && let Some(occupied) = self.occupied.get_mut(&topic.app)
        {
            *occupied -= 1;
            if *occupied == 0 {
                self.occupied.remove(&topic.app);
            }
        }
    }
}

impl Channel {
    /// A connection wishes to be here no longer. Whether it had only waited, and need not wait any more.
    fn withdraw(&mut self, member: Option<&Arc<Member>>, wish: Waiting, out: &mut Out<'_>) -> bool {
        let Some(unsettled) = &mut self.unsettled else { return false };
        let Some(member) = member else {
            let withdrawn = take(&mut unsettled.waiting, wish);
            if withdrawn {
                self.release(1, None, out);
            }
            return withdrawn;
        };
        let Some(presence) = &mut self.presence else { return false };
        let Some(newcomer) = unsettled.newcomers.get_mut(&member.user_id) else { return false };
        // What is said of the user is not taken back before it was answered. Who comes again meanwhile waits as well.
        let is_said = self.stage != Stage::Opening && presence.here.connections(&member.user_id) == 1;
        if is_said || !take(&mut newcomer.waiting, wish) {
            return false;
        }
        if newcomer.waiting.is_empty() {
            unsettled.newcomers.remove(&member.user_id);
        }
        presence.here.leave(&member.user_id);
        self.release(1, None, out);
        true
    }
}

/// Takes a wish out of those that wait. Those who have come last are the first to go.
fn take(waiting: &mut Vec<Waiting>, wish: Waiting) -> bool {
    let at = waiting.iter().rposition(|each| each.worker == wish.worker && each.ticket == wish.ticket);
    at.map(|at| waiting.swap_remove(at)).is_some()
}
