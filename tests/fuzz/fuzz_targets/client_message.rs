//! Text of a hostile client, one message a line, to a connection of its own: no panic, and an error whenever
//! something is not allowed.

#![no_main]

use std::sync::Arc;
use std::time::Instant;

use fanfare::config::Config;
use fanfare::connection::{Connection, Request};
use fanfare::protocol::{Frame, SocketId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut connection =
        Connection::new(Arc::new(Config::demo_app()), SocketId::from_random(1), Instant::now());
    for line in text.lines() {
        match connection.hear(line, Instant::now()) {
            // Nobody can guess a signature.
            Ok(Request::SignIn(_)) => panic!("signed in"),
            Ok(Request::Subscribe { channel, .. }) => assert!(!channel.kind().is_authorized(), "{channel}"),
            Ok(Request::Publish { .. }) => panic!("sent without being subscribed"),
            Ok(_) => {}
            Err(refusal) => {
                let frame = Frame::error(&refusal.error);
                serde_json::from_slice::<serde_json::Value>(frame.text()).expect("an error is JSON");
                assert!(frame.text().len() < 5_000, "a stranger's text is cut");
            }
        }
    }
});
