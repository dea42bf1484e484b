//! What one app may use of the server, and how it is told that it is enough.

use serde_json::json;

use crate::support::{Broker, Reply};

/// A refusal for a moment: 429, and when to come again.
#[track_caller]
fn expect_too_many(reply: &Reply, words: &str) {
    assert_eq!(reply.status, 429, "{reply:?}");
    assert!(reply.body.contains(words), "{reply:?}");
    let after: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=2).contains(&after), "{reply:?}");
}

const MEASURED: &str = "metrics.bind = \"127.0.0.1:0\"";

/// How often something was over the limit of this setting.
#[track_caller]
fn refused(broker: &Broker, limit: &str) -> f64 {
    broker.figure(&format!("fanfare_limit_refusals_total{{limit=\"{limit}\"}}"))
}

#[test]
fn calls_of_an_app_are_limited_together_and_other_apps_are_not() {
    let app = |id: u32, more: &str| {
        format!("[[apps]]\nid = \"{id}\"\nkeys = [{{ key = \"k{id}\", secret = \"s{id}\" }}]\n{more}\n")
    };
    let broker = Broker::with_apps(MEASURED, &(app(1, "requests_per_s = 3") + &app(2, "")));
    let (limited, free) = (broker.of_app("1", "k1", "s1"), broker.of_app("2", "k2", "s2"));
    let replies: Vec<Reply> = (0..20).map(|_| limited.get("/channels").send()).collect();
    let too_many: Vec<&Reply> = replies.iter().filter(|reply| reply.status != 200).collect();
    let first = too_many.first().expect("a refusal");
    expect_too_many(first, "API calls of this app: more than 3 per second");
    assert_eq!(refused(&broker, "requests_per_s"), too_many.len() as f64);
    assert!(replies[..3].iter().all(|reply| reply.status == 200), "{replies:?}");
    (0..20).for_each(|_| drop(free.get("/channels").send().ok()));
    // Who is not let in spends nothing of it.
    let stranger = broker.of_app("2", "k2", "wrong");
    (0..20).for_each(|_| assert_eq!(stranger.get("/channels").send().status, 401));
    free.get("/channels").send().ok();
}

#[test]
fn every_channel_of_a_publish_counts() {
    let broker = Broker::of(MEASURED, "publishes_per_s = 10");
    let mut client = broker.subscriber("a");
    let to = |channels: &[&str], data: &str| {
        broker.trigger(&json!({ "name": "e", "channels": channels, "data": data }))
    };
    to(&["a", "b", "c", "d", "e", "f"], "first").ok();
    let second = to(&["a", "b", "c", "d", "e", "f"], "second");
    expect_too_many(&second, "Published events of this app: more than 10 per second");
    let event = json!({ "name": "e", "channel": "a", "data": "batch" });
    let batch = broker.post("/batch_events", &json!({ "batch": vec![&event; 9] })).send();
    expect_too_many(&batch, "more than 10 per second");
    assert_eq!(refused(&broker, "publishes_per_s"), 2.0);
    to(&["a"], "third").ok();
    client.expect_event("a", "e", "first");
    client.expect_event("a", "e", "third");
    client.expect_served();
}

#[test]
fn p65_client_events_of_all_connections_have_a_limit_of_their_own() {
    let broker = Broker::of(MEASURED, "client_events = true\nall_client_events_per_s = 5");
    let mut listener = broker.subscriber("private-room");
    let mut speakers: Vec<_> = (0..20).map(|_| broker.subscriber("private-room")).collect();
    let mut delivered = 0;
    for speaker in &mut speakers {
        speaker.say("private-room", "client-hi", &json!("x"));
        speaker.ping();
        let mut answer = speaker.next();
        while answer["event"] == "client-hi" {
            answer = speaker.next();
        }
        if answer["event"] == "pusher:error" {
            assert_eq!(answer["data"]["code"], 4301, "{answer}");
            let message = answer["data"]["message"].as_str().expect("words");
            assert!(message.contains("5 per second for the whole application"), "{message}");
        } else {
            assert_eq!(answer["event"], "pusher:pong");
            delivered += 1;
        }
    }
    assert!((5..20).contains(&delivered), "{delivered}");
    assert_eq!(refused(&broker, "all_client_events_per_s"), f64::from(20 - delivered));
    (0..delivered).for_each(|_| listener.expect_event("private-room", "client-hi", "x"));
}

#[test]
fn a_connection_has_no_more_subscriptions_than_it_may() {
    let broker = Broker::of(MEASURED, "subscriptions_max = 2");
    let mut client = broker.signed_in("ann");
    client.subscribe("a");
    client.subscribe("private-b");
    client.ask(&json!({ "channel": "c" }));
    client.expect_refusal("c", "LimitReached", "This connection has the maximum of 2 subscriptions");
    assert_eq!(refused(&broker, "subscriptions_max"), 1.0);
    client.unsubscribe("a");
    client.subscribe("c");
    broker.connect().subscribe("a");
}

#[test]
fn an_app_has_no_more_channels_than_it_may() {
    let broker = Broker::of(MEASURED, "channels_max = 2");
    let first = broker.subscriber("a");
    let mut second = broker.subscriber("b");
    second.ask(&json!({ "channel": "c" }));
    second.expect_refusal("c", "LimitReached", "This application has the maximum of 2 channels");
    assert_eq!(refused(&broker, "channels_max"), 1.0);
    second.subscribe("a");
    // Users and those who watch them are no channels of the app.
    drop(broker.signed_in("ann"));
    first.leave();
    second.unsubscribe("b");
    second.subscribe("c");
}
