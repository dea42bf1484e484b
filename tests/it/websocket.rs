//! RFC 6455 on the wire: fragments, control frames, breaches and goodbyes.

use serde_json::json;

use crate::support::{
    Broker, JS_PATH, Opcode, RawSocket, frame, frame_head, subscribe_frame, upgrade_request,
};

/// Sends `bytes` on a fresh connection and expects a close with `code`.
#[track_caller]
fn check_breach(broker: &Broker, code: u16, bytes: &[u8]) {
    let mut socket = broker.raw();
    socket.send_bytes(bytes);
    socket.expect_breach(code);
}

/// A frame with a first byte of the story's own.
fn frame_with_first_byte(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(true, Opcode::TEXT, payload);
    bytes[0] = first;
    bytes
}

#[test]
fn p6_an_offered_subprotocol_is_echoed() {
    let broker = Broker::start();
    let head_for = |headers: &str| {
        let (mut socket, head) = RawSocket::upgraded(broker.address(), JS_PATH, headers);
        assert_eq!(socket.expect_json()["event"], "pusher:connection_established");
        head.to_lowercase()
    };
    let head = head_for("Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n");
    assert!(head.contains("sec-websocket-protocol: pusher-channels-protocol-7\r\n"), "{head}");
    let head = head_for("Sec-WebSocket-Protocol: anything-else\r\n");
    assert!(head.contains("sec-websocket-protocol: anything-else\r\n"), "{head}");

    let head = head_for("Sec-WebSocket-Protocol: first, second\r\n");
    let echoed = head.split("sec-websocket-protocol: ").nth(1).expect("an echo");
    let echoed = echoed.split("\r\n").next().expect("a line");
    assert!(["first", "second"].contains(&echoed), "{head}");

    let head = head_for("");
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
}

#[test]
fn upgrades_are_accepted_in_every_legal_spelling() {
    let broker = Broker::start();
    for headers in [
        "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n",
        "upgrade: WEBSOCKET\r\nconnection: upgrade\r\n",
    ] {
        let mut socket = RawSocket::tcp(broker.address());
        socket.send_bytes(
            format!(
                "GET {JS_PATH} HTTP/1.1\r\nHost: x\r\n{headers}Sec-WebSocket-Version: 13\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: a=b\r\n\r\n"
            )
            .as_bytes(),
        );
        let head = socket.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(socket.expect_json()["event"], "pusher:connection_established");
    }
}

#[test]
fn frames_right_behind_the_upgrade_are_not_lost() {
    let broker = Broker::start();
    let mut socket = RawSocket::tcp(broker.address());
    let mut bytes = upgrade_request(JS_PATH, "").into_bytes();
    bytes.extend(frame(true, Opcode::TEXT, br#"{"event":"pusher:ping","data":""}"#));
    bytes.extend(frame(true, Opcode::TEXT, subscribe_frame("news").as_bytes()));
    socket.send_bytes(&bytes);
    assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(socket.expect_json()["event"], "pusher:connection_established");
    assert_eq!(socket.expect_json()["event"], "pusher:pong");
    socket.expect_succeeded("news");
}

#[test]
fn an_upgrade_may_follow_other_requests_on_its_connection() {
    let broker = Broker::start();
    let mut socket = RawSocket::tcp(broker.address());
    socket.send_bytes(b"OPTIONS /apps/1/channels HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(socket.read_head().starts_with("HTTP/1.1 204 "));
    socket.send_bytes(upgrade_request(JS_PATH, "").as_bytes());
    assert!(socket.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(socket.expect_json()["event"], "pusher:connection_established");
    socket.expect_served();
}

#[test]
fn p8_ping_frames_come_back_with_their_payload() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    for payload in [b"".as_slice(), b"ping", b"\x00\xff\xfe binary", &[b'x'; 125]] {
        socket.send(Opcode::PING, payload);
        assert_eq!(socket.expect(Opcode::PONG), payload);
    }
}

#[test]
fn p8_frequent_pings_have_no_penalty() {
    let broker = Broker::start();
    let mut client = broker.subscriber("private-room");
    let mut other = broker.subscriber("private-room");
    for number in 0..200_u8 {
        client.send_message(tungstenite::Message::Ping(vec![number].into()));
        assert_eq!(client.expect_pong_frame(), [number]);
    }
    for number in 0..5 {
        client.say("private-room", "client-x", &json!(number));
        other.expect_event("private-room", "client-x", &number.to_string());
    }
    client.expect_served();
}

#[test]
fn a_pong_frame_nobody_asked_for_is_ignored() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    socket.send(Opcode::PONG, b"unasked");
    socket.send(Opcode::PONG, b"");
    socket.expect_served();
}

#[test]
fn a_message_may_come_in_fragments() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    let text = subscribe_frame("news");
    let (first, rest) = text.as_bytes().split_at(10);
    let (second, third) = rest.split_at(15);
    socket.send_part(Opcode::TEXT, first);
    socket.send_part(Opcode::CONTINUATION, second);
    socket.send(Opcode::CONTINUATION, third);
    socket.expect_succeeded("news");

    socket.send_part(Opcode::TEXT, b"");
    for byte in subscribe_frame("sports").as_bytes() {
        socket.send_part(Opcode::CONTINUATION, &[*byte]);
    }
    socket.send(Opcode::CONTINUATION, b"");
    socket.expect_succeeded("sports");
}

#[test]
fn control_frames_may_come_between_fragments() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    let text = subscribe_frame("news");
    let (first, second) = text.as_bytes().split_at(10);
    socket.send_part(Opcode::TEXT, first);
    socket.send(Opcode::PING, b"between");
    assert_eq!(socket.expect(Opcode::PONG), b"between");
    socket.send(Opcode::PONG, b"");
    socket.send(Opcode::CONTINUATION, second);
    socket.expect_succeeded("news");
}

#[test]
fn a_character_may_be_split_between_fragments() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    let text = json!({ "event": "日本" }).to_string();
    let cut = text.find('日').expect("the character") + 1;
    socket.send_part(Opcode::TEXT, &text.as_bytes()[..cut]);
    socket.send(Opcode::CONTINUATION, &text.as_bytes()[cut..]);
    let (code, message) = socket.expect_error();
    assert!(code.is_null());
    assert_eq!(message, "Unsupported event received on socket: 日本");
    socket.expect_served();
}

#[test]
fn frames_may_come_byte_by_byte_or_many_at_once() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    for byte in frame(true, Opcode::TEXT, subscribe_frame("news").as_bytes()) {
        socket.send_bytes(&[byte]);
    }
    socket.expect_succeeded("news");

    let many: Vec<u8> = (0..200)
        .flat_map(|n| frame(true, Opcode::TEXT, subscribe_frame(&format!("c{n}")).as_bytes()))
        .collect();
    socket.send_bytes(&many);
    for number in 0..200 {
        socket.expect_succeeded(&format!("c{number}"));
    }
}

#[test]
fn an_empty_text_frame_is_invalid_json() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    socket.send_text("");
    assert_eq!(socket.expect_error(), (json!(null), "Received invalid JSON".to_owned()));
    socket.expect_served();
}

#[test]
fn p16_a_binary_frame_is_an_error_and_closes_with_1003() {
    let broker = Broker::start();
    for payload in [b"".as_slice(), b"\x00\x01", br#"{"event":"pusher:ping"}"#] {
        let mut socket = broker.raw();
        socket.send(Opcode::BINARY, payload);
        assert!(socket.expect_error().0.is_null());
        socket.expect_close(1003);
    }
    let mut socket = broker.raw();
    socket.send_part(Opcode::BINARY, b"in ");
    socket.send(Opcode::CONTINUATION, b"parts");
    assert!(socket.expect_error().0.is_null());
    socket.expect_close(1003);
}

#[test]
fn p16_invalid_utf8_closes_with_1007() {
    let broker = Broker::start();
    for payload in [
        b"\xff".as_slice(),
        b"{\"event\":\"\xc3\x28\"}",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
        b"cut short \xe6\x97",
    ] {
        check_breach(&broker, 1007, &frame(true, Opcode::TEXT, payload));
    }
    let mut socket = broker.raw();
    socket.send_part(Opcode::TEXT, b"{\"event\":\"\xe6");
    socket.send(Opcode::CONTINUATION, b"\x28\"}");
    socket.expect_breach(1007);
}

#[test]
fn p16_an_oversized_frame_closes_with_1009_by_its_declared_length() {
    let broker = Broker::start();
    for length in [65_537, 1 << 20, 1 << 32, 1 << 62] {
        check_breach(&broker, 1009, &frame_head(true, Opcode::TEXT, length));
    }
}

#[test]
fn p16_an_oversized_message_closes_with_1009_however_it_is_cut() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    socket.send_part(Opcode::TEXT, &[b' '; 40_000]);
    socket.send_bytes(&frame_head(true, Opcode::CONTINUATION, 25_537));
    socket.expect_breach(1009);

    let mut socket = broker.raw();
    socket.send_part(Opcode::TEXT, b"");
    for _ in 0..65 {
        socket.send_part(Opcode::CONTINUATION, &[b' '; 1_000]);
    }
    socket.send_bytes(&frame_head(false, Opcode::CONTINUATION, 1_000));
    socket.expect_breach(1009);
}

/// A `pusher:ping` made longer by spaces.
fn padded_ping(length: usize) -> String {
    let ping = r#"{"event":"pusher:ping"}"#;
    format!("{ping}{}", " ".repeat(length - ping.len()))
}

#[test]
fn p16_a_message_of_exactly_the_limit_is_read() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    let text = padded_ping(65_536);
    socket.send_text(&text);
    assert_eq!(socket.expect_json()["event"], "pusher:pong");
    socket.send_part(Opcode::TEXT, &text.as_bytes()[..30_000]);
    socket.send(Opcode::CONTINUATION, &text.as_bytes()[30_000..]);
    assert_eq!(socket.expect_json()["event"], "pusher:pong");
}

#[test]
fn p16_the_limit_can_be_set() {
    let broker = Broker::with("connection.message_bytes_max = 2000");
    let mut socket = broker.raw();
    socket.send_text(&padded_ping(2_000));
    assert_eq!(socket.expect_json()["event"], "pusher:pong");
    socket.send_bytes(&frame_head(true, Opcode::TEXT, 2_001));
    socket.expect_breach(1009);
}

#[test]
fn p16_a_close_code_is_not_lost_when_the_client_goes_on_sending() {
    let broker = Broker::start();
    let mut socket = broker.raw();
    socket.send_bytes(&frame(true, Opcode::TEXT, &vec![b'x'; 1 << 20]));
    socket.expect_breach(1009);

    let mut socket = broker.raw();
    socket.send(Opcode::BINARY, b"breach");
    for _ in 0..2_000 {
        socket.send(Opcode::TEXT, &[b'x'; 1_000]);
    }
    assert!(socket.expect_error().0.is_null());
    socket.expect_close(1003);
}

#[test]
fn p16_an_unmasked_frame_closes_with_1002() {
    let broker = Broker::start();
    check_breach(&broker, 1002, b"\x81\x02{}");
    check_breach(&broker, 1002, b"\x89\x00");
    check_breach(&broker, 1002, b"\x81\x7e\xff\xff");
}

#[test]
fn p16_reserved_bits_and_opcodes_close_with_1002() {
    let broker = Broker::start();
    for first in [0xc1, 0xa1, 0x91, 0xf1, 0x83, 0x84, 0x85, 0x86, 0x87, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f] {
        check_breach(&broker, 1002, &frame_with_first_byte(first, b"{}"));
    }
    check_breach(&broker, 1002, &frame_with_first_byte(0xc9, b""));
}

#[test]
fn p16_broken_continuations_close_with_1002() {
    let broker = Broker::start();
    check_breach(&broker, 1002, &frame(true, Opcode::CONTINUATION, b"of nothing"));
    check_breach(&broker, 1002, &frame(false, Opcode::CONTINUATION, b"of nothing"));

    let mut bytes = frame(false, Opcode::TEXT, b"{");
    bytes.extend(frame(true, Opcode::TEXT, b"}"));
    check_breach(&broker, 1002, &bytes);

    let mut bytes = frame(true, Opcode::TEXT, br#"{"event":"pusher:pong"}"#);
    bytes.extend(frame(true, Opcode::CONTINUATION, b"too late"));
    check_breach(&broker, 1002, &bytes);
}

#[test]
fn p16_control_frames_are_whole_and_short() {
    let broker = Broker::start();
    for opcode in [Opcode::PING, Opcode::PONG, Opcode::CLOSE] {
        check_breach(&broker, 1002, &frame(false, opcode, b"\x03\xe8"));
        check_breach(&broker, 1002, &frame(true, opcode, &[b'x'; 126]));
    }
}

#[test]
fn a_close_frame_is_echoed_and_the_connection_ends() {
    let broker = Broker::start();
    for (code, reason) in [(1000_u16, "bye"), (1001, ""), (3000, "library"), (4321, "app")] {
        let mut socket = broker.raw();
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes());
        socket.send(Opcode::CLOSE, &payload);
        let echo = socket.expect(Opcode::CLOSE);
        assert_eq!(echo.first_chunk(), Some(&code.to_be_bytes()));
        socket.expect_end();
    }
    let mut socket = broker.raw();
    socket.send(Opcode::CLOSE, b"");
    let echo = socket.expect(Opcode::CLOSE);
    assert!(echo.is_empty() || echo == 1000_u16.to_be_bytes(), "{echo:?}");
    socket.expect_end();
}

#[test]
fn a_malformed_close_frame_is_a_breach() {
    let broker = Broker::start();
    check_breach(&broker, 1002, &frame(true, Opcode::CLOSE, b"\x03"));
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        check_breach(&broker, 1002, &frame(true, Opcode::CLOSE, &code.to_be_bytes()));
    }
    check_breach(&broker, 1007, &frame(true, Opcode::CLOSE, b"\x03\xe8\xff\xfe"));
}

#[test]
fn nothing_is_heard_after_a_close_frame() {
    let broker = Broker::start();
    let mut other = broker.subscriber("private-room");
    let mut client = broker.raw();
    let mut bytes = frame(true, Opcode::CLOSE, &1000_u16.to_be_bytes());
    bytes.extend(frame(true, Opcode::TEXT, subscribe_frame("news").as_bytes()));
    client.send_bytes(&bytes);
    client.expect(Opcode::CLOSE);
    client.expect_end();
    other.expect_silence();
    assert_eq!(broker.channels(), json!({ "private-room": {} }));
}

#[test]
fn p9_a_silent_connection_is_pinged_and_then_closed() {
    let broker = Broker::with("connection.ping_after_s = 1\nconnection.pong_timeout_s = 1");
    let mut silent = broker.raw();
    silent.expect(Opcode::PING);
    assert_eq!(silent.expect_error(), (json!(4201), "Pong reply not received".to_owned()));
    silent.expect_close(4201);
}

#[test]
fn p9_no_ping_comes_before_its_time() {
    let broker = Broker::start();
    let mut client = broker.raw();
    let started = std::time::Instant::now();
    let impatient = Broker::with("connection.ping_after_s = 2\nconnection.pong_timeout_s = 30");
    let mut silent = impatient.raw();
    silent.expect(Opcode::PING);
    assert!(started.elapsed().as_millis() >= 1_500);
    // With the default of a minute nothing has come by now.
    client.expect_served();
}

#[test]
fn p10_who_answers_pings_and_says_nothing_stays() {
    let broker = Broker::with("connection.ping_after_s = 1\nconnection.pong_timeout_s = 1");
    let mut client = broker.raw();
    client.subscribe("news");
    for _ in 0..4 {
        let payload = client.expect(Opcode::PING);
        client.send(Opcode::PONG, &payload);
    }
    broker.publish("news", "e", "still here");
    assert_eq!(client.expect_json()["data"], "still here");
}

#[test]
fn p10_whatever_a_client_sends_counts_as_life() {
    let broker = Broker::with("connection.ping_after_s = 1\nconnection.pong_timeout_s = 1");
    let mut client = broker.raw();
    for sign_of_life in [
        frame(true, Opcode::TEXT, br#"{"event":"pusher:pong"}"#),
        frame(true, Opcode::PONG, b"another payload"),
        frame(false, Opcode::TEXT, b"{\"event\":"),
        frame(true, Opcode::CONTINUATION, b"\"pusher:pong\"}"),
    ] {
        client.expect(Opcode::PING);
        client.send_bytes(&sign_of_life);
    }
    client.expect(Opcode::PING);
    client.expect_served();
}
