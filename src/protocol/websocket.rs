//! RFC 6455 framing, without I/O: bytes in, messages out; and the frames a server sends.
//!
//! A [`Decoder`] is fed whatever was read, in any chunking. Whole frames are unmasked in place and lent
//! out; only what is incomplete is copied and kept, and let go as soon as it is complete. So an idle
//! connection owns no buffer.

use std::mem;

use thiserror::Error;

/// Most bytes a frame header of ours can have.
pub(super) const HEADER_MAX: usize = 10;

/// Most bytes a close reason or the payload of a control frame may have.
const CONTROL_PAYLOAD_MAX: usize = 125;

/// A ping without payload.
pub const PING: &[u8] = &[FIN | PING_OP, 0];

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

const CONTINUATION_OP: u8 = 0x0;
const TEXT_OP: u8 = 0x1;
const BINARY_OP: u8 = 0x2;
const CLOSE_OP: u8 = 0x8;
const PING_OP: u8 = 0x9;
const PONG_OP: u8 = 0xa;

/// One thing the client said, lent until the decoder is asked again.
#[derive(Debug, Eq, PartialEq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered by [`pong`] with the same payload.
    Ping(&'a [u8]),
    /// An answer to a ping.
    Pong,
    /// The client closes, with this code if it gave one. To be answered by [`close`].
    Close(Option<u16>),
}

/// How a client broke the framing. The connection ends with [`Violation::code`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Violation {
    /// Unmasked, reserved bits or opcodes, broken fragments, malformed control frames.
    #[error("WebSocket protocol error")]
    Protocol,
    /// Text that is not UTF-8.
    #[error("Invalid UTF-8 in a text message")]
    NotUtf8,
    /// A frame or message above the limit, judged by its declared length.
    #[error("Message too big")]
    TooBig,
}

impl Violation {
    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
        }
    }
}

/// The reading half of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Only while a frame or a message is incomplete.
    pending: Option<Box<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    /// The start of a frame whose end has not come, still masked.
    frame: Vec<u8>,
    /// What came of a fragmented message, and how much of it is known to be UTF-8.
    fragments: Option<Fragments>,
    /// A payload that was lent out from here, and is let go when the decoder is asked again.
    lent: Vec<u8>,
}

#[derive(Debug)]
struct Fragments {
    opcode: u8,
    payload: Vec<u8>,
    utf8: usize,
}

#[derive(Clone, Copy)]
struct Header {
    opcode: u8,
    fin: bool,
    mask: [u8; 4],
    /// Bytes of the header itself, and of the payload behind it.
    header: usize,
    payload: usize,
}

impl Decoder {
    /// The next message of `input`, which is consumed as far as it was read. None if there is no whole one
    /// left: then everything is consumed and the incomplete rest is kept.
    ///
    /// `max` limits one message, in bytes. Control frames come out between the fragments of a message.
    ///
    /// # Errors
    /// When the client breaks the protocol; the decoder is then of no further use.
    pub fn next<'o, 'i: 'o>(
        &'o mut self,
        input: &mut &'i mut [u8],
        max: usize,
    ) -> Result<Option<Incoming<'o>>, Violation> {
        // A loop: one read may hold thousands of fragments.
        loop {
            self.let_go();
            match self.frame(input, max)? {
                Step::Incomplete => return Ok(None),
                Step::Fragment => {}
                Step::Whole(opcode, payload) => return incoming(opcode, payload).map(Some),
                Step::Lent(opcode) => return self.lend(opcode),
            }
        }
    }

    /// Takes one frame off the input.
    fn frame<'i>(&mut self, input: &mut &'i mut [u8], max: usize) -> Result<Step<'i>, Violation> {
        if self.pending.as_ref().is_some_and(|pending| !pending.frame.is_empty()) {
            return self.resume(input, max);
        }
        let Some(header) = self.header(input, max)?.filter(|header| input.len() >= header.total()) else {
            if !input.is_empty() {
                self.pending().frame.extend_from_slice(input);
                *input = &mut [];
            }
            return Ok(Step::Incomplete);
        };
        let (frame, rest) = mem::take(input).split_at_mut(header.total());
        *input = rest;
        let payload = &mut frame[header.header..];
        unmask(payload, header.mask);
        if header.is_message() {
            return Ok(Step::Whole(header.opcode, payload));
        }
        self.fragment(header, payload)
    }

    /// Goes on with a frame whose start is kept.
    fn resume<'i>(&mut self, input: &mut &'i mut [u8], max: usize) -> Result<Step<'i>, Violation> {
        let mut frame = mem::take(&mut self.pending().frame);
        let header = loop {
            if let Some(header) = self.header(&frame, max)? {
                break header;
            }
            // A header is at most 14 bytes, so byte by byte is good enough.
            let Some((byte, rest)) = mem::take(input).split_first_mut() else {
                self.pending().frame = frame;
                return Ok(Step::Incomplete);
            };
            frame.push(*byte);
            *input = rest;
        };
        let missing = (header.total() - frame.len()).min(input.len());
        let (more, rest) = mem::take(input).split_at_mut(missing);
        frame.extend_from_slice(more);
        *input = rest;
        if frame.len() < header.total() {
            self.pending().frame = frame;
            return Ok(Step::Incomplete);
        }
        frame.drain(..header.header);
        unmask(&mut frame, header.mask);
        if header.is_message() {
            self.pending().lent = frame;
            return Ok(Step::Lent(header.opcode));
        }
        self.fragment(header, &frame)
    }

    /// Reads the header at the start of `bytes`, if it is whole, and judges it.
    fn header(&self, bytes: &[u8], max: usize) -> Result<Option<Header>, Violation> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let (opcode, fin, short) = (first & OPCODE, first & FIN != 0, usize::from(second & !MASKED));
        let in_message = self.fragments().is_some();
        let legal = match opcode {
            CONTINUATION_OP => in_message,
            TEXT_OP | BINARY_OP => !in_message,
            CLOSE_OP | PING_OP | PONG_OP => fin && short <= CONTROL_PAYLOAD_MAX,
            _ => false,
        };
        if !legal || first & RESERVED != 0 || second & MASKED == 0 {
            return Err(Violation::Protocol);
        }
        let (length, mask_at) = match short {
            126 => (bytes.get(2..4).map(big_endian), 4),
            127 => (bytes.get(2..10).map(big_endian), 10),
            _ => (Some(short as u64), 2),
        };
        let Some(length) = length else { return Ok(None) };
        let already =
            self.fragments().filter(|_| opcode == CONTINUATION_OP).map_or(0, |message| message.payload.len());
        let payload = usize::try_from(length).unwrap_or(usize::MAX);
        if opcode & CLOSE_OP == 0 && payload > max.saturating_sub(already) {
            return Err(Violation::TooBig);
        }
        let mask = bytes.get(mask_at..mask_at + 4).and_then(|mask| mask.try_into().ok());
        Ok(mask.map(|mask| Header { opcode, fin, mask, header: mask_at + 4, payload }))
    }

    /// Takes the unmasked payload of a fragment into the message it belongs to.
    fn fragment<'i>(&mut self, header: Header, payload: &[u8]) -> Result<Step<'i>, Violation> {
        let pending = self.pending();
        let message = match header.opcode {
            CONTINUATION_OP => pending.fragments.as_mut().ok_or(Violation::Protocol)?,
            opcode => pending.fragments.insert(Fragments { opcode, payload: Vec::new(), utf8: 0 }),
        };
        message.payload.extend_from_slice(payload);
        message.check_utf8(header.fin)?;
        if !header.fin {
            return Ok(Step::Fragment);
        }
        let message = pending.fragments.take().ok_or(Violation::Protocol)?;
        pending.lent = message.payload;
        Ok(Step::Lent(message.opcode))
    }

    fn lend(&mut self, opcode: u8) -> Result<Option<Incoming<'_>>, Violation> {
        let lent = self.pending.as_ref().map_or(&[][..], |pending| &pending.lent);
        incoming(opcode, lent).map(Some)
    }

    fn let_go(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.lent = Vec::new();
            if pending.frame.is_empty() && pending.fragments.is_none() {
                self.pending = None;
            }
        }
    }

    fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    fn fragments(&self) -> Option<&Fragments> {
        self.pending.as_ref()?.fragments.as_ref()
    }
}

/// What one frame came to.
enum Step<'i> {
    /// It has not come whole yet.
    Incomplete,
    /// A fragment of a message that goes on.
    Fragment,
    /// A message by itself, in the input.
    Whole(u8, &'i [u8]),
    /// It completed a message with this opcode, which is ready to be lent.
    Lent(u8),
}

impl Header {
    /// The frame is a message by itself, not a part of one.
    fn is_message(self) -> bool {
        self.fin && self.opcode != CONTINUATION_OP
    }

    fn total(self) -> usize {
        self.header + self.payload
    }
}

impl Fragments {
    /// Checks what came since the last time, so that bad text is refused before the message ends.
    fn check_utf8(&mut self, last: bool) -> Result<(), Violation> {
        if self.opcode != TEXT_OP {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.utf8..]) {
            Ok(_) => self.utf8 = self.payload.len(),
            // A character may continue in the next fragment.
            Err(error) if error.error_len().is_none() && !last => self.utf8 += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }
}

fn incoming(opcode: u8, payload: &[u8]) -> Result<Incoming<'_>, Violation> {
    Ok(match opcode {
        TEXT_OP => Incoming::Text(std::str::from_utf8(payload).map_err(|_| Violation::NotUtf8)?),
        BINARY_OP => Incoming::Binary(payload),
        PING_OP => Incoming::Ping(payload),
        PONG_OP => Incoming::Pong,
        _ => Incoming::Close(close_code(payload)?),
    })
}

/// The code of a close frame, if it has one, and it and the reason are allowed on the wire.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::Protocol),
        [high, low, reason @ ..] => {
            std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
            match u16::from_be_bytes([*high, *low]) {
                code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
                _ => Err(Violation::Protocol),
            }
        }
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Applies the client's mask. Eight bytes at a time, since every incoming byte passes here.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Writes the header of a text frame in front of a payload that begins at [`HEADER_MAX`]; returns where
/// the frame begins.
pub(super) fn prepend_text_header(frame: &mut [u8]) -> usize {
    let (header, start) = frame_header(TEXT_OP, frame.len() - HEADER_MAX);
    frame[start..HEADER_MAX].copy_from_slice(&header[start..]);
    start
}

/// How long the header of one of our own frames is.
pub(super) fn header_len(frame: &[u8]) -> usize {
    match frame.get(1) {
        Some(126) => 4,
        Some(127) => HEADER_MAX,
        _ => 2,
    }
}

/// Whether these bytes are exactly one of our own text frames.
pub(super) fn is_text_frame(frame: &[u8]) -> bool {
    let Some(len) = frame.len().checked_sub(header_len(frame)) else { return false };
    let (header, start) = frame_header(TEXT_OP, len);
    frame.starts_with(&header[start..])
}

/// A frame header, at the end of the array, and where it begins.
fn frame_header(opcode: u8, len: usize) -> ([u8; HEADER_MAX], usize) {
    let mut header = [0; HEADER_MAX];
    let (short, extended): (u8, &[u8]) = match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..=125), _) => (len, &[]),
        (_, Ok(len)) => (126, &len.to_be_bytes()),
        _ => (127, &(len as u64).to_be_bytes()),
    };
    let start = HEADER_MAX - 2 - extended.len();
    header[start..start + 2].copy_from_slice(&[FIN | opcode, short]);
    header[start + 2..].copy_from_slice(extended);
    (header, start)
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let (header, start) = frame_header(opcode, payload.len());
    [&header[start..], payload].concat()
}

/// A whole data frame.
pub fn message(payload: &[u8], binary: bool) -> Vec<u8> {
    frame(if binary { BINARY_OP } else { TEXT_OP }, payload)
}

/// The answer to a ping with this payload.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    frame(PONG_OP, &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)])
}

/// A close frame; empty without a code. The reason is cut to the 123 bytes there is room for.
pub fn close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code else { return frame(CLOSE_OP, &[]) };
    let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_MAX - 2)];
    frame(CLOSE_OP, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a test remembers of [`Incoming`].
    #[derive(Clone, Debug, PartialEq)]
    enum Heard {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
    }

    fn hear(decoder: &mut Decoder, bytes: &[u8], max: usize) -> Result<Vec<Heard>, Violation> {
        let mut bytes = bytes.to_vec();
        let mut input = &mut bytes[..];
        let mut heard = Vec::new();
        while let Some(incoming) = decoder.next(&mut input, max)? {
            heard.push(match incoming {
                Incoming::Text(text) => Heard::Text(text.to_owned()),
                Incoming::Binary(bytes) => Heard::Binary(bytes.to_vec()),
                Incoming::Ping(bytes) => Heard::Ping(bytes.to_vec()),
                Incoming::Pong => Heard::Pong,
                Incoming::Close(code) => Heard::Close(code),
            });
        }
        assert!(input.is_empty(), "all input is consumed");
        Ok(heard)
    }

    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 77, 177, 250];
        let (header, start) = frame_header(first & OPCODE, payload.len());
        let mut frame = header[start..].to_vec();
        frame[0] = first;
        frame[1] |= MASKED;
        frame.extend_from_slice(&mask);
        let start = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[start..], mask);
        frame
    }

    fn check_violation(frames: &[&[u8]], violation: Violation) {
        let bytes = frames.concat();
        assert_eq!(hear(&mut Decoder::default(), &bytes, 1000), Err(violation), "{bytes:x?}");
    }

    #[test]
    fn p16_broken_framing_closes_1002() {
        let fin_text = FIN | TEXT_OP;
        check_violation(&[&[fin_text, 1, b'x']], Violation::Protocol); // unmasked
        check_violation(&[&client_frame(fin_text | 0x40, b"x")], Violation::Protocol); // reserved bit
        check_violation(&[&client_frame(FIN | 0x3, b"")], Violation::Protocol); // reserved opcode
        check_violation(&[&client_frame(FIN | CONTINUATION_OP, b"x")], Violation::Protocol);
        check_violation(&[&client_frame(TEXT_OP, b"x"), &client_frame(fin_text, b"y")], Violation::Protocol);
        check_violation(&[&client_frame(PING_OP, b"")], Violation::Protocol); // fragmented control frame
        check_violation(&[&client_frame(FIN | PING_OP, &[0; 126])], Violation::Protocol);
        check_violation(&[&client_frame(FIN | CLOSE_OP, &[3])], Violation::Protocol);
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            check_violation(&[&client_frame(FIN | CLOSE_OP, &code.to_be_bytes())], Violation::Protocol);
        }
    }

    #[test]
    fn p16_bad_utf8_closes_1007_as_soon_as_it_is_certain() {
        check_violation(&[&client_frame(FIN | TEXT_OP, b"\xff")], Violation::NotUtf8);
        check_violation(&[&client_frame(TEXT_OP, b"a\xff")], Violation::NotUtf8);
        check_violation(
            &[&client_frame(TEXT_OP, b"\xe6\x97"), &client_frame(FIN | CONTINUATION_OP, b"")],
            Violation::NotUtf8,
        );
        check_violation(&[&client_frame(FIN | CLOSE_OP, b"\x03\xe8\xff")], Violation::NotUtf8);
    }

    #[test]
    fn p16_too_big_is_judged_by_the_declared_length() {
        let whole = client_frame(FIN | TEXT_OP, &[b'x'; 1001]);
        check_violation(&[&whole[..4]], Violation::TooBig);
        check_violation(
            &[&[FIN | TEXT_OP, MASKED | 127, 255, 255, 255, 255, 255, 255, 255, 255]],
            Violation::TooBig,
        );
        let fragments = [client_frame(TEXT_OP, &[b'x'; 600]), client_frame(FIN, &[b'x'; 401])].concat();
        assert_eq!(hear(&mut Decoder::default(), &fragments, 1000), Err(Violation::TooBig));
        assert!(hear(&mut Decoder::default(), &fragments, 1001).is_ok());
    }

    #[test]
    fn a_character_may_be_split_over_fragments() {
        let frames = [
            client_frame(TEXT_OP, b"\xe6\x97"),
            client_frame(FIN | PING_OP, b"hi"),
            client_frame(FIN | CONTINUATION_OP, b"\xa5"),
        ];
        let heard = hear(&mut Decoder::default(), &frames.concat(), 1000);
        assert_eq!(heard, Ok(vec![Heard::Ping(b"hi".to_vec()), Heard::Text("日".into())]));
    }

    #[test]
    fn an_idle_decoder_owns_nothing() {
        let mut decoder = Decoder::default();
        let frame = client_frame(FIN | TEXT_OP, b"hello");
        for byte in &frame[..frame.len() - 1] {
            assert_eq!(hear(&mut decoder, &[*byte], 1000), Ok(vec![]));
            assert!(decoder.pending.is_some());
        }
        let last = &frame[frame.len() - 1..];
        assert_eq!(hear(&mut decoder, last, 1000), Ok(vec![Heard::Text("hello".into())]));
        assert!(decoder.pending.is_none());
    }

    #[test]
    fn a_read_full_of_fragments_is_no_deeper_than_one() {
        let mut frames = client_frame(TEXT_OP, b"");
        frames.extend((0..100_000).flat_map(|_| client_frame(CONTINUATION_OP, b"")));
        frames.extend(client_frame(FIN | CONTINUATION_OP, b"end"));
        assert_eq!(hear(&mut Decoder::default(), &frames, 1000), Ok(vec![Heard::Text("end".into())]));
    }

    #[test]
    fn close_frames_fit() {
        assert_eq!(close(None, "ignored"), [0x88, 0]);
        assert_eq!(close(Some(4200), "bye"), [&[0x88, 5, 0x10, 0x68][..], b"bye"].concat());
        assert_eq!(close(Some(1000), &"ä".repeat(100)).len(), 2 + 2 + 122);
    }

    fn messages() -> impl Strategy<Value = Vec<(Heard, Vec<usize>)>> {
        let payload = prop::collection::vec(any::<u8>(), 0..300);
        let heard = prop_oneof![
            ".{0,200}".prop_map(Heard::Text),
            payload.clone().prop_map(Heard::Binary),
            prop::collection::vec(any::<u8>(), 0..=125).prop_map(Heard::Ping),
            Just(Heard::Pong),
            prop::option::of(3000u16..=4999).prop_map(Heard::Close),
        ];
        prop::collection::vec((heard, prop::collection::vec(0usize..200, 0..4)), 0..8)
    }

    /// The message as client frames, data messages cut where `cuts` says.
    fn encode(heard: &Heard, cuts: &[usize]) -> Vec<u8> {
        let (opcode, payload) = match heard {
            Heard::Text(text) => (TEXT_OP, text.as_bytes().to_vec()),
            Heard::Binary(bytes) => (BINARY_OP, bytes.clone()),
            Heard::Ping(bytes) => return client_frame(FIN | PING_OP, bytes),
            Heard::Pong => return client_frame(FIN | PONG_OP, b"any"),
            Heard::Close(code) => {
                return client_frame(
                    FIN | CLOSE_OP,
                    &code.map_or(vec![], |code| code.to_be_bytes().to_vec()),
                );
            }
        };
        let mut bytes = Vec::new();
        let mut rest = &payload[..];
        let mut opcode = opcode;
        for cut in cuts {
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            bytes.extend(client_frame(opcode, part));
            (opcode, rest) = (CONTINUATION_OP, after);
        }
        bytes.extend(client_frame(FIN | opcode, rest));
        bytes
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            messages in messages(),
            chunks in prop::collection::vec(1usize..50, 1..40),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|(heard, cuts)| encode(heard, cuts)).collect();
            let mut decoder = Decoder::default();
            let mut heard = Vec::new();
            let mut rest = &bytes[..];
            for chunk in chunks.iter().cycle() {
                let (now, later) = rest.split_at((*chunk).min(rest.len()));
                heard.extend(hear(&mut decoder, now, 100_000).expect("valid frames"));
                if later.is_empty() {
                    break;
                }
                rest = later;
            }
            let sent: Vec<Heard> = messages.into_iter().map(|(heard, _)| heard).collect();
            prop_assert_eq!(heard, sent);
        }

        #[test]
        fn garbage_is_heard_alike_in_one_piece_and_in_many(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytewise = Decoder::default();
            let parts: Result<Vec<_>, _> = bytes.iter().map(|byte| hear(&mut bytewise, &[*byte], 1000)).collect();
            let whole = hear(&mut Decoder::default(), &bytes, 1000);
            prop_assert_eq!(whole.is_err(), parts.is_err());
        }

        #[test]
        fn our_own_headers_can_be_measured(len in prop_oneof![0usize..300, 65_000usize..66_000]) {
            let frame = message(&vec![0; len], true);
            prop_assert_eq!(frame.len() - header_len(&frame), len);
        }
    }
}
