//! The end of a broker: everybody is told, and it goes at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Broker, Client, Http, Opcode};

/// Stops a broker with ten connections by this signal.
#[track_caller]
fn check_shutdown(signal: &str) {
    let broker = Broker::start();
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..10 {
        clients.push(match number % 4 {
            0 => broker.connect(),
            1 => broker.subscriber("news"),
            2 => broker.joined("presence-room", &format!("u{number}")),
            _ => broker.signed_in(&format!("u{number}")),
        });
    }
    let started = Instant::now();
    broker.signal(signal);
    for client in clients {
        expect_goodbye(client);
    }
    let finished = broker.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

/// Reads on until the error and the close frame with 4200; members may see others go before.
#[track_caller]
fn expect_goodbye(mut client: Client) {
    loop {
        let frame = client.next();
        if frame["event"] == "pusher:error" {
            assert_eq!(frame["data"]["code"], 4200, "{frame}");
            client.expect_close(4200);
            return;
        }
        assert_eq!(frame["channel"], "presence-room", "{frame}");
    }
}

#[test]
fn p11_sigterm_tells_everybody_4200_and_ends_with_success() {
    check_shutdown("TERM");
}

#[test]
fn p11_sigint_does_the_same() {
    check_shutdown("INT");
}

#[test]
fn a_broker_without_connections_ends_at_once() {
    let broker = Broker::start();
    let started = Instant::now();
    let finished = broker.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn idle_and_half_sent_requests_do_not_hold_up_the_end() {
    let broker = Broker::start();
    let mut idle = Http::connect(broker.address());
    idle.send(broker.get("/channels").bytes());
    idle.reply().ok();
    let mut half = Http::connect(broker.address());
    half.send("POST /apps/1/events HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
    let mut half_frame = broker.raw();
    half_frame.send_bytes(&[0x81, 0xfe]);
    let started = Instant::now();
    let finished = broker.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn clients_that_neither_read_nor_close_do_not_hold_up_the_end() {
    let broker = Broker::start();
    let deaf: Vec<_> = (0..10).map(|_| broker.raw()).collect();
    let started = Instant::now();
    let finished = broker.stop();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    for mut socket in deaf {
        assert_eq!(socket.expect_error().0, json!(4200));
        let close = socket.expect(Opcode::CLOSE);
        assert_eq!(close.first_chunk(), Some(&4200_u16.to_be_bytes()));
    }
}

#[test]
fn an_event_answered_before_the_end_is_delivered_before_the_goodbye() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = (0..10).map(|_| broker.subscriber("news")).collect();
    for number in 0..20 {
        broker.publish("news", "e", &number.to_string());
    }
    broker.signal("TERM");
    for client in &mut clients {
        for number in 0..20 {
            client.expect_event("news", "e", &number.to_string());
        }
    }
    for client in clients {
        expect_goodbye(client);
    }
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn the_port_is_free_for_the_next_broker() {
    let broker = Broker::start();
    let address = broker.address();
    let clients: Vec<Client> = (0..5).map(|_| broker.connect()).collect();
    broker.signal("TERM");
    for client in clients {
        expect_goodbye(client);
    }
    assert_eq!(broker.finish().code, Some(0));

    let next = Broker::at(address);
    assert_eq!(next.address(), address);
    next.expect_healthy();
}
