//! Presence channels of several nodes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::Cluster;
use crate::support::{Client, member, parsed, user};

const ROOM: &str = "presence-room";

#[test]
fn p31_p32_members_of_all_nodes_are_one_roster() {
    let cluster = Cluster::of(3);
    let mut ann = cluster[0].connect();
    ann.join(ROOM, r#"{"user_id":"ann","user_info":{"name":"Ann"}}"#);
    let mut bob = cluster[1].connect();
    let roster = bob.join(ROOM, r#"{"user_id":"bob","user_info":{"name":"Bob","age":7}}"#);
    let hash = json!({ "ann": { "name": "Ann" }, "bob": { "name": "Bob", "age": 7 } });
    assert_eq!(roster, json!({ "count": 2, "ids": ["ann", "bob"], "hash": hash }));
    assert_eq!(ann.expect_member_added(ROOM, "bob"), json!({ "name": "Bob", "age": 7 }));
    let mut eve = cluster[2].connect();
    assert_eq!(eve.join(ROOM, &member("eve"))["ids"], json!(["ann", "bob", "eve"]));
    for other in [&mut ann, &mut bob] {
        other.expect_member_added(ROOM, "eve");
    }
    bob.unsubscribe(ROOM);
    for other in [&mut ann, &mut eve] {
        other.expect_member_removed(ROOM, "bob");
    }
    eve.leave();
    ann.expect_member_removed(ROOM, "eve");
    assert_eq!(cluster[2].connect().join(ROOM, &member("late"))["ids"], json!(["ann", "late"]));
}

#[test]
fn p32_a_user_on_two_nodes_is_one_member() {
    let cluster = Cluster::of(2);
    let mut ann = cluster[0].joined(ROOM, "ann");
    let first = cluster[0].joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");
    let mut second = cluster[1].connect();
    assert_eq!(second.join(ROOM, &member("bob"))["ids"], json!(["ann", "bob"]));
    // No announcement of the second connection, nor of the end of the first.
    first.leave();
    for node in [0, 1] {
        cluster[node].publish(ROOM, "marker", "");
        ann.expect_event(ROOM, "marker", "");
        second.expect_event(ROOM, "marker", "");
    }
    second.leave();
    ann.expect_member_removed(ROOM, "bob");
}

#[test]
fn p32_one_who_moves_from_node_to_node_is_announced_each_time_and_in_order() {
    let cluster = Cluster::of(2);
    let mut ann = cluster[0].joined(ROOM, "ann");
    for round in 0..10 {
        let mut bob = cluster[round % 2].connect();
        let info = json!({ "round": round });
        let channel_data = json!({ "user_id": "bob", "user_info": info }).to_string();
        assert_eq!(bob.join(ROOM, &channel_data)["hash"]["bob"], info);
        assert_eq!(ann.expect_member_added(ROOM, "bob"), info);
        bob.leave();
        ann.expect_member_removed(ROOM, "bob");
    }
}

#[test]
fn p32_all_nodes_show_what_a_users_first_connection_said_of_itself() {
    let cluster = Cluster::of(2);
    let named = |name: &str| json!({ "user_id": "bob", "user_info": { "name": name } }).to_string();
    let mut first = cluster[0].connect();
    first.join(ROOM, &named("Bob"));
    let mut second = cluster[1].connect();
    let roster = second.join(ROOM, &named("Robert"));
    assert_eq!(roster["hash"]["bob"], json!({ "name": "Bob" }));
    first.leave();
    for node in [0, 1] {
        let mut other = cluster[node].connect();
        assert_eq!(other.join(ROOM, &member("ann"))["hash"]["bob"], json!({ "name": "Bob" }));
    }
}

#[test]
fn p33_ten_and_its_string_are_one_user_on_two_nodes() {
    let cluster = Cluster::of(2);
    let mut number = cluster[0].connect();
    number.join(ROOM, r#"{"user_id":10}"#);
    let mut text = cluster[1].connect();
    assert_eq!(text.join(ROOM, &member("10"))["ids"], json!(["10"]));
}

#[test]
fn p34_a_full_channel_is_full_on_all_nodes() {
    let cluster = Cluster::with_app(2, "presence_members_max = 2");
    let mut ann = cluster[0].joined(ROOM, "ann");
    let bob = cluster[1].joined(ROOM, "bob");
    ann.expect_member_added(ROOM, "bob");
    let full = format!("Presence channel {ROOM} is full (maximum 2 members)");
    for node in [0, 1] {
        let mut late = cluster[node].connect();
        late.ask_to_join(ROOM, &member("late"));
        late.expect_refusal(ROOM, "LimitReached", &full);
        // Further connections of those who are there are none of the limit's business.
        let mut tab = cluster[node].connect();
        assert_eq!(tab.join(ROOM, &member("ann"))["count"], 2);
    }
    bob.leave();
    ann.expect_member_removed(ROOM, "bob");
    assert_eq!(cluster[0].connect().join(ROOM, &member("late"))["count"], 2);
    ann.expect_member_added(ROOM, "late");
}

#[test]
fn p34_who_races_for_the_last_places_from_all_nodes_gets_no_more_than_there_are() {
    const PLACES: usize = 5;
    let cluster = Cluster::with_app(2, &format!("presence_members_max = {PLACES}"));
    let mut clients: Vec<Client> = (0..20).map(|number| cluster[number % 2].connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.ask_to_join(ROOM, &member(&format!("u{number}")));
    }
    let is_in = |client: &mut Client| match client.next() {
        frame if frame["event"] == "pusher_internal:subscription_succeeded" => true,
        frame => {
            assert_eq!(frame["event"], "pusher:error", "{frame}");
            false
        }
    };
    let inside = clients.iter_mut().map(is_in).filter(|is_in| *is_in).count();
    assert_eq!(inside, PLACES);
    for node in [0, 1] {
        assert_eq!(cluster[node].users(ROOM).len(), PLACES);
    }
}

#[test]
fn p36_a_signed_in_user_joins_as_itself_on_all_nodes() {
    let cluster = Cluster::of(2);
    let mut ann = cluster[0].joined(ROOM, "ann");
    let mut bob = cluster[1].connect();
    bob.sign_in(&json!({ "id": "bob", "user_info": { "name": "Bob" } }).to_string());
    bob.ask(&json!({ "channel": ROOM, "auth": bob.token_for(ROOM) }));
    assert_eq!(bob.expect_roster(ROOM)["ids"], json!(["ann", "bob"]));
    assert_eq!(ann.expect_member_added(ROOM, "bob"), json!({ "name": "Bob" }));
}

#[test]
fn p32_a_terminated_user_is_removed_on_all_nodes() {
    let cluster = Cluster::of(2);
    let mut ann = cluster[0].joined(ROOM, "ann");
    let mut tabs: Vec<Client> = (0..2).map(|node| cluster[node].connect()).collect();
    for tab in &mut tabs {
        tab.sign_in(&user("bob"));
        tab.join(ROOM, &member("bob"));
    }
    ann.expect_member_added(ROOM, "bob");
    cluster[0].terminate("bob");
    ann.expect_member_removed(ROOM, "bob");
    cluster[1].publish(ROOM, "marker", "");
    ann.expect_event(ROOM, "marker", "");
}

#[test]
fn p31_p32_a_crowd_that_comes_to_all_nodes_at_once_sees_itself_the_same() {
    const EACH: usize = 20;
    let cluster = Cluster::of(2);
    let threads: Vec<_> = (0..2)
        .map(|node| {
            let api = cluster[node].api().clone();
            std::thread::spawn(move || {
                let join = |number: usize| {
                    let mut client = api.connect();
                    let roster = client.join(ROOM, &member(&format!("u{node}-{number}")));
                    (client, roster)
                };
                (0..EACH).map(join).collect::<Vec<(Client, Value)>>()
            })
        })
        .collect();
    let mut crowd: Vec<(Client, Value)> =
        threads.into_iter().flat_map(|thread| thread.join().expect("everybody is let in")).collect();
    cluster[0].publish(ROOM, "marker", "");
    // What each saw at first, and was told up to the marker, is everybody once.
    for (client, roster) in &mut crowd {
        let ids = roster["ids"].as_array().expect("ids").clone();
        let mut seen: Vec<String> = ids.iter().map(ToString::to_string).collect();
        loop {
            let frame = client.next();
            match frame["event"].as_str() {
                Some("marker") => break,
                Some("pusher_internal:member_added") => {
                    seen.push(parsed(&frame["data"])["user_id"].to_string());
                }
                _ => panic!("{frame}"),
            }
        }
        let distinct: HashSet<&String> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (2 * EACH, 2 * EACH), "{seen:?}");
    }
    let late = cluster[1].connect().join(ROOM, &member("late"));
    assert_eq!(late["count"], Value::from(2 * EACH + 1));
}
