//! The queue under chosen and random stories, with values alone.

mod courier;
mod facts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::app::{App, Apps, KeyPair, Webhook};
use crate::config::{Config, Server};
use crate::hub::{Body, ClientEventFact, Delivery, Event, Fact, Occurrence, Publish, Subscription, WorkerId};
use crate::metrics::Dropped;
use crate::mirror::Ticket;
use crate::node::{Letter, Node};
use crate::protocol::{ChannelName, Frame, Secret, SocketId};
use crate::webhook::delivery::{Attempt, Failure, Now};
use crate::webhook::queue::{EVENT_OVERHEAD, Limits, Load, Queue};
use crate::webhook::receiver::Change;
use crate::webhook::{Question, Selection, start};

const LIMITS: Limits = Limits {
    concurrency: 2,
    retry: Duration::from_secs(300),
    batch_wait: Duration::from_millis(200),
    batch_events_max: 3,
    bytes_max: 1 << 20,
    dead_letters_max: 3,
};

const SECOND: Duration = Duration::from_secs(1);

fn app(id: &str, urls: &[&str]) -> Arc<App> {
    let pair = KeyPair { key: format!("key-{id}"), secret: Secret::new(id) };
    let webhook = |url: &&str| Webhook { url: format!("http://{url}/"), ..Webhook::default() };
    let webhooks = urls.iter().map(webhook).collect();
    Arc::new(App { id: id.into(), keys: vec![pair], webhooks, ..App::default() })
}

fn batching(app: &Arc<App>) -> Arc<App> {
    Arc::new(App { webhook_batching: true, ..App::clone(app) })
}

/// A queue, and the time it is.
struct Desk {
    queue: Queue,
    start: Instant,
    elapsed: Duration,
}

impl Desk {
    fn with(limits: Limits) -> Self {
        Self { queue: Queue::new(limits, 7), start: Instant::now(), elapsed: Duration::ZERO }
    }

    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn now(&self) -> Now {
        let ms = 1_000_000 + u64::try_from(self.elapsed.as_millis()).expect("a short story");
        Now { at: self.start + self.elapsed, ms }
    }

    /// Tells of the number `count`, which names the event.
    fn tell(&mut self, app: &Arc<App>, channel: &str, count: u64) {
        let channel = ChannelName::parse(channel, 200).expect("a name");
        let occurrence = Occurrence { app: app.id.clone(), channel, fact: Fact::Counted(count) };
        let now = self.now();
        self.queue.accept(app, &occurrence, now);
    }

    fn wait(&mut self, time: Duration) {
        self.elapsed += time;
        let now = self.now().at;
        self.queue.settle(now);
        assert!(self.queue.wake().is_none_or(|at| at > now), "nothing is left to do at this time");
    }

    fn next(&mut self) -> Option<Attempt> {
        let now = self.now().at;
        self.queue.next_attempt(now)
    }

    #[track_caller]
    fn expect(&mut self, counts: &[u64]) -> Attempt {
        let attempt = self.next().expect("an attempt");
        assert_eq!(events(&attempt), counts);
        attempt
    }

    #[track_caller]
    fn expect_none(&mut self) {
        let attempt = self.next();
        assert!(attempt.is_none(), "{attempt:?}");
    }

    fn succeed(&mut self, attempt: &Attempt) -> Option<Change> {
        let now = self.now().at;
        self.queue.finished(attempt.ticket, &Ok(()), now).map(|(change, _)| change)
    }

    fn fail(&mut self, attempt: &Attempt) -> Option<Change> {
        let now = self.now().at;
        self.queue.finished(attempt.ticket, &Err(Failure::Status(500)), now).map(|(change, _)| change)
    }
}

/// The numbers of the events in a body.
fn events(attempt: &Attempt) -> Vec<u64> {
    let body: Value = serde_json::from_str(&attempt.body).expect("JSON");
    let events = body["events"].as_array().expect("a list");
    events.iter().map(|event| event["subscription_count"].as_u64().expect("a number")).collect()
}

#[test]
fn p91_without_batching_each_event_is_a_request_of_its_own() {
    let (mut desk, app) = (Desk::new(), app("1", &["a"]));
    desk.tell(&app, "x", 1);
    desk.tell(&app, "y", 2);
    let first = desk.expect(&[1]);
    assert_eq!(first.body.find(r#"{"time_ms":1000000,"events":[{"#), Some(0));
    assert!(app.keys[0].secret.verifies(&[first.body.as_bytes()], &first.signature));
    desk.expect(&[2]);
    desk.expect_none();
}

#[test]
fn p91_a_batch_goes_when_it_is_full_or_has_waited() {
    let (mut desk, app) = (Desk::new(), batching(&app("1", &["a"])));
    for count in 1..=4 {
        desk.tell(&app, "x", count);
    }
    let full = desk.expect(&[1, 2, 3]);
    desk.succeed(&full);
    desk.expect_none();
    desk.wait(LIMITS.batch_wait);
    desk.expect(&[4]);
}

#[test]
fn p91_apps_and_endpoints_do_not_share_a_batch() {
    let mut desk = Desk::new();
    let (one, two) = (batching(&app("1", &["same", "other"])), batching(&app("2", &["same"])));
    desk.tell(&one, "x", 1);
    desk.tell(&two, "x", 2);
    desk.wait(LIMITS.batch_wait);
    let mut seen: Vec<_> = (0..3).map(|_| desk.next().expect("three")).collect();
    seen.sort_by_key(|attempt| (attempt.key.clone(), attempt.endpoint.url.clone()));
    let about = |attempt: &Attempt| (attempt.key.clone(), attempt.endpoint.url.clone(), events(attempt));
    let wanted = |key: &str, url: &str, count| (key.to_owned(), format!("http://{url}/"), vec![count]);
    let wanted = [wanted("key-1", "other", 1), wanted("key-1", "same", 1), wanted("key-2", "same", 2)];
    assert_eq!(seen.iter().map(about).collect::<Vec<_>>(), wanted);
    desk.expect_none();
}

#[test]
fn an_event_goes_to_the_endpoints_that_want_it() {
    let mut app = App::clone(&app("1", &["a", "b"]));
    app.webhooks[0].channel_prefixes = vec!["presence-".to_owned()];
    let (mut desk, app) = (Desk::new(), Arc::new(app));
    desk.tell(&app, "x", 1);
    assert_eq!(desk.expect(&[1]).endpoint.url, "http://b/");
    desk.expect_none();
}

#[test]
fn requests_of_one_channel_wait_for_each_other_and_others_do_not() {
    let (mut desk, app) = (Desk::new(), app("1", &["a"]));
    desk.tell(&app, "x", 1);
    desk.tell(&app, "x", 2);
    desk.tell(&app, "y", 3);
    desk.tell(&app, "z", 4);
    let (first, _other) = (desk.expect(&[1]), desk.expect(&[3]));
    desk.expect_none(); // two at a time
    desk.succeed(&first);
    desk.expect(&[4]);
    desk.expect_none();
}

#[test]
fn p93_a_failed_delivery_is_tried_again_with_growing_pauses_and_the_same_bytes() {
    let (mut desk, app) = (Desk::new(), app("1", &["a"]));
    desk.tell(&app, "x", 1);
    let first = desk.expect(&[1]);
    desk.fail(&first);
    for (number, pause) in (2..).zip([1, 2, 4, 8, 16, 32, 64, 128]) {
        desk.wait(pause * SECOND - Duration::from_millis(1));
        desk.expect_none();
        desk.wait(Duration::from_millis(1));
        let again = desk.expect(&[1]);
        assert_eq!((&again.body, &again.signature, again.id), (&first.body, &first.signature, first.id));
        assert_eq!(again.number, number);
        desk.fail(&again);
    }
    assert_eq!(desk.elapsed, 255 * SECOND);
    assert_eq!(desk.queue.load(), Load { dead_letters: 1, ..Load::default() });
    let dead = desk.queue.dead().select(&Selection::All);
    assert_eq!((dead[0].attempts, &*dead[0].error), (9, "the receiver answered with status 500"));
    assert_eq!((&dead[0].body, &dead[0].id), (&first.body, &first.id.to_string()));
}

#[test]
fn a_failed_delivery_holds_its_channel_for_a_while_and_no_other() {
    let (mut desk, app) = (Desk::new(), app("1", &["a"]));
    desk.tell(&app, "x", 1);
    desk.tell(&app, "x", 2);
    let poison = desk.expect(&[1]);
    desk.fail(&poison);
    desk.tell(&app, "y", 3);
    let other = desk.expect(&[3]);
    desk.succeed(&other);
    for pause in [1, 2] {
        desk.expect_none();
        desk.wait(pause * SECOND);
        let again = desk.expect(&[1]);
        desk.fail(&again);
    }
    desk.expect(&[2]); // it has waited long enough
    desk.wait(4 * SECOND);
    desk.expect_none(); // requests of a channel do not overlap, whichever they are
}

#[test]
fn one_poisonous_delivery_does_not_make_a_receiver_down() {
    let (mut desk, app) = (Desk::new(), app("1", &["a"]));
    desk.tell(&app, "x", 1);
    for pause in [0, 1, 2, 4, 8, 16, 32] {
        desk.wait(pause * SECOND);
        let poison = desk.expect(&[1]);
        assert_ne!(desk.fail(&poison), Some(Change::Down));
    }
    desk.tell(&app, "y", 2);
    desk.expect(&[2]);
}

#[test]
fn a_receiver_that_is_down_is_probed_alone_and_delays_nobody() {
    let (mut desk, app) = (Desk::new(), app("1", &["dead", "alive"]));
    let mut changes = Vec::new();
    for count in 0..1000 {
        desk.tell(&app, &format!("x{count}"), count);
        while let Some(attempt) = desk.next() {
            match &*attempt.endpoint.url {
                "http://alive/" => assert_eq!(desk.succeed(&attempt), None),
                _ => changes.extend(desk.fail(&attempt)),
            }
        }
    }
    assert_eq!(changes, [Change::Failing, Change::Down]);
    assert_eq!(desk.queue.load().receivers_down, 1);

    // Ever rarer, one at a time.
    for pause in [1, 2, 4, 8, 16, 32, 32] {
        desk.wait(pause * SECOND - Duration::from_millis(1));
        desk.expect_none();
        desk.wait(Duration::from_millis(1));
        let probe = desk.next().expect("a probe");
        desk.expect_none();
        assert_eq!(desk.fail(&probe), None);
    }
    desk.wait(32 * SECOND);
    let probe = desk.next().expect("a probe");
    assert_eq!(desk.succeed(&probe), Some(Change::Up));
    let mut delivered = 1;
    while let Some(attempt) = desk.next() {
        desk.succeed(&attempt);
        delivered += 1;
    }
    desk.wait(300 * SECOND);
    while let Some(attempt) = desk.next() {
        desk.succeed(&attempt);
        delivered += 1;
    }
    assert_eq!(delivered, 1000 - desk.queue.take_tally().queue_full);
    assert_eq!(desk.queue.load(), Load::default());
}

#[test]
fn what_waits_for_a_receiver_that_is_down_ends_as_dead_letters_the_newest_of_which_are_kept() {
    let limits = Limits { retry: 10 * SECOND, ..LIMITS };
    let (mut desk, app) = (Desk::with(limits), app("1", &["dead"]));
    for count in 0..100 {
        desk.tell(&app, &format!("x{count}"), count);
        while let Some(attempt) = desk.next() {
            desk.fail(&attempt);
        }
    }
    desk.wait(10 * SECOND);
    assert_eq!(desk.queue.load(), Load { dead_letters: 3, ..Load::default() });
    let dead = desk.queue.dead().select(&Selection::All);
    assert!(dead[0].body.contains(r#""subscription_count":99"#), "the newest first: {dead:?}");
    assert_eq!(dead[0].error, "the receiver answered with status 500");
    assert_eq!(desk.queue.take_tally().given_up, 100);
}

#[test]
fn a_full_queue_drops_and_a_dead_endpoint_leaves_room_for_others() {
    let limits = Limits { bytes_max: 100 * EVENT_OVERHEAD, ..LIMITS };
    let mut desk = Desk::with(limits);
    let (dead, alive) = (app("1", &["dead"]), app("2", &["alive"]));
    for count in 0..1000 {
        desk.tell(&dead, "x", count);
    }
    let held = desk.queue.load();
    assert!(held.bytes <= limits.bytes_max / 2, "{held:?}");
    assert_eq!(desk.queue.take_tally().queue_full, 1000 - held.deliveries);
    for count in 0..20 {
        desk.tell(&alive, "x", count);
    }
    assert_eq!(desk.queue.take_tally().queue_full, 0);
    assert_eq!(desk.queue.load().deliveries, held.deliveries + 20);
}

#[test]
fn a_replay_has_the_same_id_and_a_time_and_signature_of_now() {
    let limits = Limits { retry: Duration::ZERO, ..LIMITS };
    let (mut desk, old) = (Desk::with(limits), app("1", &["a"]));
    desk.tell(&old, "x", 1);
    let first = desk.expect(&[1]);
    desk.fail(&first);
    desk.wait(1000 * SECOND);

    let pair = KeyPair { key: "new".to_owned(), secret: Secret::new("new") };
    let renewed = App { keys: vec![pair.clone()], ..App::clone(&old) };
    let apps = Apps::new([renewed]).expect("an app");
    let now = desk.now();
    let id = first.id.to_string();
    let elsewhere = Apps::new([App::clone(&app("1", &["b"]))]).expect("an app");
    assert_eq!(desk.queue.replay(&Selection::All, &elsewhere, now), 0, "its receiver is gone");
    assert_eq!(desk.queue.replay(&Selection::Id("0".to_owned()), &apps, now), 0);
    assert_eq!(desk.queue.replay(&Selection::Id(id), &Apps::default(), now), 0, "its app is gone");
    assert_eq!(desk.queue.replay(&Selection::App("1".into()), &apps, now), 1);
    assert_eq!(desk.queue.load().dead_letters, 0);
    let again = desk.expect(&[1]);
    assert_eq!((again.id, again.number, &*again.key), (first.id, 1, "new"));
    assert!(again.body.starts_with(r#"{"time_ms":2000000,"#), "{}", again.body);
    assert!(pair.secret.verifies(&[again.body.as_bytes()], &again.signature));
}

#[test]
fn deliveries_of_a_deleted_app_are_dropped_and_counted() {
    let (mut desk, gone) = (Desk::new(), app("1", &["a"]));
    for count in 0..5 {
        desk.tell(&gone, "x", count);
    }
    let attempt = desk.expect(&[0]);
    desk.queue.follow(&Apps::default(), |_| false);
    assert_eq!(desk.queue.load(), Load::default());
    assert_eq!(desk.queue.take_tally().receiver_gone, 5);
    assert_eq!(desk.fail(&attempt), None);
    desk.expect_none();
}

#[test]
fn a_receiver_that_was_taken_out_is_sent_nothing_more_and_the_others_go_on() {
    let (mut desk, before) = (Desk::new(), app("1", &["a", "b"]));
    desk.tell(&before, "x", 1);
    let (first, second) = (desk.expect(&[1]), desk.expect(&[1]));
    desk.fail(&first);
    desk.fail(&second);
    desk.queue.follow(&Apps::new([App::clone(&app("1", &["b"]))]).expect("an app"), |_| false);
    assert_eq!(desk.queue.take_tally().receiver_gone, 1);
    desk.wait(SECOND);
    assert_eq!(desk.expect(&[1]).endpoint.url, "http://b/");
    desk.expect_none();
}

#[test]
fn what_waits_gets_the_headers_of_now() {
    let (mut desk, before) = (Desk::new(), app("1", &["a"]));
    desk.tell(&before, "x", 1);
    desk.tell(&before, "x", 2);
    let first = desk.expect(&[1]);
    let mut now = App::clone(&before);
    now.webhooks[0].headers = vec![("Authorization".to_owned(), "new".to_owned())];
    desk.queue.follow(&Apps::new([now.clone()]).expect("an app"), |_| false);
    desk.tell(&Arc::new(now), "x", 3);
    desk.fail(&first);
    desk.wait(SECOND);
    for number in 1..=3 {
        let attempt = desk.expect(&[number]);
        assert_eq!(attempt.endpoint.headers, [("Authorization".to_owned(), "new".to_owned())]);
        desk.succeed(&attempt);
    }
    assert_eq!(desk.queue.load(), Load::default());
    assert_eq!(desk.queue.take_tally().receiver_gone, 0);
}

#[test]
fn receivers_at_one_url_keep_apart_when_both_get_other_headers() {
    let mut before = App::clone(&app("1", &["a", "a"]));
    let token = |token: &str| vec![("Authorization".to_owned(), token.to_owned())];
    (before.webhooks[0].headers, before.webhooks[1].headers) = (token("one"), token("two"));
    let limits = Limits { retry: Duration::ZERO, ..LIMITS };
    let (mut desk, mut now) = (Desk::with(limits), before.clone());
    desk.tell(&Arc::new(before), "x", 1);
    let dead = [desk.expect(&[1]), desk.expect(&[1])];
    for attempt in &dead {
        desk.fail(attempt);
    }
    (now.webhooks[0].headers, now.webhooks[1].headers) = (token("three"), token("four"));
    let apps = Apps::new([now]).expect("an app");
    for (attempt, token) in dead.iter().zip([token("three"), token("four")]) {
        let selection = Selection::Id(attempt.id.to_string());
        assert_eq!(desk.queue.replay(&selection, &apps, desk.now()), 1);
        assert_eq!(desk.expect(&[1]).endpoint.headers, token);
    }
}

/// A step of a random story.
#[derive(Clone, Debug)]
enum Step {
    Tell {
        app: usize,
        channel: u8,
    },
    /// Ends the attempt at this place among those under way.
    End {
        which: usize,
        good: bool,
    },
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize, 0..4_u8).prop_map(|(app, channel)| Step::Tell { app, channel }),
        3 => (0..8_usize, any::<bool>()).prop_map(|(which, good)| Step::End { which, good }),
        1 => (0..3000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (3000..60_000_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// What must hold whatever happens.
#[derive(Default)]
struct Watch {
    in_flight: Vec<Attempt>,
    bodies: HashMap<String, String>,
    /// By endpoint and channel: the last event whose first attempt was made.
    last: HashMap<(String, String), u64>,
    delivered: HashMap<String, HashSet<u64>>,
    /// How many events are in each dead letter.
    dead: HashMap<String, usize>,
}

impl Watch {
    fn began(&mut self, attempt: Attempt, limits: &Limits) {
        let body: Value = serde_json::from_str(&attempt.body).expect("JSON");
        let channels = |body: &Value| -> HashSet<String> {
            let events = body["events"].as_array().expect("a list");
            events.iter().map(|event| event["channel"].as_str().expect("a name").to_owned()).collect()
        };
        let endpoint = attempt.endpoint.url.clone();
        let beside: Vec<&Attempt> =
            self.in_flight.iter().filter(|other| other.endpoint == attempt.endpoint).collect();
        assert!(beside.len() < limits.concurrency, "too many requests at a time");
        for other in beside {
            let other: Value = serde_json::from_str(&other.body).expect("JSON");
            assert!(channels(&other).is_disjoint(&channels(&body)), "requests of one channel overlap");
        }
        let first = self.bodies.entry(attempt.id.to_string()).or_insert_with(|| attempt.body.clone());
        assert_eq!(*first, attempt.body);
        if attempt.number == 1 {
            for event in body["events"].as_array().expect("a list") {
                let channel = event["channel"].as_str().expect("a name").to_owned();
                let count = event["subscription_count"].as_u64().expect("a number");
                let last = self.last.insert((endpoint.clone(), channel), count);
                assert!(last < Some(count), "first attempts are out of order");
            }
        }
        self.in_flight.push(attempt);
    }

    /// To be called after each step: the ring has room for what one step can add.
    fn look_at_dead_letters(&mut self, queue: &Queue) {
        self.dead.extend(queue.dead().all().map(|dead| (dead.id.to_string(), dead.count)));
    }
}

proptest! {
    #[test]
    fn whatever_happens_every_event_ends_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..300),
        concurrency in 1..4_usize,
        room in 5..60_usize,
    ) {
        let limits = Limits {
            concurrency, bytes_max: room * EVENT_OVERHEAD, dead_letters_max: 10_000, ..LIMITS
        };
        let apps = [app("1", &["a", "b"]), batching(&app("2", &["c"])), batching(&app("3", &["d", "e"]))];
        let (mut desk, mut watch) = (Desk::with(limits), Watch::default());
        let mut told = 0;
        let mut accepted = 0;
        for step in steps {
            match step {
                Step::Tell { app, channel } => {
                    told += 1;
                    desk.tell(&apps[app], &format!("c{channel}"), told);
                    accepted += apps[app].webhooks.len();
                }
                Step::End { which, good } if which < watch.in_flight.len() => {
                    let attempt = watch.in_flight.swap_remove(which);
                    if good {
                        desk.succeed(&attempt);
                        let done = watch.delivered.entry(attempt.endpoint.url.clone()).or_default();
                        for event in events(&attempt) {
                            prop_assert!(done.insert(event), "delivered twice");
                        }
                    } else {
                        desk.fail(&attempt);
                    }
                }
                Step::End { .. } => {}
                Step::Wait { ms } => desk.wait(Duration::from_millis(ms)),
            }
            while let Some(attempt) = desk.next() {
                watch.began(attempt, &limits);
            }
            watch.look_at_dead_letters(&desk.queue);
            prop_assert!(desk.queue.load().bytes <= limits.bytes_max);
        }
        // Everything ends.
        for attempt in std::mem::take(&mut watch.in_flight) {
            desk.fail(&attempt);
        }
        desk.queue.close_batches(desk.now().at);
        watch.look_at_dead_letters(&desk.queue);
        desk.wait(400 * SECOND);
        watch.look_at_dead_letters(&desk.queue);
        while let Some(attempt) = desk.next() {
            let done = watch.delivered.entry(attempt.endpoint.url.clone()).or_default();
            for event in events(&attempt) {
                prop_assert!(done.insert(event), "delivered twice");
            }
            desk.succeed(&attempt);
        }
        let load = desk.queue.load();
        prop_assert_eq!(load, Load { dead_letters: load.dead_letters, ..Load::default() });
        prop_assert_eq!(desk.queue.wake(), None);
        let delivered: usize = watch.delivered.values().map(HashSet::len).sum();
        let dead: usize = watch.dead.values().sum();
        prop_assert_eq!(delivered + dead + desk.queue.take_tally().queue_full, accepted);
    }
}

/// A node with an app, and a subscription to a channel of it that the story may make.
fn node(config: Config, app: &App) -> (Arc<Node>, impl Fn(&str) + use<>) {
    let node = Node::new(config, Apps::new([app.clone()]).expect("an app"));
    let (app, occupied) = (app.clone(), node.clone());
    let subscribe = move |channel: &str| {
        let channel = &ChannelName::parse(channel, 200).expect("a name");
        let (app, worker, now) = (&app, WorkerId(0), Instant::now());
        let new = Subscription { app, channel, worker, member: None, notice: None, now };
        occupied.subscribe(new, Ticket(0)).expect("room");
    };
    (node, subscribe)
}

#[test]
fn what_piles_up_in_the_outlet_is_bounded_and_counted() {
    let mut config = Config::default();
    config.webhooks.queue_bytes_max = 65_536;
    let (node, subscribe) = node(config, &app("1", &["a"]));
    (0..2000).for_each(|number| subscribe(&format!("room-{number}")));
    let mut mailbox = node.take_occurrences().expect("nobody has it");
    let mut taken = Vec::new();
    mailbox.take_waiting(&mut taken);
    let dropped = node.metrics().webhooks.dropped_so_far(Dropped::Overload);
    assert!(!taken.is_empty() && taken.len() < 2000);
    assert_eq!(u64::try_from(2000 - taken.len()), Ok(dropped));
    subscribe("one-more");
    mailbox.take_waiting(&mut taken);
    assert_eq!(taken.last().map(|last| last.channel.as_str()), Some("one-more"), "there is room again");
}

#[test]
fn client_events_are_told_in_the_order_in_which_subscribers_get_them() {
    let app = app("1", &["a"]);
    let config = Config { server: Server { workers: 1, ..Server::default() }, ..Config::default() };
    let (node, subscribe) = node(config, &app);
    subscribe("private-room");
    let channel = ChannelName::parse("private-room", 200).expect("a name");
    let socket_id = SocketId::parse("1.1").expect("an id").expect("one of ours");
    let say = |name: &str| {
        for number in 0..2000 {
            let (event, data) = (format!("\"client-{name}-{number}\""), "\"\"");
            let frame = Frame::client_event(&channel, &event, data, None);
            let fact = ClientEventFact { event: event.into(), data: data.into(), socket_id, user_id: None };
            let (event, told, now) = (Event::Passing(frame), Some(Box::new(fact)), Instant::now());
            node.publish(Publish { app: &app, channel: &channel, event, except: None, told, now });
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| say("a"));
        threads.spawn(|| say("b"));
    });
    let (mut told, mut delivered) = (Vec::new(), Vec::new());
    node.take_occurrences().expect("nobody has it").take_waiting(&mut told);
    node.take_mailbox().expect("nobody has it").1.take_waiting(&mut delivered);
    let mut told = told.into_iter().filter_map(|occurrence| match occurrence.fact {
        Fact::ClientEvent(fact) => Some(fact.event),
        _ => None,
    });
    for letter in delivered {
        let Letter::Deliver(Delivery { body: Body::Frame(frame), .. }, _) = letter else { continue };
        let event = told.next().expect("it is told");
        let wire = String::from_utf8_lossy(frame.wire()).into_owned();
        assert!(wire.contains(&*event), "{event} is told when {wire} is delivered");
    }
    assert_eq!(told.next(), None);
}

#[test]
fn dead_letters_are_listed_and_replayed_by_whoever_asks() {
    actix_rt::System::new().block_on(async {
        let mut config = Config::default();
        config.webhooks.retry_s = 0;
        let (node, subscribe) = node(config, &app("1", &["user:hush@10.0.0.1"]));
        let webhooks = start(&node).await.expect("no state file");
        let desk = webhooks.desk();
        subscribe("news");
        let list = async || loop {
            let (reply, letters) = oneshot::channel();
            desk.send(Question::DeadLetters(Selection::All, reply)).expect("somebody");
            let letters = letters.await.expect("an answer");
            if !letters.is_empty() {
                return letters;
            }
            tokio::task::yield_now().await;
        };
        let dead = list().await.remove(0);
        assert_eq!((&*dead.url, dead.attempts), ("http://********@10.0.0.1/", 1));
        assert!(dead.error.contains("webhooks.allowed_networks"), "{}", dead.error);
        let (reply, replayed) = oneshot::channel();
        desk.send(Question::Replay(Selection::Id(dead.id.clone()), reply)).expect("somebody");
        assert_eq!(replayed.await, Ok(1));
        let again = list().await.remove(0);
        assert_eq!((again.id, again.attempts), (dead.id, 1));
        assert!(again.time_ms >= dead.time_ms);
        webhooks.finish(SECOND).await;
    });
}
