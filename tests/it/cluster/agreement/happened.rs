//! What listeners and webhooks are told, in the words of the hub.

use std::collections::HashMap;

use fanfare::hub::{Body, Effect, Fact, Topic, WorkerId};
use fanfare::mirror::{Arrival, Message};
use fanfare::protocol::{CachedEvent, Frame};

/// What has happened on the hub's side: what each topic's listeners were told, and facts.
#[derive(Debug, Default)]
pub(super) struct Happened {
    pub(super) told: Vec<(Topic, Body)>,
    pub(super) facts: Vec<(String, Fact)>,
}

impl Happened {
    /// What the workers that count were told, once for each topic.
    pub(super) fn of(effects: Vec<Effect>, counts: impl Fn(WorkerId) -> bool) -> Self {
        let mut happened = Self::default();
        let mut last = None;
        for effect in effects {
            match effect {
                Effect::Deliver(worker, delivery) if counts(worker) => {
                    let topic =
                        Topic { app: delivery.app, channel: delivery.channel, audience: delivery.audience };
                    // Each worker that has listeners is told the same.
                    if last != Some((topic.clone(), delivery.position)) {
                        last = Some((topic.clone(), delivery.position));
                        happened.told.push((topic, delivery.body));
                    }
                }
                Effect::Deliver(..) => {}
                Effect::Occurred(occurrence) => {
                    happened.facts.push((occurrence.channel.to_string(), occurrence.fact));
                }
            }
        }
        happened
    }

    /// Of the numbers that a channel went through only the last, if it is occupied still.
    pub(super) fn keep_last_counts(&mut self, is_occupied: impl Fn(&str) -> bool) {
        let mut told = HashMap::new();
        for (at, (topic, body)) in self.told.iter().enumerate() {
            if matches!(body, Body::SubscriptionCount(_)) {
                told.insert(topic.channel.to_string(), at);
            }
        }
        let mut at = 0;
        self.told.retain(|(topic, body)| {
            at += 1;
            let is_last = told.get(topic.channel.as_str()) == Some(&(at - 1));
            !matches!(body, Body::SubscriptionCount(_)) || is_last && is_occupied(topic.channel.as_str())
        });
        let mut told = HashMap::new();
        for (at, (channel, fact)) in self.facts.iter().enumerate() {
            if matches!(fact, Fact::Counted(_)) {
                told.insert(channel.clone(), at);
            }
        }
        let mut at = 0;
        self.facts.retain(|(channel, fact)| {
            at += 1;
            let is_last = told.get(channel) == Some(&(at - 1));
            !matches!(fact, Fact::Counted(_)) || is_last && is_occupied(channel)
        });
    }
}

/// What listeners are given of a message.
pub(super) fn as_body((topic, arrival): (Topic, Arrival)) -> (Topic, Body) {
    let channel = &topic.channel;
    let frame = match arrival.message {
        Message::Event(frame) | Message::Kept(CachedEvent { frame, .. }, _) => Some(frame),
        Message::MemberAdded(member) => Some(Frame::member_added(channel, &member)),
        Message::MemberRemoved(user_id) => Some(Frame::member_removed(channel, &user_id)),
        Message::Online => Frame::watchlist_events(channel.user_id(), []),
        Message::Offline => Frame::watchlist_events([], channel.user_id()),
        Message::Count(count) => return (topic, Body::SubscriptionCount(count)),
        Message::Disconnect(reason) => return (topic, Body::Disconnect(reason)),
    };
    let body = Body::Frame(frame.expect("a user's channel"));
    (topic, body)
}
