//! The mirror alone, rule by rule, and many of them against a model of the shared state.

mod bench;
mod eras;

use proptest::prelude::*;

use super::*;
use crate::mirror::channel::BELIEF;
use crate::mirror::tests::bench::*;
use crate::protocol::{CachedEvent, CloseReason};

fn bench() -> Bench {
    Bench::new(Instant::now())
}

#[test]
fn who_comes_first_is_granted_a_place_when_the_topic_is_open() {
    let mut bench = bench();
    assert_eq!(bench.join("news", "", 0), "later");
    assert_eq!(bench.join("news", "", 1), "later");
    assert_eq!(bench.wants(), ["open news"], "nothing is said before the bus listens");
    bench.arrives("news", nth(1, 4));
    bench.listening("news");
    assert_eq!(bench.wants(), ["hold news 2", "look news"]);
    bench.arrives("news", nth(1, 5));
    bench.arrives("news", nth(1, 6));
    bench.held("news", "", place(1, 5));
    assert_eq!(bench.wants(), [""; 0]);
    assert_eq!(bench.seen("news", at(1, 5)), Gap::default());
    assert_eq!(bench.wants(), ["grant 0: now", "grant 1: now", "0: e6", "1: e6"]);
}

#[test]
fn on_an_open_topic_everybody_is_answered_at_once_and_given_what_comes_behind() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.arrives("news", nth(1, 6));
    assert_eq!(bench.join("news", "", 1), "now");
    assert_eq!(bench.wants(), ["0: e6", "hold news 2"]);
    let positions = |effects: &[Effect]| -> Vec<u64> {
        let position = |effect: &Effect| match effect {
            Effect::Deliver(_, delivery) => Some(delivery.position.seq),
            _ => None,
        };
        effects.iter().filter_map(position).collect()
    };
    bench.arrives("news", nth(1, 7));
    assert_eq!(
        positions(&bench.effects),
        [2, 2],
        "the second one of this node's own order, for both workers"
    );
}

#[test]
fn p32_a_new_user_waits_until_the_mirror_knows_of_the_member() {
    for answer_is_first in [true, false] {
        let mut bench = bench();
        bench.open("presence-room", "ann", with(1, 5, &["ann"]));
        assert_eq!(bench.join("presence-room", "bob", 1), "later");
        assert_eq!(bench.wants(), ["hold presence-room 2 +bob"]);
        if answer_is_first {
            bench.held("presence-room", "bob", place(1, 7));
            bench.arrives("presence-room", nth(1, 6));
            assert_eq!(bench.wants(), ["0: e6"]);
            bench.arrives("presence-room", arrival(1, 7, added("bob")));
        } else {
            bench.arrives("presence-room", nth(1, 6));
            bench.arrives("presence-room", arrival(1, 7, added("bob")));
            assert_eq!(bench.wants(), ["0: e6", "0: +bob"]);
            bench.held("presence-room", "bob", place(1, 7));
        }
        let wants = bench.wants();
        assert_eq!(wants.last().expect("a grant"), "grant 1: ann bob");
        assert!(!wants.contains(&"1: +bob".to_owned()), "nobody is told of itself: {wants:?}");
    }
}

#[test]
fn p32_who_is_back_before_it_was_seen_to_go_waits_for_the_second_coming() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 1, &["ann"]));
    bench.join("presence-room", "bob", 2);
    bench.held("presence-room", "bob", place(1, 2));
    bench.arrives("presence-room", arrival(1, 2, added("bob")));
    bench.leave("presence-room", "bob", 2);
    assert_eq!(
        bench.join("presence-room", "bob", 3),
        "later",
        "the replica still knows the one who has gone"
    );
    bench.wants();
    bench.arrives("presence-room", arrival(1, 3, removed("bob")));
    bench.held("presence-room", "", place(1, 3));
    bench.held("presence-room", "bob", place(1, 4));
    bench.arrives("presence-room", arrival(1, 4, added("bob")));
    assert_eq!(bench.wants(), ["0: -bob", "0: +bob", "grant 3: ann bob"]);
}

#[test]
fn p34_another_tab_of_a_member_is_seated_at_once_and_one_of_a_newcomer_with_the_first() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann", "cid"]));
    assert_eq!(bench.join("presence-room", "ann", 1), "ann cid");
    assert_eq!(bench.join("presence-room", "bob", 2), "later");
    assert_eq!(bench.join("presence-room", "bob", 3), "later");
    assert_eq!(bench.join("presence-room", "cid", 4), "later", "cid is on another node, which may be over");
    assert_eq!(
        bench.wants(),
        [
            "hold presence-room 2",
            "hold presence-room 3 +bob",
            "hold presence-room 4",
            "hold presence-room 5 +cid"
        ]
    );
    bench.held("presence-room", "cid", place(1, 5));
    assert_eq!(bench.wants(), ["grant 4: ann cid"]);
    bench.held("presence-room", "bob", place(1, 6));
    bench.arrives("presence-room", arrival(1, 6, added("bob")));
    let wants = bench.wants();
    assert_eq!(wants[2..], ["grant 2: ann bob cid", "grant 3: ann bob cid"], "{wants:?}");
}

#[test]
fn p34_without_room_all_connections_of_the_user_are_refused() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann"]));
    bench.join("presence-room", "bob", 1);
    bench.join("presence-room", "cid", 2);
    bench.join("presence-room", "bob", 3);
    bench.wants();
    bench.full("presence-room", "bob");
    assert_eq!(bench.wants(), ["grant 1: full", "grant 3: full", "hold presence-room 2"]);
    assert_eq!(bench.join("presence-room", "bob", 5), "later");
    assert_eq!(bench.wants(), ["hold presence-room 3 +bob"], "it is asked again");
    bench.full("presence-room", "cid");
    assert_eq!(bench.wants(), ["grant 2: full", "hold presence-room 2"]);
}

#[test]
fn p34_users_who_came_while_the_topic_was_opened_enter_in_their_order() {
    let mut bench = bench();
    for (ticket, user_id) in (0..).zip(["dan", "bob", "ann", "bob", "cid"]) {
        assert_eq!(bench.join("presence-room", user_id, ticket), "later");
    }
    bench.wants();
    bench.listening("presence-room");
    let holds = ["dan", "bob", "ann", "cid"].map(|user_id| format!("hold presence-room 5 +{user_id}"));
    assert_eq!(bench.wants()[..4], holds);
}

#[test]
fn a_topic_is_closed_a_while_after_the_last_one_has_left() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann"]));
    bench.leave("presence-room", "ann", 0);
    assert_eq!(bench.wants(), ["hold presence-room 0 -ann"]);
    bench.wait(LINGER - Duration::from_millis(1));
    assert_eq!(bench.wants(), [""; 0]);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.wants(), ["close presence-room"]);
    assert_eq!(bench.mirror.topics().count(), 0);
}

#[test]
fn a_topic_that_flaps_is_listed_once_and_the_last_leave_counts() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    for ticket in 1..100 {
        bench.leave("news", "", ticket - 1);
        bench.join("news", "", ticket);
        bench.seen("news", at(1, 5));
    }
    assert_eq!(bench.mirror.left.len(), 1);
    bench.wait(LINGER / 2);
    bench.leave("news", "", 99);
    bench.wants();
    bench.wait(LINGER * 3 / 4);
    assert_eq!(bench.wants(), [""; 0]);
    bench.wait(LINGER / 4);
    assert_eq!(bench.wants(), ["close news"]);
    assert_eq!((bench.mirror.left.len(), bench.mirror.topics().count()), (0, 0));
}

#[test]
fn who_comes_back_to_a_topic_that_nobody_held_waits_until_the_state_knows() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.leave("news", "", 0);
    assert_eq!(bench.join("news", "", 1), "later", "an event that is published now would go nowhere");
    assert_eq!(bench.wants(), ["hold news 0", "hold news 1", "look news since 1.5"]);
    assert_eq!(bench.seen("news", at(2, 0)), Gap::default(), "nobody was here to lose anything");
    assert_eq!(bench.wants(), ["grant 1: now"]);
    bench.arrives("news", nth(2, 1));
    assert_eq!(bench.wants(), ["1: e1"]);
}

#[test]
fn only_the_answer_to_the_last_look_counts_and_none_comes_to_another_life() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.arrives("news", nth(1, 7));
    bench.leave("news", "", 0);
    bench.join("news", "", 1);
    bench.wants();
    bench.seen("news", at(1, 7));
    assert_eq!(bench.wants(), [""; 0], "it was asked before somebody came back");
    bench.leave("news", "", 1);
    bench.wait(LINGER);
    bench.wait(LINGER);
    assert_eq!(bench.wants(), ["hold news 0"], "an answer is under way");
    bench.seen("news", at(2, 0));
    bench.wait(LINGER);
    assert_eq!(bench.wants(), ["close news"]);
    bench.join("news", "", 2);
    bench.seen("news", at(2, 0));
    bench.listening("news");
    assert_eq!(bench.wants(), ["open news", "hold news 1", "look news"], "nobody has asked for that answer");
}

#[test]
fn what_comes_twice_is_told_once() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    for seq in [5, 6, 6, 4, 7, 6] {
        bench.arrives("news", nth(1, seq));
    }
    assert_eq!(bench.wants(), ["0: e6", "0: e7"]);
}

#[test]
fn after_a_gap_what_was_missed_comes_first_and_what_is_early_waits() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.arrives("news", nth(1, 8));
    bench.arrives("news", nth(1, 9));
    assert_eq!(bench.wants(), ["look news since 1.5"]);
    assert_eq!(bench.join("news", "", 1), "now", "the replica is as good as it was");
    bench.wants();
    let missed = (6..=8).map(|seq| nth(1, seq)).collect();
    assert_eq!(bench.seen("news", missing(1, 8, missed)), Gap { healed: 2, lost: 0 });
    let told = [6, 7, 8, 9].map(|seq| [format!("0: e{seq}"), format!("1: e{seq}")]);
    assert_eq!(bench.wants(), told.as_flattened());
}

#[test]
fn what_nobody_has_any_more_is_lost_and_counted() {
    for (missed, told, gap) in [
        (vec![], vec!["0: e8"], Gap { healed: 0, lost: 3 }),
        (vec![nth(1, 7), nth(1, 8), nth(1, 9)], vec!["0: e7", "0: e8", "0: e9"], Gap { healed: 2, lost: 1 }),
        (vec![nth(1, 9)], vec!["0: e8", "0: e9"], Gap { healed: 1, lost: 2 }),
    ] {
        let mut bench = bench();
        bench.open("news", "", at(1, 5));
        bench.arrives("news", nth(1, 8));
        bench.wants();
        assert_eq!(bench.seen("news", missing(1, 9, missed)), gap);
        assert_eq!(bench.wants(), told);
    }
}

#[test]
fn what_the_bus_is_still_to_bring_is_not_lost_when_an_answer_is_faster() {
    let mut bench = bench();
    bench.open("news", "", at(2, 0));
    bench.arrives("news", nth(1, 6));
    assert_eq!(bench.wants(), ["look news since 2.0"], "of an earlier life, but who knows");
    bench.arrives("news", nth(2, 1));
    assert_eq!(bench.seen("news", at(2, 3)), Gap::default());
    bench.arrives("news", nth(2, 2));
    bench.arrives("news", nth(2, 3));
    assert_eq!(bench.wants(), ["0: e1", "0: e2", "0: e3"]);
}

#[test]
fn p32_no_answer_lets_a_user_in_before_the_bus_has_brought_what_is_before_it() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann", "bob"]));
    bench.join("presence-room", "bob", 1);
    bench.arrives("presence-room", nth(9, 1));
    bench.held("presence-room", "bob", place(1, 7));
    bench.wants();
    bench.seen("presence-room", with(1, 7, &["ann", "bob"]));
    bench.arrives("presence-room", arrival(1, 6, removed("bob")));
    assert_eq!(bench.wants(), ["0: -bob"]);
    bench.arrives("presence-room", arrival(1, 7, added("bob")));
    assert_eq!(bench.wants(), ["0: +bob", "grant 1: ann bob"]);
}

#[test]
fn another_gap_behind_a_look_leads_to_another_look() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.arrives("news", nth(1, 7));
    bench.arrives("news", nth(1, 10));
    bench.wants();
    bench.seen("news", missing(1, 7, vec![nth(1, 6)]));
    assert_eq!(bench.wants(), ["0: e6", "0: e7", "look news since 1.7"]);
    assert_eq!(bench.seen("news", missing(1, 10, vec![nth(1, 8), nth(1, 9)])), Gap { healed: 2, lost: 0 });
    assert_eq!(bench.wants(), ["0: e8", "0: e9", "0: e10"]);
}

#[test]
fn too_much_that_is_early_is_let_go_and_missed_later() {
    let mut bench = bench();
    bench.open("news", "", at(1, 0));
    for seq in 2..6000 {
        bench.arrives("news", nth(1, seq));
    }
    bench.wants();
    bench.seen("news", missing(1, 2, vec![nth(1, 1), nth(1, 2)]));
    assert_eq!(bench.wants(), ["0: e1", "0: e2", "look news since 1.2"]);
    assert_eq!(bench.seen("news", at(1, 5999)), Gap { healed: 0, lost: 4095 });
    assert_eq!(bench.wants().len(), 5999 - 2 - 4095);
}

#[test]
fn messages_of_another_life_lead_to_one_look() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.mirror.deaf();
    bench.listening("news");
    for seq in 1..100 {
        bench.arrives("news", nth(9, seq));
    }
    bench.wants();
    assert_eq!(bench.seen("news", at(2, 0)), Gap { healed: 0, lost: 1 });
    assert_eq!(bench.wants(), ["look news since 2.0"], "they may be newer or older");
    assert_eq!(bench.seen("news", at(2, 0)), Gap::default());
    assert_eq!(bench.wants(), [""; 0], "they were older");
    bench.arrives("news", nth(8, 1));
    bench.arrives("news", nth(8, 2));
    bench.listening("news");
    bench.seen("news", at(2, 0));
    bench.wants();
    bench.seen("news", at(2, 0));
    assert_eq!(bench.wants(), [""; 0], "the second look came after them");
}

#[test]
fn members_who_came_and_went_in_a_gap_are_told() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann", "bob", "cid"]));
    bench.arrives("presence-room", nth(1, 9));
    bench.wants();
    let mut snapshot = with(1, 9, &["ann", "dan"]);
    snapshot.roster.as_mut().expect("a roster").push(described("cid", r#"{"is":"back"}"#));
    bench.seen("presence-room", snapshot);
    let mut wants = bench.wants();
    assert_eq!(wants.remove(0), "0: e9");
    let cid: Vec<_> = wants.extract_if(.., |want| want.ends_with("cid")).collect();
    assert_eq!(cid, ["0: -cid", "0: +cid"], "somebody else by that name");
    wants.sort();
    assert_eq!(wants, ["0: +dan", "0: -bob"]);
}

#[test]
fn members_of_a_lost_state_are_believed_until_their_nodes_had_time_to_say_so_again() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann", "bob", "cid"]));
    bench.held("presence-room", "", place(2, 1));
    assert_eq!(bench.wants(), ["look presence-room since 1.5"]);
    assert_eq!(bench.seen("presence-room", with(2, 1, &["ann"])), Gap { healed: 0, lost: 1 });
    bench.arrives("presence-room", arrival(2, 2, added("bob")));
    assert_eq!(bench.wants(), [""; 0]);
    assert_eq!(bench.join("presence-room", "ann", 1), "ann bob cid");
    bench.wants();
    bench.wait(BELIEF);
    assert_eq!(bench.wants(), ["0: -cid", "1: -cid"]);
    bench.wait(BELIEF * 2);
    assert_eq!((bench.wants().len(), bench.mirror.doubtful.len()), (0, 0));
}

#[test]
fn p32_nobody_is_told_that_it_has_gone_itself() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann"]));
    bench.arrives("presence-room", arrival(1, 6, removed("ann")));
    bench.wait(BELIEF * 3);
    assert_eq!(bench.wants(), [""; 0], "the lease was lost, not the member");
    assert_eq!(bench.join("presence-room", "ann", 1), "ann");
    bench.arrives("presence-room", arrival(1, 7, added("ann")));
    bench.arrives("presence-room", nth(1, 9));
    bench.seen("presence-room", with(1, 9, &[]));
    assert_eq!(bench.wants(), ["hold presence-room 2", "look presence-room since 1.7", "0: e9", "1: e9"]);
    bench.leave("presence-room", "ann", 0);
    bench.join("presence-room", "bob", 2);
    bench.held("presence-room", "bob", place(1, 10));
    bench.arrives("presence-room", arrival(1, 10, added("bob")));
    bench.leave("presence-room", "ann", 1);
    bench.wants();
    bench.wait(BELIEF * 2);
    assert_eq!(bench.wants(), ["0: -ann"], "the state had known it all the time");
}

#[test]
fn a_newcomer_whose_node_has_lost_its_lease_is_let_in_when_that_is_said_again() {
    let mut bench = bench();
    bench.open("presence-room", "ann", with(1, 5, &["ann"]));
    bench.join("presence-room", "bob", 1);
    bench.arrives("presence-room", arrival(1, 6, added("bob")));
    bench.arrives("presence-room", arrival(1, 7, removed("bob")));
    bench.held("presence-room", "bob", place(1, 6));
    assert_eq!(bench.wants(), ["hold presence-room 2 +bob", "0: +bob", "0: -bob"]);
    bench.arrives("presence-room", arrival(1, 8, added("bob")));
    assert_eq!(bench.wants(), ["0: +bob", "grant 1: ann bob"]);
}

#[test]
fn p57_watchers_are_told_once_and_a_lost_state_is_not_believed_at_once() {
    let user = "watch #server-to-user-u";
    let mut bench = bench();
    bench.open(user, "", Snapshot { online: true, ..at(1, 5) });
    bench.arrives(user, arrival(1, 6, Message::Online));
    assert_eq!(bench.wants(), [""; 0]);
    bench.arrives(user, arrival(1, 7, Message::Offline));
    bench.arrives(user, arrival(1, 8, Message::Online));
    assert_eq!(bench.wants(), ["0: offline", "0: online"]);
    assert_eq!(bench.join(user, "", 1), "online");
    for (says, told) in [(true, vec![]), (false, vec!["0: offline", "1: offline"])] {
        bench.wants();
        bench.arrives(user, arrival(if says { 2 } else { 3 }, 1, Message::Online));
        bench.wants();
        bench.seen(user, at(if says { 2 } else { 3 }, 1));
        if says {
            bench.arrives(user, arrival(2, 2, Message::Online));
        }
        assert_eq!(bench.wants(), [""; 0]);
        bench.wait(BELIEF);
        assert_eq!(bench.wants(), told);
    }
    let watched = bench.mirror.watched(&bench.app, &name("#server-to-user-u")).expect("it is watched");
    assert!(!watched.online);
}

#[test]
fn p28_a_cached_event_is_replayed_from_the_replica_until_its_time() {
    let kept = |number: u64| CachedEvent::new(&name("cache-last"), "\"e\"", &format!("\"{number}\""));
    let mut bench = bench();
    bench.join("cache-last", "", 0);
    bench.listening("cache-last");
    bench.wants();
    bench.seen("cache-last", Snapshot { cached: Some((kept(1), TTL)), ..at(1, 1) });
    assert_eq!(bench.wants(), ["grant 0: e1"]);
    bench.wait(TTL - Duration::from_secs(1));
    assert_eq!(bench.join("cache-last", "", 1), "e1");
    bench.wait(Duration::from_secs(1));
    assert_eq!(bench.join("cache-last", "", 2), "miss");
    assert_eq!(bench.wants(), ["hold cache-last 2", "hold cache-last 3", "miss cache-last"]);
    bench.arrives("cache-last", arrival(1, 2, Message::Kept(kept(2), TTL)));
    assert_eq!(bench.join("cache-last", "", 3), "e2");
}

#[test]
fn p28_who_waits_for_a_cached_event_is_seated_by_any_answer() {
    let mut bench = bench();
    bench.open("cache-last", "", at(1, 5));
    bench.arrives("cache-last", nth(1, 7));
    assert_eq!(bench.join("cache-last", "", 1), "later");
    bench.wants();
    // The answer is only that nothing is lost.
    bench.seen("cache-last", missing(1, 7, vec![nth(1, 6)]));
    assert_eq!(bench.wants(), ["0: e6", "0: e7", "miss cache-last", "grant 1: miss"]);
}

#[test]
fn p37_whoever_is_granted_a_place_or_has_missed_something_is_told_the_count() {
    let mut bench = bench();
    bench.app.subscription_counts = true;
    let counted = |epoch, seq, subscriptions| Snapshot { subscriptions, ..at(epoch, seq) };
    bench.join("news", "", 0);
    bench.listening("news");
    bench.wants();
    bench.arrives("news", arrival(1, 6, Message::Count(4)));
    bench.seen("news", counted(1, 5, 3));
    assert_eq!(bench.wants(), ["grant 0: now", "0: count 3", "0: count 4"]);
    bench.arrives("news", nth(1, 8));
    bench.seen("news", counted(1, 8, 7));
    assert_eq!(bench.wants(), ["look news since 1.6", "0: e8", "0: count 7"]);
    bench.mirror.deaf();
    bench.listening("news");
    bench.seen("news", counted(1, 8, 7));
    assert_eq!(bench.wants(), ["look news since 1.8"], "nothing was missed");
}

#[test]
fn while_the_bus_is_cut_off_open_topics_serve_and_new_ones_wait() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.arrives("news", nth(1, 7));
    bench.mirror.deaf();
    bench.wants();
    bench.seen("news", at(1, 7));
    assert_eq!(bench.join("news", "", 1), "now");
    assert_eq!(bench.join("other", "", 0), "later");
    assert_eq!(bench.wants(), ["hold news 2", "open other"], "an answer from before says nothing of later");
    bench.listening("news");
    assert_eq!(bench.wants(), ["look news since 1.5"]);
    let missed = (6..=9).map(|seq| nth(1, seq)).collect();
    assert_eq!(bench.seen("news", missing(1, 9, missed)).lost, 0);
    assert_eq!(bench.wants().len(), 8);
}

#[test]
fn p58_a_disconnect_and_who_gets_nothing_are_handed_on() {
    let mut bench = bench();
    bench.open("#server-to-user-u", "", at(1, 0));
    bench.arrives("#server-to-user-u", arrival(1, 1, Message::Disconnect(CloseReason::Terminated)));
    let except = Some(crate::protocol::SocketId::from_random(7));
    bench.arrives("#server-to-user-u", Arrival { except, ..nth(1, 2) });
    assert!(matches!(&bench.effects[1], Effect::Deliver(_, delivery) if delivery.except == except));
    assert_eq!(bench.wants(), ["0: disconnect", "0: e2"]);
}

#[test]
fn a_crowd_at_once_costs_each_of_them_the_same() {
    let mut bench = bench();
    bench.app.presence_members_max = usize::MAX;
    bench.open("presence-room", "ann", with(1, 0, &["ann"]));
    let crowd: Vec<String> = (0..20_000).map(|number| format!("user-{number}")).collect();
    for user_id in &crowd {
        assert_eq!(bench.join("presence-room", user_id, 1), "later");
    }
    bench.effects.clear();
    for (seq, user_id) in (1..).zip(&crowd) {
        bench.held("presence-room", user_id, place(1, seq));
    }
    assert_eq!(bench.wants(), [""; 0]);
    let mut granted = 0;
    for (seq, user_id) in (1..).zip(&crowd) {
        bench.arrives("presence-room", arrival(1, seq, added(user_id)));
        let is_grant = |effect: &Effect| matches!(effect, Effect::Granted(_, _, Ok(_)));
        granted += bench.effects.drain(..).filter(is_grant).count();
    }
    assert_eq!(granted, crowd.len());
}

#[test]
fn a_topic_at_rest_takes_little_room() {
    let mut bench = bench();
    bench.open("news", "", at(1, 5));
    bench.join("news", "", 1);
    bench.arrives("news", nth(1, 6));
    assert!(bench.mirror.topics[&topic("news")].unsettled.is_none());
    assert!(size_of::<Channel>() <= 128, "{}", size_of::<Channel>());
}

#[test]
fn nobody_goes_and_comes_because_the_state_has_lost_something() {
    for loss in [
        simulation::Move::Wipe { bus_is_cut: true, answers_are_lost: false },
        simulation::Move::Wipe { bus_is_cut: false, answers_are_lost: false },
        simulation::Move::FailOver { answers_are_lost: false },
        simulation::Move::Restart { answers_are_lost: false },
    ] {
        assert_eq!(simulation::notices_of_a_loss(Instant::now(), &loss), 0, "{loss:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn p38_whatever_is_late_or_lost_all_nodes_tell_the_same((size, moves) in simulation::cases()) {
        simulation::play(Instant::now(), size, moves);
    }
}
