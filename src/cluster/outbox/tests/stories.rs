//! Chosen stories.

use std::time::{Duration, Instant};

use crate::cluster::outbox::tests::{Fate, LEASE, PARTITION, Redis, SECOND, Story, occurrence};
use crate::cluster::outbox::turns::{Action, FACTS_MAX, TAKEN_MAX, Trouble, Turns};
use crate::cluster::script::{Taken, TakenFact};
use crate::hub::{Fact, Occurrence};
use crate::node::{FactAnswer, Room, Told};

#[test]
fn one_node_takes_facts_in_order_and_they_are_forgotten_when_they_are_told() {
    let mut story = Story::of(3);
    story.settle();
    let owner = story.preferred();
    assert_eq!(story.redis.owner, story.peers[owner].name);
    story.add(3, true);
    story.settle();
    assert_eq!(story.under_way(owner), [(1, false), (2, false), (3, false)]);
    assert_eq!(story.redis.facts.len(), 3, "they are kept until they are told");
    story.end(owner, 1, true);
    story.settle();
    assert_eq!(story.redis.facts.iter().copied().collect::<Vec<_>>(), [1, 3]);
    story.deliver_all(owner);
    assert!(story.redis.facts.is_empty());
}

#[test]
fn what_nobody_was_woken_for_is_found() {
    let mut story = Story::of(1);
    story.settle();
    story.add(1, false);
    story.settle();
    assert_eq!(story.under_way(0), []);
    story.wait(5 * SECOND);
    story.settle();
    assert_eq!(story.under_way(0), [(1, false)]);
}

#[test]
fn a_wake_during_a_take_is_not_lost() {
    let mut story = Story::of(1);
    story.settle();
    story.add(1, true);
    story.pump(0);
    story.run(0, Fate::Answered);
    story.pump(0);
    story.deliver_all(0);
    story.add(1, true);
    story.pump(0);
    // The script has run, its answer is on its way, and there is one more.
    let call = story.peers[0].calls.pop_front();
    let Some(Action::Take { after, max, .. }) = call else { panic!("{call:?}") };
    let answer = story.redis.take("node-0", &after, max, story.now());
    story.add(1, true);
    let now = story.now();
    story.peers[0].turns.taken(PARTITION, answer, now);
    story.settle();
    assert_eq!(story.under_way(0), [(2, false), (3, false)]);
}

#[test]
fn a_node_that_comes_gets_the_turn_when_nothing_of_it_is_under_way() {
    let mut story = Story::of(3);
    let newcomer = story.preferred();
    story.redis.leases.clear();
    story.peers[newcomer].is_connected = false;
    story.beat();
    story.settle();
    let before = story.preferred();
    assert_ne!(before, newcomer);
    story.add(2, true);
    story.settle();
    assert_eq!(story.under_way(before).len(), 2);

    story.connect(newcomer, true);
    story.wait(SECOND);
    story.settle();
    story.add(1, true);
    story.settle();
    assert_eq!(story.redis.owner, story.peers[before].name, "it has facts under way");
    assert_eq!(story.under_way(before).len(), 2, "and takes no more for a moment");
    story.deliver_all(before);
    assert_eq!(story.redis.owner, "");
    story.wait(2 * SECOND);
    story.settle();
    assert_eq!(story.redis.owner, story.peers[newcomer].name);
    assert_eq!(story.under_way(newcomer), [(3, false)], "it is new, and not told before");
    assert!(!story.peers[before].listens && story.peers[newcomer].listens);
}

#[test]
fn a_fact_that_cannot_be_delivered_holds_the_turn_and_not_the_others() {
    let mut story = Story::of(2);
    let newcomer = story.preferred();
    story.redis.leases.clear();
    story.peers[newcomer].is_connected = false;
    story.beat();
    story.settle();
    let before = story.preferred();
    story.add(1, true);
    story.settle();
    story.connect(newcomer, true);
    story.settle();
    story.add(1, true);
    story.settle();
    assert_eq!(story.under_way(before), [(1, false)]);
    story.wait(3 * SECOND);
    story.settle();
    assert_eq!(story.under_way(before), [(1, false), (2, false)], "it has waited long enough");
    assert_eq!(story.redis.owner, story.peers[before].name);
}

#[test]
fn what_a_dead_node_had_under_way_is_told_again_and_marked() {
    let mut story = Story::of(2);
    story.settle();
    let dead = story.preferred();
    story.add(2, true);
    story.settle();
    story.end(dead, 0, true);
    story.connect(dead, false);
    story.wait(LEASE + SECOND);
    story.settle();
    let heir = 1 - dead;
    // That 1 was delivered, Redis has not heard.
    assert_eq!(story.under_way(heir), [(1, true), (2, true)]);
    story.add(1, true);
    story.settle();
    assert_eq!(story.under_way(heir), [(1, true), (2, true), (3, false)]);
}

#[test]
fn who_was_cut_off_marks_what_it_still_delivers_and_lets_go_of_it_when_it_is_back() {
    let mut story = Story::of(2);
    story.settle();
    let cut_off = story.preferred();
    story.add(2, true);
    story.settle();
    story.connect(cut_off, false);
    story.wait(SECOND);
    assert!(!story.peers[cut_off].webhooks[0].tenure.is_doubtful(story.now()), "its lease is good");
    story.wait(LEASE);
    story.settle();
    assert!(story.peers[cut_off].webhooks.iter().all(|telling| telling.tenure.is_doubtful(story.now())));
    let heir = 1 - cut_off;
    assert_eq!(story.under_way(heir), [(1, true), (2, true)]);
    story.end(cut_off, 0, true);
    assert_eq!(story.delivered, [(1, true)]);

    story.connect(cut_off, true);
    story.settle();
    assert_eq!(story.under_way(cut_off), [], "the other node tells it");
    assert_eq!(story.redis.facts.len(), 1, "what it has delivered is forgotten all the same");
    story.deliver_all(heir);
    story.wait(2 * SECOND);
    story.settle();
    assert_eq!(story.redis.owner, story.peers[cut_off].name);
}

#[test]
fn after_a_short_absence_of_redis_nothing_is_told_twice() {
    let mut story = Story::of(1);
    story.settle();
    story.add(2, true);
    story.settle();
    story.connect(0, false);
    story.end(0, 0, true);
    story.wait(2 * SECOND);
    story.connect(0, true);
    story.settle();
    assert_eq!(story.under_way(0), [(2, false)]);
    assert!(!story.peers[0].webhooks[0].tenure.is_doubtful(story.now()));
    story.deliver_all(0);
    assert!(story.redis.facts.is_empty());
}

#[test]
fn facts_of_a_lost_answer_are_told_all_the_same() {
    let mut story = Story::of(1);
    story.settle();
    story.add(2, true);
    story.pump(0);
    story.run(0, Fate::AnswerLost);
    story.settle();
    assert_eq!(story.under_way(0), []);
    story.wait(SECOND);
    story.settle();
    assert_eq!(story.under_way(0), [(1, true), (2, true)]);
}

#[test]
fn what_a_new_master_has_still_is_forgotten_and_not_told() {
    let mut story = Story::of(1);
    story.settle();
    story.add(2, true);
    story.settle();
    let before = story.redis.clone();
    story.deliver_all(0);
    story.connect(0, false);
    story.redis = before;
    story.connect(0, true);
    story.settle();
    assert_eq!(story.under_way(0), []);
    assert!(story.redis.facts.is_empty());
}

#[test]
fn what_webhooks_do_not_want_waits_in_redis() {
    let mut turns = Turns::new("node-0", LEASE, Instant::now());
    let now = Instant::now();
    let mut redis = Redis::default();
    redis.leases.insert("node-0".to_owned(), now + LEASE);
    redis.facts = (1..=5000).collect();
    turns.follow(PARTITION, &["node-0".to_owned()], now);
    let mut told = Vec::new();
    let mut pump = |turns: &mut Turns| {
        while let Some(action) = turns.next(now) {
            match action {
                Action::Take { partition, after, max } => {
                    assert!(max <= TAKEN_MAX);
                    turns.taken(partition, redis.take("node-0", &after, max, now), now);
                }
                Action::Tell { fact, .. } => told.push(fact.id),
                _ => {}
            }
        }
        assert_eq!(turns.wake_at(now), None, "nothing is done before there is room");
        told.len()
    };
    assert_eq!(pump(&mut turns), FACTS_MAX);
    let weight = Told::weight_of(&occurrence(1));
    turns.answered(FactAnswer::Room(Room { facts: 150, bytes: 150 * weight }), now);
    assert_eq!(pump(&mut turns), FACTS_MAX + 150);
    assert!(told.iter().zip(1_u64..).all(|(id, number)| *id == number.to_string()), "in their order");
}

#[test]
fn large_facts_wait_in_redis_earlier() {
    let now = Instant::now();
    let mut turns = Turns::new("node-0", LEASE, now);
    turns.follow(PARTITION, &["node-0".to_owned()], now);
    let mut told = 0;
    let mut id = 0;
    while let Some(action) = turns.next(now) {
        match action {
            Action::Take { max, .. } => {
                let fact = || {
                    id += 1;
                    let text = "x".repeat(1 << 20).into_boxed_str();
                    let occurrence = Occurrence { fact: Fact::MemberAdded(text), ..occurrence(1) };
                    TakenFact { id: id.to_string(), time_ms: 0, occurrence, again: false }
                };
                let facts = std::iter::repeat_with(fact).take(max.min(3)).collect();
                turns.taken(PARTITION, Ok(Taken { facts, owner: "node-0".to_owned() }), now);
                turns.wake(PARTITION, now);
            }
            Action::Tell { .. } => told += 1,
            _ => {}
        }
    }
    assert_eq!(told, 9);
}

#[test]
fn at_the_end_what_was_told_is_forgotten_and_the_turn_is_given_back() {
    let mut story = Story::of(2);
    story.settle();
    let leaving = story.preferred();
    story.add(2, true);
    story.settle();
    let now = story.now();
    story.peers[leaving].turns.answered(FactAnswer::Closing, now);
    story.add(1, true);
    story.settle();
    assert!(!story.peers[leaving].turns.is_over());
    story.end(leaving, 0, true);
    story.end(leaving, 0, false);
    story.settle();
    assert!(story.peers[leaving].turns.is_over());
    assert_eq!(story.redis.owner, "");
    assert_eq!(story.redis.facts.iter().copied().collect::<Vec<_>>(), [2, 3]);
    // Now it gives its lease back, too.
    story.peers[leaving].is_connected = false;
    let name = story.peers[leaving].name.clone();
    story.redis.leases.remove(&name);
    story.wait(SECOND);
    story.settle();
    assert_eq!(story.under_way(1 - leaving), [(2, true), (3, false)]);
}

#[test]
fn who_leaves_before_it_has_heard_that_the_turn_is_its_own_gives_it_back() {
    let mut story = Story::of(1);
    story.pump(0);
    story.run(0, Fate::AnswerLost);
    assert_eq!(story.redis.owner, "node-0");
    let now = story.now();
    story.peers[0].turns.close(now);
    story.settle();
    assert!(!story.peers[0].turns.is_over());
    story.wait(SECOND);
    story.settle();
    assert!(story.peers[0].turns.is_over());
    assert_eq!(story.redis.owner, "");
}

#[test]
fn who_may_have_lost_its_lease_looks_again_and_marks_what_it_has_under_way() {
    let mut story = Story::of(1);
    story.settle();
    story.add(2, true);
    story.settle();
    let now = story.now();
    story.peers[0].turns.doubt(PARTITION, now);
    story.add(1, true);
    story.settle();
    assert_eq!(story.under_way(0), [(1, false), (2, false), (3, false)]);
    let doubtful = story.peers[0].webhooks.iter().map(|telling| telling.tenure.is_doubtful(now));
    assert_eq!(doubtful.collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn what_redis_refuses_is_asked_for_rarely() {
    let now = Instant::now();
    let mut turns = Turns::new("node-0", LEASE, now);
    turns.follow(PARTITION, &["node-0".to_owned()], now);
    for (trouble, pause_ms) in [
        (Trouble::Passing, 100),
        (Trouble::Passing, 200),
        (Trouble::Passing, 400),
        (Trouble::Lasting, 5000),
        (Trouble::Passing, 1600),
    ] {
        let mut later = now;
        while let Some(at) = turns.wake_at(later) {
            later = at;
        }
        while let Some(action) = turns.next(later) {
            if matches!(action, Action::Take { .. }) {
                turns.taken(PARTITION, Err(trouble), later);
                assert_eq!(turns.wake_at(later), Some(later + Duration::from_millis(pause_ms)));
            }
        }
    }
}
