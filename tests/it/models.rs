//! Random comings and goings, compared with what a few lines of code say must happen.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, TestRunner},
};
use serde_json::json;

use crate::support::{Broker, Client, member};

const CHANNELS: usize = 8;
const CLIENTS: usize = 4;

/// Every change of subscriptions of a few connections, then one event to each channel: it reaches
/// those whose last word was to subscribe, and nobody else.
#[test]
fn p26_random_subscriptions_lead_to_exactly_those_deliveries() {
    let broker = Broker::start();
    let run = Cell::new(0);
    let steps = vec((0..CLIENTS, 0..CHANNELS), 1..80);
    runner(60)
        .run(&steps, |steps| {
            run.set(run.get() + 1);
            check_subscriptions(&broker, run.get(), &steps);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

fn check_subscriptions(broker: &Broker, run: usize, steps: &[(usize, usize)]) {
    let name = |channel: usize| format!("run-{run}-{channel}");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| broker.connect()).collect();
    let mut model = vec![BTreeSet::new(); CLIENTS];
    for (client, channel) in steps {
        if model[*client].remove(channel) {
            clients[*client].unsubscribe(&name(*channel));
        } else {
            model[*client].insert(*channel);
            clients[*client].subscribe(&name(*channel));
        }
    }
    clients.iter_mut().for_each(Client::expect_served);
    for channel in 0..CHANNELS {
        let listeners = model.iter().filter(|channels| channels.contains(&channel)).count();
        let info = json!({ "occupied": listeners > 0, "subscription_count": listeners });
        assert_eq!(broker.channel(&name(channel), "subscription_count"), info);
        broker.publish(&name(channel), "e", &channel.to_string());
    }
    for (client, channels) in clients.iter_mut().zip(&model) {
        let mut heard: Vec<usize> = Vec::new();
        for _ in channels {
            let frame = client.next();
            let channel: usize = frame["data"].as_str().expect("a string").parse().expect("a number");
            assert_eq!(frame["channel"], name(channel));
            heard.push(channel);
        }
        heard.sort_unstable();
        assert_eq!(heard, channels.iter().copied().collect::<Vec<_>>());
        client.expect_silence();
    }
}

/// Two tabs each of three users come and go at random; an observer hears of first and last ones.
#[test]
fn p32_random_visits_are_announced_by_first_and_last_tab() {
    let broker = Broker::start();
    let run = Cell::new(0);
    let steps = vec((0..6_usize, any::<bool>()), 1..60);
    runner(40)
        .run(&steps, |steps| {
            run.set(run.get() + 1);
            check_visits(&broker, &format!("presence-run-{}", run.get()), &steps);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Each step is a tab, which joins if it is out and leaves if it is in; `vanish` makes it leave by
/// dropping its connection.
fn check_visits(broker: &Broker, room: &str, steps: &[(usize, bool)]) {
    let user = |tab: usize| format!("u{}", tab / 2);
    let mut observer = broker.joined(room, "observer");
    let mut tabs: Vec<Option<Client>> = (0..6).map(|_| None).collect();
    let mut present: BTreeMap<String, usize> = BTreeMap::from([("observer".to_owned(), 1)]);
    for (tab, vanish) in steps {
        let count = present.entry(user(*tab)).or_default();
        if let Some(mut client) = tabs[*tab].take() {
            *count -= 1;
            if *vanish {
                client.close_without_waiting();
            } else {
                client.unsubscribe(room);
            }
            if *count == 0 {
                present.remove(&user(*tab));
                observer.expect_member_removed(room, &user(*tab));
            }
        } else {
            *count += 1;
            let first = *count == 1;
            let mut client = broker.connect();
            let roster = client.join(room, &member(&user(*tab)));
            assert_eq!(roster["ids"], json!(present.keys().collect::<Vec<_>>()));
            tabs[*tab] = Some(client);
            if first {
                observer.expect_member_added(room, &user(*tab));
            }
        }
    }
    observer.expect_silence();
    assert_eq!(broker.users(room), present.keys().cloned().collect::<Vec<_>>());
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}
