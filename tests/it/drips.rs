//! Clients that send a byte now and then: each is let go in its time, and the others are served meanwhile.

use std::thread;

use crate::support::{Broker, Identity, JS_PATH, RawSocket, handshake, upgrade_request};

const LIMITS: &str = "server.head_timeout_s = 1\napi.body_timeout_s = 1\nmetrics.bind = \"127.0.0.1:0\"\n";

/// How many clients were too slow with this.
#[track_caller]
fn too_slow(broker: &Broker, stage: &str) -> f64 {
    broker.figure(&format!("fanfare_http_timeouts_total{{stage=\"{stage}\"}}"))
}

/// Drips bytes at a port that gives its clients a second, while others are served. All of them would take at least
/// 15 seconds.
#[track_caller]
fn check(broker: &Broker, begin: &[u8], bytes: &[u8]) {
    assert!(bytes.len() > 150, "{} bytes are too few to tell", bytes.len());
    let mut socket = RawSocket::tcp(broker.address());
    socket.send_bytes(begin);
    thread::scope(|scope| {
        let dripping = scope.spawn(|| socket.drip(bytes));
        while !dripping.is_finished() {
            broker.expect_healthy();
        }
        dripping.join().expect("it was let go");
    });
}

#[test]
fn a_client_hello_in_drips() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, LIMITS, "");
    let mut hello = Vec::new();
    handshake(&identity.client()).write_tls(&mut hello).expect("written to memory");
    check(&broker, b"", &hello);
    check(&broker, &hello[..5], &hello[5..]);
    // Plain HTTP there is answered, and has its time too.
    check(&broker, b"G", upgrade_request(JS_PATH, "").as_bytes());
}

#[test]
fn handshakes_that_stop_half_way() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, LIMITS, "");
    let mut hello = Vec::new();
    handshake(&identity.client()).write_tls(&mut hello).expect("written to memory");
    let halves = [&b""[..], &hello[..1], &hello[..hello.len() / 2], &hello, b"GET / HTTP/1.1\r\n\r\n"];
    let sockets = halves.map(|half| {
        let mut socket = RawSocket::tcp(broker.address());
        socket.send_bytes(half);
        socket
    });
    broker.expect_healthy();
    for mut socket in sockets {
        socket.expect_any_end();
    }
}

#[test]
fn a_header_of_a_proxy_in_drips() {
    let settings = "server.trusted_proxies = [\"127.0.0.2/32\"]\nserver.proxy_protocol = true\n";
    let broker = Broker::with(&format!("{LIMITS}{settings}"));
    let fields = [9; 200];
    let binary =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\xd4", &[192, 0, 2, 1, 127, 0, 0, 1, 0, 1, 0, 2][..], &fields];
    let line = b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 443\r\n";
    for bytes in [binary.concat(), [line, upgrade_request(JS_PATH, "").as_bytes()].concat()] {
        let mut socket = RawSocket::over(from_proxy(&broker));
        thread::scope(|scope| {
            let dripping = scope.spawn(|| socket.drip(&bytes));
            while !dripping.is_finished() {
                broker.expect_healthy();
            }
            dripping.join().expect("it was let go");
        });
    }
}

/// A connection from the address of the trusted proxy.
fn from_proxy(broker: &Broker) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let source = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
    socket.bind(&source.into()).expect("an address of this machine");
    socket.connect(&broker.address().into()).expect("the broker accepts connections");
    socket.into()
}

#[test]
fn a_head_in_drips() {
    let broker = Broker::with(LIMITS);
    check(&broker, b"", &broker.get("/channels").bytes());
    check(&broker, b"", upgrade_request(JS_PATH, "").as_bytes());
    check(&broker, upgrade_request(JS_PATH, "").trim_end().as_bytes(), &[b'x'; 200]);
    assert_eq!((too_slow(&broker, "head"), too_slow(&broker, "request")), (3.0, 0.0));
}

#[test]
fn a_second_head_in_drips() {
    let broker = Broker::with(LIMITS);
    let whole = broker.get("/channels").bytes();
    check(&broker, &whole, &whole);
    assert_eq!((too_slow(&broker, "head"), too_slow(&broker, "request")), (0.0, 1.0));
}

#[test]
fn a_body_in_drips() {
    let broker = Broker::with(LIMITS);
    let body = format!(r#"{{"name":"e","channel":"news","data":"{}"}}"#, "x".repeat(300));
    let request = broker.post_bytes("/events", body.clone()).bytes();
    let (head, body) = request.split_at(request.len() - body.len());
    check(&broker, head, body);
}

#[test]
fn a_head_in_drips_over_tls() {
    use std::io::Write;
    let identity = Identity::new();
    let broker = Broker::secure(&identity, LIMITS, "");
    let mut wire = crate::support::Wire::connect(broker.address(), broker.tls());
    wire.shake_hands().expect("a handshake");
    let bytes = upgrade_request(JS_PATH, "");
    let ended = bytes.bytes().position(|byte| {
        let sent = wire.write_all(&[byte]).and_then(|()| wire.flush()).is_ok();
        // Paces what is sent, and keeps others served.
        broker.expect_healthy();
        !sent || wire.has_ended(std::time::Duration::from_millis(100))
    });
    assert!(ended.is_some(), "all {} bytes were waited for", bytes.len());
}

#[test]
fn what_operators_ask_in_drips() {
    let broker = Broker::with(LIMITS);
    // Also behind an answer.
    for begin in ["", "GET /live HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut socket = RawSocket::tcp(broker.metrics_address());
        socket.send_bytes(begin.as_bytes());
        socket.drip(format!("GET /live HTTP/1.1\r\nX: {}", "x".repeat(200)).as_bytes());
    }
}
