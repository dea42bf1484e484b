//! Bytes in and out.

use std::hint::black_box;
use std::sync::Arc;

use fanfare::protocol::websocket::{Decoder, Incoming};
use fanfare::protocol::{ClientMessage, Frame, Member, Roster};

use super::{
    EVENT, PRIVATE_CHANNEL, Piece, channel, client_event_text, counted_operation, data_literal,
    subscribe_text,
};

pub(super) const PIECES: &[Piece] = &[
    Piece {
        name: "frame-decode-small",
        about: "A masked text frame of 100 bytes becomes a message",
        times: 2000,
        run: |times| frame_decode(times, 100),
    },
    Piece {
        name: "frame-decode-10k",
        about: "A masked text frame of 10 kB becomes a message",
        times: 1000,
        run: |times| frame_decode(times, 10_000),
    },
    Piece {
        name: "frame-decode-split",
        about: "A masked text frame of 100 bytes comes in two reads and becomes a message",
        times: 2000,
        run: frame_decode_split,
    },
    Piece {
        name: "frame-encode-event",
        about: "An event with 100 bytes of data becomes a frame",
        times: 2000,
        run: |times| frame_encode(times, 100),
    },
    Piece {
        name: "frame-encode-10k",
        about: "An event with 10 kB of data becomes a frame",
        times: 1000,
        run: |times| frame_encode(times, 10_000),
    },
    Piece {
        name: "presence-snapshot-1000",
        about: "The answer to a presence subscription, with 1,000 members, becomes a frame",
        times: 20,
        run: presence_snapshot,
    },
    Piece {
        name: "client-message-parse-ping",
        about: "The text of a ping becomes a message",
        times: 2000,
        run: |times| client_message_parse(times, r#"{"event":"pusher:ping","data":{}}"#),
    },
    Piece {
        name: "client-message-parse-subscribe",
        about: "The text of a subscribe with a token becomes a message",
        times: 2000,
        run: |times| client_message_parse(times, &subscribe_text()),
    },
    Piece {
        name: "client-message-parse-event",
        about: "The text of a client event with 100 bytes of data becomes a message",
        times: 2000,
        run: |times| client_message_parse(times, &client_event_text()),
    },
];

/// The server's default of `connection.message_bytes_max`.
const MESSAGE_MAX: usize = 64 * 1024;

fn frame_decode(times: u32, len: u16) {
    let frame = client_frame(len);
    let mut decoder = Decoder::default();
    for _ in 0..times {
        let mut read = frame.clone(); // it is unmasked in place
        counted_operation(|| assert_eq!(decode(&mut decoder, black_box(&mut read)), usize::from(len)));
    }
}

fn frame_decode_split(times: u32) {
    let frame = client_frame(100);
    let mut decoder = Decoder::default();
    for _ in 0..times {
        let mut read = frame.clone();
        let (first, second) = read.split_at_mut(40);
        counted_operation(|| {
            assert_eq!(decode(&mut decoder, black_box(first)), 0);
            assert_eq!(decode(&mut decoder, black_box(second)), 100);
        });
    }
}

/// Takes every message off `input`, as the worker does. Returns how many bytes of text there were.
fn decode(decoder: &mut Decoder, mut input: &mut [u8]) -> usize {
    let mut heard = 0;
    while let Some(incoming) = decoder.next(&mut input, MESSAGE_MAX).expect("a valid frame") {
        if let Incoming::Text(text) = black_box(incoming) {
            heard += text.len();
        }
    }
    heard
}

/// A text frame with a payload of `len` bytes, as browsers send it.
fn client_frame(len: u16) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = match u8::try_from(len) {
        Ok(len @ 0..=125) => vec![0x81, 0x80 | len],
        _ => [&[0x81, 0x80 | 126][..], &len.to_be_bytes()].concat(),
    };
    frame.extend(mask);
    let text = (b' '..=b'~').cycle().take(len.into());
    frame.extend(text.zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn frame_encode(times: u32, len: usize) {
    let (channel, data) = (channel(PRIVATE_CHANNEL), data_literal(len));
    for _ in 0..times {
        counted_operation(|| Frame::event(black_box(&channel), black_box(EVENT), black_box(&data)));
    }
}

fn presence_snapshot(times: u32) {
    let channel = channel("presence-orders-1234");
    let mut roster = Roster::default();
    for number in 0..1000 {
        let user_info = format!(r#"{{"name":"User {number}"}}"#).into();
        roster.join(&Arc::new(Member { user_id: format!("user-{number}").into(), user_info }));
    }
    for _ in 0..times {
        counted_operation(|| Frame::presence_succeeded(black_box(&channel), black_box(&roster)));
    }
}

fn client_message_parse(times: u32, text: &str) {
    assert!(ClientMessage::parse(text).is_ok(), "{text}");
    for _ in 0..times {
        counted_operation(|| ClientMessage::parse(black_box(text)));
    }
}
