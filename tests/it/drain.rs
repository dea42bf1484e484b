//! A stop that hurts nobody: connections are closed one after the other, and the world is told.

use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Broker, Client, DEADLINE, KEY, Operator, SECRET, admin_settings, fanfare};

#[test]
fn p11_connections_are_closed_over_a_time_and_none_before_its_turn() {
    const CLIENTS: u32 = 200;
    let broker = Broker::with("drain.spread_s = 2");
    let clients: Vec<Client> = (0..CLIENTS).map(|_| broker.connect()).collect();
    let started = Instant::now();
    broker.signal("TERM");
    let closed: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let frame = client.next();
                assert_eq!(frame["data"]["code"], 4200, "{frame}");
                let at = started.elapsed();
                client.expect_close(4200);
                at
            })
        })
        .collect();
    let mut closed: Vec<Duration> = closed.into_iter().map(|one| one.join().expect("closed")).collect();
    closed.sort_unstable();
    // Each worker goes through its own share; the one with most is slowest, the others may be one slot ahead.
    let slot = Duration::from_secs(2) / CLIENTS;
    for (turn, at) in (0..).zip(&closed) {
        let earliest = (slot * turn).saturating_sub(slot * 8);
        assert!(*at >= earliest, "connection {turn} was closed after {at:?}, not {earliest:?}");
    }
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn few_connections_are_not_dragged_out() {
    let broker = Broker::with("drain.spread_s = 3600");
    let mut client = broker.connect();
    broker.signal("TERM");
    assert_eq!(client.next()["data"]["code"], 4200);
    client.expect_close(4200);
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn clients_are_taken_until_the_delay_is_over() {
    let broker = Broker::with("drain.delay_s = 1");
    broker.signal("TERM");
    broker.logs("stopping");
    let mut late = broker.subscriber("news");
    broker.publish("news", "e", "still here");
    late.expect_event("news", "e", "still here");
    assert_eq!(late.next()["data"]["code"], 4200);
    late.expect_close(4200);
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn an_impatient_operator_need_not_wait() {
    for second in ["TERM", "INT"] {
        let broker = Broker::with("drain.delay_s = 3600");
        let _client = broker.connect();
        broker.signal("TERM");
        broker.logs("stopping");
        broker.signal(second);
        let finished = broker.finish();
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("1 connections were still open"), "{finished:?}");
    }
}

#[test]
fn a_signal_behind_an_order_is_the_first() {
    let broker = Broker::with(&format!("{}\ndrain.delay_s = 1", admin_settings()));
    let mut client = broker.connect();
    // As a hook of Kubernetes does before the pod gets its signal.
    assert_eq!(Operator::of(&broker).send("POST", "drain", "").status, 202);
    broker.logs("stopping");
    broker.signal("TERM");
    assert_eq!(client.next()["data"]["code"], 4200);
    client.expect_close(4200);
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn the_second_signal_behind_an_order_ends_the_wait() {
    let broker = Broker::with(&format!("{}\ndrain.delay_s = 3600", admin_settings()));
    let operator = Operator::of(&broker);
    assert_eq!(operator.send("POST", "drain", "").status, 202);
    broker.logs("stopping");
    broker.signal("TERM");
    // Two at once would be one: whoever answers has seen the first.
    assert_eq!(operator.get("status")["state"], "leaving");
    broker.signal("TERM");
    assert_eq!(broker.finish().code, Some(1));
}

#[test]
fn somebody_at_the_keyboard_does_not_wait_for_the_pace() {
    let broker = Broker::with("drain.delay_s = 3600\ndrain.spread_s = 3600");
    let mut client = broker.connect();
    broker.signal("INT");
    assert_eq!(client.next()["data"]["code"], 4200);
    client.expect_close(4200);
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn systemd_is_told_of_every_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    systemd.set_read_timeout(Some(DEADLINE)).expect("a limit");
    let heard = |wanted: &str| {
        let mut bytes = [0; 512];
        loop {
            let length = match systemd.recv(&mut bytes) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("{wanted}: {error}"),
            };
            if String::from_utf8_lossy(&bytes[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    let file = folder.path().join("fanfare.toml");
    let app = format!("[[apps]]\nid = \"1\"\nkeys = [{{ key = \"{KEY}\", secret = \"{SECRET}\" }}]");
    std::fs::write(&file, format!("server.bind = \"127.0.0.1:0\"\nmetrics.bind = \"\"\n{app}"))
        .expect("written");
    let mut command = fanfare(&["serve", "--config"]);
    command.arg(&file).env("NOTIFY_SOCKET", &path);
    let broker = Broker::spawned(command, false, folder);
    heard("READY=1");
    heard("WATCHDOG=1");
    broker.signal("HUP");
    heard("RELOADING=1");
    heard("READY=1");
    broker.signal("TERM");
    heard("STOPPING=1");
    assert_eq!(broker.finish().code, Some(0));
}
