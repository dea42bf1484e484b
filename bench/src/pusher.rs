//! What a client and a backend say in the Pusher protocol.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::protocol::Secret;
use md5::{Digest, Md5};

/// The app that every server under test serves.
pub(crate) const APP_ID: &str = "1";
pub(crate) const KEY: &str = "bench-key";
pub(crate) const SECRET: &str = "bench-secret";

/// The request that opens a WebSocket.
pub(crate) fn upgrade(address: SocketAddr) -> String {
    format!(
        "GET /app/{KEY}?protocol=7&client=js&version=8.6.0&flash=false HTTP/1.1\r\nHost: {address}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// `pusher:subscribe`, with what the channel's name asks for. `user` is the member of a presence channel.
pub(crate) fn subscribe(channel: &str, socket_id: &str, user: usize) -> String {
    let secret = Secret::new(SECRET);
    let head = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}""#);
    if channel.starts_with("presence-") {
        let member = format!(r#"{{"user_id":"u{user}","user_info":{{"name":"User {user}"}}}}"#);
        let auth = secret.sign(&[format!("{socket_id}:{channel}:{member}").as_bytes()]);
        let member = member.replace('"', "\\\"");
        return format!(r#"{head},"auth":"{KEY}:{auth}","channel_data":"{member}"}}}}"#);
    }
    if channel.starts_with("private-") {
        let auth = secret.sign(&[format!("{socket_id}:{channel}").as_bytes()]);
        return format!(r#"{head},"auth":"{KEY}:{auth}"}}}}"#);
    }
    head + "}}"
}

pub(crate) fn unsubscribe(channel: &str) -> String {
    format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#)
}

pub(crate) const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;

pub(crate) fn client_event(channel: &str, data: &str) -> String {
    format!(r#"{{"event":"client-e","channel":"{channel}","data":"{data}"}}"#)
}

/// `POST events`, signed.
pub(crate) fn publish(address: SocketAddr, channel: &str, data: &str) -> Vec<u8> {
    let body = format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#);
    call(address, "POST", &format!("/apps/{APP_ID}/events"), &body)
}

/// `POST batch_events`, signed.
pub(crate) fn publish_batch(address: SocketAddr, events: &[(String, String)]) -> Vec<u8> {
    let events: Vec<String> = events
        .iter()
        .map(|(channel, data)| format!(r#"{{"name":"e","channel":"{channel}","data":"{data}"}}"#))
        .collect();
    let body = format!(r#"{{"batch":[{}]}}"#, events.join(","));
    call(address, "POST", &format!("/apps/{APP_ID}/batch_events"), &body)
}

/// `GET channels/{name}` with its counts, signed.
pub(crate) fn counts(address: SocketAddr, channel: &str) -> Vec<u8> {
    let info = if channel.starts_with("presence-") { "user_count" } else { "subscription_count" };
    let path = format!("/apps/{APP_ID}/channels/{channel}");
    signed(address, (KEY, SECRET), "GET", &path, &format!("&info={info}"), "")
}

/// `GET channels`, signed.
pub(crate) fn channels(address: SocketAddr) -> Vec<u8> {
    call(address, "GET", &format!("/apps/{APP_ID}/channels"), "")
}

/// `GET channels` of another app, signed.
pub(crate) fn channels_of(address: SocketAddr, app: &str, key: &str, secret: &str) -> Vec<u8> {
    signed(address, (key, secret), "GET", &format!("/apps/{app}/channels"), "", "")
}

fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> Vec<u8> {
    signed(address, (KEY, SECRET), method, path, "", body)
}

/// A request of the HTTP API. `parameters` begin with `&` and sort behind those of the signature.
fn signed(
    address: SocketAddr,
    (key, secret): (&str, &str),
    method: &str,
    path: &str,
    parameters: &str,
    body: &str,
) -> Vec<u8> {
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let md5 = if body.is_empty() {
        String::new()
    } else {
        format!("&body_md5={}", hex::encode(Md5::digest(body.as_bytes())))
    };
    let query = format!("auth_key={key}&auth_timestamp={timestamp}&auth_version=1.0{md5}{parameters}");
    let signature = Secret::new(secret).sign(&[format!("{method}\n{path}\n{query}").as_bytes()]);
    let head = format!(
        "{method} {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}
