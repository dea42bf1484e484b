//! The same from the cluster's mailbox to a receiver and back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::{App, Apps};
use crate::config::Config;
use crate::metrics::Dropped;
use crate::node::{AppName, FactAnswer, News, Node, Room, StoreAway, Told};
use crate::webhook::start;
use crate::webhook::tests::facts::{PARTITION, clustered, ended, occurrence, tenure};
use crate::webhook::tests::{SECOND, app};

/// A request that came.
struct Hook {
    head: String,
    number: u64,
}

/// Somebody who answers every request with this status, on a thread that ends with the process.
fn receiver(status: u16) -> (String, Receiver<Hook>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = listener.local_addr().expect("an address").to_string();
    let (sender, hooks) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream, status, &sender));
        }
    });
    (url, hooks)
}

fn serve(stream: TcpStream, status: u16, hooks: &Sender<Hook>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            (stream.read_line(&mut head).ok()? > 0).then_some(())?;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
        let mut body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).ok()?;
        let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
        hooks.send(Hook { head, number: body["events"][0]["subscription_count"].as_u64()? }).ok()?;
        let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

fn local() -> Config {
    let mut config = Config::default();
    config.webhooks.allowed_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    config
}

fn tell(node: &Node, app: &App, number: u64, again: bool) {
    let id = number.to_string().into_boxed_str();
    let receipt = node.receipt(PARTITION, id, tenure()).expect("a cluster");
    let occurrence = occurrence(app, "x", number);
    node.tell_news(News::Fact(Told { occurrence, time_ms: u64::MAX, again, receipt }));
}

/// The next request. Webhooks run on this thread, so it must not be blocked.
async fn next(hooks: &Receiver<Hook>) -> Hook {
    loop {
        match hooks.try_recv() {
            Ok(hook) => return hook,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// The next fact that ends.
async fn next_ended(answers: &mut UnboundedReceiver<FactAnswer>) -> (u64, bool) {
    loop {
        if let Some(ended) = ended(answers.recv().await.expect("an answer")) {
            return ended;
        }
    }
}

#[test]
fn receivers_see_what_is_a_repetition_and_redis_hears_what_they_have() {
    actix_rt::System::new().block_on(async {
        let (url, hooks) = receiver(200);
        let app = app("1", &[&url]);
        let node = clustered(local(), [app.clone()]);
        let mut answers = node.take_fact_answers().expect("nobody has them");
        let webhooks = start(&node).await.expect("no state file");
        for (number, again) in [(1, false), (2, true)] {
            tell(&node, &app, number, again);
            let room = answers.recv().await.expect("an answer");
            let bytes = Told::weight_of(&occurrence(&app, "x", number));
            assert!(matches!(room, FactAnswer::Room(told) if told == Room { facts: 1, bytes }), "{room:?}");
            assert_eq!(next_ended(&mut answers).await, (number, true));
            let hook = next(&hooks).await;
            assert_eq!(hook.number, number);
            assert_eq!(hook.head.contains("X-Fanfare-Redelivery: true\r\n"), again, "{}", hook.head);
            assert!(hook.head.contains("X-Fanfare-Attempt: 1\r\n"), "{}", hook.head);
        }
        webhooks.finish(SECOND).await;
    });
}

#[test]
fn at_the_end_what_receivers_do_not_take_is_left_to_other_nodes_at_once() {
    actix_rt::System::new().block_on(async {
        let ((good, _kept), (bad, hooks)) = (receiver(200), receiver(500));
        let (good, bad) = (app("1", &[&good]), app("2", &[&bad]));
        let node = clustered(local(), [good.clone(), bad.clone()]);
        let mut answers = node.take_fact_answers().expect("nobody has them");
        let webhooks = start(&node).await.expect("no state file");
        tell(&node, &bad, 1, false);
        next(&hooks).await;
        // These come at the last moment.
        tell(&node, &good, 2, false);
        tell(&node, &bad, 3, false);
        // Nobody waits for more attempts, or the test would take an hour.
        webhooks.finish(3600 * SECOND).await;
        let mut rest: Vec<_> = std::iter::from_fn(|| answers.try_recv().ok()).collect();
        let is_closing = |answer: &FactAnswer| matches!(answer, FactAnswer::Closing);
        assert_eq!(rest.iter().filter(|answer| is_closing(answer)).count(), 1);
        let mut rest: Vec<_> = rest.drain(..).filter_map(ended).collect();
        rest.sort_unstable();
        assert_eq!(rest, [(1, false), (2, true), (3, false)]);
        tell(&node, &good, 4, false);
        assert_eq!(next_ended(&mut answers).await, (4, false), "nobody tells it any more");
    });
}

#[test]
fn facts_of_an_app_that_is_not_known_here_wait_for_the_store() {
    actix_rt::System::new().block_on(async {
        let (url, hooks) = receiver(200);
        let (known, stranger, gone) = (app("1", &[&url]), app("2", &[&url]), app("3", &[&url]));
        let node = clustered(local(), [known.clone()]);
        let mut answers = node.take_fact_answers().expect("nobody has them");
        let mut lookups = node.take_lookups().expect("nobody has them");
        let webhooks = start(&node).await.expect("no state file");
        tell(&node, &stranger, 1, false);
        tell(&node, &stranger, 2, false);
        tell(&node, &known, 3, false);
        assert_eq!(next_ended(&mut answers).await, (3, true), "who is known waits for nobody");
        // One question for both; the store is away, and asked again.
        for answer in [Err(StoreAway), Ok(())] {
            let lookup = lookups.recv().await.expect("a question");
            assert_eq!(lookup.name, AppName::Id("2".to_owned()));
            if answer.is_ok() {
                let apps = [App::clone(&known), App::clone(&stranger)];
                node.replace_apps(Apps::new(apps).expect("apps"));
            }
            lookup.answer.send(answer).expect("somebody waits");
        }
        assert_eq!(next_ended(&mut answers).await, (1, true));
        assert_eq!(next_ended(&mut answers).await, (2, true));
        let told: Vec<u64> = hooks.try_iter().map(|hook| hook.number).collect();
        assert_eq!(told, [3, 1, 2]);

        tell(&node, &gone, 4, false);
        let lookup = lookups.recv().await.expect("a question");
        lookup.answer.send(Ok(())).expect("somebody waits");
        assert_eq!(next_ended(&mut answers).await, (4, true), "there is no such app");
        assert_eq!(node.metrics().webhooks.dropped_so_far(Dropped::ReceiverGone), 1);
        webhooks.finish(SECOND).await;
    });
}

#[test]
fn an_app_that_only_this_node_has_forgotten_is_told_on() {
    actix_rt::System::new().block_on(async {
        let (url, hooks) = receiver(500);
        let app = app("1", &[&url]);
        let node = clustered(local(), [app.clone()]);
        let mut answers = node.take_fact_answers().expect("nobody has them");
        let mut lookups = node.take_lookups().expect("nobody has them");
        let webhooks = start(&node).await.expect("no state file");
        tell(&node, &app, 1, false);
        next(&hooks).await;
        node.replace_apps(Apps::default());
        let lookup = lookups.recv().await.expect("a question");
        node.replace_apps(Apps::new([App::clone(&app)]).expect("an app"));
        lookup.answer.send(Ok(())).expect("somebody waits");
        next(&hooks).await; // its second attempt
        assert!(std::iter::from_fn(|| answers.try_recv().ok()).filter_map(ended).next().is_none());

        node.replace_apps(Apps::default());
        let lookup = lookups.recv().await.expect("a question");
        lookup.answer.send(Ok(())).expect("somebody waits");
        assert_eq!(next_ended(&mut answers).await, (1, true), "it is deleted");
        webhooks.finish(SECOND).await;
    });
}

#[test]
fn strangers_that_take_too_much_hold_up_everything() {
    actix_rt::System::new().block_on(async {
        let mut config = local();
        let (stranger, known) = (app("1", &[]), app("2", &[]));
        let weight = Told::weight_of(&occurrence(&stranger, "x", 1));
        config.webhooks.queue_bytes_max = 4 * 10 * weight;
        let node = clustered(config, [known.clone()]);
        let mut answers = node.take_fact_answers().expect("nobody has them");
        let mut lookups = node.take_lookups().expect("nobody has them");
        let webhooks = start(&node).await.expect("no state file");
        (1..=10).for_each(|number| tell(&node, &stranger, number, false));
        let room = answers.recv().await.expect("an answer");
        assert!(matches!(room, FactAnswer::Room(room) if room.facts == 10), "{room:?}");
        tell(&node, &stranger, 11, false);
        let lookup = lookups.recv().await.expect("a question");
        tell(&node, &known, 12, false);
        // Before this one there was no room for more.
        assert_eq!(answers.recv().await.and_then(ended), Some((12, true)));
        assert!(answers.try_recv().is_err());
        node.replace_apps(Apps::new([App::clone(&known), App::clone(&stranger)]).expect("apps"));
        lookup.answer.send(Ok(())).expect("somebody waits");
        for number in 1..=11 {
            assert_eq!(next_ended(&mut answers).await, (number, true));
        }
        let room = answers.recv().await.expect("an answer");
        assert!(matches!(room, FactAnswer::Room(room) if room.facts == 2), "{room:?}");
        webhooks.finish(SECOND).await;
    });
}
