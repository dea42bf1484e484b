//! Broken and hostile HTTP: refused at once, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Broker, Http, JS_PATH, RawSocket, upgrade_request};

/// Asserts that a request is refused with a 4xx or a plain close, without waiting for more.
#[track_caller]
fn check_refused(broker: &Broker, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let started = Instant::now();
    let mut http = Http::connect(broker.address());
    // The broker may refuse and close before it has read everything.
    let _ = http.try_send(bytes);
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    if let Some(reply) = http.reply_or_close("GET") {
        assert!((400..500).contains(&reply.status), "{start:?}: {reply:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{start:?}: it waited");
}

/// The signed request line of a publish, which is fine but for what follows it.
fn publish_line(broker: &Broker, body: &str) -> String {
    let bytes = broker.post_bytes("/events", body).bytes();
    let text = String::from_utf8(bytes).expect("a request in UTF-8");
    let (line, _) = text.split_once("\r\n").expect("a request line");
    format!("{line}\r\nHost: localhost\r\n")
}

const BODY: &str = r#"{"name":"e","channel":"news","data":"smuggled"}"#;

#[test]
fn contradicting_and_invalid_lengths_are_refused() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let line = publish_line(&broker, BODY);
    let length = BODY.len();
    for headers in [
        format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 1),
        format!("Content-Length: {}\r\nContent-Length: {length}\r\n", length - 1),
        format!("Content-Length: {length}, {}\r\n", length + 1),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: {length}x\r\n"),
        format!("Content-Length: 0x{length:x}\r\n"),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: many\r\n".to_owned(),
        "Content-Length: \r\n".to_owned(),
        "Content-Length: 99999999999999999999999\r\n".to_owned(),
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        "Transfer-Encoding: nonsense\r\n".to_owned(),
        "Transfer-Encoding: chunked, nonsense\r\n".to_owned(),
    ] {
        check_refused(&broker, format!("{line}{headers}\r\n{BODY}"));
    }
    client.expect_silence();
}

#[test]
fn bad_chunks_are_refused() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let line = publish_line(&broker, BODY);
    let length = BODY.len();
    for chunks in [
        format!("zz\r\n{BODY}\r\n0\r\n\r\n"),
        format!("\r\n{BODY}\r\n0\r\n\r\n"),
        format!("-1\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}\r\n{BODY}xx\r\n0\r\n\r\n"),
        format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", length - 5),
        format!("fffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n"),
        format!("0x{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x} {length:x}\r\n{BODY}\r\n0\r\n\r\n"),
    ] {
        check_refused(&broker, format!("{line}Transfer-Encoding: chunked\r\n\r\n{chunks}"));
    }
    client.expect_silence();
}

#[test]
fn broken_heads_are_refused() {
    let broker = Broker::start();
    for head in [
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET / FTP/1.1\r\nHost: x\r\n\r\n",
        "GET /with space HTTP/1.1\r\nHost: x\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n",
        "GET http://[::1 HTTP/1.1\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
    ] {
        check_refused(&broker, head);
    }
    broker.expect_healthy();
}

#[test]
fn a_head_above_64_kib_is_refused_before_it_ends() {
    let broker = Broker::start();
    check_refused(&broker, format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(140_000)));
    check_refused(&broker, format!("GET /{}", "x".repeat(140_000)));
    check_refused(&broker, format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}", "x".repeat(140_000)));
    let many = "X-Many: 0123456789\r\n".repeat(7_000);
    check_refused(&broker, format!("GET / HTTP/1.1\r\nHost: x\r\n{many}"));
    check_refused(&broker, format!("{}{many}", upgrade_request(JS_PATH, "").trim_end()));
}

/// Header lines of 70,000 bytes together.
fn seventy_kilobytes() -> String {
    (0..70).map(|number| format!("X-Pad-{number:02}: {}\r\n", "z".repeat(988))).collect()
}

#[test]
fn a_whole_head_just_above_64_kib_is_refused() {
    let broker = Broker::start();
    let pad = seventy_kilobytes();
    check_refused(&broker, format!("GET /apps/1/channels HTTP/1.1\r\nHost: x\r\n{pad}\r\n"));
    check_refused(
        &broker,
        format!("GET /apps/1/channels?x={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(65_500)),
    );
}

#[test]
fn an_upgrade_with_a_head_just_above_64_kib_is_refused() {
    let broker = Broker::start();
    check_refused(&broker, upgrade_request(JS_PATH, &seventy_kilobytes()));
}

#[test]
fn a_head_just_above_64_kib_is_refused_before_it_ends() {
    let broker = Broker::start();
    let pad = seventy_kilobytes();
    check_refused(&broker, format!("GET /apps/1/channels HTTP/1.1\r\nHost: x\r\n{pad}"));
    check_refused(&broker, format!("GET /{}", "x".repeat(70_000)));
}

#[test]
fn a_head_of_sixty_kilobytes_is_read() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let names: Vec<String> = (0..100).map(|number| format!("{number:0>164}")).collect();
    client.subscribe(&names[99]);
    let mut request = broker.request("POST", "/apps/1/events", "").param("name", "e");
    for name in &names {
        request = request.param("channels[]", name);
    }
    request.param("data", &"x".repeat(10_240)).param("pad", &"y".repeat(30_000)).send().ok();
    client.expect_event(&names[99], "e", &"x".repeat(10_240));

    let pad: String = (0..60).map(|n| format!("X-Pad-{n}: {}\r\n", "z".repeat(985))).collect();
    let (mut socket, _) = RawSocket::upgraded(broker.address(), JS_PATH, &pad);
    assert_eq!(socket.expect_json()["event"], "pusher:connection_established");
}

#[test]
fn a_declared_body_above_the_limit_is_refused_before_it_comes() {
    let broker = Broker::start();
    for (path, length) in [
        ("/apps/1/events", 256 * 1024 + 1),
        ("/apps/1/events", 10_000_000_000_000_u64),
        ("/apps/1/batch_events", 1024 * 1024 + 1),
        ("/apps/99/events", 256 * 1024 + 1),
    ] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut http = Http::connect(broker.address());
            http.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\n{expect}Content-Length: {length}\r\n\r\n"));
            let reply = http.reply();
            assert_eq!(reply.status, 413, "{path}, {length} bytes: {reply:?}");
        }
    }
}

#[test]
fn a_chunked_body_above_the_limit_is_refused_while_it_comes() {
    let broker = Broker::start();
    let line = publish_line(&broker, BODY);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    check_refused(&broker, format!("{line}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(6)));
}

#[test]
fn a_body_up_to_the_limit_is_read() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let mut body = json!({ "name": "e", "channel": "news", "data": "large" }).to_string();
    body.push_str(&" ".repeat(256 * 1024 - body.len()));
    broker.post_bytes("/events", body.clone()).send().ok();
    client.expect_event("news", "e", "large");
    body.push(' ');
    assert_eq!(broker.post_bytes("/events", body).send().status, 413);

    let batch = json!({ "batch": [{ "name": "e", "channel": "news", "data": "batch" }] });
    let mut body = batch.to_string();
    body.push_str(&" ".repeat(1024 * 1024 - body.len()));
    broker.post_bytes("/batch_events", body.clone()).send().ok();
    client.expect_event("news", "e", "batch");
    body.push(' ');
    assert_eq!(broker.post_bytes("/batch_events", body).send().status, 413);
}

/// Sockets that have said half of something and fall silent.
fn half_sent(broker: &Broker) -> Vec<RawSocket> {
    let publish = broker.post_bytes("/events", BODY).bytes();
    let upgrade = upgrade_request(JS_PATH, "");
    let upgrade = upgrade.as_bytes();
    let halves: [&[u8]; 7] = [
        b"",
        b"G",
        b"GET /apps/1/channels HTTP/1.1\r\nHost:",
        &publish[..publish.len() / 3],
        &publish[..publish.len() - 1],
        &upgrade[..40],
        &upgrade[..upgrade.len() - 2],
    ];
    let send_half = |half: &&[u8]| {
        let mut socket = RawSocket::tcp(broker.address());
        socket.send_bytes(half);
        socket
    };
    halves.iter().map(send_half).collect()
}

#[test]
fn half_sent_requests_hold_up_nobody() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let mut halves: Vec<RawSocket> = (0..40).flat_map(|_| half_sent(&broker)).collect();
    for _ in 0..40 {
        let mut socket = broker.raw();
        socket.send_bytes(&[0x81, 0xfe, 0x10]);
        halves.push(socket);
    }
    let started = Instant::now();
    for number in 0..20 {
        broker.publish("news", "e", &number.to_string());
        client.expect_event("news", "e", &number.to_string());
        broker.connect().expect_served();
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn half_sent_requests_time_out() {
    let broker = Broker::start();
    let mut halves = half_sent(&broker);
    // The first has sent nothing at all: it may be a browser opening a connection in advance.
    halves.remove(0);
    for mut socket in halves {
        socket.patience(Duration::from_secs(60));
        socket.expect_end_or_refusal();
    }
}

/// Each request gives a client the whole time anew, and a half-sent one ends it as soon as the first would.
#[test]
fn a_connection_without_further_requests_ends() {
    let broker = Broker::with("api.keep_alive_s = 2\nserver.head_timeout_s = 1\napi.body_timeout_s = 1");
    let request = broker.get("/channels").bytes();
    let (mut idle, mut half) = (Http::connect(broker.address()), Http::connect(broker.address()));
    for _ in 0..3 {
        for http in [&mut idle, &mut half] {
            http.send(&request);
            http.reply().ok();
        }
    }
    half.send(&request[..request.len() / 2]);
    let begin = Instant::now();
    idle.expect_end();
    assert!(begin.elapsed() > Duration::from_secs(1), "it was not given its time");
    half.expect_end();
}

#[test]
fn a_connection_ends_after_its_only_request_too() {
    let broker = Broker::with("api.keep_alive_s = 1");
    let request = broker.get("/channels").bytes();
    let half = &request[..request.len() / 2];
    for sent in [request.clone(), [&request[..], half].concat(), b"GET /nowhere HTTP/1.1\r\n\r\n".to_vec()] {
        let mut http = Http::connect(broker.address());
        http.send(&sent);
        http.reply();
        http.expect_end();
    }
}

#[test]
fn requests_cut_short_leave_no_trace() {
    let broker = Broker::start();
    let mut client = broker.subscriber("news");
    let before = broker.open_files();
    for _ in 0..20 {
        drop(half_sent(&broker));
    }
    crate::support::until("files closed", || broker.open_files() <= before);
    client.expect_silence();
}
