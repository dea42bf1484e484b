//! Signed subscriptions and sign-ins with hostile content: what the app has signed is accepted or refused in
//! words, never a panic, and every frame made of it is JSON.
//!
//! Input: channel, a newline, then `channel_data` or `user_data`.

#![no_main]

use std::sync::Arc;
use std::time::Instant;

use fanfare::config::{Config, DEMO_KEY, DEMO_SECRET};
use fanfare::connection::{Connection, Request};
use fanfare::protocol::{Frame, Roster, Secret, SocketId};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use serde_json::value::RawValue;

fn check_json(frame: &Frame) {
    let frame: serde_json::Value = serde_json::from_slice(frame.text()).expect("a frame is JSON");
    let data = frame["data"].as_str().expect("data is a string");
    // As text: half a surrogate pair is valid JSON, but no value of Rust's.
    serde_json::from_str::<&RawValue>(data).expect("data holds JSON");
}

fuzz_target!(|text: &str| {
    let (channel, data) = text.split_once('\n').unwrap_or((text, ""));
    let socket_id = SocketId::from_random(1);
    let mut connection = Connection::new(Arc::new(Config::demo_app()), socket_id, Instant::now());
    let token =
        |signed: String| format!("{DEMO_KEY}:{}", Secret::new(DEMO_SECRET).sign(&[signed.as_bytes()]));

    let auth = token(format!("{socket_id}:{channel}:{data}"));
    let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": auth, "channel_data": data } });
    if let Ok(Request::Subscribe { channel, member: Some(member) }) =
        connection.hear(&subscribe.to_string(), Instant::now())
    {
        check_json(&Frame::member_added(&channel, &member));
        let mut roster = Roster::default();
        roster.join(&member);
        check_json(&Frame::presence_succeeded(&channel, &roster));
    }

    let auth = token(format!("{socket_id}::user::{data}"));
    let sign_in = json!({ "event": "pusher:signin", "data": { "auth": auth, "user_data": data } });
    if let Ok(Request::SignIn(request)) = connection.hear(&sign_in.to_string(), Instant::now()) {
        check_json(&request.reply);
        assert!(request.channel.kind().is_user());
    }
});
