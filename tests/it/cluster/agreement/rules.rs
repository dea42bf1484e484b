//! What the scripts decide and the hub knows nothing of: leases, losses, repetitions, and who takes facts.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::cmd;
use fanfare::cluster::script::{Due, DueKind, Fault, Item, LAYOUT, TakenFact};
use fanfare::hub::{Audience, Fact, Topic};
use fanfare::mirror::{Again, Change, Hold, Message, Op, Place, Publication, Reply, Traits, partition_of};
use fanfare::protocol::{CachedEvent, ChannelName, Frame, Member};

use super::nodes::{DEBOUNCE, LEASE, Nodes};
use crate::support::RedisServer;

const TELLS: Traits = Traits { tells: true, counts: false };

struct Bench {
    _server: RedisServer,
    nodes: Nodes,
    topic: Topic,
}

impl Bench {
    fn new(channel: &str) -> Self {
        let server = RedisServer::start();
        let topic = topic(channel);
        let partition = partition_of(&topic.app, topic.channel.as_str());
        let nodes = Nodes::new(&server, false, partition, 3, std::slice::from_ref(&topic));
        Self { _server: server, nodes, topic }
    }

    fn hold(&self, count: u64, change: Option<Change>, again: Again) -> Item {
        let topic = self.topic.clone();
        Item::Op(Op::Hold(Hold { topic, count, change, traits: TELLS, again }))
    }

    fn event(&self, data: &str) -> Item {
        let message = Message::Event(Frame::event(&self.topic.channel, "\"e\"", data));
        let topic = self.topic.clone();
        Item::Op(Op::Publish(Publication { topic, message, except: None, told: None }))
    }

    fn messages(&mut self) -> Vec<Message> {
        self.nodes.news().into_iter().map(|(_, arrival)| arrival.message).collect()
    }

    /// Everything that a node is handed out from the beginning, with marks.
    fn all_facts(&mut self, node: usize) -> Vec<(Fact, bool)> {
        facts(self.nodes.take(node, "", false).expect("a turn").facts)
    }
}

fn topic(channel: &str) -> Topic {
    let channel = ChannelName::parse(channel, 164).expect("a name");
    Topic { app: "1".into(), channel, audience: Audience::Subscribers }
}

fn member(user_id: &str) -> Arc<Member> {
    Arc::new(Member { user_id: user_id.into(), user_info: "{}".into() })
}

fn enters(user_id: &str, max: usize) -> Option<Change> {
    Some(Change::Enters { member: member(user_id), max })
}

fn leaves(user_id: &str) -> Option<Change> {
    Some(Change::Leaves(user_id.into()))
}

fn facts(taken: Vec<TakenFact>) -> Vec<(Fact, bool)> {
    taken.into_iter().map(|fact| (fact.occurrence.fact, fact.again)).collect()
}

#[test]
fn facts_are_handed_to_one_node_and_marked_if_another_one_may_have_told_them() {
    let mut bench = Bench::new("news");
    for count in [1, 0] {
        let hold = bench.hold(count, None, Again::No);
        bench.nodes.step(0, false, &[hold]);
        bench.nodes.wait(DEBOUNCE);
        bench.nodes.settle(0, false, None);
    }
    let first = bench.nodes.take(0, "", false).expect("a turn");
    assert_eq!(first.owner, "node-0");
    assert_eq!(facts(first.facts.clone()), [(Fact::Occupied, false), (Fact::Vacated, false)]);
    assert!(first.facts[0].time_ms > 1_600_000_000_000, "{}", first.facts[0].time_ms);

    // Another one has to wait, and is told for whom.
    let other = bench.nodes.take(1, "", false).expect("an answer");
    assert_eq!((other.owner.as_str(), other.facts.len()), ("node-0", 0));

    // The answer was lost: nobody has heard of them yet.
    let again = bench.nodes.take(0, &first.facts[0].id, false).expect("a turn");
    assert_eq!(facts(again.facts), [(Fact::Vacated, false)]);
    // The same node from the beginning: it may have told everything that it was given.
    assert_eq!(bench.all_facts(0), [(Fact::Occupied, true), (Fact::Vacated, true)]);

    // What is done is gone. The turn is given back: what is left was handed out before, what is new was not.
    bench.nodes.done(&[first.facts[0].id.clone()]);
    bench.nodes.take(0, "", true).expect("given back");
    let hold = bench.hold(1, None, Again::No);
    bench.nodes.step(0, false, &[hold]);
    assert_eq!(bench.all_facts(1), [(Fact::Vacated, true), (Fact::Occupied, false)]);
    // In pieces, too.
    let rest = bench.nodes.take(1, &first.facts[1].id, false).expect("a turn");
    assert_eq!(facts(rest.facts), [(Fact::Occupied, false)]);
}

#[test]
fn a_dead_nodes_turn_is_free_when_its_lease_was_taken_away() {
    let mut bench = Bench::new("news");
    let hold = bench.hold(1, None, Again::No);
    bench.nodes.step(1, false, &[hold]);
    assert_eq!(bench.all_facts(0), [(Fact::Occupied, false)]);
    bench.nodes.wait(LEASE);
    bench.nodes.beat_all(Some(0));
    assert_eq!(bench.nodes.take(1, "", false).expect("an answer").owner, "node-0");
    bench.nodes.step(1, false, &[Item::Claim("node-0".to_owned())]);
    assert_eq!(bench.nodes.take(0, "", false), Err(Fault::Fenced));
    assert_eq!(bench.all_facts(1), [(Fact::Occupied, true)]);
}

#[test]
fn too_many_facts_are_dropped_and_counted() {
    let mut bench = Bench::new("presence-room");
    bench.nodes.facts_max = 3;
    for user in 0..5 {
        let hold = bench.hold(user + 1, enters(&user.to_string(), 9), Again::No);
        bench.nodes.step(0, false, &[hold]);
    }
    let pulse = bench.nodes.beat(0).expect("a lease");
    assert_eq!((pulse.facts, pulse.facts_lost), (3, 3));
    assert_eq!(bench.all_facts(0).len(), 3);
    // Five have come all the same.
    assert_eq!(bench.nodes.look(0, false, &[(bench.topic.clone(), None)])[0].users, 5);
}

#[test]
fn what_is_restated_silently_is_no_fact_and_what_is_marked_is_marked() {
    let mut bench = Bench::new("presence-room");
    let silent = bench.hold(1, enters("ann", 9), Again::Silently);
    let marked = bench.hold(2, enters("bob", 9), Again::Marked);
    bench.nodes.step(0, true, &[silent, marked]);
    assert_eq!(bench.all_facts(0), [(Fact::MemberAdded("bob".into()), true)]);
    // Whoever knows already takes no notice of it; whoever does not must hear of it.
    let expected = [Message::MemberAdded(member("ann")), Message::MemberAdded(member("bob"))];
    assert_eq!(bench.messages(), expected);

    let silent = bench.hold(1, leaves("ann"), Again::Silently);
    let marked = bench.hold(0, leaves("bob"), Again::Marked);
    bench.nodes.step(0, true, &[silent, marked]);
    bench.nodes.wait(DEBOUNCE);
    bench.nodes.settle(0, true, None);
    let last = bench.all_facts(0).split_off(1);
    assert_eq!(last, [(Fact::MemberRemoved("bob".into()), true), (Fact::Vacated, true)]);
}

#[test]
fn what_is_settled_too_early_or_twice_changes_nothing() {
    let mut bench = Bench::new("presence-room");
    let comes = bench.hold(1, enters("ann", 9), Again::No);
    let goes = bench.hold(0, leaves("ann"), Again::No);
    bench.nodes.step(0, false, &[comes, goes]);
    let due = |what| Item::Settle(Due { topic: bench.topic.clone(), what });
    let all = [DueKind::Removed("ann".into()), DueKind::Vacated, DueKind::Count].map(due);
    bench.nodes.wait(DEBOUNCE - Duration::from_millis(1));
    bench.nodes.step(1, false, &all);
    assert_eq!(bench.all_facts(0).len(), 2);
    bench.nodes.wait(Duration::from_millis(1));
    bench.nodes.step(1, false, &all);
    bench.nodes.step(2, false, &all);
    let last = bench.all_facts(0).split_off(2);
    assert_eq!(last, [(Fact::MemberRemoved("ann".into()), false), (Fact::Vacated, false)]);
}

#[test]
fn a_marked_leave_is_undone_like_any_other() {
    let mut bench = Bench::new("presence-room");
    let comes = bench.hold(1, enters("ann", 9), Again::Silently);
    let goes = bench.hold(0, leaves("ann"), Again::Marked);
    let is_back = bench.hold(1, enters("ann", 9), Again::No);
    bench.nodes.step(0, false, &[comes, goes, is_back]);
    bench.nodes.wait(DEBOUNCE);
    bench.nodes.settle(0, false, None);
    assert_eq!(bench.all_facts(0), []);
}

#[test]
fn p37_many_are_counted_every_five_seconds() {
    let mut bench = Bench::new("news");
    let count = |bench: &mut Bench, count| {
        let (topic, traits) = (bench.topic.clone(), Traits { tells: false, counts: true });
        let hold = Hold { topic, count, change: None, traits, again: Again::No };
        bench.nodes.step(0, true, &[Item::Op(Op::Hold(hold))]);
        bench.messages()
    };
    let settle = |bench: &mut Bench, ms| {
        bench.nodes.wait(Duration::from_millis(ms));
        bench.nodes.settle(1, true, None);
        bench.messages()
    };
    // However many have come in one step.
    assert_eq!(count(&mut bench, 101), [Message::Count(101)]);
    assert_eq!(count(&mut bench, 102), []);
    assert_eq!(settle(&mut bench, 4999), []);
    assert_eq!(count(&mut bench, 103), []);
    assert_eq!(settle(&mut bench, 1), [Message::Count(103)]);
    assert_eq!(count(&mut bench, 104), []);
    assert_eq!(count(&mut bench, 100), [Message::Count(100)]);
    assert_eq!(settle(&mut bench, 5000), [], "nothing has changed since");
    assert_eq!(count(&mut bench, 105), [Message::Count(105)]);
}

#[test]
fn a_refusal_stays_one_though_there_is_room_by_now() {
    let mut bench = Bench::new("presence-room");
    let first = bench.hold(1, enters("ann", 1), Again::No);
    bench.nodes.step(0, false, &[first]);
    let items = [bench.event("\"1\""), bench.hold(1, enters("bob", 1), Again::No)];
    let replies = bench.nodes.step(1, false, &items);
    assert_eq!(replies[1], Reply::Full);
    let gone = bench.hold(0, leaves("ann"), Again::No);
    bench.nodes.step(0, false, &[gone]);
    // Events that nobody waits for any more may be left out of the repetition.
    assert_eq!(bench.nodes.step_aside(1, -1, &items[1..]), Ok(vec![Reply::Full]));
    let again = bench.hold(1, enters("bob", 1), Again::No);
    assert!(matches!(bench.nodes.step(1, true, &[again])[..], [Reply::Held(_)]));
}

#[test]
fn dead_nodes_are_removed_one_after_the_other() {
    let mut bench = Bench::new("presence-room");
    for (node, user) in [(0, "ann"), (1, "bob"), (2, "cid")] {
        let hold = bench.hold(1, enters(user, 9), Again::No);
        bench.nodes.step(node, false, &[hold]);
    }
    bench.nodes.wait(LEASE);
    bench.nodes.beat(2).expect("a lease");
    let claims = ["node-0", "node-1"].map(|node| Item::Claim(node.to_owned()));
    bench.nodes.step(2, false, &claims);
    let pulse = bench.nodes.beat(2).expect("a lease");
    let topics = vec![bench.topic.clone()];
    assert_eq!(pulse.dead, Some(("node-0".to_owned(), topics.clone())));
    assert!(pulse.nodes.contains(&("node-1".to_owned(), 0)), "{:?}", pulse.nodes);
    let bury = |node: &str| Item::Bury(node.to_owned(), topics[0].clone());
    // Not its turn yet.
    bench.nodes.step(2, false, &[bury("node-1"), bury("node-0")]);
    assert_eq!(bench.nodes.look(2, false, &[(topics[0].clone(), None)])[0].users, 2);
    assert_eq!(bench.nodes.beat(2).expect("a lease").dead, None);
    // The other one is back before it is taken for dead.
    bench.nodes.beat(1).expect("a lease");
    bench.nodes.step(2, false, &claims);
    assert_eq!(bench.nodes.beat(2).expect("a lease").dead, None);
    let left = bench.nodes.look(2, false, &[(topics[0].clone(), None)]).remove(0);
    assert_eq!((left.subscriptions, left.users), (2, 2));
}

#[test]
fn a_node_sees_what_redis_has_lost_of_it() {
    let mut bench = Bench::new("presence-room");
    let opened = bench.nodes.open(0).expect("a lease");
    let hold = bench.hold(1, enters("ann", 9), Again::No);
    bench.nodes.step(0, false, &[hold]);
    let earlier = bench.nodes.state();
    let hold = bench.hold(2, enters("bob", 9), Again::No);
    bench.nodes.step(0, false, &[hold]);

    // The state of a moment ago, as a replica has it that lags behind.
    bench.nodes.fall_back(&earlier);
    let step = bench.nodes.nodes[0].number;
    assert_eq!(bench.nodes.step_aside(0, 0, &[]), Err(Fault::Behind(step - 1)));
    assert_eq!(bench.nodes.beat(0).expect("a lease").step, step - 1);
    let again = bench.nodes.open(0).expect("a lease");
    assert_eq!(again.generation, opened.generation);
    let held: Vec<_> = again.held.iter().map(|held| (held.count, held.members.clone())).collect();
    assert_eq!(held, [(1, vec!["ann".into()])]);
    assert_eq!(bench.nodes.beat(0).expect("a lease").step, step);

    // Everything.
    cmd("FLUSHALL").exec(&mut bench.nodes.redis).expect("a flush");
    bench.nodes.wait(Duration::ZERO);
    assert_eq!(bench.nodes.step_aside(0, 0, &[]), Err(Fault::Fenced));
    assert_eq!(bench.nodes.beat(0), Err(Fault::Fenced));
    let anew = bench.nodes.open(0).expect("a lease");
    assert!(anew.generation != opened.generation && anew.held.is_empty());
}

#[test]
fn no_place_is_given_twice_by_servers_that_lack_the_latest_messages() {
    let mut bench = Bench::new("news");
    bench.nodes.log_bytes = 10_000;
    let publish = |bench: &mut Bench, node: usize, data: &str| {
        let event = bench.event(data);
        bench.nodes.step(node, false, &[event]);
        let (_, arrival) = bench.nodes.news().remove(0);
        (arrival.place, arrival.message)
    };
    for node in [0, 1] {
        let hold = bench.hold(1, None, Again::No);
        bench.nodes.step(node, false, &[hold]);
    }
    let (first, _) = publish(&mut bench, 1, "1");
    let earlier = bench.nodes.state();
    let mut places = vec![first];
    places.extend(["2", "3"].map(|data| publish(&mut bench, 0, data).0));
    let heard = places[2];

    // What another node, of which nothing is lost, publishes first.
    bench.nodes.fall_back(&earlier);
    let number = bench.nodes.nodes[1].number;
    let new = ["4", "5", "6"].map(|data| publish(&mut bench, 1, data));
    places.extend(new.iter().map(|(place, _)| *place));
    let mut since = |place: Place| {
        let seen = bench.nodes.look(1, false, &[(bench.topic.clone(), Some(place))]).remove(0);
        let missed: Vec<_> = seen.missed.into_iter().map(|missed| (missed.place, missed.message)).collect();
        (seen.place, missed, seen.is_all)
    };
    // It does not matter whether one has heard what is lost.
    for place in [heard, first] {
        assert_eq!(since(place), (new[2].0, new.to_vec(), true));
    }
    assert_eq!(since(new[0].0), (new[2].0, new[1..].to_vec(), true));

    // The one that took over is lost with all it has done.
    bench.nodes.fall_back(&earlier);
    bench.nodes.nodes[1].number = number;
    places.extend(["7", "8", "9"].map(|data| publish(&mut bench, 1, data).0));
    for (at, place) in places.iter().enumerate() {
        assert!(!places[..at].contains(place), "{place:?} of {places:?}");
    }
}

#[test]
fn a_server_that_does_not_say_which_it_is_begins_no_era() {
    let mut bench = Bench::new("news");
    let hold = bench.hold(1, None, Again::No);
    bench.nodes.step(0, false, &[hold]);
    for (at, run) in [Some(1), None, Some(1), None].into_iter().enumerate() {
        bench.nodes.run = run;
        let event = bench.event("\"1\"");
        bench.nodes.step(0, false, &[event]);
        let (_, arrival) = bench.nodes.news().remove(0);
        assert_eq!(arrival.place.seq, at as u64 + 1);
    }
}

#[test]
fn another_layout_is_left_alone() {
    let mut bench = Bench::new("news");
    let meta = [bench.nodes.base(), b"meta".to_vec()].concat();
    cmd("HSET")
        .arg(&meta)
        .arg("layout")
        .arg(LAYOUT + 1)
        .exec(&mut bench.nodes.redis)
        .expect("another layout");
    let state = bench.nodes.state();
    assert_eq!(bench.nodes.open(0), Err(Fault::Layout { found: LAYOUT + 1, needed: LAYOUT }));
    assert_eq!(bench.nodes.state(), state);
}

#[test]
fn a_lease_with_something_behind_it_is_not_given_back() {
    let mut bench = Bench::new("news");
    let hold = bench.hold(1, None, Again::No);
    bench.nodes.step(0, false, &[hold]);
    bench.nodes.leave(0);
    assert!(bench.nodes.beat(0).is_ok());
    let hold = bench.hold(0, None, Again::No);
    bench.nodes.step(0, false, &[hold]);
    bench.nodes.take(0, "", false).expect("a turn");
    bench.nodes.leave(0);
    assert_eq!(bench.nodes.beat(0), Err(Fault::Fenced));
    let pulse = bench.nodes.beat(1).expect("a lease");
    assert!(!pulse.nodes.iter().any(|(node, _)| node == "node-0"), "{:?}", pulse.nodes);
    assert_eq!(bench.nodes.take(1, "", false).expect("a turn").owner, "node-1");
}

#[test]
fn the_log_keeps_the_latest_and_not_much_more() {
    let mut bench = Bench::new("news");
    bench.nodes.log_bytes = 10_000;
    let hold = bench.hold(1, None, Again::No);
    bench.nodes.step(0, false, &[hold]);
    let event = bench.event(&format!("\"{}\"", "x".repeat(1000)));
    let since = |bench: &mut Bench, seq| {
        let place = bench.nodes.look(1, false, &[(bench.topic.clone(), None)])[0].place;
        let since = Place { seq, ..place };
        bench.nodes.look(1, false, &[(bench.topic.clone(), Some(since))]).remove(0).missed
    };
    for published in 1..=100 {
        bench.nodes.step(0, false, std::slice::from_ref(&event));
        let kept = since(&mut bench, 0).len();
        assert!((published.min(9)..30).contains(&kept), "{kept} of 1,100 bytes after {published}");
    }
    let seqs: Vec<u64> = since(&mut bench, 95).iter().map(|missed| missed.place.seq).collect();
    assert_eq!(seqs, [96, 97, 98, 99, 100]);
    let memory: usize = ["log:0", "log:1"]
        .iter()
        .map(|name| {
            let key = [bench.nodes.base(), name.as_bytes().to_vec()].concat();
            cmd("MEMORY").arg("USAGE").arg(key).query::<Option<usize>>(&mut bench.nodes.redis).expect("usage")
        })
        .map(Option::unwrap_or_default)
        .sum();
    assert!(memory < 40_000, "{memory} bytes");
}

#[test]
fn a_hole_in_the_log_is_not_filled_with_an_earlier_life() {
    let mut bench = Bench::new("news");
    let (comes, goes) = (bench.hold(1, None, Again::No), bench.hold(0, None, Again::No));
    let event = bench.event("\"1\"");
    bench.nodes.log_bytes = 10_000;
    bench.nodes.step(0, false, &[comes.clone(), event.clone(), event.clone(), goes]);
    // Another node keeps no log.
    bench.nodes.log_bytes = 0;
    bench.nodes.step(1, false, &[comes, event.clone(), event.clone()]);
    bench.nodes.log_bytes = 10_000;
    bench.nodes.step(0, false, &[event]);
    let place = bench.nodes.look(1, false, &[(bench.topic.clone(), None)])[0].place;
    let since = Place { seq: 0, ..place };
    let missed = bench.nodes.look(1, false, &[(bench.topic.clone(), Some(since))]).remove(0).missed;
    assert_eq!(missed.iter().map(|missed| missed.place).collect::<Vec<_>>(), [place]);
}

#[test]
fn an_event_is_kept_though_nobody_listens_and_costs_the_bus_nothing() {
    let mut bench = Bench::new("cache-last");
    bench.nodes.log_bytes = 10_000;
    let event = CachedEvent::new(&bench.topic.channel, "\"e\"", "\"1\"");
    let ttl = Duration::from_secs(60);
    let publish = |message| {
        let topic = bench.topic.clone();
        Item::Op(Op::Publish(Publication { topic, message, except: None, told: None }))
    };
    let passing = publish(Message::Event(event.frame.clone()));
    let kept = publish(Message::Kept(event.clone(), ttl));
    bench.nodes.step(0, true, &[passing, kept]);
    assert_eq!(bench.messages(), []);
    bench.nodes.wait(Duration::from_secs(59));
    let look = |bench: &mut Bench| bench.nodes.look(1, false, &[(bench.topic.clone(), None)]).remove(0);
    let found = look(&mut bench);
    assert_eq!((found.place, found.cached), (Place::default(), Some((event, Duration::from_secs(1)))));
    bench.nodes.wait(Duration::from_secs(1));
    assert_eq!(look(&mut bench).cached, None);
}

#[test]
fn no_life_of_a_topic_has_the_epoch_of_another() {
    let mut bench = Bench::new("news");
    let mut epochs = std::collections::HashSet::new();
    let pair = [bench.hold(1, None, Again::No), bench.hold(0, None, Again::No)];
    let lives = pair.iter().cycle().take(100).cloned().collect::<Vec<_>>();
    for _ in 0..5 {
        for pair in bench.nodes.step(0, false, &lives).chunks(2) {
            let [Reply::Held(there), Reply::Held(gone)] = pair else { panic!("{pair:?}") };
            assert_eq!(there.epoch, gone.epoch);
            assert!(epochs.insert(there.epoch), "{there:?}");
        }
    }
}
