//! Users of several nodes.

use serde_json::json;

use super::super::Cluster;
use crate::support::watcher;

const ANN: &str = "#server-to-user-ann";

#[test]
fn p54_a_message_comes_once_to_each_connection_of_its_user_on_all_nodes() {
    let cluster = Cluster::of(2);
    let mut plain = cluster[0].signed_in("ann");
    let mut subscribed = cluster[1].signed_in("ann");
    subscribed.subscribe(ANN);
    let mut bob = cluster[1].signed_in("bob");
    for node in [0, 1] {
        cluster[node].publish(ANN, "hello", "{\"x\":1}");
        plain.expect_event(ANN, "hello", "{\"x\":1}");
        subscribed.expect_event(ANN, "hello", "{\"x\":1}");
    }
    cluster[0].publish("#server-to-user-bob", "marker", "");
    bob.expect_event("#server-to-user-bob", "marker", "");
    plain.expect_served();
    subscribed.expect_served();
}

#[test]
fn p54_who_has_left_one_node_is_still_reached_on_another() {
    let cluster = Cluster::of(2);
    let first = cluster[0].signed_in("ann");
    let mut second = cluster[1].signed_in("ann");
    first.leave();
    cluster[0].publish(ANN, "e", "x");
    second.expect_event(ANN, "e", "x");
}

#[test]
fn p56_who_is_online_on_any_node_is_told_after_signing_in() {
    let cluster = Cluster::of(2);
    let _bob = cluster[1].signed_in("bob");
    let mut ann = cluster[0].connect();
    let events = ann.watch(&watcher("ann", &["bob", "cid"]));
    let wanted =
        json!([{ "name": "online", "user_ids": ["bob"] }, { "name": "offline", "user_ids": ["cid"] }]);
    assert_eq!(events, wanted);
}

#[test]
fn p56_a_user_who_watches_itself_is_online() {
    let cluster = Cluster::of(2);
    for node in [0, 1] {
        let mut ann = cluster[node].connect();
        let events = ann.watch(&watcher("ann", &["ann"]));
        assert_eq!(events, json!([{ "name": "online", "user_ids": ["ann"] }]));
        ann.leave();
    }
}

#[test]
fn p57_watchers_on_all_nodes_hear_of_the_first_and_last_connection_in_the_cluster() {
    let cluster = Cluster::of(3);
    let mut watchers = [cluster[0].connect(), cluster[1].connect(), cluster[2].connect()];
    for (number, watching) in watchers.iter_mut().enumerate() {
        watching.watch(&watcher(&format!("w{number}"), &["bob"]));
    }
    for _ in 0..2 {
        let first = cluster[0].signed_in("bob");
        watchers.iter_mut().for_each(|watcher| watcher.expect_watched("online", "bob"));
        let second = cluster[1].signed_in("bob");
        first.leave();
        cluster[2].signed_in("bob").leave();
        second.leave();
        // The next thing that any of them hears: the connections in between were none of their business.
        watchers.iter_mut().for_each(|watcher| watcher.expect_watched("offline", "bob"));
    }
}

#[test]
fn p58_terminating_closes_every_connection_of_the_user_on_all_nodes() {
    let cluster = Cluster::of(3);
    for from in [0, 2] {
        let tabs = [cluster[0].signed_in("ann"), cluster[1].signed_in("ann"), cluster[1].signed_in("ann")];
        let mut bob = cluster[1].signed_in("bob");
        let mut namesake = cluster[0].joined("presence-room", "ann");
        cluster[from].terminate("ann");
        for tab in tabs {
            assert_eq!(tab.expect_end_with(4009), "You got disconnected by the app.");
        }
        bob.expect_served();
        namesake.expect_served();
        // Whoever comes back is let in.
        cluster[1].signed_in("ann").expect_served();
        namesake.leave();
    }
}

#[test]
fn p59_python_terminates_on_all_nodes() {
    let cluster = Cluster::of(2);
    let ann = cluster[1].signed_in("ann");
    let reply = cluster[0].request("POST", "/users/ann/terminate_connections", "{}").send();
    assert_eq!(reply.ok(), json!({}));
    ann.expect_end_with(4009);
}
