//! Clients that stop reading: they are let go, and nobody else notices.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{Broker, JS_PATH, Opcode, RawSocket, frame, member, token, upgrade_request};

/// A member of a presence channel with a small receive buffer that reads nothing from now on.
fn slow_member(broker: &Broker, channel: &str, id: &str) -> RawSocket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
    socket.connect(&broker.address().into()).expect("the broker accepts connections");
    let mut slow = RawSocket::over(TcpStream::from(socket));
    slow.send_bytes(upgrade_request(JS_PATH, "").as_bytes());
    slow.read_head();
    let established = crate::support::parsed(&slow.expect_json()["data"]);
    let socket_id = established["socket_id"].as_str().expect("a socket id");
    let text = format!("{socket_id}:{channel}:{}", member(id));
    let auth = token(crate::support::KEY, crate::support::SECRET, &text);
    let data = json!({ "channel": channel, "auth": auth, "channel_data": member(id) });
    slow.send_text(&json!({ "event": "pusher:subscribe", "data": data }).to_string());
    slow.expect_succeeded(channel);
    slow
}

/// Reads events until the broker says goodbye, and gives how many there were.
#[track_caller]
fn read_to_the_goodbye(slow: &mut RawSocket) -> usize {
    for number in 0.. {
        let frame = slow.expect_json();
        if frame["event"] == "pusher:error" {
            assert_eq!(frame["data"]["code"], 4100, "{frame}");
            slow.expect_close(4100);
            return number;
        }
        let data = frame["data"].as_str().expect("a string");
        assert!(data.starts_with(&format!("{number}:")), "event {number} is {data:.20}");
    }
    unreachable!("the numbers do not end")
}

#[test]
fn a_reader_too_slow_is_closed_with_4100_and_the_others_get_everything() {
    let broker = Broker::with("connection.outbox_bytes_max = 200000");
    let room = "presence-room";
    let mut healthy = broker.joined(room, "healthy");
    let mut slow = slow_member(&broker, room, "slow");
    healthy.expect_member_added(room, "slow");
    let pad = "x".repeat(10_000);

    let api = broker.api().clone();
    let removed = Arc::new(AtomicBool::new(false));
    let enough = Arc::clone(&removed);
    let publisher = thread::spawn(move || {
        let mut number = 0;
        while !enough.load(Ordering::SeqCst) {
            api.publish("presence-room", "e", &format!("{number}:{pad}"));
            number += 1;
            assert!(number < 20_000, "200 MB went into a connection nobody reads");
        }
        number
    });

    let mut heard = 0;
    loop {
        let frame = healthy.next();
        if frame["event"] == "pusher_internal:member_removed" {
            break;
        }
        let data = frame["data"].as_str().expect("a string");
        assert!(data.starts_with(&format!("{heard}:")), "event {heard} is {data:.20}");
        heard += 1;
    }
    removed.store(true, Ordering::SeqCst);
    let before_the_goodbye = read_to_the_goodbye(&mut slow);

    let published = publisher.join().expect("the publisher");
    while heard < published {
        let data = healthy.expect_text_of(room, "e");
        assert!(data.starts_with(&format!("{heard}:")), "event {heard} is {data:.20}");
        heard += 1;
    }
    healthy.expect_silence();
    assert!(before_the_goodbye > 0 && before_the_goodbye < published);
    assert_eq!(broker.users(room), ["healthy"]);
}

#[test]
fn a_slow_reader_below_the_limit_loses_nothing() {
    let broker = Broker::with("connection.outbox_bytes_max = 50000000");
    let room = "presence-room";
    let mut slow = slow_member(&broker, room, "slow");
    let mut healthy = broker.joined(room, "healthy");
    slow.expect_json();
    let pad = "x".repeat(10_000);
    for number in 0..600 {
        broker.publish(room, "e", &format!("{number}:{pad}"));
        assert!(healthy.expect_text_of(room, "e").starts_with(&format!("{number}:")));
    }
    for number in 0..600 {
        let frame = slow.expect_json();
        let data = frame["data"].as_str().expect("a string");
        assert!(data.starts_with(&format!("{number}:")), "event {number} is {data:.20}");
    }
    slow.expect_served();
}

#[test]
fn a_client_that_asks_and_never_reads_cannot_fill_the_memory() {
    let broker = Broker::with("connection.outbox_bytes_max = 100000");
    let before = broker.resident_kib();
    let ping_frames = frame(true, Opcode::PING, &[b'x'; 125]).repeat(1_000);
    let ping_events = frame(true, Opcode::TEXT, br#"{"event":"pusher:ping"}"#).repeat(5_000);
    for flood in [ping_frames, ping_events] {
        let mut deaf = slow_member(&broker, "presence-room", "deaf");
        // The broker may let the client go, or read no further while its answers are not taken.
        deaf.patience(Duration::from_secs(2));
        for _ in 0..300 {
            if deaf.try_send_bytes(&flood).is_err() {
                break;
            }
        }
        broker.expect_healthy();
    }
    let grown = broker.resident_kib().saturating_sub(before);
    assert!(grown < 50_000, "{grown} KiB more");
}

#[test]
fn slow_readers_do_not_slow_the_others_down() {
    let broker = Broker::with("connection.outbox_bytes_max = 300000");
    let room = "presence-room";
    let mut healthy = broker.joined(room, "healthy");
    let mut slow = Vec::new();
    for number in 0..20 {
        slow.push(slow_member(&broker, room, &format!("slow-{number}")));
        healthy.expect_member_added(room, &format!("slow-{number}"));
    }
    let pad = "x".repeat(10_000);
    let mut removed = 0;
    for number in 0..600 {
        broker.publish(room, "e", &format!("{number}:{pad}"));
        let data = loop {
            let frame = healthy.next();
            if frame["event"] == "e" {
                break frame["data"].clone();
            }
            assert_eq!(frame["event"], "pusher_internal:member_removed", "{frame}");
            removed += 1;
        };
        let data = data.as_str().expect("a string");
        assert!(data.starts_with(&format!("{number}:")), "event {number} is {data:.20}");
    }
    assert!(removed <= 20);
    broker.expect_healthy();
}
