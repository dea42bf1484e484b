//! Nodes that die, freeze, stop and come back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    Answer, Backend, Fleet, HEALED_WITHIN, Load, RedisServer, Trouble, member, until_equal, watcher,
};

#[test]
fn a_node_that_is_killed_is_given_up_and_comes_back() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);

    load.trouble(Trouble::Ends(1));
    fleet.kill(1);
    load.go_on(&fleet, 30);
    fleet.until_counted(0, 2.0);
    fleet.until_counted(2, 2.0);
    load.recover(&fleet);

    fleet.restart(1);
    fleet.until_counted(1, 3.0);
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, Instant::now());
    assert_eq!(summary.refused, 0, "{summary:?}");
}

#[test]
fn two_of_four_nodes_that_are_killed_at_once_leave_the_truth_behind() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, 4);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::Ends(1));
    load.trouble(Trouble::Ends(2));
    fleet.kill(1);
    fleet.kill(2);
    let killed = Instant::now();
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, killed);
    assert_eq!(summary.refused, 0, "{summary:?}");
}

#[test]
fn a_node_that_freezes_for_longer_than_its_lease_is_given_up_and_catches_up() {
    let redis = RedisServer::start();
    let fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    load.trouble(Trouble::CutOff(1));
    fleet.freeze(1);
    load.until_given_up(&fleet, 1);
    load.go_on(&fleet, 30);
    fleet.thaw(1);
    let thawed = Instant::now();
    load.go_on(&fleet, 30);
    let summary = load.finish(&fleet, thawed);
    assert_eq!((summary.refused, summary.dropped), (0, 0), "{summary:?}");
}

#[test]
fn p11_all_nodes_are_restarted_one_after_the_other_and_nothing_is_lost() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, 3);
    let mut load = Load::begin(&fleet);
    for node in 0..3 {
        load.trouble(Trouble::Ends(node));
        fleet.stop(node);
        load.go_on(&fleet, 20);
        fleet.restart(node);
        load.recover(&fleet);
    }
    let summary = load.finish(&fleet, Instant::now());
    assert_eq!(summary.refused, 0, "{summary:?}");
}

#[test]
fn p32_p37_p57_clients_of_other_nodes_are_told_what_ended_with_a_dead_one() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::with(&redis, 2, "", "subscription_counts = true");
    let mut counts = fleet[0].subscriber("news");
    let mut watching = fleet[0].connect();
    watching.watch(&watcher("ann", &["bob"]));
    let mut ann = fleet[0].joined("presence-room", "ann");
    let mut bob = fleet[1].signed_in("bob");
    bob.subscribe("news");
    bob.ask_to_join("presence-room", &member("bob"));
    ann.expect_member_added("presence-room", "bob");
    watching.expect_watched("online", "bob");
    let count = |number: u64| json!({ "subscription_count": number });
    for number in [1, 2] {
        assert_eq!(counts.expect_on("news", "pusher_internal:subscription_count"), count(number));
    }
    fleet.kill(1);
    ann.expect_member_removed("presence-room", "bob");
    watching.expect_watched("offline", "bob");
    assert_eq!(counts.expect_on("news", "pusher_internal:subscription_count"), count(1));
}

#[test]
fn p95_what_was_on_nodes_that_died_together_is_ended_by_whoever_comes_next() {
    let redis = RedisServer::start();
    let mut fleet = Fleet::start(&redis, 2);
    let _gone = [fleet[0].joined("presence-room", "ann"), fleet[1].joined("presence-room", "bob")];
    assert_eq!(fleet.backend().events(3).len(), 3);
    fleet.kill(0);
    fleet.kill(1);
    fleet.restart(1);
    until_equal("channels", &json!({}), || fleet[1].channels());
    let event = |name: &str, user: &str| json!({ "name": name, "channel": "presence-room", "user_id": user });
    let wanted = [
        json!({ "name": "channel_vacated", "channel": "presence-room" }),
        event("member_removed", "ann"),
        event("member_removed", "bob"),
    ];
    // Those who died may have told it, and not have said so: then it is told again, and marked.
    let mut told = Vec::new();
    while told.len() < wanted.len() {
        let hook = fleet.backend().next();
        let events = hook.events();
        told.extend(events.into_iter().filter(|event| !hook.is_marked() || wanted.contains(event)));
    }
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, wanted);
    assert_eq!(fleet[1].connect().join("presence-room", &member("eve"))["count"], Value::from(1));
}

#[test]
fn p93_what_a_dead_node_could_not_deliver_is_delivered_by_another() {
    let is_up = Arc::new(AtomicBool::new(false));
    let (up, (sender, delivered)) = (is_up.clone(), channel());
    let backend = Backend::with(move |hook| {
        if !up.load(Ordering::SeqCst) {
            return Answer::Status(503);
        }
        sender.send(hook.events()).expect("the story goes on");
        Answer::Status(200)
    });
    let redis = RedisServer::start();
    let mut fleet = Fleet::telling(backend, &redis, 2, "", "client_events = true");
    let channels: HashSet<String> = (0..30).map(|number| format!("room-{number}")).collect();
    let mut client = fleet[1].connect();
    channels.iter().for_each(|channel| client.subscribe(channel));
    // Somebody has tried, in vain; most of it waits for the receiver to be well again.
    fleet.backend().next();
    fleet.kill(0);
    is_up.store(true, Ordering::SeqCst);
    // The other one goes on with its own, and takes over those of the dead one.
    let mut told = HashSet::new();
    while told != channels {
        for event in delivered.recv_timeout(HEALED_WITHIN).expect("another webhook") {
            assert_eq!(event["name"], "channel_occupied", "{event}");
            told.insert(event["channel"].as_str().expect("a name").to_owned());
        }
    }
}
