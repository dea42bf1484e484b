//! Many at once: what must hold however the threads of the broker interleave.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Broker, Client, JS_PATH, leaving, member, parsed, until, until_within, user, watcher};

const ROOM: &str = "presence-room";

/// What a member believes of its channel, from its snapshot and what it was told since.
struct Roster {
    members: BTreeSet<String>,
}

impl Roster {
    fn from_snapshot(snapshot: &Value) -> Self {
        let ids = snapshot["ids"].as_array().expect("a list of ids");
        let id = |id: &Value| id.as_str().expect("a string").to_owned();
        let members: BTreeSet<String> = ids.iter().map(id).collect();
        assert_eq!(members.len(), ids.len(), "an id twice in {snapshot}");
        Self { members }
    }

    /// Takes in an announcement, which must be news.
    #[track_caller]
    fn hear(&mut self, frame: &Value) {
        let data = parsed(&frame["data"]);
        let id = data["user_id"].as_str().expect("a string").to_owned();
        match frame["event"].as_str() {
            Some("pusher_internal:member_added") => {
                assert!(self.members.insert(id.clone()), "{id} was announced twice");
            }
            Some("pusher_internal:member_removed") => {
                assert!(self.members.remove(&id), "{id} was gone already");
            }
            _ => panic!("unexpected: {frame}"),
        }
    }
}

const CROWD: usize = 600;
/// Every third client is a second tab of the user before it.
fn user_of(number: usize) -> String {
    let number = if number % 3 == 2 { number - 1 } else { number };
    format!("u{number}")
}

/// The clients that go again; a user with two tabs goes whole or not at all.
fn leaves(number: usize) -> bool {
    (number / 3).is_multiple_of(2)
}

#[test]
fn p32_six_hundred_members_come_and_go_at_once_and_every_roster_is_right() {
    let broker = Broker::with_app("presence_members_max = 1000");
    let staying: BTreeSet<String> = (0..CROWD).filter(|number| !leaves(*number)).map(user_of).collect();
    let clients: Vec<Client> = (0..CROWD).map(|_| broker.connect()).collect();
    let start = Barrier::new(CROWD);
    thread::scope(|scope| {
        let mut members = Vec::new();
        for (number, client) in clients.into_iter().enumerate() {
            let (start, staying) = (&start, &staying);
            members.push(scope.spawn(move || {
                start.wait();
                crowd_member(client, number, staying);
            }));
        }
        let expected: Vec<String> = staying.iter().cloned().collect();
        let gone = || broker.users(ROOM) == expected;
        until_within(Duration::from_secs(30), "the leavers are gone", gone);
        broker.publish(ROOM, "marker", "");
        for member in members {
            member.join().expect("a member without complaints");
        }
    });
    until("everybody is gone", || broker.channels() == json!({}));
}

/// Joins with all the others, and either goes again or listens until its roster is what remains.
fn crowd_member(mut client: Client, number: usize, staying: &BTreeSet<String>) {
    client.patience(Duration::from_secs(30));
    let mut roster = Roster::from_snapshot(&client.join(ROOM, &member(&user_of(number))));
    assert!(roster.members.contains(&user_of(number)), "{number} does not see itself");
    if leaves(number) {
        match number % 4 {
            0 => client.unsubscribe(ROOM),
            1 => client.reset(),
            2 => client.close_without_waiting(),
            _ => drop(client),
        }
        return;
    }
    loop {
        let frame = client.next();
        if frame["event"] == "marker" {
            break;
        }
        roster.hear(&frame);
    }
    assert_eq!(&roster.members, staying, "the roster of {number}");
}

#[test]
fn a_flapping_user_comes_and_goes_in_turns() {
    let broker = Broker::start();
    let mut watcher = broker.connect();
    let mut roster = Roster::from_snapshot(&watcher.join(ROOM, &member("watcher")));
    thread::scope(|scope| {
        let api = broker.api();
        let tabs: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut tab = api.connect();
                    for _ in 0..40 {
                        tab.ask_to_join(ROOM, &member("flapper"));
                        tab.unsubscribe(ROOM);
                    }
                    tab.ping();
                    while tab.next()["event"] != "pusher:pong" {}
                })
            })
            .collect();
        for tab in tabs {
            tab.join().expect("a tab without complaints");
        }
    });
    broker.publish(ROOM, "marker", "");
    loop {
        let frame = watcher.next();
        if frame["event"] == "marker" {
            break;
        }
        roster.hear(&frame);
    }
    assert_eq!(roster.members, BTreeSet::from(["watcher".to_owned()]));
    assert_eq!(broker.users(ROOM), ["watcher"]);
}

/// Members leave and return in one breath, so that the channel ends and begins anew while news of its
/// earlier lives are still under way.
#[test]
fn p32_a_room_that_empties_and_fills_again_keeps_every_roster_right() {
    let broker = Broker::with("server.workers = 4");
    let api = broker.api();
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                let mut client = api.connect();
                let joining = client.joining(ROOM, &member(&format!("u{number}")));
                let mut roster = Roster::from_snapshot(&json!({ "ids": [] }));
                for _ in 0..400 {
                    client.send_together(&[joining.clone(), leaving(ROOM), joining.clone()]);
                    hear_until_pong(&mut client, &mut roster);
                    client.send_together(&[leaving(ROOM), joining.clone(), leaving(ROOM)]);
                    hear_until_pong(&mut client, &mut roster);
                }
            });
        }
    });
    assert_eq!(broker.channels(), json!({}));
}

/// Takes in snapshots and announcements until everything said so far has been answered.
fn hear_until_pong(client: &mut Client, roster: &mut Roster) {
    client.ping();
    loop {
        let frame = client.next();
        match frame["event"].as_str() {
            Some("pusher:pong") => return,
            Some("pusher_internal:subscription_succeeded") => {
                *roster = Roster::from_snapshot(&parsed(&frame["data"])["presence"]);
            }
            _ => roster.hear(&frame),
        }
    }
}

#[test]
fn a_thousand_visits_leave_nothing_behind() {
    let broker = Broker::with("metrics.bind = \"127.0.0.1:0\"");
    broker.expect_healthy();
    let idle = broker.open_files();
    thread::scope(|scope| {
        for visitor in 0..4 {
            let api = broker.api();
            scope.spawn(move || {
                for visit in 0..250 {
                    let number = visitor * 250 + visit;
                    let mut client = api.connect();
                    client.ask_to_join(ROOM, &member(&format!("u{}", number % 50)));
                    client.ask_to_sign_in(&user(&format!("u{}", number % 50)));
                    client.ask(&json!({ "channel": format!("c{number}") }));
                    if number % 2 == 0 {
                        client.ping();
                        while client.next()["event"] != "pusher:pong" {}
                    }
                    match number % 3 {
                        0 => client.close_without_waiting(),
                        1 => client.reset(),
                        _ => drop(client),
                    }
                }
            });
        }
    });
    until("no channel is left", || broker.channels() == json!({}));
    assert_eq!(broker.users(ROOM), Vec::<String>::new());
    let counts = broker.channel(ROOM, "user_count,subscription_count");
    assert_eq!(counts, json!({ "occupied": false, "user_count": 0, "subscription_count": 0 }));
    until("no file is left open", || broker.open_files() <= idle);

    let mut late = broker.connect();
    let nobody = json!([{ "name": "offline", "user_ids": ["u1"] }]);
    until("nobody is signed in", || late.watch(&watcher("late", &["u1"])) == nobody);
}

#[test]
fn p66_client_events_of_many_senders_reach_all_the_others_once() {
    let broker = Broker::with_app("client_events = true\nclient_events_per_s = 1000");
    let channel = "private-room";
    let clients: Vec<Client> = (0..8).map(|_| broker.subscriber(channel)).collect();
    thread::scope(|scope| {
        for (sender, mut client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                for number in 0..50 {
                    client.say(channel, "client-x", &json!(format!("{sender}:{number}")));
                }
                let mut next = [0; 8];
                for _ in 0..7 * 50 {
                    let data = client.expect_text_of(channel, "client-x");
                    let (from, number) = data.split_once(':').expect("a colon");
                    let from: usize = from.parse().expect("a sender");
                    assert_ne!(from, sender, "an event came back");
                    assert_eq!(number, next[from].to_string(), "from {from}");
                    next[from] += 1;
                }
                client.expect_served();
            });
        }
    });
}

#[test]
fn p57_users_signing_in_at_once_are_announced_once() {
    let broker = Broker::start();
    let mut ann = broker.connect();
    ann.watch(&watcher("ann", &["bob"]));
    for _ in 0..10 {
        let barrier = Arc::new(Barrier::new(6));
        let tabs: Vec<_> = (0..6)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                let mut tab = Client::connect(broker.api(), JS_PATH);
                thread::spawn(move || {
                    barrier.wait();
                    tab.sign_in(&user("bob"));
                    tab
                })
            })
            .collect();
        let tabs: Vec<_> =
            tabs.into_iter().map(|tab| tab.join().expect("a tab without complaints")).collect();
        ann.expect_watched("online", "bob");
        drop(tabs);
        ann.expect_watched("offline", "bob");
    }
    ann.expect_silence();
}

#[test]
fn connections_refused_for_a_quota_do_not_use_it_up() {
    let broker = Broker::with_app("connections_max = 20");
    let inside: Vec<Client> = (0..20).map(|_| broker.connect()).collect();
    let api = broker.api();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(api.refused(JS_PATH, 4004))));
        }
    });
    drop(inside);
    let mut entered = Vec::new();
    until("twenty places", || {
        let mut client = Client::dial(broker.api(), JS_PATH);
        if client.next()["event"] == "pusher:connection_established" {
            entered.push(client);
        }
        entered.len() == 20
    });
    broker.refused(JS_PATH, 4004);
}
