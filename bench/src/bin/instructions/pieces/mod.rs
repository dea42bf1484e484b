//! The hot pieces: each a set-up and one operation that is repeated.
//!
//! They go through public functions only, with what a backend or client usually brings: a hundred bytes of
//! data, names of ordinary length. An operation that changes something changes it back, so that each
//! repetition meets what the first one met.
//!
//! The server's hash maps draw their keys at random. Where that shows, one repetition differs from the next
//! in what it looks up, so that luck evens out.

mod api;
mod connection;
mod hub;
mod protocol;

use std::hint::black_box;

use fanfare::app::{App, KeyPair};
use fanfare::protocol::{ChannelName, Secret, SocketId};

/// Something whose instructions are counted.
pub(crate) struct Piece {
    /// In kebab-case; the key of its baseline.
    pub(crate) name: &'static str,
    /// What one operation is, in a sentence without its full stop.
    pub(crate) about: &'static str,
    /// Repetitions: enough that what is done once, or depends on luck, does not show.
    pub(crate) times: u32,
    /// Sets up, then repeats the operation so often.
    pub(crate) run: fn(times: u32),
}

/// Every piece, in the order of the server's modules.
pub(crate) fn all() -> impl Iterator<Item = &'static Piece> {
    [protocol::PIECES, hub::PIECES, connection::PIECES, api::PIECES].into_iter().flatten()
}

/// Does one operation and drops what comes of it.
///
/// Callgrind counts what happens in here and nothing else, so set-up and clearing away stay outside. It
/// finds the function by its name, [`COUNTED`].
#[inline(never)]
fn counted_operation<R>(operation: impl FnOnce() -> R) {
    black_box(operation());
}

/// As it can be found in the mangled and the readable name of [`counted_operation`] alike.
pub(crate) const COUNTED: &str = "*counted_operation*";

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";
const PRIVATE_CHANNEL: &str = "private-orders-1234";
const EVENT: &str = r#""order-paid""#;

fn app() -> App {
    let keys = vec![KeyPair { key: KEY.to_owned(), secret: Secret::new(SECRET) }];
    App { id: "1".into(), keys, client_events: true, presence_members_max: 2000, ..App::default() }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).expect("a valid name")
}

fn socket_id() -> SocketId {
    SocketId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
}

/// JSON of about `len` bytes as a string literal, with the escapes that come with it.
fn data_literal(len: usize) -> String {
    let order = r#"{\"id\":1234,\"state\":\"paid\"}"#;
    format!(r#""[{}]""#, vec![order; len / order.len()].join(","))
}

/// What a client writes to subscribe to [`PRIVATE_CHANNEL`].
fn subscribe_text() -> String {
    let signature = Secret::new(SECRET).sign(&[format!("{}:{PRIVATE_CHANNEL}", socket_id()).as_bytes()]);
    let auth = format!("{KEY}:{signature}");
    format!(r#"{{"event":"pusher:subscribe","data":{{"auth":"{auth}","channel":"{PRIVATE_CHANNEL}"}}}}"#)
}

/// What a client writes to tell the others in [`PRIVATE_CHANNEL`] something.
fn client_event_text() -> String {
    format!(r#"{{"event":"client-moved","channel":"{PRIVATE_CHANNEL}","data":{}}}"#, data_literal(100))
}
