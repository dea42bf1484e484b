//! `subscription_count`: how many listen, told to those who do.

use std::time::Instant;

use serde_json::json;

use crate::support::{Broker, Client};

const COUNTS: &str = "subscription_counts = true\nclient_events = true";

#[track_caller]
fn expect_count(client: &mut Client, channel: &str, count: u64) {
    let data = client.expect_on(channel, "pusher_internal:subscription_count");
    assert_eq!(data, json!({ "subscription_count": count }));
}

#[test]
fn p37_counts_are_off_by_default() {
    let broker = Broker::start();
    let mut first = broker.subscriber("news");
    let _second = broker.subscriber("news");
    first.expect_silence();
}

#[test]
fn p37_every_subscriber_hears_of_each_change() {
    let broker = Broker::with_app(COUNTS);
    let mut first = broker.subscriber("news");
    expect_count(&mut first, "news", 1);
    let mut second = broker.subscriber("news");
    expect_count(&mut first, "news", 2);
    expect_count(&mut second, "news", 2);
    let mut third = broker.subscriber("news");
    for client in [&mut first, &mut second, &mut third] {
        expect_count(client, "news", 3);
    }

    second.unsubscribe("news");
    expect_count(&mut first, "news", 2);
    third.leave();
    expect_count(&mut first, "news", 1);

    second.expect_served();
    broker.publish("news", "marker", "");
    first.expect_event("news", "marker", "");
}

#[test]
fn p37_connections_are_counted_and_repeated_subscriptions_are_not() {
    let broker = Broker::with_app(COUNTS);
    let mut client = broker.subscriber("news");
    expect_count(&mut client, "news", 1);
    client.ask(&json!({ "channel": "news" }));
    client.expect_error("Existing subscription to channel news");
    client.expect_served();
}

#[test]
fn p37_all_types_but_presence_are_counted() {
    let broker = Broker::with_app(COUNTS);
    let mut client = broker.connect();
    for channel in ["private-room", "private-encrypted-room"] {
        client.subscribe(channel);
        expect_count(&mut client, channel, 1);
    }
    for channel in ["cache-room", "private-cache-room"] {
        client.subscribe(channel);
        let mut events = [client.next(), client.next()].map(|frame| frame["event"].clone());
        events.sort_by_key(ToString::to_string);
        assert_eq!(events, ["pusher:cache_miss", "pusher_internal:subscription_count"]);
    }
    client.join("presence-room", r#"{"user_id":"ann"}"#);
    client.expect_served();
    let mut bob = broker.joined("presence-room", "bob");
    client.expect_member_added("presence-room", "bob");
    bob.expect_served();
    client.expect_served();
}

#[test]
fn p37_counts_of_large_channels_are_told_at_intervals() {
    let broker = Broker::with_app(COUNTS);
    let mut watcher = broker.subscriber("news");
    expect_count(&mut watcher, "news", 1);
    let mut crowd: Vec<Client> = Vec::new();
    for count in 2..=100 {
        crowd.push(broker.subscriber("news"));
        expect_count(&mut watcher, "news", count);
    }
    // Above 100 there is at most one telling in five seconds: these forty share one or two.
    let started = Instant::now();
    for _ in 0..40 {
        let mut client = broker.connect();
        client.ask(&json!({ "channel": "news" }));
        client.expect_succeeded("news");
        crowd.push(client);
    }
    let mut tellings = 0;
    loop {
        let data = watcher.expect_on("news", "pusher_internal:subscription_count");
        tellings += 1;
        if data["subscription_count"] == 140 {
            break;
        }
    }
    assert!(tellings <= started.elapsed().as_secs() / 5 + 1, "{tellings} tellings of 40 changes");
}
