//! Webhooks of several nodes: each thing is told once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::super::Cluster;
use crate::support::{Answer, Backend, Fleet, Hook, KEY, RedisServer, SECRET, until};

fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

fn member(event: &str, channel: &str, user_id: &str) -> Value {
    json!({ "name": event, "channel": channel, "user_id": user_id })
}

#[test]
fn p90_whichever_node_tells_it_signs() {
    let cluster = Cluster::of(2);
    let mut client = cluster[1].connect();
    (0..20).for_each(|number| client.subscribe(&format!("room-{number}")));
    for _ in 0..20 {
        let hook: Hook = cluster.backend().next();
        hook.expect_signed(KEY, SECRET);
        assert_eq!(hook.header("X-Fanfare-Attempt"), "1");
    }
}

#[test]
fn p96_a_channel_on_all_nodes_is_occupied_once_and_vacated_once() {
    let cluster = Cluster::of(3);
    let clients: Vec<_> = (0..9).map(|number| cluster[number % 3].subscriber("news")).collect();
    assert_eq!(cluster.backend().event(), occupied("news"));
    clients.into_iter().for_each(crate::support::Client::leave);
    // Whatever else was told of the channel would be told before this.
    assert_eq!(cluster.backend().event(), vacated("news"));
    assert!(cluster.backend().so_far().is_empty());
}

#[test]
fn p96_a_user_on_two_nodes_is_added_once_and_removed_once() {
    let cluster = Cluster::of(2);
    let first = cluster[0].joined("presence-room", "ann");
    let second = cluster[1].joined("presence-room", "ann");
    first.leave();
    let third = cluster[0].joined("presence-room", "ann");
    let come = [occupied("presence-room"), member("member_added", "presence-room", "ann")];
    assert_eq!(cluster.backend().events(2), come);
    second.leave();
    third.leave();
    let gone = [vacated("presence-room"), member("member_removed", "presence-room", "ann")];
    assert_eq!(cluster.backend().events(2), gone);
    assert!(cluster.backend().so_far().is_empty());
}

#[test]
fn p94_who_goes_from_one_node_to_another_has_never_been_away() {
    let cluster = Cluster::with(2, "webhooks.debounce_s = 3", "");
    cluster[0].joined("presence-room", "ann").leave();
    let mut ann = cluster[1].joined("presence-room", "ann");
    ann.unsubscribe("presence-room");
    let ann = cluster[0].joined("presence-room", "ann");
    assert_eq!(cluster.backend().events(2).len(), 2);
    ann.leave();
    let gone = [vacated("presence-room"), member("member_removed", "presence-room", "ann")];
    assert_eq!(cluster.backend().events(2), gone);
}

#[test]
fn p92_client_events_and_misses_of_all_nodes_are_told_once() {
    let cluster = Cluster::of(2);
    let backend = cluster.backend();
    let mut ann = cluster[0].subscriber("private-room");
    let mut bob = cluster[1].subscriber("private-room");
    assert_eq!(backend.event(), occupied("private-room"));
    ann.say("private-room", "client-typing", &json!("to the byte \" \\"));
    bob.expect_event("private-room", "client-typing", "to the byte \" \\");
    let said = json!({
        "name": "client_event", "channel": "private-room", "event": "client-typing",
        "data": "to the byte \" \\", "socket_id": ann.id(),
    });
    assert_eq!(backend.event(), said);

    let mut misses: Vec<_> = (0..6).map(|number| cluster[number % 2].subscriber("cache-news")).collect();
    misses.iter_mut().for_each(|client| {
        client.expect_on("cache-news", "pusher:cache_miss");
    });
    let wanted = [json!({ "name": "cache_miss", "channel": "cache-news" }), occupied("cache-news")];
    assert_eq!(backend.events(2), wanted);
    bob.say("private-room", "client-typing", &json!("the end"));
    assert_eq!(backend.event()["data"], "the end");
}

#[test]
fn p92_counts_are_told_of_the_whole_cluster() {
    let cluster = Cluster::with_app(2, "subscription_counts = true");
    let _clients: Vec<_> = (0..4).map(|number| cluster[number % 2].subscriber("news")).collect();
    let mut told = Vec::new();
    until("the last count is told", || {
        told.extend(cluster.backend().so_far().iter().flat_map(Hook::events));
        told.iter().any(|event| event["subscription_count"] == 4)
    });
    let counts = told.iter().filter_map(|event| event["subscription_count"].as_u64());
    assert!(counts.is_sorted(), "{told:?}");
    assert_eq!(told.iter().filter(|event| **event == occupied("news")).count(), 1);
}

#[test]
fn events_of_a_channel_are_told_in_order_whichever_node_they_come_from() {
    let cluster = Cluster::with_app(2, "client_events = true\nclient_events_per_s = 1000");
    let mut clients = [cluster[0].subscriber("private-room"), cluster[1].subscriber("private-room")];
    assert_eq!(cluster.backend().event(), occupied("private-room"));
    for number in 0..40 {
        clients[number % 2].say("private-room", "client-x", &json!(number.to_string()));
        clients[1 - number % 2].expect_event("private-room", "client-x", &number.to_string());
    }
    for number in 0..40 {
        assert_eq!(cluster.backend().event()["data"], number.to_string());
    }
}

#[test]
fn p93_what_a_leaving_node_could_not_deliver_is_told_by_another_and_marked() {
    let is_up = Arc::new(AtomicBool::new(true));
    let up = is_up.clone();
    let backend = Backend::with(move |_| Answer::Status(if up.load(Ordering::SeqCst) { 200 } else { 503 }));
    let redis = RedisServer::start();
    let mut fleet = Fleet::telling(backend, &redis, 2, "", "");
    let mut client = fleet[1].connect();
    // The node that came first has every turn until it knows of the other, and keeps what it cannot deliver.
    let mut early = 0;
    until("both have turns", || {
        client.subscribe(&format!("early-{early}"));
        early += 1;
        (0..2).all(|node| fleet[node].figure("fanfare_webhook_attempts_total{outcome=\"delivered\"}") > 0.0)
    });
    (0..early).for_each(|_| drop(fleet.backend().next()));
    is_up.store(false, Ordering::SeqCst);
    let waiting = |node: usize| fleet[node].figure("fanfare_webhook_deliveries");
    let mut rooms: u32 = 0;
    until("each node has a share", || {
        client.subscribe(&format!("room-{rooms}"));
        rooms += 1;
        waiting(0) > 0.0 && waiting(1) > 0.0
    });
    until("everything waits", || waiting(0) + waiting(1) >= f64::from(rooms));
    let left_behind = waiting(0);
    fleet.stop(0);
    fleet.backend().so_far();
    is_up.store(true, Ordering::SeqCst);
    let mut told = BTreeMap::new();
    while told.len() < usize::try_from(rooms).expect("few") {
        let hook = fleet.backend().next();
        let is_marked = hook.head.contains("X-Fanfare-Redelivery: true\r\n");
        let before = told.insert(hook.events().remove(0)["channel"].to_string(), is_marked);
        // The last one in vain may have come just before.
        assert!(before.is_none_or(|before| before == is_marked), "{hook:?}");
    }
    let marked = told.values().filter(|is_marked| **is_marked).count();
    assert_eq!(u32::try_from(marked).map(f64::from), Ok(left_behind), "{told:?}");
}
