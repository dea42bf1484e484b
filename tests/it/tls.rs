//! TLS at the door: the same stories with wss:// and https://, and those that only TLS has.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustls::{
    HandshakeKind, ProtocolVersion,
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{
    Api, Broker, Client, Http, Identity, JS_PATH, Opcode, RawSocket, Wire, frame, member, run,
    subscribe_frame, until, upgrade_request,
};

fn broker() -> (Identity, Broker) {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "", "client_events = true");
    (identity, broker)
}

#[test]
fn a_client_of_wss_is_served_as_any_other() {
    let (_identity, broker) = broker();
    broker.expect_healthy();
    let mut ann = broker.joined("presence-room", "ann");
    let bob = broker.joined("presence-room", "bob");
    ann.expect_member_added("presence-room", "bob");
    bob.leave();
    ann.expect_member_removed("presence-room", "bob");
    assert_eq!(broker.users("presence-room"), ["ann"]);
    ann.leave();
    assert_eq!(broker.stop().code, Some(0));
}

#[test]
fn large_events_and_many_at_once_arrive_whole_and_in_order() {
    let identity = Identity::new();
    let app = "client_events = true\nevent_data_bytes_max = 200000";
    let broker = Broker::secure(&identity, "", app);
    let mut clients: Vec<Client> = (0..3).map(|_| broker.subscriber("news")).collect();
    for number in 0..5 {
        broker.publish("news", "large", &format!("{number}{}", "x".repeat(100_000)));
    }
    for number in 0..200 {
        broker.publish("news", "small", &number.to_string());
    }
    for client in &mut clients {
        for number in 0..5 {
            client.expect_event("news", "large", &format!("{number}{}", "x".repeat(100_000)));
        }
        for number in 0..200 {
            client.expect_event("news", "small", &number.to_string());
        }
        client.expect_silence();
    }
}

#[test]
fn a_large_message_of_a_client_comes_in_several_records() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "", "client_events = true\nevent_data_bytes_max = 60000");
    let mut hears = broker.subscriber("private-room");
    let mut says = broker.subscriber("private-room");
    let data = "y".repeat(50_000);
    for number in 0..5 {
        says.say("private-room", "client-large", &json!(format!("{number}{data}")));
        hears.expect_event("private-room", "client-large", &format!("{number}{data}"));
    }
    says.expect_served();
}

#[test]
fn messages_in_records_of_one_byte_are_put_together() {
    let (_identity, broker) = broker();
    let mut wire = Wire::connect(broker.address(), broker.tls());
    let text = frame(true, Opcode::TEXT, subscribe_frame("news").as_bytes());
    // Behind the handshake in one piece: what has been decrypted already must not be lost.
    let early = [upgrade_request(JS_PATH, "").as_bytes(), &text].concat();
    wire.write_all(&early).expect("an open connection");
    wire.flush().expect("an open connection");
    read_until(&mut wire, "subscription_succeeded");
    for byte in frame(true, Opcode::TEXT, br#"{"event":"pusher:ping"}"#) {
        wire.write_all(&[byte]).expect("an open connection");
        wire.flush().expect("an open connection");
    }
    read_until(&mut wire, "pusher:pong");
}

/// Reads until the bytes so far hold this text.
#[track_caller]
fn read_until(wire: &mut Wire, text: &str) {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains(text) {
        let count = wire.read(&mut buffer).expect("more");
        assert!(count > 0, "no {text} before the end of {:?}", String::from_utf8_lossy(&seen));
        seen.extend(&buffer[..count]);
    }
}

#[test]
fn both_versions_are_spoken_and_a_client_that_comes_back_resumes() {
    let (identity, broker) = broker();
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let api = broker.api().over_tls(identity.client_of(&[version]));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = api.subscriber("news");
            broker.publish("news", "e", "hello");
            client.expect_event("news", "e", "hello");
            let tls = client.wire().tls();
            assert_eq!(tls.protocol_version(), Some(expected));
            assert_eq!(tls.alpn_protocol(), None);
            // The ticket of TLS 1.3 comes behind the handshake: it has been read with the rest.
            let seen = tls.handshake_kind();
            let same = match kind {
                HandshakeKind::Resumed => seen == Some(HandshakeKind::Resumed),
                _ => seen != Some(HandshakeKind::Resumed),
            };
            assert!(same, "{expected:?}: {seen:?} instead of {kind:?}");
            client.leave();
        }
    }
}

#[test]
fn a_version_too_old_is_refused() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "tls.min_version = \"1.3\"\nmetrics.bind = \"127.0.0.1:0\"", "");
    broker.expect_healthy();
    let mut old = Wire::connect(broker.address(), Some(&identity.client_of(&[&TLS12])));
    let refused = old.shake_hands().expect_err("no version in common").to_string();
    assert!(refused.to_lowercase().contains("version"), "{refused}");
    until("the refusal is counted", || {
        broker.metrics().contains("fanfare_tls_handshakes_total{result=\"version\",version=\"none\"} 1\n")
    });
    assert!(broker.figure("fanfare_tls_handshakes_total{result=\"ok\",version=\"1.3\"}") >= 1.0);
}

#[test]
fn the_metrics_say_until_when_the_certificate_is_valid() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "metrics.bind = \"127.0.0.1:0\"", "");
    let end = broker.figure("fanfare_tls_certificate_expiry_seconds");
    // That certificate is valid up to the year 4096.
    assert!(end > 60e9, "{end}");
}

#[test]
fn calls_of_the_api_share_a_connection() {
    let (_identity, broker) = broker();
    let mut client = broker.subscriber("news");
    let mut http = broker.http();
    for number in 0..10 {
        let body = json!({ "name": "e", "channel": "news", "data": number.to_string() });
        http.send(broker.post("/events", &body).bytes());
        http.reply().ok();
        client.expect_event("news", "e", &number.to_string());
    }
    // Two in one piece, and an answer of many records.
    let twice = [broker.get("/channels").bytes(), broker.get("/channels").bytes()].concat();
    http.send(twice);
    for _ in 0..2 {
        assert_eq!(http.reply().ok(), json!({ "channels": { "news": {} } }));
    }
    let mut crowd = broker.connect();
    for number in 0..100 {
        crowd.subscribe(&format!("{number:0>160}"));
        crowd.subscribe(&format!("{number:x>160}"));
    }
    http.send(broker.get("/channels").bytes());
    let all = http.reply().ok();
    assert_eq!(all["channels"].as_object().map(|channels| channels.len()), Some(201));
    http.finish();
    http.expect_end();
}

#[test]
fn an_idle_connection_ends_with_the_goodbye_of_tls() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "api.keep_alive_s = 1\nserver.head_timeout_s = 1", "");
    let mut http = broker.http();
    http.send(broker.get("/channels").bytes());
    http.reply().ok();
    let mut refused = broker.http();
    refused.send(upgrade_request("/apps/1/events", ""));
    assert_eq!(refused.reply().status, 404);
    // Without the goodbye this would be an error.
    refused.expect_end();
}

#[test]
fn everybody_is_told_of_the_end() {
    let (_identity, broker) = broker();
    let clients: Vec<Client> = (0..10).map(|_| broker.subscriber("news")).collect();
    broker.signal("TERM");
    for client in clients {
        client.expect_end_with(4200);
    }
    assert_eq!(broker.finish().code, Some(0));
}

#[test]
fn a_client_that_goes_without_a_close_frame_is_gone() {
    let (_identity, broker) = broker();
    let mut stays = broker.joined("presence-room", "stays");
    for polite in [true, false] {
        let goes = broker.joined("presence-room", "goes");
        stays.expect_member_added("presence-room", "goes");
        if polite {
            goes.end_tls();
        } else {
            goes.reset();
        }
        stays.expect_member_removed("presence-room", "goes");
    }
}

/// A socket that the kernel holds little for.
fn small(broker: &Broker) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 * 1024).expect("a small buffer");
    socket.connect(&broker.address().into()).expect("the broker accepts connections");
    TcpStream::from(socket)
}

#[test]
fn a_reader_too_slow_is_closed_with_4100_and_the_others_get_everything() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "connection.outbox_bytes_max = 300000", "");
    let room = "presence-room";
    let mut healthy = broker.joined(room, "healthy");
    let mut slow = Client::dial_over(broker.api(), small(&broker), JS_PATH, &[]);
    slow.established();
    slow.join(room, &member("slow"));
    healthy.expect_member_added(room, "slow");

    let api: Api = broker.api().clone();
    let removed = Arc::new(AtomicBool::new(false));
    let enough = Arc::clone(&removed);
    let pad = "x".repeat(10_000);
    let publisher = thread::spawn(move || {
        let mut number = 0;
        while !enough.load(Ordering::SeqCst) {
            api.publish("presence-room", "e", &format!("{number}:{pad}"));
            number += 1;
            assert!(number < 20_000, "200 MB went into a connection nobody reads");
        }
        number
    });
    let is_next = |frame: &Value, number: usize| {
        let data = frame["data"].as_str().unwrap_or_default();
        assert!(data.starts_with(&format!("{number}:")), "event {number} is {data:.20}");
    };
    let mut heard = 0;
    loop {
        let frame = healthy.next();
        if frame["event"] == "pusher_internal:member_removed" {
            break;
        }
        is_next(&frame, heard);
        heard += 1;
    }
    removed.store(true, Ordering::SeqCst);
    let published = publisher.join().expect("the publisher");
    while heard < published {
        is_next(&healthy.next(), heard);
        heard += 1;
    }
    healthy.expect_silence();

    // What was sealed before the goodbye is read before it, whole.
    for number in 0.. {
        let frame = slow.next();
        if frame["event"] == "pusher:error" {
            assert_eq!(frame["data"]["code"], 4100, "{frame}");
            slow.expect_close(4100);
            assert!(number > 0 && number < published);
            break;
        }
        is_next(&frame, number);
    }
}

#[test]
fn a_slow_reader_below_the_limit_loses_nothing() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "connection.outbox_bytes_max = 50000000", "");
    let mut slow = Client::dial_over(broker.api(), small(&broker), JS_PATH, &[]);
    slow.established();
    slow.subscribe("news");
    let pad = "x".repeat(10_000);
    for number in 0..400 {
        broker.publish("news", "e", &format!("{number}:{pad}"));
    }
    for number in 0..400 {
        slow.expect_event("news", "e", &format!("{number}:{pad}"));
    }
    slow.expect_silence();
}

#[test]
fn what_waits_for_slow_clients_is_counted_sealed_or_not_until_they_are_gone() {
    let identity = Identity::new();
    let settings = "server.workers = 1\nmetrics.bind = \"127.0.0.1:0\"\nconnection.close_timeout_s = 1\n\
                    connection.outbox_bytes_max = 10000000";
    let broker = Broker::secure(&identity, settings, "event_data_bytes_max = 50000");
    let slow = || {
        let mut client = Client::dial_over(broker.api(), small(&broker), JS_PATH, &[]);
        client.established();
        client.subscribe("news");
        client
    };
    let (mut readers, lost, deaf) =
        ([slow(), slow(), slow()], [slow(), slow(), slow()], [slow(), slow(), slow()]);
    let (bytes, frames) = ("fanfare_outbox_bytes{worker=\"0\"}", "fanfare_outbox_frames{worker=\"0\"}");
    let sent = "fanfare_websocket_sent_bytes_total";
    until("the greetings are counted", || broker.figure("fanfare_replies_total") >= 18.0);
    assert_eq!(broker.figure(bytes), 0.0);
    let before = broker.figure(sent);
    let data = "x".repeat(50_000);
    let mut published = 0;
    // Until something waits for everybody.
    while broker.figure(frames) < 9.0 * 8.0 {
        broker.publish("news", "e", &data);
        published += 1;
        assert!(published < 1000, "50 MB are in no outbox");
    }
    until("all of it is sent or counted as waiting", || {
        broker.figure(bytes) + broker.figure(sent) - before >= 9.0 * 50_000.0 * f64::from(published)
    });
    lost.into_iter().for_each(Client::reset);
    for reader in &mut readers {
        (0..published).for_each(|_| reader.expect_event("news", "e", &data));
    }
    readers.into_iter().for_each(Client::leave);
    while broker.figure("fanfare_slow_clients_closed_total") < 3.0 {
        (0..10).for_each(|_| broker.publish("news", "e", &data));
    }
    until("nothing waits for anybody", || broker.figure(bytes) == 0.0 && broker.figure(frames) == 0.0);
    drop(deaf);
    broker.expect_healthy();
    assert_eq!((broker.figure(bytes), broker.figure(frames)), (0.0, 0.0));
}

/// Whether a client that trusts the certificate of now gets a connection.
fn is_trusted(broker: &Broker, identity: &Identity) -> bool {
    Wire::connect(broker.address(), Some(&identity.client())).shake_hands().is_ok()
}

#[test]
fn a_renewed_certificate_is_shown_on_sighup_and_nobody_is_dropped() {
    let mut identity = Identity::new();
    let broker = Broker::secure(&identity, "server.watch_config = false", "");
    let mut old = broker.subscriber("news");
    let before = identity.client();
    identity.renew();
    assert!(!is_trusted(&broker, &identity), "nobody has said that it changed");

    broker.signal("HUP");
    broker.logs("reloaded");
    let new = broker.over_tls(identity.client());
    let mut client = new.subscriber("news");
    new.publish("news", "e", "to both");
    client.expect_event("news", "e", "to both");
    old.expect_event("news", "e", "to both");
    let refused = Wire::connect(broker.address(), Some(&before)).shake_hands();
    refused.expect_err("the certificate before is shown to nobody");

    std::fs::write(identity.key(), "half a ke").expect("written");
    broker.signal("HUP");
    let line = broker.logs("not reloaded");
    assert!(line.contains("tls.key") && line.contains("has no private key in it"), "{line}");
    assert!(is_trusted(&broker, &identity));
    old.expect_served();
}

#[test]
fn a_mistake_in_the_configuration_keeps_no_certificate_out() {
    let mut identity = Identity::new();
    let broker = Broker::secure(&identity, "server.watch_config = false", "");
    broker.rewrite("server.bnid = \"\"");
    identity.renew();
    broker.signal("HUP");
    broker.logs("not reloaded");
    assert!(is_trusted(&broker, &identity));
}

#[test]
fn a_renewed_certificate_is_shown_without_being_told_and_nobody_is_dropped() {
    let mut identity = Identity::new();
    let broker = Broker::secure(&identity, "", "");
    let mut old = broker.subscriber("news");
    identity.renew();
    until("the new certificate", || is_trusted(&broker, &identity));
    let new = broker.over_tls(identity.client());
    new.publish("news", "e", "to the one before");
    old.expect_event("news", "e", "to the one before");
    new.expect_healthy();
}

#[test]
fn garbage_on_the_port_harms_nobody() {
    let (_identity, broker) = broker();
    let mut client = broker.subscriber("news");
    let hello = client_hello(broker.api());
    let mut broken = hello.clone();
    broken.iter_mut().skip(60).for_each(|byte| *byte = !*byte);
    let mut endless = hello.clone();
    endless[6] = 0xff;
    for bytes in [
        vec![0; 1000],
        vec![0x16; 70_000],
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        vec![0x16, 3, 1, 0xff, 0xff, 1, 2, 3],
        vec![0x16, 3, 1, 0, 0],
        broken,
        endless.repeat(100),
        [hello.clone(), vec![7; 5000]].concat(),
        [hello.clone(), hello].concat(),
    ] {
        let mut socket = RawSocket::tcp(broker.address());
        // The broker may end the connection before it has everything.
        let _ = socket.try_send_bytes(&bytes);
        socket.finish();
        socket.expect_any_end();
    }
    client.expect_silence();
    broker.expect_healthy();
}

/// The first flight of a client.
fn client_hello(api: &Api) -> Vec<u8> {
    let mut hello = Vec::new();
    let mut tls = crate::support::handshake(api.tls().expect("a client of TLS"));
    tls.write_tls(&mut hello).expect("written to memory");
    hello
}

#[test]
fn plain_http_on_the_port_of_tls_is_told_so() {
    let (_identity, broker) = broker();
    let mut http = Http::connect(broker.address());
    http.send(upgrade_request(JS_PATH, ""));
    http.finish();
    http.reply().refused(400, "This port speaks TLS: use https:// and wss:// URLs");
    http.expect_end();
}

#[test]
fn clients_of_both_ports_are_on_one_node() {
    let identity = Identity::new();
    let settings = "server.plain_bind = \"127.0.0.1:0\"\nserver.workers = 2";
    let broker = Broker::secure(&identity, settings, "client_events = true");
    let plain = broker.plain();
    let mut secured = broker.subscriber("news");
    let mut open = plain.subscriber("news");
    for api in [broker.api(), &plain] {
        api.publish("news", "e", "from one of them");
        secured.expect_event("news", "e", "from one of them");
        open.expect_event("news", "e", "from one of them");
    }
    assert_eq!(broker.channel("news", "subscription_count")["occupied"], true);
}

#[test]
fn p3_an_app_for_tls_only_is_served_over_tls_alone() {
    let identity = Identity::new();
    let broker = Broker::secure(&identity, "server.plain_bind = \"127.0.0.1:0\"", "tls_only = true");
    broker.connect().expect_served();
    broker.plain().refused(JS_PATH, 4000);
    // The word of somebody who is no trusted proxy.
    Client::dial_with(&broker.plain(), JS_PATH, &[("X-Forwarded-Proto", "https")]).expect_end_with(4000);
}

#[test]
fn wrong_files_stop_the_start_with_what_is_wrong() {
    let (identity, other) = (Identity::new(), Identity::new());
    let check = |certificate: &str, key: &str, part: &str| {
        let certificate = format!("tls.certificate={certificate}");
        let key = format!("tls.key={key}");
        let sets = ["--set", &certificate, "--set", &key, "--set", "metrics.bind=", "--bind", "127.0.0.1:0"];
        let checked = run(&[&["config", "check"][..], &sets].concat(), &[]);
        assert_eq!(checked.code, Some(3), "{checked:?}");
        assert!(checked.stderr.contains(part), "{checked:?}");
        let finished = run(&[&["serve"][..], &sets].concat(), &[]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(part), "{finished:?}");
        assert!(!finished.stderr.contains("PRIVATE KEY-----\n"), "{finished:?}");
    };
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (certificate, key) = (path(identity.certificate()), path(identity.key()));
    check("/nowhere/chain.pem", &key, "/nowhere/chain.pem cannot be read");
    check(&key, &key, "has no certificate in it");
    check(&certificate, &certificate, "has no private key in it");
    check(&certificate, &path(other.key()), "does not belong to the first certificate");
}
