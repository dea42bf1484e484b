//! Random stories.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use crate::cluster::outbox::tests::{Fate, Redis, SECOND, Story};

/// A step of a random story. Nodes are taken modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Add { count: u64, is_heard: bool },
    Run { at: usize, fate: Fate },
    End { at: usize, which: usize, done: bool },
    Wait { ms: u64 },
    Cut { at: usize },
    Mend { at: usize },
    Remember,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::NotRun),
    ];
    prop_oneof![
        4 => (1..150_u64, prop::bool::weighted(0.9)).prop_map(|(count, is_heard)| Step::Add { count, is_heard }),
        12 => (0..3_usize, fate).prop_map(|(at, fate)| Step::Run { at, fate }),
        12 => (0..3_usize, 0..200_usize, prop::bool::weighted(0.95))
            .prop_map(|(at, which, done)| Step::End { at, which, done }),
        4 => (1..3000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..3_usize).prop_map(|at| Step::Cut { at }),
        1 => (0..3_usize).prop_map(|at| Step::Mend { at }),
        1 => Just(Step::Remember),
        1 => Just(Step::Forget),
    ]
}

/// Everything is well again: every fact comes to its end.
fn end_well(story: &mut Story) {
    (0..story.peers.len()).for_each(|at| story.connect(at, true));
    let mut left = 100;
    let is_well = |story: &Story| {
        story.redis.facts.is_empty() && story.redis.owner == story.peers[story.preferred()].name
    };
    while !is_well(story) && left > 0 {
        story.wait(SECOND);
        story.settle();
        (0..story.peers.len()).for_each(|at| story.deliver_all(at));
        left -= 1;
    }
    story.settle();
    assert!(story.redis.facts.is_empty(), "{:?} are left", story.redis.facts);
    let delivered: HashSet<u64> = story.delivered.iter().map(|(number, _)| *number).collect();
    let (told, added) = (&story.told_to, story.redis.added);
    let missing: Vec<u64> = (1..=added).filter(|number| !delivered.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?} were never delivered, told: {told:?}");
    let owner = story.preferred();
    assert_eq!(story.redis.owner, story.peers[owner].name, "who should have the turn has it");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_every_fact_is_told_and_repetitions_are_marked(
        peers in 1..4_usize,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut story = Story::of(peers);
        for step in steps {
            match step {
                Step::Add { count, is_heard } => story.add(count, is_heard),
                Step::Run { at, fate } => story.run(at % peers, fate),
                Step::End { at, which, done } => {
                    let at = at % peers;
                    let under_way = story.peers[at].webhooks.len();
                    if under_way > 0 {
                        story.end(at, which % under_way, done);
                    }
                }
                Step::Wait { ms } => story.wait(Duration::from_millis(ms)),
                Step::Cut { at } if story.peers[at % peers].is_connected => story.connect(at % peers, false),
                Step::Mend { at } if !story.peers[at % peers].is_connected => story.connect(at % peers, true),
                Step::Cut { .. } | Step::Mend { .. } | Step::Remember | Step::Forget => {}
            }
            (0..peers).for_each(|at| story.pump(at));
        }
        end_well(&mut story);
        let mut unmarked = HashSet::new();
        for (number, marked) in &story.delivered {
            prop_assert!(*marked || unmarked.insert(number), "{} came twice without a mark", number);
        }
    }

    #[test]
    fn a_redis_that_forgets_its_latest_changes_loses_no_fact_that_it_has_and_stops_nothing(
        peers in 1..4_usize,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut story = Story::of(peers);
        let mut copy = story.redis.clone();
        for step in steps {
            match step {
                Step::Add { count, is_heard } => story.add(count, is_heard),
                Step::Run { at, fate } => story.run(at % peers, fate),
                Step::End { at, which, done } => {
                    let at = at % peers;
                    let under_way = story.peers[at].webhooks.len();
                    if under_way > 0 {
                        story.end(at, which % under_way, done);
                    }
                }
                Step::Wait { ms } => story.wait(Duration::from_millis(ms)),
                Step::Remember => copy = story.redis.clone(),
                Step::Forget => {
                    (0..peers).for_each(|at| story.connect(at, false));
                    // Ids are times: none is given twice.
                    let added = story.redis.added;
                    // What it never had cannot be told.
                    story.delivered.extend((copy.added + 1..=added).map(|number| (number, true)));
                    story.redis = Redis { added, ..copy.clone() };
                    story.has_forgotten = true;
                    (0..peers).for_each(|at| story.connect(at, true));
                }
                Step::Cut { .. } | Step::Mend { .. } => {}
            }
            (0..peers).for_each(|at| story.pump(at));
        }
        end_well(&mut story);
    }
}
