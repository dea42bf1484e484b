//! Sessions against clients of rustls, in memory.

use std::io::{Read, Write};

use proptest::prelude::*;
use rcgen::generate_simple_self_signed;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;

/// A client and a session, and what is under way between them.
struct Pair {
    client: ClientConnection,
    session: Session,
    heard: Vec<u8>,
    /// What the session has let out.
    out: Vec<u8>,
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let chain = vec![made.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).expect("a root");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_protocol_versions(&[version]).expect("a version");
        let server = server.with_no_client_auth().with_single_cert(chain, key).expect("a pair");
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_protocol_versions(&[version]).expect("a version");
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let session = Session::new(Arc::new(server)).expect("a session");
        Self { client, session, heard: Vec::new(), out: Vec::new() }
    }

    /// What the client has to say goes to the session, in pieces of this length.
    fn say(&mut self, piece: usize) {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("written to memory");
        }
        for piece in bytes.chunks(piece) {
            self.feed(piece).expect("as the protocol wants it");
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut into = vec![0; READ_LEAST];
        let read = self.session.read(&mut into, |room| {
            room[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
        self.session.flush(|records| self.out.write(records)).expect("written to memory");
        match read {
            Ok(count) => self.heard.extend_from_slice(&into[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the session has let out goes to the client. Gives what the client reads.
    fn hear(&mut self) -> Vec<u8> {
        let out = std::mem::take(&mut self.out);
        let mut out = &out[..];
        let mut text = Vec::new();
        while !out.is_empty() {
            self.client.read_tls(&mut out).expect("read from memory");
            self.client.process_new_packets().expect("as the protocol wants it");
            let _ = self.client.reader().read_to_end(&mut text);
        }
        text
    }

    fn shake_hands(&mut self, piece: usize) {
        while self.client.is_handshaking() || self.session.is_handshaking() {
            self.say(piece);
            self.hear();
        }
    }
}

fn versions() -> impl Strategy<Value = &'static SupportedProtocolVersion> {
    prop::sample::select(vec![&TLS12, &TLS13])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn texts_arrive_whole_however_they_are_cut(
        version in versions(),
        piece in 1usize..5000,
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40_000), 1..4),
    ) {
        let mut pair = Pair::new(version);
        pair.shake_hands(piece);
        for text in &texts {
            pair.client.writer().write_all(text).expect("room");
            pair.say(piece);
        }
        prop_assert_eq!(&pair.heard, &texts.concat());
        prop_assert!(pair.session.unread.is_empty() && pair.session.unread.capacity() == 0);
    }

    #[test]
    fn texts_leave_in_order_however_little_the_socket_takes(
        version in versions(),
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100_000), 1..5),
        takes in prop::collection::vec(0usize..70_000, 1..60),
    ) {
        let mut pair = Pair::new(version);
        pair.shake_hands(5000);
        let Pair { session, out, .. } = &mut pair;
        let mut takes = takes.into_iter();
        let mut write = |records: &[u8]| {
            // After the given ones the socket takes everything.
            let take = takes.next().unwrap_or(usize::MAX).min(records.len());
            out.extend_from_slice(&records[..take]);
            if take == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(take) }
        };
        for text in &texts {
            let (first, second) = text.split_at(text.len() / 3);
            let mut pieces = &mut [IoSlice::new(first), IoSlice::new(second)][..];
            while pieces.iter().any(|piece| !piece.is_empty()) {
                match session.write(pieces, &mut write) {
                    Ok(count) => IoSlice::advance_slices(&mut pieces, count),
                    Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
        }
        while !session.flush(&mut write).expect("no error") {}
        prop_assert_eq!(session.unsent(), 0);
        prop_assert_eq!(pair.hear(), texts.concat());
    }

    #[test]
    fn strange_bytes_end_a_session_and_nothing_else(
        version in versions(),
        after_handshake in any::<bool>(),
        kind in 0u8..30,
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let mut pair = Pair::new(version);
        if after_handshake {
            pair.shake_hands(5000);
        }
        let length = u16::try_from(bytes.len()).expect("a length").to_be_bytes();
        let record = [&[kind, 3, 3][..], &length, &bytes].concat();
        let fine = pair.feed(&record).and_then(|()| pair.feed(&bytes)).is_ok();
        if !fine {
            prop_assert!(pair.feed(&record).is_ok(), "it is only waited for the end");
            let written = pair.session.write(&[IoSlice::new(b"text")], |records| Ok(records.len()));
            prop_assert!(written.is_err());
        }
        prop_assert!(pair.heard.is_empty());
    }
}

#[test]
fn an_idle_session_owns_no_buffer() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(version);
        pair.shake_hands(100);
        pair.session.write(&[IoSlice::new(b"text")], |records| pair.out.write(records)).expect("sealed");
        assert_eq!(pair.hear(), b"text");
        assert_eq!((pair.session.unread.capacity(), pair.session.unsent()), (0, 0));
    }
}

#[test]
fn both_sides_say_goodbye() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::new(version);
        pair.shake_hands(100);
        pair.client.writer().write_all(b"last words").expect("room");
        pair.client.send_close_notify();
        pair.say(5000);
        assert_eq!(pair.heard, b"last words");
        assert!(pair.session.has_ended());
        // The client still listens.
        pair.session.write(&[IoSlice::new(b"farewell")], |records| pair.out.write(records)).expect("sealed");
        pair.session.close();
        pair.session.flush(|records| pair.out.write(records)).expect("written to memory");
        assert_eq!(pair.hear(), b"farewell");
        // Without the goodbye, the end would be an error.
        assert_eq!(pair.client.reader().read(&mut [0; 8]).ok(), Some(0));
        assert!(pair.session.write(&[IoSlice::new(b"more")], |_| panic!("it is closed")).is_err());
    }
}

#[test]
fn keys_are_renewed_when_the_client_asks() {
    let mut pair = Pair::new(&TLS13);
    pair.shake_hands(5000);
    for number in 0..5 {
        pair.client.refresh_traffic_keys().expect("after the handshake");
        pair.client.writer().write_all(&[number]).expect("room");
        pair.say(3);
        pair.session.write(&[IoSlice::new(&[number])], |records| pair.out.write(records)).expect("sealed");
        assert_eq!(pair.hear(), [number]);
    }
    assert_eq!(pair.heard, [0, 1, 2, 3, 4]);
}

#[test]
fn a_handshake_that_does_not_end_is_given_up() {
    let mut pair = Pair::new(&TLS13);
    // A ClientHello of 64 KB, as it says, in records of 4 KB.
    let mut begin = vec![22, 3, 1, 16, 0, 1, 0, 0xff, 0xff];
    begin.resize(5 + 4096, 0);
    let mut more = vec![22, 3, 1, 16, 0];
    more.resize(5 + 4096, 0);
    pair.feed(&begin).expect("a beginning");
    let given_up = (0..100).position(|_| pair.feed(&more).is_err());
    assert!(given_up.is_some_and(|records| records * 4096 <= UNREAD_MAX), "{given_up:?}");
}
