//! The HTTP API as a server SDK uses it.

use std::{net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use serde_json::{Value, json};

use super::{
    Client, Http, JS_PATH, KEY, RawSocket, Reply, SECRET, Wire, hmac_hex, md5_hex, member, string_to_sign,
    token, unix_now, user,
};

/// One app's credentials and where its broker is.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    app: String,
    key: String,
    secret: String,
}

/// A request that is signed when it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    api: Api,
    method: String,
    path: String,
    params: Vec<(String, String)>,
    unsigned: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Api {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let (app, key, secret) = ("1".into(), KEY.into(), SECRET.into());
        Self { address, tls: None, app, key, secret }
    }

    /// The same broker with another app's credentials.
    pub(crate) fn of_app(&self, app: &str, key: &str, secret: &str) -> Self {
        let (app, key, secret) = (app.into(), key.into(), secret.into());
        Self { app, key, secret, ..self.clone() }
    }

    /// The same over TLS.
    pub(crate) fn over_tls(&self, client: Arc<ClientConfig>) -> Self {
        Self { tls: Some(client), ..self.clone() }
    }

    /// Where TLS is spoken: its client.
    pub(crate) fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.tls.as_ref()
    }

    /// A connection for requests.
    #[track_caller]
    pub(crate) fn http(&self) -> Http {
        Http::over(Wire::connect(self.address, self.tls()))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The auth token of this app for a string.
    pub(crate) fn token(&self, text: &str) -> String {
        token(&self.key, &self.secret, text)
    }

    /// Connects as pusher-js does.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self, JS_PATH)
    }

    /// A connection that may break the rules.
    #[track_caller]
    pub(crate) fn raw(&self) -> RawSocket {
        RawSocket::connected(self.address)
    }

    /// A client that has subscribed to a channel.
    #[track_caller]
    pub(crate) fn subscriber(&self, channel: &str) -> Client {
        let mut client = self.connect();
        client.subscribe(channel);
        client
    }

    /// A client that has joined a presence channel as this user.
    #[track_caller]
    pub(crate) fn joined(&self, channel: &str, user_id: &str) -> Client {
        let mut client = self.connect();
        client.join(channel, &member(user_id));
        client
    }

    /// A client that has signed in and watches nobody.
    #[track_caller]
    pub(crate) fn signed_in(&self, id: &str) -> Client {
        let mut client = self.connect();
        client.sign_in(&user(id));
        client
    }

    /// Asserts that a connection to `path` is refused with an error frame and a close frame of the
    /// same code, and gives the message.
    #[track_caller]
    pub(crate) fn refused(&self, path: &str, code: u16) -> String {
        Client::dial(self, path).expect_end_with(code)
    }

    /// Asserts that a fresh client is served.
    #[track_caller]
    pub(crate) fn expect_healthy(&self) {
        let mut client = self.subscriber("health");
        self.publish("health", "check", "fine");
        client.expect_event("health", "check", "fine");
        client.leave();
    }

    /// A `GET` below `/apps/{id}`.
    pub(crate) fn get(&self, path: &str) -> Request {
        self.request("GET", &format!("/apps/{}{path}", self.app), Vec::new())
    }

    /// A `POST` below `/apps/{id}`.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Request {
        self.post_bytes(path, body.to_string())
    }

    pub(crate) fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Request {
        self.request("POST", &format!("/apps/{}{path}", self.app), body)
    }

    /// A request to a path that is taken as it is.
    pub(crate) fn request(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Request {
        let body = body.into();
        let mut params = vec![
            ("auth_key".to_owned(), self.key.clone()),
            ("auth_timestamp".to_owned(), unix_now().to_string()),
            ("auth_version".to_owned(), "1.0".to_owned()),
        ];
        if !body.is_empty() {
            params.push(("body_md5".to_owned(), md5_hex(&body)));
        }
        let (method, path) = (method.to_owned(), path.to_owned());
        Request { api: self.clone(), method, path, params, unsigned: Vec::new(), body }
    }

    /// `POST /events`.
    pub(crate) fn trigger(&self, body: &Value) -> Reply {
        self.post("/events", body).send()
    }

    /// Publishes one event and expects it to be accepted.
    #[track_caller]
    pub(crate) fn publish(&self, channel: &str, name: &str, data: &str) {
        let reply = self.trigger(&json!({ "name": name, "channels": [channel], "data": data })).ok();
        assert_eq!(reply, json!({}));
    }

    /// `GET /channels/{name}` with these attributes.
    #[track_caller]
    pub(crate) fn channel(&self, name: &str, info: &str) -> Value {
        self.get(&format!("/channels/{name}")).param("info", info).send().ok()
    }

    /// The occupied channels.
    #[track_caller]
    pub(crate) fn channels(&self) -> Value {
        self.get("/channels").send().ok()["channels"].clone()
    }

    /// The ids of a presence channel's users, sorted.
    #[track_caller]
    pub(crate) fn users(&self, channel: &str) -> Vec<String> {
        let reply = self.get(&format!("/channels/{channel}/users")).send().ok();
        let users = reply["users"].as_array().expect("a list of users");
        let id = |user: &Value| user["id"].as_str().expect("a string id").to_owned();
        let mut ids: Vec<String> = users.iter().map(id).collect();
        ids.sort();
        ids
    }

    /// Ends every connection of a user.
    #[track_caller]
    pub(crate) fn terminate(&self, user: &str) {
        let path = format!("/users/{user}/terminate_connections");
        assert_eq!(self.post(&path, &json!({})).send().ok(), json!({}));
    }
}

impl Request {
    /// Adds a signed parameter.
    pub(crate) fn param(mut self, key: &str, value: &str) -> Self {
        self.params.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a parameter the signature does not cover.
    pub(crate) fn unsigned(mut self, key: &str, value: &str) -> Self {
        self.unsigned.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Drops a parameter.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.params.retain(|(name, _)| name != key);
        self
    }

    /// Gives a parameter another value.
    pub(crate) fn with(self, key: &str, value: &str) -> Self {
        self.without(key).param(key, value)
    }

    /// Signs as if the request were made at another time.
    pub(crate) fn at(self, timestamp: i64) -> Self {
        self.with("auth_timestamp", &timestamp.to_string())
    }

    /// The string the signature is made of.
    pub(crate) fn string_to_sign(&self) -> String {
        string_to_sign(&self.method, &self.path, &self.params)
    }

    /// The signature it will be sent with.
    pub(crate) fn signature(&self) -> String {
        hmac_hex(&self.api.secret, &self.string_to_sign())
    }

    #[track_caller]
    pub(crate) fn send(&self) -> Reply {
        self.send_signed(&self.signature())
    }

    /// Sends with a signature of the story's own.
    #[track_caller]
    pub(crate) fn send_signed(&self, signature: &str) -> Reply {
        let mut pairs: Vec<String> = Vec::new();
        for (key, value) in self.params.iter().chain(&self.unsigned) {
            pairs.push(format!("{}={}", escaped(key), escaped(value)));
        }
        pairs.push(format!("auth_signature={signature}"));
        self.send_raw(&format!("{}?{}", self.path, pairs.join("&")))
    }

    /// Sends this request under a target (path and query) of the story's own.
    #[track_caller]
    pub(crate) fn send_raw(&self, target: &str) -> Reply {
        let mut http = self.api.http();
        http.send(self.bytes_for(target));
        let reply = http.reply_to(&self.method);
        assert!(!(300..400).contains(&reply.status), "a redirect: {reply:?}");
        assert!(reply.status < 500, "{reply:?}");
        reply
    }

    /// The signed request as bytes, for connections that carry several.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let pairs: Vec<String> = self.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let (path, pairs, signature) = (&self.path, pairs.join("&"), self.signature());
        self.bytes_for(&format!("{path}?{pairs}&auth_signature={signature}"))
    }

    fn bytes_for(&self, target: &str) -> Vec<u8> {
        let (method, length) = (&self.method, self.body.len());
        let mut bytes = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend(&self.body);
        bytes
    }
}

/// Escapes only what would break the request line or the splitting of the query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'&' | b'%' | b'+' | b'#' | b'"' | b'<' | b'>' | b'\\' | 0..=32 | 127.. => {
                escaped.push_str(&format!("%{byte:02X}"));
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    escaped
}
