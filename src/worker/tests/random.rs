//! Clients that come and go as they like, and a cluster that answers when it likes: in the end everybody agrees.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;

use crate::worker::tests::stage::{Client, Stage, app, play, topic};

const CHANNELS: [&str; 3] = ["private-a", "presence-b", "presence-c"];

/// Whose connection each client is: two of them are one user's.
const USERS: [&str; 4] = ["ann", "ann", "bob", "eve"];

#[derive(Clone, Debug)]
enum Op {
    /// Subscribe, or unsubscribe.
    Toggle(usize, usize),
    /// Disconnect, or connect.
    Flip(usize),
    Publish(usize),
    /// The bus listens to what it was asked to; nothing else is answered.
    Listen,
    Answer(usize),
    AnswerAll,
}

/// A client, and what it knows.
#[derive(Default)]
struct Seat {
    client: Option<Client>,
    wants: BTreeSet<usize>,
    is_in: BTreeSet<usize>,
    events: BTreeMap<usize, usize>,
}

impl Seat {
    /// Takes notice of what has come.
    async fn listen(&mut self) {
        let Some(client) = &mut self.client else { return };
        for message in client.messages().await {
            self.notice(&message);
        }
    }

    fn notice(&mut self, message: &Value) {
        let channel = message["channel"].as_str().expect("nothing but messages of channels");
        let channel = CHANNELS.iter().position(|name| *name == channel).expect("one of them");
        match message["event"].as_str().expect("a name") {
            "pusher_internal:subscription_succeeded" => {
                assert!(self.wants.contains(&channel), "it does not want to be there any more");
                assert!(self.is_in.insert(channel), "told twice");
            }
            "e" => {
                assert!(self.is_in.contains(&channel), "told before it was subscribed, or after");
                *self.events.entry(channel).or_default() += 1;
            }
            "pusher_internal:member_added" | "pusher_internal:member_removed" => {
                assert!(self.is_in.contains(&channel), "told before it was subscribed, or after");
            }
            other => panic!("{other}"),
        }
    }
}

async fn run(mut stage: Stage, ops: Vec<Op>) {
    let mut seats: [Seat; 4] = Default::default();
    for op in ops {
        match op {
            Op::Toggle(who, channel) => {
                let seat = &mut seats[who];
                let Some(client) = &mut seat.client else { continue };
                if seat.wants.contains(&channel) {
                    client.unsubscribe(CHANNELS[channel]).await;
                    seat.listen().await;
                    seat.wants.remove(&channel);
                    seat.is_in.remove(&channel);
                } else {
                    seat.wants.insert(channel);
                    client.join(CHANNELS[channel], USERS[who]).await;
                }
            }
            Op::Flip(who) => match seats[who].client.take() {
                Some(_) => seats[who] = Seat::default(),
                None => seats[who].client = Some(stage.connect().await),
            },
            Op::Publish(channel) => stage.publish(CHANNELS[channel], "e"),
            Op::Listen => stage.cluster.work_on(|_| false),
            Op::Answer(channel) => stage.cluster.work_on(|topic| topic.channel.as_str() == CHANNELS[channel]),
            Op::AnswerAll => stage.cluster.work(),
        }
        for seat in &mut seats {
            seat.listen().await;
        }
    }
    settle(&mut stage, &mut seats).await;
}

/// Answers everything, and compares what all of them believe.
async fn settle(stage: &mut Stage, seats: &mut [Seat; 4]) {
    let connected = seats.iter().filter(|seat| seat.client.is_some()).count();
    stage.until("who has gone is forgotten", || stage.worker.wheel.borrow().len() == connected).await;
    // A place that nobody wants any more is given back when it has come, which is one answer more.
    for _ in 0..3 {
        stage.cluster.work();
        for seat in &mut *seats {
            seat.listen().await;
        }
        tokio::task::yield_now().await;
    }
    stage.until("nobody waits", || stage.worker.rolls.borrow().waiting() == 0).await;
    stage.cluster.work();
    for (at, name) in CHANNELS.into_iter().enumerate() {
        let wanting: Vec<usize> = (0..4).filter(|who| seats[*who].wants.contains(&at)).collect();
        assert_eq!(stage.cluster.held(&topic(name)), wanting.len() as u64, "{name}");
        if name.starts_with("presence-") {
            let users: BTreeSet<&str> = wanting.iter().map(|who| USERS[*who]).collect();
            assert_eq!(stage.cluster.members(&topic(name)), users.into_iter().collect::<Vec<_>>());
        }
        seats.iter_mut().for_each(|seat| seat.events.clear());
        stage.publish(name, "e");
        for seat in &mut *seats {
            seat.listen().await;
            assert_eq!(seat.is_in, seat.wants);
            assert_eq!(seat.events.get(&at).copied(), seat.wants.contains(&at).then_some(1), "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whoever_waits_and_leaves_in_whatever_order_everybody_agrees(
        ops in prop::collection::vec(
            prop_oneof![
                6 => (0usize..4, 0usize..3).prop_map(|(who, channel)| Op::Toggle(who, channel)),
                2 => (0usize..4).prop_map(Op::Flip),
                2 => (0usize..3).prop_map(Op::Publish),
                2 => Just(Op::Listen),
                2 => (0usize..3).prop_map(Op::Answer),
                1 => Just(Op::AnswerAll),
            ],
            1..60,
        )
    ) {
        play(app(), async |stage| run(stage, ops).await);
    }
}
