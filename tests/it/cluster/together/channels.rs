//! Channels of several nodes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::Cluster;
use crate::support::{Client, until_equal};

const ROOM: &str = "private-room";

/// A subscriber on each node.
#[track_caller]
fn subscribers(cluster: &Cluster, channel: &str) -> Vec<Client> {
    cluster.nodes().map(|(_, node)| node.subscriber(channel)).collect()
}

#[test]
fn p5_no_two_nodes_give_the_same_socket_id() {
    let cluster = Cluster::of(2);
    let clients: Vec<Client> = (0..100).map(|number| cluster[number % 2].connect()).collect();
    let ids: HashSet<&str> = clients.iter().map(Client::id).collect();
    assert_eq!(ids.len(), clients.len());
}

#[test]
fn p38_p39_an_event_comes_to_every_node_to_the_byte() {
    let cluster = Cluster::of(3);
    let mut clients = subscribers(&cluster, "news");
    let data = "Zoë \u{2028} \\ \" \n {\"a\" : 1.0}";
    for (number, node) in cluster.nodes() {
        let name = format!("App\\Event \"{number}\"");
        node.publish("news", &name, data);
        for client in &mut clients {
            client.expect_event("news", &name, data);
        }
    }
}

#[test]
fn p38_events_of_all_nodes_have_one_order_everywhere() {
    const EACH: usize = 60;
    let cluster = Cluster::of(3);
    let mut clients = subscribers(&cluster, "news");
    let publishers: Vec<_> = cluster
        .nodes()
        .map(|(node, broker)| {
            let api = broker.api().clone();
            std::thread::spawn(move || {
                (0..EACH).for_each(|number| api.publish("news", "e", &format!("{node}-{number}")));
            })
        })
        .collect();
    let mut heard: Vec<Vec<String>> = Vec::new();
    for client in &mut clients {
        heard.push((0..3 * EACH).map(|_| client.expect_text_of("news", "e")).collect());
    }
    publishers.into_iter().for_each(|publisher| publisher.join().expect("all are accepted"));
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
    for node in 0..3 {
        let own = heard[0].iter().filter(|text| text.starts_with(&format!("{node}-")));
        let wanted: Vec<String> = (0..EACH).map(|number| format!("{node}-{number}")).collect();
        assert!(own.eq(&wanted), "what one publisher sends one after the other keeps its order");
    }
}

#[test]
fn p66_p67_client_events_come_to_all_nodes_and_not_to_the_sender() {
    let cluster = Cluster::of(2);
    let mut ann = cluster[0].subscriber(ROOM);
    let mut tab = cluster[0].subscriber(ROOM);
    let mut bob = cluster[1].subscriber(ROOM);
    ann.say(ROOM, "client-x", &json!({ "keys": [1, "é"] }));
    for other in [&mut tab, &mut bob] {
        other.expect_event(ROOM, "client-x", "{\"keys\":[1,\"é\"]}");
    }
    bob.say(ROOM, "client-x", &json!("back"));
    // The first thing that either of the senders hears is what the other one said.
    ann.expect_event(ROOM, "client-x", "back");
    tab.expect_event(ROOM, "client-x", "back");
    cluster[0].publish(ROOM, "marker", "");
    bob.expect_event(ROOM, "marker", "");
}

#[test]
fn p68_client_events_on_presence_channels_name_their_user_on_all_nodes() {
    let cluster = Cluster::of(2);
    let mut ann = cluster[0].joined("presence-room", "ann");
    let mut bob = cluster[1].joined("presence-room", "bob");
    ann.expect_member_added("presence-room", "bob");
    bob.say("presence-room", "client-x", &json!(1));
    let mut wanted =
        json!({ "event": "client-x", "channel": "presence-room", "data": "1", "user_id": "bob" });
    ann.expect(&wanted);
    ann.say("presence-room", "client-x", &json!(2));
    (wanted["data"], wanted["user_id"]) = (json!("2"), json!("ann"));
    bob.expect(&wanted);
}

#[test]
fn p79_the_excluded_connection_is_left_out_on_whatever_node() {
    let cluster = Cluster::of(2);
    let mut clients = [cluster[0].subscriber("news"), cluster[1].subscriber("news")];
    for publisher in [0, 1] {
        for excluded in [0, 1] {
            let id = clients[excluded].id().to_owned();
            let event = json!({ "name": "e", "channel": "news", "data": "x", "socket_id": id });
            cluster[publisher].trigger(&event).ok();
            clients[1 - excluded].expect_event("news", "e", "x");
            cluster[publisher].publish("news", "marker", "");
            clients.iter_mut().for_each(|client| client.expect_event("news", "marker", ""));
        }
    }
}

#[test]
fn p76_one_event_to_several_channels_comes_once_on_each() {
    let cluster = Cluster::of(2);
    let channels: Vec<String> = (0..20).map(|number| format!("room-{number}")).collect();
    let mut clients = [cluster[0].connect(), cluster[1].connect()];
    for client in &mut clients {
        channels.iter().for_each(|channel| client.subscribe(channel));
    }
    let event = json!({ "name": "e", "channels": channels, "data": "x" });
    cluster[0].trigger(&event).ok();
    let mut wanted = channels.clone();
    wanted.sort();
    for client in &mut clients {
        let mut seen: Vec<String> = channels
            .iter()
            .map(|_| client.next())
            .map(|frame| frame["channel"].as_str().expect("a channel").to_owned())
            .collect();
        seen.sort();
        assert_eq!(seen, wanted);
    }
}

#[test]
fn p81_a_batch_comes_in_order_on_all_nodes() {
    let cluster = Cluster::of(2);
    let mut clients = subscribers(&cluster, "news");
    for node in [0, 1] {
        let event = |number: usize| json!({ "name": "e", "channel": "news", "data": number.to_string() });
        let batch: Vec<Value> = (0..10).map(event).collect();
        cluster[node].post("/batch_events", &json!({ "batch": batch })).send().ok();
        for client in &mut clients {
            (0..10).for_each(|number| client.expect_event("news", "e", &number.to_string()));
        }
    }
}

#[test]
fn p81_a_batch_comes_in_order_through_several_channels_too() {
    let cluster = Cluster::of(2);
    let channels: Vec<String> = (0..10).map(|number| format!("room-{number}")).collect();
    let mut clients = [cluster[0].connect(), cluster[1].connect()];
    for client in &mut clients {
        channels.iter().for_each(|channel| client.subscribe(channel));
    }
    for round in 0..20 {
        let event = |channel: &String| json!({ "name": "e", "channel": channel, "data": channel });
        let batch: Vec<Value> = channels.iter().map(event).collect();
        cluster[round % 2].post("/batch_events", &json!({ "batch": batch })).send().ok();
        for client in &mut clients {
            channels.iter().for_each(|channel| client.expect_event(channel, "e", channel));
        }
    }
}

#[test]
fn p26_who_has_left_on_one_node_hears_nothing_of_another() {
    let cluster = Cluster::of(2);
    let mut stays = cluster[0].subscriber("news");
    let mut leaves = cluster[0].subscriber("news");
    leaves.unsubscribe("news");
    leaves.expect_served();
    cluster[1].publish("news", "e", "x");
    stays.expect_event("news", "e", "x");
    leaves.expect_served();
    leaves.subscribe("news");
    cluster[1].publish("news", "e", "y");
    leaves.expect_event("news", "e", "y");
}

#[test]
fn a_channel_that_was_empty_on_all_nodes_begins_anew() {
    let cluster = Cluster::of(2);
    for round in 0..5 {
        let mut clients = subscribers(&cluster, "news");
        let data = round.to_string();
        cluster[round % 2].publish("news", "e", &data);
        clients.iter_mut().for_each(|client| client.expect_event("news", "e", &data));
        clients.into_iter().for_each(Client::leave);
        let occupied = || cluster[0].channels();
        until_equal("nobody is there any more", &json!({}), occupied);
    }
}

// Cache channels.

#[test]
fn p28_p30_the_last_event_is_replayed_on_every_node() {
    let cluster = Cluster::of(3);
    cluster[0].publish("cache-news", "old", "1");
    cluster[1].publish("cache-news", "new", "2");
    for (_, node) in cluster.nodes() {
        let mut client = node.subscriber("cache-news");
        client.expect_event("cache-news", "new", "2");
        client.leave();
    }
    let mut early = cluster[0].subscriber("cache-news");
    early.expect_event("cache-news", "new", "2");
    let mut excluded = cluster[1].connect();
    let id = excluded.id();
    let event = json!({ "name": "newest", "channel": "cache-news", "data": "3", "socket_id": id });
    cluster[2].trigger(&event).ok();
    early.expect_event("cache-news", "newest", "3");
    // Also to whoever was excluded, and where somebody has listened all the time.
    excluded.subscribe("cache-news");
    excluded.expect_event("cache-news", "newest", "3");
    cluster[0].subscriber("cache-news").expect_event("cache-news", "newest", "3");
}

#[test]
fn p28_client_events_are_cached_on_no_node() {
    let cluster = Cluster::of(2);
    let channel = "private-cache-room";
    let mut ann = cluster[0].subscriber(channel);
    ann.expect_on(channel, "pusher:cache_miss");
    let mut bob = cluster[1].subscriber(channel);
    bob.expect_on(channel, "pusher:cache_miss");
    ann.say(channel, "client-x", &json!("fleeting"));
    bob.expect_event(channel, "client-x", "fleeting");
    for node in [0, 1] {
        cluster[node].subscriber(channel).expect_on(channel, "pusher:cache_miss");
    }
}

#[test]
fn p28_a_cached_event_expires_on_all_nodes() {
    let cluster = Cluster::with_app(2, "cache_ttl_s = 1");
    let mut listener = cluster[1].subscriber("cache-news");
    listener.expect_on("cache-news", "pusher:cache_miss");
    cluster[0].publish("cache-news", "e", "x");
    listener.expect_event("cache-news", "e", "x");
    let cached = || cluster[0].channel("cache-news", "cache")["cache"].clone();
    until_equal("the end of the cached event", &Value::Null, cached);
    for node in [0, 1] {
        cluster[node].subscriber("cache-news").expect_on("cache-news", "pusher:cache_miss");
    }
}

// Subscription counts.

#[track_caller]
fn expect_counts_up_to(client: &mut Client, count: u64) {
    let mut last = 0;
    while last != count {
        let data = client.expect_on("news", "pusher_internal:subscription_count");
        last = data["subscription_count"].as_u64().expect("a number");
        assert!(last <= count, "{last} of {count}");
    }
}

#[test]
fn p37_subscriptions_of_all_nodes_are_counted_and_told_on_all() {
    let cluster = Cluster::with_app(2, "subscription_counts = true");
    let mut first = cluster[0].subscriber("news");
    expect_counts_up_to(&mut first, 1);
    let mut second = cluster[1].subscriber("news");
    expect_counts_up_to(&mut first, 2);
    expect_counts_up_to(&mut second, 2);
    let third = cluster[1].subscriber("news");
    expect_counts_up_to(&mut first, 3);
    expect_counts_up_to(&mut second, 3);
    third.leave();
    let data = first.expect_on("news", "pusher_internal:subscription_count");
    assert_eq!(data, json!({ "subscription_count": 2 }));
    second.leave();
    let data = first.expect_on("news", "pusher_internal:subscription_count");
    assert_eq!(data, json!({ "subscription_count": 1 }));
}
