//! What every story needs: a broker of its own, clients, signed requests, and deadlines that fail.

mod api;
mod backend;
mod broker;
mod client;
mod database;
mod device;
mod fleet;
mod http;
mod island;
mod load;
mod operator;
mod raw;
mod redis;
mod sign;
mod wire;

use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use api::{Api, Request};
pub(crate) use backend::{Answer, Backend, Hook};
pub(crate) use broker::{Broker, Finished, Process, fanfare, run};
pub(crate) use client::{Client, expect_invariants, leaving};
pub(crate) use database::{Database, Kind, PASSWORD};
pub(crate) use device::Device;
pub(crate) use fleet::{Door, Doors, Fleet, HEALED_WITHIN};
pub(crate) use http::{Http, Reply};
pub(crate) use island::Island;
pub(crate) use load::{Load, Trouble};
pub(crate) use operator::{Operator, TOKEN, admin_settings};
pub(crate) use raw::{Opcode, RawSocket, frame, frame_head, subscribe_frame, upgrade_request};
pub(crate) use redis::{RedisCluster, RedisServer, Sentinels};
pub(crate) use sign::{hmac_hex, md5_hex, string_to_sign, token, unix_now};
pub(crate) use wire::{Identity, Wire, handshake};

/// How long anything may take before a story fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Key and secret of the one app most stories use. Its id is `1`.
pub(crate) const KEY: &str = "app-key";
pub(crate) const SECRET: &str = "app-secret";

/// The path pusher-js connects to.
pub(crate) const JS_PATH: &str = "/app/app-key?protocol=7&client=js&version=8.6.0&flash=false";

/// Waits until `condition` holds. Only for what no frame and no reply announces: open files of a
/// process, a place in a quota, the passing of a time limit.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    until_within(DEADLINE, what, condition);
}

/// As [`until`], for what takes a crowd its time.
#[track_caller]
pub(crate) fn until_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(5)); // leaves the processor to the broker
    }
}

/// Waits until something is what is wanted.
#[track_caller]
pub(crate) fn until_equal<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, seen: impl Fn() -> T) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen = seen();
        if seen == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {seen:?} instead of {wanted:?} for {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Reads the JSON inside a frame's `data` string.
#[track_caller]
pub(crate) fn parsed(text: &Value) -> Value {
    let text = text.as_str().expect("a JSON string");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

/// The `channel_data` of a presence member without `user_info`.
pub(crate) fn member(user_id: &str) -> String {
    serde_json::json!({ "user_id": user_id }).to_string()
}

/// The `user_data` of a user without anything else.
pub(crate) fn user(id: &str) -> String {
    serde_json::json!({ "id": id }).to_string()
}

/// The `user_data` of a user who watches others.
pub(crate) fn watcher(id: &str, watchlist: &[&str]) -> String {
    serde_json::json!({ "id": id, "watchlist": watchlist }).to_string()
}
