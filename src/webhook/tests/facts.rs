//! What a cluster tells: with receipts, marked when it may be a repetition, and kept in Redis until it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::{App, Apps};
use crate::config::{Config, Masked};
use crate::hub::{Fact, Occurrence};
use crate::node::{FactAnswer, Node, Tenure, Told};
use crate::protocol::ChannelName;
use crate::webhook::Selection;
use crate::webhook::queue::{EVENT_OVERHEAD, Limits, Load};
use crate::webhook::tests::{Desk, LIMITS, SECOND, Step, app, batching, events, step};

pub(super) const PARTITION: u8 = 7;

pub(super) fn clustered(mut config: Config, apps: impl IntoIterator<Item = Arc<App>>) -> Arc<Node> {
    config.redis.url = Masked::new("redis://127.0.0.1/");
    Node::new(config, Apps::new(apps.into_iter().map(|app| App::clone(&app))).expect("apps"))
}

pub(super) fn occurrence(app: &App, channel: &str, count: u64) -> Occurrence {
    let channel = ChannelName::parse(channel, 200).expect("a name");
    Occurrence { app: app.id.clone(), channel, fact: Fact::Counted(count) }
}

/// One that outlasts every story.
pub(super) fn tenure() -> Arc<Tenure> {
    Arc::new(Tenure::until(Instant::now() + 10_000 * SECOND))
}

/// A queue that a cluster feeds. Facts are numbers, and their ids the same as text.
struct Fed {
    desk: Desk,
    node: Arc<Node>,
    answers: UnboundedReceiver<FactAnswer>,
    tenure: Arc<Tenure>,
}

impl Fed {
    fn with(limits: Limits) -> Self {
        let node = clustered(Config::default(), []);
        let answers = node.take_fact_answers().expect("nobody has them");
        Self { desk: Desk::with(limits), node, answers, tenure: tenure() }
    }

    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn tell(&mut self, app: &Arc<App>, channel: &str, number: u64) {
        self.tell_of(app, channel, number, false, self.desk.now().ms);
    }

    fn tell_again(&mut self, app: &Arc<App>, channel: &str, number: u64) {
        self.tell_of(app, channel, number, true, self.desk.now().ms);
    }

    fn tell_of(&mut self, app: &Arc<App>, channel: &str, number: u64, again: bool, time_ms: u64) {
        let id = number.to_string().into_boxed_str();
        let receipt = self.node.receipt(PARTITION, id, self.tenure.clone()).expect("a cluster");
        let occurrence = occurrence(app, channel, number);
        let now = self.desk.now();
        self.desk.queue.accept_fact(app, Told { occurrence, time_ms, again, receipt }, now);
    }

    /// The facts that have ended since somebody last asked, and whether they are done.
    fn ended(&mut self) -> Vec<(u64, bool)> {
        let mut ended: Vec<_> =
            std::iter::from_fn(|| self.answers.try_recv().ok()).filter_map(ended).collect();
        ended.sort_unstable();
        ended
    }

    fn is_held_up(&self) -> bool {
        self.desk.queue.is_held_up(self.desk.now().at)
    }
}

pub(super) fn ended(answer: FactAnswer) -> Option<(u64, bool)> {
    match answer {
        FactAnswer::Ended { id, done, .. } => Some((id.parse().expect("a number"), done)),
        FactAnswer::Room(_) | FactAnswer::Closing => None,
    }
}

#[test]
fn a_fact_is_done_when_every_receiver_has_it() {
    let (mut fed, app) = (Fed::new(), app("1", &["a", "b"]));
    fed.tell(&app, "x", 1);
    let (first, second) = (fed.desk.expect(&[1]), fed.desk.expect(&[1]));
    fed.desk.succeed(&first);
    fed.desk.fail(&second);
    assert_eq!(fed.ended(), []);
    fed.desk.wait(SECOND);
    let again = fed.desk.expect(&[1]);
    fed.desk.succeed(&again);
    assert_eq!(fed.ended(), [(1, true)]);
    assert_eq!(fed.desk.queue.load(), Load::default());
}

#[test]
fn a_fact_that_nobody_wants_is_done_at_once() {
    let (mut fed, app) = (Fed::new(), app("1", &[]));
    fed.tell(&app, "x", 1);
    assert_eq!(fed.ended(), [(1, true)]);
}

#[test]
fn a_dead_letter_is_done() {
    let (mut fed, app) = (Fed::with(Limits { retry: Duration::ZERO, ..LIMITS }), app("1", &["a"]));
    fed.tell(&app, "x", 1);
    let attempt = fed.desk.expect(&[1]);
    assert_eq!(fed.ended(), []);
    fed.desk.fail(&attempt);
    assert_eq!(fed.ended(), [(1, true)]);
    assert_eq!(fed.desk.queue.load().dead_letters, 1);
}

#[test]
fn what_is_given_up_without_an_attempt_is_done() {
    let (mut fed, app) = (Fed::new(), app("1", &["a"]));
    (1..=20).for_each(|number| fed.tell(&app, &format!("x{number}"), number));
    for _ in 0..5 {
        let attempt = fed.desk.next().expect("it is not down yet");
        fed.desk.fail(&attempt);
    }
    fed.desk.wait(400 * SECOND);
    assert_eq!(fed.ended(), (1..=20).map(|number| (number, true)).collect::<Vec<_>>());
}

#[test]
fn what_is_undelivered_at_the_end_is_not_done() {
    let (mut fed, app) = (Fed::new(), app("1", &["a", "b"]));
    let batches = batching(&self::app("2", &["c"]));
    fed.tell(&app, "x", 1);
    fed.tell(&app, "y", 2);
    fed.tell(&batches, "z", 3);
    for _ in 0..3 {
        // Two to one of them and one to the other.
        let attempt = fed.desk.next().expect("an attempt");
        fed.desk.succeed(&attempt);
    }
    let done = fed.ended();
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(fed.desk.queue.kept_events(), 2);
    let Fed { desk, mut answers, .. } = fed;
    drop(desk);
    let rest: Vec<_> = std::iter::from_fn(|| answers.try_recv().ok()).filter_map(ended).collect();
    assert_eq!(rest.len(), 2);
    assert!(rest.iter().all(|(number, is_done)| !is_done && *number != done[0].0), "{rest:?}");
}

#[test]
fn events_of_one_request_are_done_together() {
    let (mut fed, app) = (Fed::new(), batching(&app("1", &["a"])));
    (1..=4).for_each(|number| fed.tell(&app, "x", number));
    let full = fed.desk.expect(&[1, 2, 3]);
    fed.desk.succeed(&full);
    assert_eq!(fed.ended(), [(1, true), (2, true), (3, true)]);
    fed.desk.wait(LIMITS.batch_wait);
    let rest = fed.desk.expect(&[4]);
    fed.desk.succeed(&rest);
    assert_eq!(fed.ended(), [(4, true)]);
}

#[test]
fn repetitions_are_marked_and_travel_by_themselves_in_the_order_of_their_channel() {
    let (mut fed, app) = (Fed::new(), batching(&app("1", &["a"])));
    fed.tell_again(&app, "x", 1);
    fed.tell_again(&app, "x", 2);
    fed.tell(&app, "x", 3);
    fed.tell_again(&app, "x", 4);
    fed.desk.wait(LIMITS.batch_wait);
    for (numbers, again) in [(&[1, 2][..], true), (&[3], false), (&[4], true)] {
        let attempt = fed.desk.expect(numbers);
        assert_eq!(attempt.again, again, "{attempt:?}");
        fed.desk.expect_none();
        fed.desk.succeed(&attempt);
    }
}

#[test]
fn a_dead_letter_keeps_its_mark() {
    let (mut fed, app) = (Fed::with(Limits { retry: Duration::ZERO, ..LIMITS }), app("1", &["a"]));
    fed.tell_again(&app, "x", 1);
    let first = fed.desk.expect(&[1]);
    fed.desk.fail(&first);
    let (apps, now) = (Apps::new([App::clone(&app)]).expect("an app"), fed.desk.now());
    assert_eq!(fed.desk.queue.replay(&Selection::All, &apps, now), 1);
    assert!(fed.desk.expect(&[1]).again);
}

#[test]
fn what_others_may_tell_is_marked_in_every_attempt_from_then_on() {
    let (mut fed, app) = (Fed::new(), app("1", &["a"]));
    fed.tell(&app, "x", 1);
    let first = fed.desk.expect(&[1]);
    assert!(!first.again);
    fed.desk.fail(&first);
    fed.tenure.doubt();
    fed.desk.wait(SECOND);
    let second = fed.desk.expect(&[1]);
    assert!(second.again);
    assert_eq!((second.id, &second.body), (first.id, &first.body));
}

#[test]
fn a_process_that_has_stood_still_marks_what_it_sends_next() {
    let (mut fed, app) = (Fed::new(), app("1", &["a"]));
    fed.tenure = Arc::new(Tenure::until(fed.desk.now().at));
    fed.tenure.extend(fed.desk.now().at + 2 * SECOND);
    fed.tell(&app, "x", 1);
    for (wait, again) in [(0, false), (1, false), (2, true)] {
        fed.desk.wait(wait * SECOND);
        let attempt = fed.desk.expect(&[1]);
        assert_eq!(attempt.again, again, "{wait}");
        fed.desk.fail(&attempt);
    }
}

#[test]
fn what_others_tell_is_let_go_of_and_left_to_them() {
    let (mut fed, app) = (Fed::new(), app("1", &["a"]));
    let batches = batching(&self::app("2", &["b"]));
    fed.tell(&app, "x", 1);
    fed.tell(&app, "x", 2);
    fed.tell(&batches, "y", 3);
    let lost = std::mem::replace(&mut fed.tenure, tenure());
    fed.tell(&app, "z", 4);
    fed.tell(&batches, "y", 5);
    let under_way = fed.desk.expect(&[1]);
    lost.lose();
    let now = fed.desk.now().at;
    assert_eq!(fed.desk.queue.let_go_of_lost(now), 1);
    assert_eq!(fed.ended(), [(2, false)]);
    // One of its events is still this node's to tell.
    let mut rest = [fed.desk.next().expect("an attempt"), fed.desk.next().expect("an attempt")];
    rest.sort_by_key(events);
    assert_eq!(rest.each_ref().map(events), [vec![3, 5], vec![4]]);
    assert_eq!(rest.each_ref().map(|attempt| attempt.again), [true, false]);
    fed.desk.succeed(&under_way);
    assert_eq!(fed.ended(), [(1, true)], "the receiver has it");
    rest.iter().for_each(|attempt| assert_eq!(fed.desk.succeed(attempt), None));
    assert_eq!(fed.ended(), [(3, true), (4, true), (5, true)]);
    assert_eq!(fed.desk.queue.load(), Load::default());
    assert_eq!(fed.desk.queue.take_tally().receiver_gone, 0);
}

#[test]
fn facts_of_a_receiver_that_was_taken_out_are_done() {
    let (mut fed, before) = (Fed::new(), batching(&app("1", &["a", "b"])));
    (1..=4).for_each(|number| fed.tell(&before, "x", number));
    let kept = batching(&app("1", &["b"]));
    fed.desk.queue.follow(&Apps::new([App::clone(&kept)]).expect("an app"), |_| false);
    assert_eq!(fed.ended(), []);
    fed.desk.wait(LIMITS.batch_wait);
    while let Some(attempt) = fed.desk.next() {
        assert_eq!(attempt.endpoint.url, "http://b/");
        fed.desk.succeed(&attempt);
    }
    assert_eq!(fed.ended(), (1..=4).map(|number| (number, true)).collect::<Vec<_>>());

    fed.tell(&kept, "x", 5);
    fed.desk.queue.follow(&Apps::default(), |_| true);
    assert_eq!(fed.ended(), [], "there may be such an app");
    fed.desk.queue.follow(&Apps::default(), |_| false);
    assert_eq!(fed.ended(), [(5, true)]);
}

#[test]
fn a_receiver_that_takes_deliveries_is_waited_for_before_anything_is_dropped() {
    let limits = Limits { bytes_max: 100 * EVENT_OVERHEAD, ..LIMITS };
    let (mut fed, slow) = (Fed::with(limits), app("1", &["slow"]));
    let mut told = 0;
    while !fed.is_held_up() {
        told += 1;
        fed.tell(&slow, &format!("x{told}"), told);
    }
    let share = fed.desk.queue.load();
    assert!(share.bytes > limits.bytes_max / 3 && share.bytes < limits.bytes_max);
    // What was on its way when it was seen.
    (1..=10).for_each(|more| fed.tell(&slow, &format!("x{more}"), told + more));
    assert_eq!(fed.desk.queue.take_tally().queue_full, 0);
    let first = fed.desk.next().expect("an attempt");
    fed.desk.succeed(&first);
    assert!(fed.is_held_up(), "it has not caught up");
    while fed.is_held_up() {
        let attempt = fed.desk.next().expect("an attempt");
        fed.desk.succeed(&attempt);
    }
    assert!(fed.desk.queue.load().bytes > 0, "half of its share is enough");
    assert_eq!(
        fed.ended().len(),
        usize::try_from(told).expect("a few") + 10 - fed.desk.queue.load().deliveries
    );
}

#[test]
fn who_is_too_slow_loses_events_and_holds_up_others_only_for_a_while() {
    let limits = Limits { bytes_max: 100 * EVENT_OVERHEAD, ..LIMITS };
    let (mut fed, slow, quick) = (Fed::with(limits), app("1", &["slow"]), app("2", &["quick"]));
    let mut told = 0;
    while !fed.is_held_up() {
        told += 1;
        fed.tell(&slow, &format!("x{told}"), told);
    }
    fed.desk.wait(9 * SECOND);
    assert!(fed.is_held_up());
    fed.desk.wait(SECOND);
    assert!(!fed.is_held_up());
    fed.tell(&slow, "y", 1000);
    assert_eq!(fed.desk.queue.take_tally().queue_full, 1);
    assert_eq!(fed.ended(), [(1000, true)], "it is given up");
    fed.tell(&quick, "x", 1001);
    assert_eq!(fed.desk.queue.take_tally().queue_full, 0);
    assert!(!fed.is_held_up(), "it has had its time");
}

#[test]
fn nobody_waits_for_a_receiver_that_is_down() {
    let limits = Limits { bytes_max: 100 * EVENT_OVERHEAD, ..LIMITS };
    let (mut fed, dead, alive) = (Fed::with(limits), app("1", &["dead"]), app("2", &["alive"]));
    (1..=5).for_each(|number| fed.tell(&dead, &format!("x{number}"), number));
    for _ in 0..5 {
        let attempt = fed.desk.next().expect("it is not down yet");
        fed.desk.fail(&attempt);
    }
    for number in 100..1000 {
        fed.tell(&dead, "x", number);
        assert!(!fed.is_held_up());
    }
    assert!(fed.desk.queue.take_tally().queue_full > 800);
    fed.tell(&alive, "x", 1);
    assert_eq!(fed.desk.queue.take_tally().queue_full, 0);
}

#[test]
fn a_fact_has_the_time_when_it_happened_unless_it_comes_late() {
    let (mut fed, app) = (Fed::new(), app("1", &["a"]));
    fed.desk.wait(1000 * SECOND);
    let now = fed.desk.now().ms;
    for (number, at, told) in [
        (1, now, now),
        (2, now - 60_000, now - 60_000),
        (3, now - 60_001, now),
        // By a clock that is ahead.
        (4, now + 5000, now),
    ] {
        fed.tell_of(&app, "x", number, false, at);
        let attempt = fed.desk.expect(&[number]);
        assert!(attempt.body.starts_with(&format!("{{\"time_ms\":{told},")), "{}", attempt.body);
        fed.desk.succeed(&attempt);
    }
}

#[test]
fn a_fact_is_given_up_when_receivers_would_refuse_it() {
    let (mut fed, app) = (Fed::new(), app("1", &["a"]));
    fed.desk.wait(1000 * SECOND);
    fed.tell_of(&app, "x", 1, false, fed.desk.now().ms - 50_000);
    while fed.ended().is_empty() {
        let attempt = fed.desk.expect(&[1]);
        fed.desk.fail(&attempt);
        let told = 1000 * SECOND - 50 * SECOND;
        assert!(fed.desk.elapsed - told <= LIMITS.retry);
        fed.desk.wait(Duration::from_secs(1 << (attempt.number - 1)));
    }
    assert_eq!(fed.desk.queue.load().dead_letters, 1);
}

proptest! {
    #[test]
    fn whatever_happens_every_fact_ends_once(
        steps in proptest::collection::vec(step(), 1..200),
        room in 5..60_usize,
        is_well in any::<bool>(),
    ) {
        let mut fed = Fed::with(Limits { bytes_max: room * EVENT_OVERHEAD, ..LIMITS });
        let apps = [app("1", &["a", "b"]), batching(&app("2", &["c"])), batching(&app("3", &["d", "e"]))];
        let (mut told, mut in_flight) = (0, Vec::new());
        let mut answers: HashMap<u64, bool> = HashMap::new();
        let mut hear = |fed: &mut Fed| {
            fed.ended().into_iter().all(|(number, done)| answers.insert(number, done).is_none())
        };
        for step in steps {
            match step {
                Step::Tell { app, channel } => {
                    told += 1;
                    let again = told % 5 == 0;
                    fed.tell_of(&apps[app], &format!("c{channel}"), told, again, fed.desk.now().ms);
                }
                Step::End { which, good } if which < in_flight.len() => {
                    let attempt = in_flight.swap_remove(which);
                    if good { fed.desk.succeed(&attempt) } else { fed.desk.fail(&attempt) };
                }
                Step::End { .. } => {}
                Step::Wait { ms } => fed.desk.wait(Duration::from_millis(ms)),
            }
            in_flight.extend(std::iter::from_fn(|| fed.desk.next()));
            prop_assert!(hear(&mut fed), "a fact has ended twice");
        }
        if is_well {
            let now = fed.desk.now().at;
            fed.desk.queue.close_batches(now);
            while !in_flight.is_empty() || fed.desk.queue.wake().is_some() {
                in_flight.drain(..).for_each(|attempt| drop(fed.desk.queue.finished(attempt.ticket, &Ok(()), now)));
                fed.desk.wait(SECOND);
                in_flight.extend(std::iter::from_fn(|| fed.desk.next()));
            }
        }
        let kept = fed.desk.queue.kept_events();
        prop_assert!(hear(&mut fed), "a fact has ended twice");
        fed.desk = Desk::new();
        prop_assert!(hear(&mut fed), "a fact has ended twice");
        prop_assert_eq!(answers.len() as u64, told);
        let undone = answers.values().filter(|done| !**done).count();
        // Some were for two receivers.
        prop_assert!(undone <= kept && kept <= 2 * undone, "{} undone, {} kept", undone, kept);
        prop_assert!(!is_well || undone == 0);
    }
}
