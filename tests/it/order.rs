//! The order of events and their completeness, however publishers and subscribers interleave.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use serde_json::{Value, json};

use crate::support::{Api, Broker, Client, Http, Opcode, frame, subscribe_frame, until};

/// More workers than processors, so that they take turns at odd moments.
const WORKERS: &str = "server.workers = 4";

/// Publishes `1, 2, 3…` over one kept-alive connection until told to stop.
struct Counter {
    /// The highest number whose request may be on its way.
    started: AtomicU64,
    stop: AtomicBool,
}

impl Counter {
    fn new() -> Self {
        Self { started: AtomicU64::new(0), stop: AtomicBool::new(false) }
    }

    /// Publishes `together` events at a time, so that they wait together for their workers.
    fn run(&self, api: &Api, channel: &str, together: u64) {
        let mut http = Http::connect(api.address());
        let mut next = 1;
        while !self.stop.load(Ordering::SeqCst) {
            let event = |number: u64| json!({ "name": "e", "channel": channel, "data": number.to_string() });
            let batch: Vec<Value> = (next..next + together).map(event).collect();
            next += together;
            self.started.store(next - 1, Ordering::SeqCst);
            http.send(api.post("/batch_events", &json!({ "batch": batch })).bytes());
            http.reply().ok();
        }
    }

    /// Publishes while `visitors` threads visit, and stops when they are through.
    fn race(&self, api: &Api, channel: &str, together: u64, visitors: usize, visit: impl Fn() + Sync) {
        thread::scope(|scope| {
            scope.spawn(|| self.run(api, channel, together));
            let visitors: Vec<_> = (0..visitors).map(|_| scope.spawn(&visit)).collect();
            let outcomes: Vec<_> = visitors.into_iter().map(thread::ScopedJoinHandle::join).collect();
            self.stop.store(true, Ordering::SeqCst);
            outcomes.into_iter().for_each(|outcome| outcome.expect("a visitor without complaints"));
        });
    }
}

fn number_of(data: &str) -> u64 {
    data.parse().unwrap_or_else(|error| panic!("{error}: {data}"))
}

#[track_caller]
fn check_subscription_race(together: u64) {
    let broker = Broker::with(WORKERS);
    let (api, counter) = (broker.api(), Counter::new());
    counter.race(api, "race", together, 6, || (0..40).for_each(|_| visit_the_race(api, &counter)));
}

/// Subscribes, hears some numbers without a gap, leaves and comes back on the same connection.
fn visit_the_race(api: &Api, counter: &Counter) {
    let mut client = api.connect();
    for _ in 0..3 {
        client.subscribe("race");
        let published = counter.started.load(Ordering::SeqCst);
        let first = number_of(&client.expect_text_of("race", "e"));
        assert!(first <= published + 1, "{first} came first, {published} was on its way");
        for next in first + 1..first + 12 {
            assert_eq!(number_of(&client.expect_text_of("race", "e")), next);
        }
        client.unsubscribe("race");
        client.ping();
        while client.next()["event"] != "pusher:pong" {}
    }
}

#[test]
fn p23_a_subscription_racing_a_publisher_has_no_gap_and_no_early_event() {
    check_subscription_race(1);
}

#[test]
fn p23_a_subscription_racing_a_publisher_of_batches_has_none_either() {
    check_subscription_race(10);
}

/// The only subscriber of a channel leaves and returns in one breath, so that the channel ends and
/// begins anew while events of its first life are still under way.
#[test]
fn p23_returning_in_one_breath_has_no_gap_and_no_early_event() {
    let broker = Broker::with(WORKERS);
    let (api, counter) = (broker.api(), Counter::new());
    let unsubscribe = json!({ "event": "pusher:unsubscribe", "data": { "channel": "race" } }).to_string();
    let mut breath = frame(true, Opcode::TEXT, unsubscribe.as_bytes());
    breath.extend(frame(true, Opcode::TEXT, subscribe_frame("race").as_bytes()));
    counter.race(api, "race", 5, 1, || {
        let mut client = api.raw();
        client.send_text(&subscribe_frame("race"));
        for _ in 0..400 {
            // What was under way to the first life may still come, and nothing else.
            while client.expect_json()["event"] != "pusher_internal:subscription_succeeded" {}
            let mut number = || number_of(client.expect_json()["data"].as_str().expect("a string"));
            let first = number();
            for next in first + 1..first + 4 {
                assert_eq!(number(), next);
            }
            client.send_bytes(&breath);
        }
    });
}

#[test]
fn p28_a_cache_channel_racing_a_publisher_replays_without_a_gap() {
    let broker = Broker::with(WORKERS);
    broker.publish("cache-race", "e", "0");
    let (api, counter) = (broker.api(), Counter::new());
    counter.race(api, "cache-race", 3, 4, || {
        for _ in 0..60 {
            let mut client = api.subscriber("cache-race");
            let cached = number_of(&client.expect_text_of("cache-race", "e"));
            for next in cached + 1..cached + 8 {
                assert_eq!(number_of(&client.expect_text_of("cache-race", "e")), next);
            }
        }
    });
}

#[test]
fn p38_all_subscribers_hear_all_publishers_in_one_order() {
    let broker = Broker::with(WORKERS);
    let mut listeners: Vec<Client> = (0..8).map(|_| broker.subscriber("news")).collect();
    thread::scope(|scope| {
        for publisher in 0..4 {
            let api = broker.api();
            scope.spawn(move || {
                for number in 0..100 {
                    api.publish("news", "e", &format!("{publisher}:{number}"));
                }
            });
        }
    });
    let order: Vec<String> = (0..400).map(|_| listeners[0].expect_text_of("news", "e")).collect();
    for publisher in 0..4 {
        let own = order.iter().filter(|data| data.starts_with(&format!("{publisher}:")));
        let expected: Vec<String> = (0..100).map(|number| format!("{publisher}:{number}")).collect();
        assert_eq!(own.cloned().collect::<Vec<_>>(), expected);
    }
    for listener in &mut listeners[1..] {
        for data in &order {
            assert_eq!(&listener.expect_text_of("news", "e"), data);
        }
    }
}

/// More than a worker serves in one go, so that others come and go in the middle of a delivery.
#[test]
fn p38_a_large_audience_hears_all_in_one_order_while_others_come_and_go() {
    let broker = Broker::with(WORKERS);
    let mut audience: Vec<Client> = (0..900).map(|_| broker.subscriber("arena")).collect();
    let (api, over) = (broker.api(), &AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let mut visitors: Vec<Client> = (0..10).map(|_| api.subscriber("arena")).collect();
                    visitors.iter_mut().for_each(|visitor| visitor.unsubscribe("arena"));
                }
            });
        }
        let publishers: Vec<_> = (0..3)
            .map(|publisher| {
                scope.spawn(move || {
                    for number in 0..20 {
                        api.publish("arena", "e", &format!("{publisher}:{number}"));
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = publishers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        outcomes.into_iter().for_each(|outcome| outcome.expect("a publisher without complaints"));
    });
    broker.publish("arena", "marker", "");
    let order: Vec<String> = (0..60).map(|_| audience[0].expect_text_of("arena", "e")).collect();
    for client in &mut audience[1..] {
        for data in &order {
            assert_eq!(&client.expect_text_of("arena", "e"), data);
        }
        client.expect_event("arena", "marker", "");
    }
}

#[test]
fn p79_exclusions_hold_for_events_that_wait_together() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = (0..4).map(|_| broker.subscriber("news")).collect();
    let mut requests = Vec::new();
    let excluded = |number: usize| number % 5; // the fifth is nobody
    for number in 0..200 {
        let mut event = json!({ "name": "e", "channel": "news", "data": number.to_string() });
        if let Some(client) = clients.get(excluded(number)) {
            event["socket_id"] = json!(client.id());
        }
        requests.extend(broker.post("/events", &event).bytes());
    }
    let mut http = Http::connect(broker.address());
    http.send(requests);
    (0..200).for_each(|_| assert_eq!(http.reply().ok(), json!({})));
    for (at, client) in clients.iter_mut().enumerate() {
        for number in (0..200).filter(|number| excluded(*number) != at) {
            client.expect_event("news", "e", &number.to_string());
        }
        client.expect_silence();
    }
}

/// An event to many takes a while; meanwhile only so much may wait.
#[test]
fn an_overloaded_broker_answers_503_and_delivers_exactly_what_it_accepted() {
    let broker = Broker::with("server.mailbox_bytes_max = 65536");
    let mut audience: Vec<Client> = (0..300).map(|_| broker.subscriber("arena")).collect();
    let pad = "x".repeat(10_000);
    let mut requests = Vec::new();
    for number in 0..60 {
        let data = format!("{number}:{pad}");
        let event = json!({ "name": "e", "channel": "arena", "data": data });
        requests.extend(broker.post("/events", &event).bytes());
    }
    let mut http = Http::connect(broker.address());
    http.send(requests);
    let mut accepted = Vec::new();
    for number in 0..60 {
        let reply = http.reply();
        if reply.status == 503 {
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            assert!(!reply.text().is_empty());
        } else {
            reply.ok();
            accepted.push(number);
        }
    }
    assert!(!accepted.is_empty() && accepted.len() < 60, "accepted: {accepted:?}");
    let marker = json!({ "name": "marker", "channel": "arena", "data": "" });
    // Behind pipelined requests a server may end the connection, so this is another one.
    let mut http = Http::connect(broker.address());
    until("room for another event", || {
        http.send(broker.post("/events", &marker).bytes());
        http.reply().status == 200
    });
    for client in &mut audience {
        for number in &accepted {
            let data = client.expect_text_of("arena", "e");
            assert!(data.starts_with(&format!("{number}:")), "instead of {number} came {data:.20}");
        }
        client.expect_event("arena", "marker", "");
    }
}
