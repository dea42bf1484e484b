//! Waiting for a cluster: everything that is asked for is answered once, in order, whatever happens meanwhile.

mod random;
mod stage;

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::App;
use crate::mirror::Message;
use crate::protocol::{CachedEvent, CloseReason};
use crate::worker::tests::stage::{
    Client, Stage, app, apps, channel, member, play, play_with, topic, user, watchers,
};

const ROOM: &str = "presence-room";

/// The users in a message of the watchlist.
fn listed(message: &Value) -> Value {
    let data: Value = serde_json::from_str(message["data"].as_str().expect("text")).expect("JSON");
    data["events"].clone()
}

#[test]
fn p23_a_subscription_begins_when_the_cluster_grants_it() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.subscribe("private-a").await;
        assert_eq!(client.heard().await, [""; 0]);
        stage.cluster.work();
        assert_eq!(client.heard().await, ["subscription_succeeded private-a"]);
        stage.publish("private-a", "e");
        assert_eq!(client.heard().await, ["e private-a"]);
        // The topic is open: whoever comes now need not wait.
        let mut second = stage.connect().await;
        second.subscribe("private-a").await;
        assert_eq!(second.heard().await, ["subscription_succeeded private-a"]);
    });
}

#[test]
fn p23_what_is_before_the_grant_is_not_delivered_and_what_is_behind_it_is() {
    play(app(), async |mut stage| {
        let mut ann = stage.connect().await;
        ann.join(ROOM, "ann").await;
        assert_eq!(ann.heard().await, [""; 0]);
        stage.cluster.work();
        assert_eq!(ann.heard().await, [format!("subscription_succeeded {ROOM}")]);
        let mut bob = stage.connect().await;
        bob.join(ROOM, "bob").await;
        assert_eq!(bob.heard().await, [""; 0]);
        // All of it is taken from the mailbox at once.
        stage.publish(ROOM, "before");
        stage.cluster.work();
        stage.publish(ROOM, "behind");
        let before = [format!("before {ROOM}"), format!("member_added {ROOM}"), format!("behind {ROOM}")];
        assert_eq!(ann.heard().await, before);
        assert_eq!(bob.heard().await, [format!("subscription_succeeded {ROOM}"), format!("behind {ROOM}")]);
    });
}

#[test]
fn p28_a_cached_event_follows_the_grant() {
    play(app(), async |mut stage| {
        let frame = CachedEvent::new(&channel("cache-a"), "\"e\"", "\"1\"");
        let kept = Message::Kept(frame, Duration::from_secs(60));
        stage.cluster.publish(&topic("cache-a"), kept, None);
        let mut client = stage.connect().await;
        client.subscribe("cache-a").await;
        client.subscribe("cache-b").await;
        assert_eq!(client.heard().await, [""; 0]);
        stage.cluster.work_on(|topic| topic.channel.as_str() == "cache-a");
        assert_eq!(client.heard().await, ["subscription_succeeded cache-a", "e cache-a"]);
        stage.cluster.work();
        assert_eq!(client.heard().await, ["subscription_succeeded cache-b", "cache_miss cache-b"]);
    });
}

#[test]
fn p26_unsubscribing_while_waiting_leaves_nothing() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        for name in ["private-a", ROOM] {
            client.join(name, "ann").await;
            client.unsubscribe(name).await;
            assert_eq!(client.heard().await, [""; 0]);
            assert_eq!(stage.worker.rolls.borrow().waiting(), 0, "nothing was said to the cluster yet");
            stage.cluster.work();
            stage.publish(name, "e");
            assert_eq!(client.heard().await, [""; 0]);
            client.unsubscribe(name).await;
            assert_eq!(client.heard().await, ["error"], "there is no subscription to end");
        }
        stage.assert_empty(&[topic("private-a"), topic(ROOM)]);
    });
}

#[test]
fn a_place_that_was_asked_for_in_vain_is_given_back() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.join(ROOM, "ann").await;
        client.heard().await;
        stage.cluster.work_on(|_| false);
        client.unsubscribe(ROOM).await;
        assert_eq!(client.heard().await, [""; 0]);
        assert_eq!(stage.worker.rolls.borrow().waiting(), 1, "the cluster was asked to let the user in");
        stage.cluster.work();
        assert_eq!(stage.cluster.members(&topic(ROOM)), ["ann"]);
        assert_eq!(client.heard().await, [""; 0]);
        stage.cluster.work();
        assert_eq!(stage.cluster.members(&topic(ROOM)), [""; 0]);
        stage.assert_empty(&[topic(ROOM)]);
    });
}

#[test]
fn p24_who_comes_back_while_waiting_is_subscribed_once() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        for is_said in [false, true] {
            client.join(ROOM, "ann").await;
            client.heard().await;
            if is_said {
                stage.cluster.work_on(|_| false);
            }
            client.join(ROOM, "ann").await;
            assert_eq!(client.heard().await, ["error"], "it waits for that already");
            client.unsubscribe(ROOM).await;
            client.join(ROOM, "ann").await;
            assert_eq!(client.heard().await, [""; 0]);
            stage.cluster.work();
            assert_eq!(client.heard().await, [format!("subscription_succeeded {ROOM}")]);
            stage.cluster.work();
            assert_eq!((stage.cluster.held(&topic(ROOM)), stage.worker.rolls.borrow().waiting()), (1, 0));
            stage.publish(ROOM, "e");
            assert_eq!(client.heard().await, [format!("e {ROOM}")]);
            client.unsubscribe(ROOM).await;
            assert_eq!(client.heard().await, [""; 0]);
            stage.cluster.work();
        }
        stage.assert_empty(&[topic(ROOM)]);
    });
}

#[test]
fn p32_a_second_tab_waits_for_the_first() {
    play(app(), async |mut stage| {
        let (mut tab, mut other) = (stage.connect().await, stage.connect().await);
        tab.join(ROOM, "ann").await;
        other.join(ROOM, "ann").await;
        assert_eq!((tab.heard().await.len(), other.heard().await.len()), (0, 0));
        stage.cluster.work_on(|_| false);
        tab.unsubscribe(ROOM).await;
        assert_eq!(tab.heard().await, [""; 0]);
        stage.cluster.work();
        assert_eq!(other.heard().await, [format!("subscription_succeeded {ROOM}")]);
        assert_eq!(tab.heard().await, [""; 0]);
        assert_eq!((stage.cluster.held(&topic(ROOM)), stage.worker.rolls.borrow().waiting()), (1, 0));
    });
}

#[test]
fn a_client_that_goes_while_waiting_is_not_kept() {
    play(app(), async |mut stage| {
        for is_said in [false, true] {
            let mut client = stage.connect().await;
            client.join(ROOM, "ann").await;
            client.subscribe("private-a").await;
            client.sign_in("ann", &["bob"]).await;
            client.heard().await;
            if is_said {
                stage.cluster.work_on(|_| false);
            }
            let socket = stage.socket();
            drop(client);
            stage.until("its socket is gone", || socket.strong_count() == 0).await;
            assert!(stage.worker.later.borrow().is_empty());
            stage.cluster.work();
            stage.until("its places are given back", || stage.worker.rolls.borrow().waiting() == 0).await;
            stage.cluster.work();
            stage.assert_empty(&[topic(ROOM), topic("private-a"), user("ann"), watchers("bob")]);
        }
    });
}

#[test]
fn an_answer_that_is_under_way_to_somebody_who_has_gone_changes_nothing() {
    play(App { presence_members_max: 1, ..app() }, async |mut stage| {
        stage.cluster.joins_elsewhere(&topic("presence-full"), Some(member("bob")));
        let mut client = stage.connect().await;
        client.join(ROOM, "ann").await;
        client.join("presence-full", "ann").await;
        client.subscribe("private-a").await;
        client.sign_in("ann", &["bob"]).await;
        client.heard().await;
        stage.cluster.work();
        // Before the worker takes the grants from its mailbox.
        let socket = stage.socket().upgrade().expect("connected");
        stage.worker.close(&socket, CloseReason::ToReconnect);
        drop(socket);
        assert_eq!(stage.worker.rolls.borrow().waiting(), 5);
        stage.until("all are given back", || stage.worker.rolls.borrow().waiting() == 0).await;
        stage.cluster.work();
        let topics = [ROOM, "presence-full", "private-a"].map(topic);
        stage.assert_empty(&topics);
        stage.assert_empty(&[user("ann"), watchers("bob")]);
        assert_eq!(client.next().await["data"]["code"], 4200);
        assert_eq!(client.next().await, 4200);
    });
}

#[test]
fn p34_a_full_channel_refuses_as_it_does_without_a_cluster() {
    let app = App { presence_members_max: 1, authorized_timeout_s: 3600, ..app() };
    play_with(
        |config| config.connection.subscription_errors = true,
        app,
        async |mut stage| {
            stage.cluster.joins_elsewhere(&topic(ROOM), Some(member("bob")));
            let mut client = stage.connect().await;
            client.join(ROOM, "ann").await;
            client.heard().await;
            let is_authorized = |stage: &Stage| {
                let socket = stage.socket().upgrade().expect("connected");
                let connection = socket.connection.borrow();
                connection.as_ref().expect("connected").is_authorized()
            };
            assert!(is_authorized(&stage), "it has done its part");
            stage.cluster.work();
            let told = client.messages().await;
            let full = "Presence channel presence-room is full (maximum 1 members)";
            assert_eq!(told[0]["data"], json!({ "code": null, "message": full }));
            assert_eq!(
                (&told[1]["event"], &told[1]["channel"]),
                (&json!("pusher:subscription_error"), &json!(ROOM))
            );
            assert!(!is_authorized(&stage));
            stage.assert_empty(&[topic(ROOM)]);
            // Room is made, and it tries again.
            stage.cluster.leaves_elsewhere(&topic(ROOM), Some("bob"));
            client.join(ROOM, "ann").await;
            client.heard().await;
            stage.cluster.work();
            assert_eq!(client.heard().await, [format!("subscription_succeeded {ROOM}")]);
        },
    );
}

#[test]
fn what_waits_counts_against_the_limits() {
    play(App { subscriptions_max: 1, channels_max: 2, ..app() }, async |mut stage| {
        let mut clients: Vec<Client> = Vec::new();
        for name in ["a", "b"] {
            let mut client = stage.connect().await;
            client.subscribe(name).await;
            assert_eq!(client.heard().await, [""; 0]);
            clients.push(client);
        }
        clients[0].subscribe("b").await;
        let told = clients[0].messages().await;
        assert_eq!(told[0]["data"]["message"], "This connection has the maximum of 1 subscriptions");
        let mut third = stage.connect().await;
        third.subscribe("c").await;
        let told = third.messages().await;
        assert_eq!(told[0]["data"]["message"], "This application has the maximum of 2 channels");
        clients[0].unsubscribe("a").await;
        clients[0].heard().await;
        third.subscribe("c").await;
        assert_eq!(third.heard().await, [""; 0]);
        stage.cluster.work();
        assert_eq!(third.heard().await, ["subscription_succeeded c"]);
    });
}

#[test]
fn p50_signing_in_is_told_when_the_users_events_arrive() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.sign_in("ann", &[]).await;
        client.subscribe("#server-to-user-ann").await;
        assert_eq!(client.heard().await, [""; 0]);
        stage.cluster.work();
        let own = "subscription_succeeded #server-to-user-ann";
        assert_eq!(client.heard().await, ["signin_success", own]);
        stage.publish("#server-to-user-ann", "e");
        assert_eq!(client.heard().await, ["e #server-to-user-ann"]);
        client.sign_in("ann", &[]).await;
        assert_eq!(client.heard().await, ["signin_success"], "nothing is to be waited for");
    });
}

#[test]
fn p56_the_watchlist_is_told_at_once_and_before_all_that_happens_after_it() {
    play(App { watchlist_users_max: 3, ..app() }, async |mut stage| {
        stage.cluster.joins_elsewhere(&user("bob"), None);
        let mut client = stage.connect().await;
        client.sign_in("ann", &["bob", "eve", "no body", "too many"]).await;
        assert_eq!(client.heard().await, [""; 0]);
        stage.cluster.work_on(|topic| *topic == user("ann"));
        assert_eq!(client.heard().await, ["signin_success", "error"], "p53: the list was too long");
        stage.cluster.work_on(|topic| *topic == watchers("bob"));
        stage.cluster.leaves_elsewhere(&user("bob"), None);
        assert_eq!(client.heard().await, [""; 0], "the list comes first");
        stage.cluster.work();
        let told = client.messages().await;
        assert_eq!(told.len(), 1);
        assert_eq!(listed(&told[0]), json!([{ "name": "offline", "user_ids": ["bob", "eve", "no body"] }]));
        stage.cluster.joins_elsewhere(&user("eve"), None);
        stage.cluster.joins_elsewhere(&user("bob"), None);
        let told: Vec<Value> = client.messages().await.iter().map(listed).collect();
        let online = |id: &str| json!([{ "name": "online", "user_ids": [id] }]);
        assert_eq!(told, [online("eve"), online("bob")]);
    });
}

#[test]
fn p56_a_list_is_as_of_the_moment_when_it_is_told() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.sign_in("ann", &["bob", "eve"]).await;
        client.heard().await;
        stage.cluster.work();
        // Both grants and what comes behind them are taken from the mailbox at once.
        stage.cluster.joins_elsewhere(&user("bob"), None);
        let told = client.messages().await;
        assert_eq!(told.iter().map(stage::name).collect::<Vec<_>>(), ["signin_success", "watchlist_events"]);
        let expected =
            json!([{ "name": "online", "user_ids": ["bob"] }, { "name": "offline", "user_ids": ["eve"] }]);
        assert_eq!(listed(&told[1]), expected);
    });
}

#[test]
fn p52_who_signs_in_twice_while_waiting_is_answered_twice_and_has_the_second_list() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.sign_in("ann", &["bob"]).await;
        client.sign_in("ann", &["eve"]).await;
        client.sign_in("bob", &[]).await;
        assert_eq!(client.heard().await, ["error"], "it is somebody else already");
        stage.cluster.work();
        let told = client.messages().await;
        let names: Vec<String> = told.iter().map(stage::name).collect();
        assert_eq!(names, ["signin_success", "signin_success", "watchlist_events"]);
        assert_eq!(listed(&told[2]), json!([{ "name": "offline", "user_ids": ["eve"] }]));
        stage.cluster.work();
        assert_eq!((stage.cluster.held(&watchers("bob")), stage.cluster.held(&watchers("eve"))), (0, 1));
        assert_eq!(stage.cluster.held(&user("ann")), 1);
        // A list that never comes, since there is another that need not wait.
        client.sign_in("ann", &["tim"]).await;
        client.sign_in("ann", &[]).await;
        assert_eq!(client.heard().await, ["signin_success", "signin_success"]);
        stage.cluster.work();
        assert_eq!(client.heard().await, [""; 0]);
        assert!(stage.worker.later.borrow().is_empty());
    });
}

#[test]
fn nobody_piles_up_answers_by_signing_in() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        for _ in 0..20 {
            client.sign_in("ann", &[]).await;
        }
        assert_eq!(client.heard().await, ["error"; 4]);
        stage.cluster.work();
        assert_eq!(client.heard().await, ["signin_success"; 16]);
    });
}

#[test]
fn p58_who_is_terminated_while_signing_in_goes() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.sign_in("ann", &[]).await;
        client.heard().await;
        stage.cluster.work();
        let goodbye = Message::Disconnect(CloseReason::Terminated);
        stage.cluster.publish(&user("ann"), goodbye, None);
        assert_eq!(stage::name(&client.next().await), "signin_success");
        assert_eq!(client.next().await["data"]["code"], 4009);
        assert_eq!(client.next().await, 4009);
        stage.cluster.work();
        stage.assert_empty(&[user("ann")]);
    });
}

#[test]
fn p66_client_events_come_to_the_others_in_order() {
    play(app(), async |mut stage| {
        let (mut ann, mut bob) = (stage.connect().await, stage.connect().await);
        ann.subscribe("private-a").await;
        ann.trigger("private-a", "client-early").await;
        let told = ann.messages().await;
        let refused = "Cannot broadcast client event (connection not subscribed to channel private-a)";
        assert_eq!(told[0]["data"]["message"], refused);
        bob.subscribe("private-a").await;
        bob.heard().await;
        stage.cluster.work();
        assert_eq!((ann.heard().await.len(), bob.heard().await.len()), (1, 1));
        for number in 0..5 {
            ann.trigger("private-a", &format!("client-{number}")).await;
        }
        assert_eq!(ann.heard().await, [""; 0]);
        stage.cluster.work();
        let expected: Vec<String> = (0..5).map(|number| format!("client-{number} private-a")).collect();
        assert_eq!(bob.heard().await, expected);
        assert_eq!(ann.heard().await, [""; 0]);
        assert!(stage.worker.later.borrow().is_empty());
    });
}

#[test]
fn p65_a_client_hears_that_its_event_got_no_further() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.subscribe("private-a").await;
        client.heard().await;
        stage.cluster.work();
        client.heard().await;
        stage.cluster.is_away = true;
        client.trigger("private-a", "client-e").await;
        client.heard().await;
        stage.cluster.work();
        let told = client.next().await;
        let message = "Client event rejected: the server cannot reach its cluster at the moment, try again";
        assert_eq!(told["data"], json!({ "code": null, "message": message }));
        // Open topics are served all the same.
        let mut second = stage.connect().await;
        second.subscribe("private-a").await;
        assert_eq!(second.heard().await, ["subscription_succeeded private-a"]);
    });
}

#[test]
fn one_client_has_only_so_much_under_way() {
    let app = App { client_events_per_s: 1_000_000, ..app() };
    play(app, async |mut stage| {
        let mut ann = stage.connect().await;
        let mut bob = stage.connect().await;
        for client in [&mut ann, &mut bob] {
            client.subscribe("private-a").await;
            client.heard().await;
        }
        stage.cluster.work();
        assert_eq!((ann.heard().await.len(), bob.heard().await.len()), (1, 1));
        let count = 3000;
        for _ in 0..count {
            ann.trigger("private-a", "client-e").await;
        }
        let refused = ann.messages().await;
        assert!((1..count).contains(&refused.len()), "{} of {count} were refused", refused.len());
        assert_eq!(refused[0]["data"]["message"], "The server is overloaded: try again");
        bob.trigger("private-a", "client-e").await;
        assert_eq!(bob.heard().await, [""; 0], "others are not held up");
        stage.cluster.work();
        assert_eq!(bob.heard().await.len(), count - refused.len());
        ann.heard().await;
        stage.until("nothing is under way", || stage.worker.later.borrow().is_empty()).await;
        ann.trigger("private-a", "client-e").await;
        assert_eq!(ann.heard().await, [""; 0]);
    });
}

#[test]
fn apps_may_change_and_go_while_their_clients_wait() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.join(ROOM, "ann").await;
        client.heard().await;
        stage.cluster.work_on(|_| false);
        for user_id in ["b", "c"] {
            stage.cluster.joins_elsewhere(&topic(ROOM), Some(member(user_id)));
        }
        stage.node.replace_apps(apps([App { presence_members_max: 2, ..app() }]));
        assert_eq!(client.heard().await, [""; 0]);
        stage.cluster.work();
        assert_eq!(client.heard().await, [format!("subscription_succeeded {ROOM}")], "it was asked before");
        let mut second = stage.connect().await;
        second.join(ROOM, "eve").await;
        second.sign_in("eve", &["bob"]).await;
        second.heard().await;
        stage.cluster.work_on(|_| false);
        stage.node.replace_apps(apps([App { id: "2".into(), ..app() }]));
        for client in [&mut client, &mut second] {
            assert_eq!(client.next().await["data"]["code"], 4001);
            assert_eq!(client.next().await, 4001);
        }
        stage.cluster.work();
        stage.until("all places are given back", || stage.worker.rolls.borrow().waiting() == 0).await;
        stage.cluster.work();
        stage.assert_empty(&[topic(ROOM), user("eve"), watchers("bob")]);
    });
}

#[test]
fn whoever_waits_when_the_server_stops_is_told_like_everybody() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.join(ROOM, "ann").await;
        client.subscribe("a").await;
        client.heard().await;
        stage.cluster.work_on(|_| false);
        stage.node.drain(Duration::ZERO);
        assert_eq!(client.next().await["data"]["code"], 4200);
        assert_eq!(client.next().await, 4200);
        stage.cluster.work();
        stage.until("its place is given back", || stage.worker.rolls.borrow().waiting() == 0).await;
        stage.cluster.work();
        stage.assert_empty(&[topic(ROOM), topic("a")]);
    });
}

#[test]
fn too_much_that_waits_to_be_asked_refuses_more() {
    play_with(
        |config| config.server.mailbox_bytes_max = 10_000,
        app(),
        async |mut stage| {
            let mut client = stage.connect().await;
            for number in 0..200 {
                client.subscribe(&format!("c{number}")).await;
            }
            let mut refused = client.messages().await;
            refused.retain(|message| message["event"] == "pusher:error");
            assert!((1..200).contains(&refused.len()), "{}", refused.len());
            assert_eq!(refused[0]["data"]["message"], "The server is overloaded: try again");
            stage.cluster.work();
            assert_eq!(client.heard().await.len(), 200 - refused.len());
            client.subscribe("another").await;
            assert_eq!(client.heard().await, [""; 0]);
        },
    );
}

#[test]
fn operators_see_what_this_node_has() {
    play(app(), async |mut stage| {
        let mut client = stage.connect().await;
        client.join(ROOM, "ann").await;
        client.subscribe("a").await;
        client.sign_in("ann", &["bob"]).await;
        client.heard().await;
        stage.cluster.joins_elsewhere(&topic(ROOM), Some(member("bob")));
        let app = stage.app();
        assert_eq!(stage.node.footprints()["1"].channels, 0, "nobody is subscribed yet");
        stage.cluster.work();
        client.heard().await;
        let footprint = stage.node.footprints()["1"];
        assert_eq!((footprint.channels, footprint.subscriptions), (2, 2));
        let names = |prefix| -> Vec<String> {
            let page = stage.node.channels_after(&app, prefix, "", 10);
            page.iter().map(ToString::to_string).collect()
        };
        assert_eq!((names(""), names("p")), (vec!["a".to_owned(), ROOM.to_owned()], vec![ROOM.to_owned()]));
        let census = stage.node.census_here(&app, &channel(ROOM));
        assert_eq!((census.subscriptions, census.users), (1, 1));
        let here = stage.node.roster_here(&app, &channel(ROOM)).expect("a roster");
        assert!(here.contains("ann") && !here.contains("bob"));
        let page = String::from_utf8(stage.node.page()).expect("text");
        assert!(page.contains(r#"fanfare_channels{app="1""#), "{page}");
        assert!(stage.node.apps_in_use().contains("1"));
    });
}
