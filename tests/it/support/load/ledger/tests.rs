//! What the ledger must find, and must not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::super::{CROWD, Heard, LifeId, Mark, Note, Outcome, Published};
use super::{Ledger, Trouble};

/// Notes, written down in milliseconds from a beginning.
struct Story {
    ledger: Ledger,
    start: Instant,
}

impl Story {
    fn new() -> Self {
        Self { ledger: Ledger::default(), start: Instant::now() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn hears(&mut self, life: LifeId, ms: u64, what: Heard) -> &mut Self {
        self.ledger.enter(Note::Heard(life, self.at(ms), what));
        self
    }

    /// A connection of its own user that asks for a channel at once and has it 5 ms later.
    fn joins(&mut self, life: LifeId, ms: u64, channel: &str) -> &mut Self {
        let (node, user) = (0, format!("ear-{life}"));
        self.comes(life, ms, node, &user, channel)
    }

    fn comes(&mut self, life: LifeId, ms: u64, node: usize, user: &str, channel: &str) -> &mut Self {
        let (channel, user): (Arc<str>, _) = (channel.into(), user.to_owned());
        let roster = channel.starts_with("presence-").then(|| vec![user.clone()]);
        self.hears(life, ms, Heard::Began { node, user })
            .hears(life, ms, Heard::Asked(channel.clone()))
            .hears(life, ms + 5, Heard::Joined(channel, roster))
    }

    fn hears_events(&mut self, life: LifeId, ms: u64, channel: &str, numbers: &[u32]) -> &mut Self {
        for number in numbers {
            self.hears(life, ms, Heard::Event(channel.into(), mark(*number)));
        }
        self
    }

    /// Events that are published 10 ms after each other, the first one at 10 ms, each answered after 5 ms.
    fn publishes(&mut self, channel: &str, numbers: std::ops::Range<u32>) -> &mut Self {
        numbers.for_each(|number| {
            self.publishes_one(channel, number, u64::from(number) * 10, 5, Outcome::Accepted);
        });
        self
    }

    fn publishes_one(
        &mut self,
        channel: &str,
        number: u32,
        ms: u64,
        takes: u64,
        outcome: Outcome,
    ) -> &mut Self {
        let (asked, answered) = (self.at(ms), self.at(ms + takes));
        let (channel, mark) = (channel.into(), mark(number));
        self.ledger.enter(Note::Published(Published { channel, mark, asked, answered, outcome }));
        self
    }

    fn suffers(&mut self, trouble: Trouble, from: u64, to: u64) -> &mut Self {
        let (from, to) = (self.at(from), self.at(to));
        self.ledger.begin(trouble, from);
        self.ledger.end_all(to);
        self
    }

    #[track_caller]
    fn expect(&self, part: &str) {
        let found = self.ledger.violations();
        assert!(found.len() == 1 && found[0].contains(part), "{part:?}, and only that, is not in {found:#?}");
    }

    #[track_caller]
    fn expect_nothing(&self) {
        assert_eq!(self.ledger.violations(), [""; 0]);
    }
}

/// Odd and even numbers are of two publishers.
fn mark(number: u32) -> Mark {
    Mark { publisher: number % 2, number }
}

#[test]
fn notes_of_a_good_load_have_nothing_wrong() {
    let mut story = Story::new();
    story.joins(1, 0, "news").joins(2, 22, "news").publishes("news", 1..6);
    story.hears_events(1, 60, "news", &[1, 2, 3, 4, 5]).hears_events(2, 60, "news", &[3, 4, 5]);
    story.expect_nothing();
}

#[test]
fn a_lost_event_is_found_unless_redis_has_forgotten_it() {
    let mut story = Story::new();
    story.joins(1, 0, "news").publishes("news", 1..6).hears_events(1, 60, "news", &[1, 2, 4, 5]);
    story.expect("is lost");
    story.suffers(Trouble::RedisAway, 25, 45).expect("is lost");
    story.suffers(Trouble::RedisForgets, 25, 45).expect_nothing();
}

#[test]
fn what_came_after_the_last_thing_heard_is_not_lost() {
    let mut story = Story::new();
    story.joins(1, 0, "news").publishes("news", 1..6).hears_events(1, 60, "news", &[1, 2]);
    story.expect_nothing();
}

#[test]
fn an_event_that_comes_twice_or_too_early_or_from_nowhere_is_found() {
    let mut story = Story::new();
    story.joins(1, 0, "news").publishes("news", 1..3).hears_events(1, 60, "news", &[1, 2, 2]);
    assert!(story.ledger.violations().iter().any(|wrong| wrong.contains("came twice")));

    let mut story = Story::new();
    story.hears(1, 0, Heard::Began { node: 0, user: "ear-1".to_owned() });
    story.hears(1, 0, Heard::Asked("news".into())).publishes("news", 1..2);
    story.hears_events(1, 60, "news", &[1]).expect("before the subscription");

    let mut story = Story::new();
    story.joins(1, 0, "news").publishes("elsewhere", 1..2).hears_events(1, 60, "news", &[1]);
    story.expect("never published");
}

#[test]
fn two_orders_of_the_same_events_are_found() {
    let mut story = Story::new();
    story.joins(1, 0, "news").joins(2, 0, "news");
    for number in [1, 2] {
        story.publishes_one("news", number, 10, 40, Outcome::Accepted);
    }
    story.hears_events(1, 60, "news", &[1, 2]).hears_events(2, 60, "news", &[2, 1]).expect("no one order");
}

#[test]
fn three_orders_that_fit_only_pairwise_are_found() {
    let mut story = Story::new();
    for number in [1, 2, 4] {
        story.publishes_one("news", number, 10, 40, Outcome::Unknown);
    }
    for (life, heard) in [(1, [1, 2]), (2, [2, 4]), (3, [4, 1])] {
        story.joins(life, 0, "news").hears_events(life, 60, "news", &heard);
    }
    story.expect("no one order");
}

#[test]
fn an_order_against_that_of_asking_is_found() {
    let mut story = Story::new();
    story.joins(1, 0, "news").publishes("news", 1..3).hears_events(1, 60, "news", &[2, 1]);
    story.expect("came behind");

    let mut story = Story::new();
    for number in [1, 3] {
        story.publishes_one("news", number, 10, 40, Outcome::Accepted);
    }
    story.joins(1, 0, "news").hears_events(1, 60, "news", &[3, 1]).expect("a later one of its publisher");
}

#[test]
fn a_refusal_or_complaint_without_a_reason_is_found() {
    let mut story = Story::new();
    story.publishes_one("news", 1, 10, 5, Outcome::Refused).expect("refused for no reason");
    story.suffers(Trouble::Ends(0), 12, 20).expect_nothing();

    let mut story = Story::new();
    story.joins(1, 0, "news").hears(1, 10, Heard::Complaint("an error".to_owned())).expect("for no reason");
    story.suffers(Trouble::RedisAway, 5, 15).expect_nothing();
}

#[test]
fn a_cache_channel_that_replays_something_old_or_nothing_must_catch_up() {
    for (replayed, heard, is_lost) in [
        (Some(2), &[3, 4][..], false),
        (Some(1), &[2, 3, 4], false),
        (Some(1), &[3, 4], true),
        (None, &[3, 4], true),
        (None, &[2, 3, 4], true),
        (None, &[1, 2, 3, 4], false),
    ] {
        let mut story = Story::new();
        story.joins(1, 25, "cache-price").publishes("cache-price", 1..5);
        match replayed {
            Some(number) => story.hears_events(1, 35, "cache-price", &[number]),
            None => story.hears(1, 35, Heard::Missed("cache-price".into())),
        };
        story.hears_events(1, 60, "cache-price", heard);
        let found = story.ledger.violations();
        assert_eq!(!found.is_empty(), is_lost, "{replayed:?}, {heard:?}: {found:?}");
    }
}

#[test]
fn a_guest_who_is_announced_twice_or_not_dismissed_is_found() {
    let come = |added: usize, removed: usize, node_cut_off: Option<usize>| {
        let mut story = Story::new();
        story.joins(1, 0, CROWD).comes(2, 20, 1, "guest-0-0", CROWD);
        story.hears(2, 20, Heard::Asked("room-0-0".into()));
        story.hears(2, 25, Heard::Joined("room-0-0".into(), None)).hears(2, 50, Heard::Leaves);
        for turn in 0..added.max(removed) {
            if turn < added {
                story.hears(1, 30, Heard::Added(CROWD.into(), "guest-0-0".to_owned()));
            }
            if turn < removed {
                story.hears(1, 60, Heard::Removed(CROWD.into(), "guest-0-0".to_owned()));
            }
        }
        if let Some(node) = node_cut_off {
            story.suffers(Trouble::CutOff(node), 30, 40);
        }
        story
    };
    come(1, 1, None).expect_nothing();
    come(2, 2, None).expect("was added 2 times");
    come(1, 0, None).expect("removed 0 times");
    come(0, 0, None).expect("added 0 times");
    come(2, 2, Some(1)).expect_nothing();
}

#[test]
fn a_roster_that_does_not_follow_is_found() {
    let mut story = Story::new();
    story.joins(1, 0, CROWD).hears(1, 30, Heard::Added(CROWD.into(), "ear-1".to_owned()));
    story.expect("added twice");
    let mut story = Story::new();
    story.joins(1, 0, CROWD).hears(1, 30, Heard::Removed(CROWD.into(), "nobody".to_owned()));
    story.expect("was not there");
}
