//! Names, arguments and answers by themselves. What the scripts do is told in `tests/it/cluster`.

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_redis::redis::Value;
use proptest::prelude::*;

use super::*;
use crate::hub::{Audience, ClientEventFact, Fact};
use crate::mirror::{
    Again, Change, Hold, Message, PARTITIONS, Place, Publication, Reply, Traits, partition_of,
};
use crate::protocol::{CachedEvent, ChannelName, Frame, Member, SocketId};

fn topic(app: &str, channel: &str, audience: Audience) -> Topic {
    Topic { app: app.into(), channel: ChannelName::parse(channel, 164).expect("a name"), audience }
}

fn subscribers(channel: &str) -> Topic {
    topic("1", channel, Audience::Subscribers)
}

fn head(number: u64) -> Head<'static> {
    let debounce = Duration::from_secs(3);
    Head { node: "n", number, nonce: 7, debounce, log_bytes: 0, outbox_max: 100, sharded: false }
}

fn text(value: &str) -> Value {
    Value::BulkString(value.as_bytes().to_vec())
}

proptest! {
    #[test]
    fn a_bus_topic_names_its_topic(
        prefix in "[a-z:]{1,9}",
        app in "[a-z0-9:{} ]{1,9}",
        channel in "[A-Za-z0-9_=@,.;-]{1,20}|#server-to-user-[a-z0-9]{1,9}",
        watched: bool,
    ) {
        let audience = if watched { Audience::Watchers } else { Audience::Subscribers };
        let (space, topic) = (Space::new(&prefix), topic(&app, &channel, audience));
        let name = space.bus_topic(&topic);
        prop_assert_eq!(space.parse_bus_topic(&name), Some(topic));
        prop_assert_eq!(space.parse_wake_topic(&name), None);
        prop_assert_eq!(Space::new("other").parse_bus_topic(&name), None);
    }

    #[test]
    fn whatever_comes_from_redis_is_read_or_refused(text in "\\PC{0,40}|[swm#]?1\0[sw]news\0?[a-z]{0,3}") {
        let value = || Value::BulkString(text.clone().into_bytes());
        let list = |length: usize| Value::Array(std::iter::repeat_with(value).take(length).collect());
        let items = [Item::Op(Op::Look(subscribers("presence-cache-a"), None))];
        for length in 0..10 {
            let nested = || Value::Array(std::iter::repeat_with(|| list(length)).take(8).collect());
            for value in [value(), Value::Nil, Value::Int(-1), list(length), nested()] {
                let _ = opened(value.clone());
                let _ = pulse(value.clone());
                let _ = listed(value.clone());
                let _ = taken(value.clone());
                let _ = replies(&items, Value::Array(vec![value]));
            }
        }
        let _ = fault(&text);
    }
}

#[test]
fn every_partition_has_names_of_its_own() {
    let space = Space::new("fanfare");
    let names: HashSet<Vec<u8>> = (0..PARTITIONS).map(|partition| space.wake_topic(partition)).collect();
    assert_eq!(names.len(), usize::from(PARTITIONS));
    assert_eq!(space.wake_topic(17), b"fanfare:{17}:wake");
    assert_eq!(space.parse_wake_topic(b"fanfare:{17}:wake"), Some(17));
    assert_eq!(space.parse_wake_topic(b"fanfare:{64}:wake"), None);
    assert_eq!(space.parse_bus_topic(b"fanfare:{17}:wake"), None);
}

#[test]
fn all_keys_of_a_script_are_in_one_slot() {
    let space = Space::new("fanfare");
    let room = subscribers("presence-cache-room");
    let partition = partition_of("1", "presence-cache-room");
    let member = Arc::new(Member { user_id: "ann".into(), user_info: "{}".into() });
    let hold = Hold {
        topic: room.clone(),
        count: 1,
        change: Some(Change::Enters { member, max: 100 }),
        traits: Traits { tells: true, counts: false },
        again: Again::No,
    };
    let items = [
        Item::Op(Op::Hold(hold)),
        Item::Settle(Due { topic: room.clone(), what: DueKind::Vacated }),
        Item::Claim("dead".to_owned()),
        Item::Bury("dead".to_owned(), room.clone()),
        Item::Op(Op::Look(room, None)),
    ];
    let lease = Duration::from_secs(10);
    for invocation in [
        space.open(partition, "n", lease, 1, 2),
        space.beat(partition, "n", lease),
        space.step(partition, &head(1), &items),
        space.list(partition, "1", ""),
        space.take(partition, "n", "", 10, false),
        space.done(partition, &["1-0".to_owned()]),
        space.leave(partition, "n"),
    ] {
        let base = format!("fanfare:{{{partition}}}:");
        assert!(!invocation.keys.is_empty(), "{}", invocation.script.name);
        let distinct: HashSet<&Vec<u8>> = invocation.keys.iter().collect();
        assert_eq!(distinct.len(), invocation.keys.len(), "{}", invocation.script.name);
        for key in &invocation.keys {
            assert!(key.starts_with(base.as_bytes()), "{}", String::from_utf8_lossy(key));
        }
    }
}

#[test]
fn mere_events_have_a_script_of_their_own() {
    let space = Space::new("fanfare");
    let news = subscribers("news");
    let event = |told| {
        let message = Message::Event(Frame::event(&news.channel, "\"e\"", "\"1\""));
        Item::Op(Op::Publish(Publication { topic: news.clone(), message, except: None, told }))
    };
    let told = ClientEventFact {
        event: "\"client-e\"".into(),
        data: "\"1\"".into(),
        socket_id: SocketId::from_random(1),
        user_id: None,
    };
    let name = |items: &[Item]| space.step(1, &head(1), items).script.name;
    assert_eq!(name(&[event(None), event(None)]), "publish");
    assert_eq!(name(&[event(None), event(Some(Box::new(told)))]), "step");
    assert_eq!(name(&[event(None), Item::Op(Op::Census(news.clone()))]), "step");
}

#[test]
fn a_fault_is_read_from_whatever_a_client_of_redis_makes_of_it() {
    for (text, expected) in [
        ("FENCED the node has no lease", Some(Fault::Fenced)),
        ("\"FENCED\": the node has no lease", Some(Fault::Fenced)),
        ("BEHIND 12", Some(Fault::Behind(12))),
        ("\"BEHIND\": 12", Some(Fault::Behind(12))),
        ("-LAYOUT 9", Some(Fault::Layout { found: 9, needed: LAYOUT })),
        ("BEHIND", None),
        ("ERR user_script:1: FENCED", None),
        ("", None),
    ] {
        assert_eq!(fault(text), expected, "{text:?}");
    }
}

#[test]
fn what_a_node_holds_is_read_by_topic() {
    let held = ["#", "5 1", "1\0spresence-a", "3", "1\0spresence-a\0u\0x", "1", "1\0w#server-to-user-b", "2"];
    let answer = vec![text("18446744073709551615"), Value::Array(held.map(text).to_vec())];
    let mut opened = opened(Value::Array(answer)).expect("sense");
    opened.held.sort_by_key(|holding| holding.count);
    assert_eq!(opened.generation, u64::MAX);
    let watched = topic("1", "#server-to-user-b", Audience::Watchers);
    let room = subscribers("presence-a");
    assert_eq!(
        opened.held,
        [
            Holding { topic: watched, count: 2, members: vec![] },
            Holding { topic: room, count: 3, members: vec!["u\0x".into()] },
        ]
    );
}

#[test]
fn a_pulse_tells_what_is_due_and_who_is_dead() {
    let (nodes, due) = (["a", "-5"], ["c1\0snews", "n1\0spresence-a\0ann", "w1\0snews"]);
    let left = ["1\0spresence-a\0ann", "1\0spresence-a", "1\0snews"];
    let answer = vec![
        text("5 1 2"),
        Value::Array(nodes.map(text).to_vec()),
        Value::Array(due.map(text).to_vec()),
        Value::Int(-1),
        text("dead"),
        Value::Array(left.map(text).to_vec()),
        Value::Int(2),
        Value::Int(3),
    ];
    let news = || subscribers("news");
    let due = |topic, what| Due { topic, what };
    assert_eq!(
        pulse(Value::Array(answer)),
        Ok(Pulse {
            step: 5,
            nodes: vec![("a".to_owned(), -5)],
            due: vec![
                due(news(), DueKind::Count),
                due(subscribers("presence-a"), DueKind::Removed("ann".into())),
                due(news(), DueKind::Vacated),
            ],
            next_due_ms: None,
            dead: Some(("dead".to_owned(), vec![news(), subscribers("presence-a")])),
            facts_lost: 2,
            facts: 3,
        })
    );
}

#[test]
fn a_client_event_is_the_same_after_the_outbox() {
    let fact = ClientEventFact {
        event: r#""client-\u00e4""#.into(),
        data: r#""{\"a\":1}""#.into(),
        socket_id: SocketId::from_random(1 | 2 << 64),
        user_id: Some("a\"b".into()),
    };
    let news = subscribers("private-a");
    let message = Message::Event(Frame::event(&news.channel, &fact.event, &fact.data));
    let told = Some(Box::new(fact.clone()));
    let items = [Item::Op(Op::Publish(Publication { topic: news, message, except: None, told }))];
    let args = Space::new("fanfare").step(1, &head(1), &items).args;
    let kept = Value::BulkString(args.last().expect("the fact").clone());
    let entry = [text("17-3"), text("client_event"), text("1"), text("private-a"), kept, text("1")];
    let taken = taken(Value::Array([vec![text("n")], entry.to_vec()].concat())).expect("sense");
    let [taken] = &taken.facts[..] else { panic!("one fact") };
    assert_eq!((&*taken.id, taken.time_ms, taken.again), ("17-3", 17, true));
    assert_eq!(taken.occurrence.fact, Fact::ClientEvent(Box::new(fact)));
}

#[test]
fn a_snapshot_leaves_out_what_cannot_be_read() {
    let room = subscribers("presence-cache-a");
    let event = CachedEvent::new(&room.channel, "\"e\"", "\"1\"");
    let message = Message::Kept(event.clone(), Duration::from_secs(9));
    let (kind, tail) = crate::cluster::envelope::encode(&message, None);
    let place = |seq: u64| [7u64.to_be_bytes(), seq.to_be_bytes()].concat();
    let logged = |version, seq| Value::BulkString([&[version, kind][..], &place(seq), &tail].concat());
    let answer = |version: u8| {
        Value::Array(vec![
            Value::BulkString(place(3)),
            Value::Int(2),
            Value::Int(1),
            Value::Array(vec![text("ann"), Value::BulkString(b"\0\0\0\x01{}".to_vec())]),
            Value::BulkString([&[version, kind][..], &tail].concat()),
            Value::Int(1500),
            Value::Int(0),
            Value::Array(vec![logged(version, 2), logged(1, 3)]),
            Value::Int(1),
        ])
    };
    let seen = |version| {
        let items = [Item::Op(Op::Look(room.clone(), None))];
        let mut replies = replies(&items, Value::Array(vec![answer(version)])).expect("sense");
        let Some(Reply::Seen(snapshot)) = replies.pop() else { panic!("a snapshot") };
        *snapshot
    };
    let snapshot = seen(1);
    assert_eq!(snapshot.place, Place { epoch: 7, seq: 3 });
    assert_eq!((snapshot.subscriptions, snapshot.users, snapshot.online), (2, 1, false));
    assert_eq!(snapshot.cached, Some((event, Duration::from_millis(1500))));
    let roster: Vec<Member> = snapshot.roster.iter().flatten().map(|member| (**member).clone()).collect();
    assert_eq!(roster, [Member { user_id: "ann".into(), user_info: "{}".into() }]);
    assert_eq!(snapshot.missed.iter().map(|missed| missed.place.seq).collect::<Vec<_>>(), [2, 3]);
    let foreign = seen(9);
    assert_eq!(foreign.cached, None);
    assert_eq!(foreign.missed.iter().map(|missed| missed.place.seq).collect::<Vec<_>>(), [3]);
    assert!(snapshot.is_all && !foreign.is_all);
}
