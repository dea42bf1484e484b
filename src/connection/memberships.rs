//! What one connection listens to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hub::Audience;
use crate::mirror::Ticket;
use crate::protocol::{ChannelName, Member};

/// A place of the connection in an audience, or the wish for one.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The channel.
    pub channel: ChannelName,
    /// Which of its audiences.
    pub audience: Audience,
    /// Who the connection is in a presence channel.
    pub member: Option<Arc<Member>>,
    /// Where on the worker. The worker keeps it up to date.
    pub standing: Standing,
}

/// Where a membership stands on its worker: on a seat in the list of the audience, or, as long as the cluster has not
/// answered, on a ticket.
///
/// One number, since there is one for each subscription of each client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Standing(u32);

/// All of them, in no order.
///
/// A few are looked through; more have an index, since a client may have as many as it likes and must not
/// make others wait while we look.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    list: Vec<Membership>,
    #[allow(clippy::box_collection, reason = "most connections have none, and pay for a pointer alone")]
    index: Option<Box<HashMap<ChannelName, usize>>>,
}

/// From this many on there is an index.
const INDEXED: usize = 32;

impl Memberships {
    pub(super) fn all(&self) -> &[Membership] {
        &self.list
    }

    /// Where the subscription to a channel stands.
    pub(super) fn subscription(&self, channel: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(channel).copied(),
            None => {
                self.list.iter().position(|each| each.is_subscription() && each.channel.as_str() == channel)
            }
        }
    }

    /// How many channels the client has subscribed to: its own as a user and those it watches are not counted.
    pub(super) fn subscriptions(&self) -> usize {
        let counted = |each: &&Membership| each.is_subscription() && !each.channel.kind().is_user();
        self.list.iter().filter(counted).count()
    }

    /// Adds one; returns where it stands.
    pub(super) fn push(&mut self, membership: Membership) -> usize {
        let at = self.list.len();
        if at == self.list.capacity() {
            // Most connections have one: room for four would be most of what they cost.
            self.list.reserve_exact(if at < 4 { 1 } else { at / 2 });
        }
        if let Some(index) = &mut self.index
            && membership.is_subscription()
        {
            index.insert(membership.channel.clone(), at);
        }
        self.list.push(membership);
        if self.index.is_none() && self.list.len() >= INDEXED {
            let subscriptions = self.list.iter().enumerate().filter(|(_, each)| each.is_subscription());
            self.index = Some(Box::new(subscriptions.map(|(at, each)| (each.channel.clone(), at)).collect()));
        }
        at
    }

    /// Takes one away. The last takes its place.
    pub(super) fn swap_remove(&mut self, at: usize) -> Membership {
        let removed = self.list.swap_remove(at);
        if let Some(index) = &mut self.index {
            if removed.is_subscription() {
                index.remove(&removed.channel);
            }
            if let Some(moved) = self.list.get(at).filter(|moved| moved.is_subscription()) {
                index.insert(moved.channel.clone(), at);
            }
        }
        // Not at the limit itself, where a client could make us build the index all the time.
        if self.list.len() < INDEXED / 2 {
            self.index = None;
            self.list.shrink_to(self.list.len().next_power_of_two());
        }
        if self.list.is_empty() {
            self.list = Vec::new();
        }
        removed
    }

    pub(super) fn set_standing(&mut self, at: usize, standing: Standing) {
        if let Some(membership) = self.list.get_mut(at) {
            membership.standing = standing;
        }
    }

    /// Replaces the name by an equal one that others have as well.
    pub(super) fn share_name(&mut self, at: usize, name: &ChannelName) {
        let Some(membership) = self.list.get_mut(at) else { return };
        membership.channel = name.clone();
        if let Some(index) = &mut self.index
            && membership.is_subscription()
        {
            index.remove(name);
            index.insert(name.clone(), at);
        }
    }
}

impl Membership {
    /// Whether the cluster has not answered yet.
    pub fn is_waiting(&self) -> bool {
        self.standing.ticket().is_some()
    }

    fn is_subscription(&self) -> bool {
        self.audience == Audience::Subscribers
    }
}

impl Standing {
    /// Tells tickets from seats. So neither are numbered higher.
    const WAITS: u32 = 1 << 31;

    /// The highest number that a ticket may have.
    pub const TICKET_MAX: u32 = Self::WAITS - 1;

    /// On a seat.
    pub fn on(seat: u32) -> Self {
        Self(seat & Self::TICKET_MAX)
    }

    /// Waiting with a ticket.
    pub fn with(Ticket(number): Ticket) -> Self {
        Self(number | Self::WAITS)
    }

    /// The seat, if it has one.
    pub fn seat(self) -> Option<u32> {
        (self.0 & Self::WAITS == 0).then_some(self.0)
    }

    /// The ticket, if it waits.
    pub fn ticket(self) -> Option<Ticket> {
        (self.0 & Self::WAITS != 0).then_some(Ticket(self.0 & Self::TICKET_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn membership(number: usize) -> Membership {
        let channel = ChannelName::parse(&format!("c{number}"), 164).expect("valid name");
        let audience = if number.is_multiple_of(5) { Audience::Watchers } else { Audience::Subscribers };
        Membership { channel, audience, member: None, standing: Standing::on(0) }
    }

    #[test]
    fn a_standing_is_a_seat_or_a_ticket() {
        for number in [0, 1, Standing::TICKET_MAX] {
            let (seated, waiting) = (Standing::on(number), Standing::with(Ticket(number)));
            assert_eq!((seated.seat(), seated.ticket()), (Some(number), None));
            assert_eq!((waiting.seat(), waiting.ticket()), (None, Some(Ticket(number))));
        }
    }

    #[test]
    fn a_shared_name_is_found_among_few_and_many() {
        for count in [3, 100] {
            let mut memberships = Memberships::default();
            for number in 1..count {
                memberships.push(membership(number));
            }
            let shared = ChannelName::parse("c2", 164).expect("valid name");
            memberships.share_name(1, &shared);
            assert_eq!(memberships.subscription("c2"), Some(1));
            assert!(std::ptr::eq(memberships.all()[1].channel.as_str(), shared.as_str()));
        }
    }

    proptest! {
        #[test]
        fn p24_a_subscription_is_found_among_few_and_many(ops in prop::collection::vec((0usize..100, 0usize..3), 0..400)) {
            let mut memberships = Memberships::default();
            let mut expected: Vec<String> = Vec::new();
            for (number, op) in ops {
                let name = format!("c{number}");
                let known = expected.contains(&name);
                if op > 0 && !known {
                    memberships.push(membership(number));
                    expected.push(name);
                } else if op == 0 && known {
                    let at = memberships.all().iter().position(|each| each.channel.as_str() == name).expect("known");
                    let removed = memberships.swap_remove(at);
                    prop_assert_eq!(removed.channel.as_str(), &name);
                    expected.retain(|other| *other != name);
                }
                prop_assert_eq!(memberships.all().len(), expected.len());
            }
            for number in 0..100 {
                let name = format!("c{number}");
                let wanted = expected.contains(&name) && number % 5 != 0;
                let found = memberships.subscription(&name);
                prop_assert_eq!(found.map(|at| memberships.all()[at].channel.to_string()), wanted.then_some(name));
            }
        }
    }
}
