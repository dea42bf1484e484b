//! Frames of a hostile client: no panic, and the same messages in one piece and byte by byte.

#![no_main]

use fanfare::protocol::websocket::{Decoder, Violation};
use libfuzzer_sys::fuzz_target;

/// Small, so that a short input can break it.
const MAX: usize = 300;

/// What was heard before the input ended or broke the protocol.
fn hear<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut heard = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = &mut bytes[..];
        loop {
            match decoder.next(&mut input, MAX) {
                Ok(Some(incoming)) => heard.push(format!("{incoming:?}")),
                Ok(None) => break,
                Err(violation) => return (heard, Some(violation)),
            }
        }
        assert!(input.is_empty(), "what is no message yet is kept by the decoder");
    }
    (heard, None)
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(hear([bytes].into_iter()), hear(bytes.chunks(1)));
});
