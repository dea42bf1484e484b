//! A worker with clients over real sockets, and a cluster that works when it is told to. All of it on one thread, so a
//! test decides what happens before what.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::net::TcpStream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::app::{App, Apps, KeyPair};
use crate::config::{Config, Masked};
use crate::hub::{Audience, Topic};
use crate::mirror::Message;
use crate::node::Node;
use crate::node::fake::FakeCluster;
use crate::protocol::{ChannelName, Frame, Member, Secret};
use crate::tls::Line;
use crate::worker::Worker;
use crate::worker::socket::Socket;

const SECRET: &str = "secret";

/// Nothing takes that long.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Stage {
    pub(super) node: Arc<Node>,
    pub(super) worker: Rc<Worker>,
    pub(super) cluster: FakeCluster,
}

/// Runs a story with one worker of a node in a cluster.
pub(super) fn play(app: App, story: impl AsyncFnOnce(Stage)) {
    play_with(|_| {}, app, story);
}

/// The same, with other settings.
pub(super) fn play_with(settings: impl FnOnce(&mut Config), app: App, story: impl AsyncFnOnce(Stage)) {
    let mut config = Config::default();
    config.server.workers = 1;
    config.redis.url = Masked::new("redis://nowhere");
    settings(&mut config);
    actix_rt::System::new().block_on(async {
        let node = Node::new(config, apps([app]));
        let cluster = FakeCluster::new(&node);
        let (id, mailbox) = node.take_mailbox().expect("that of the one worker");
        let worker = Worker::start(id, node.clone(), mailbox);
        story(Stage { node, worker, cluster }).await;
    });
}

pub(super) fn apps(apps: impl IntoIterator<Item = App>) -> Apps {
    Apps::new(apps).expect("valid apps")
}

/// An app with everything that waits.
pub(super) fn app() -> App {
    let keys = vec![KeyPair { key: "key".to_owned(), secret: Secret::new(SECRET) }];
    App { id: "1".into(), keys, client_events: true, ..App::default() }
}

pub(super) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).expect("a valid name")
}

pub(super) fn topic(name: &str) -> Topic {
    Topic { app: "1".into(), channel: channel(name), audience: Audience::Subscribers }
}

pub(super) fn user(id: &str) -> Topic {
    Topic { app: "1".into(), channel: ChannelName::of_user(id), audience: Audience::Subscribers }
}

pub(super) fn watchers(id: &str) -> Topic {
    Topic { audience: Audience::Watchers, ..user(id) }
}

pub(super) fn member(id: &str) -> Arc<Member> {
    Arc::new(Member { user_id: id.into(), user_info: "{}".into() })
}

impl Stage {
    /// The app, as it is now.
    pub(super) fn app(&self) -> Arc<App> {
        self.node.apps().by_id("1").expect("the app").clone()
    }

    /// A client that was let in.
    pub(super) async fn connect(&self) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let near =
            std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (far, _) = listener.accept().expect("accepted");
        let stream = |stream: std::net::TcpStream| {
            stream.set_nonblocking(true).expect("nonblocking");
            TcpStream::from_std(stream).expect("registered")
        };
        let app = self.app();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let permit = self.node.admit(&app, address, Instant::now()).expect("let in");
        let line = Line { io: stream(far), session: None };
        self.worker.adopt(line, b"", &mut [], app, permit);
        let mut client = Client { stream: stream(near), bytes: Vec::new(), id: String::new() };
        let hello = client.next().await;
        let data: Value = serde_json::from_str(hello["data"].as_str().expect("text")).expect("JSON");
        client.id = data["socket_id"].as_str().expect("an id").to_owned();
        client
    }

    /// The socket of the only client.
    pub(super) fn socket(&self) -> Weak<Socket> {
        let all = self.worker.wheel.borrow().all();
        assert_eq!(all.len(), 1);
        Rc::downgrade(&all[0])
    }

    /// Somebody publishes to a channel.
    pub(super) fn publish(&mut self, name: &str, event: &str) {
        let frame = Frame::event(&channel(name), &format!("\"{event}\""), "\"\"");
        self.cluster.publish(&topic(name), Message::Event(frame), None);
    }

    /// Lets the worker go on until something is so.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let by = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < by, "not in time: {what}");
            tokio::task::yield_now().await;
        }
    }

    /// Nobody waits for anything, and nobody is subscribed to anything.
    pub(super) fn assert_empty(&self, topics: &[Topic]) {
        assert_eq!(self.worker.rolls.borrow().waiting(), 0, "tickets are left");
        for topic in topics {
            assert_eq!(self.cluster.held(topic), 0, "{topic:?} is held");
            assert_eq!(self.worker.rolls.borrow().listeners(topic).count(), 0, "{topic:?} is listened to");
        }
    }
}

pub(super) struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
    id: String,
}

impl Client {
    pub(super) async fn send(&mut self, message: Value) {
        let text = message.to_string();
        // Masked with zeros: the text as it is.
        let mut frame = vec![0x81];
        match u8::try_from(text.len()).ok().filter(|len| *len < 126) {
            Some(len) => frame.push(0x80 | len),
            None => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(text.len()).expect("not that long").to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.expect("sent");
    }

    pub(super) async fn subscribe(&mut self, channel: &str) {
        self.subscribe_as(channel, None).await;
    }

    /// Joins a presence channel as a user.
    pub(super) async fn join(&mut self, channel: &str, user_id: &str) {
        self.subscribe_as(channel, Some(json!({ "user_id": user_id }).to_string())).await;
    }

    async fn subscribe_as(&mut self, channel: &str, channel_data: Option<String>) {
        let mut signed = format!("{}:{channel}", self.id);
        if let Some(channel_data) = &channel_data {
            signed.push_str(&format!(":{channel_data}"));
        }
        let auth = sign(&signed);
        let data = json!({ "channel": channel, "auth": auth, "channel_data": channel_data });
        self.send(json!({ "event": "pusher:subscribe", "data": data })).await;
    }

    pub(super) async fn unsubscribe(&mut self, channel: &str) {
        self.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } })).await;
    }

    pub(super) async fn sign_in(&mut self, user_id: &str, watchlist: &[&str]) {
        let user_data = json!({ "id": user_id, "watchlist": watchlist }).to_string();
        let auth = sign(&format!("{}::user::{user_data}", self.id));
        let data = json!({ "auth": auth, "user_data": user_data });
        self.send(json!({ "event": "pusher:signin", "data": data })).await;
    }

    pub(super) async fn trigger(&mut self, channel: &str, event: &str) {
        self.send(json!({ "event": event, "channel": channel, "data": {} })).await;
    }

    /// The next message; null at the end of the connection.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            if let Some(message) = self.take_frame() {
                return message;
            }
            let read = timeout(LIMIT, self.stream.read_buf(&mut self.bytes)).await;
            if read.expect("something in time").unwrap_or_default() == 0 {
                return Value::Null;
            }
        }
    }

    /// What has come in whole: text as JSON, the code of a close frame as a number.
    fn take_frame(&mut self) -> Option<Value> {
        let (start, len) = match *self.bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes([*self.bytes.get(2)?, *self.bytes.get(3)?]))),
            len => (2, usize::from(len)),
        };
        let payload = self.bytes.get(start..start + len)?;
        let message = match self.bytes[0] & 0x0f {
            8 => json!(u16::from_be_bytes([payload[0], payload[1]])),
            _ => serde_json::from_slice(payload).expect("JSON"),
        };
        self.bytes.drain(..start + len);
        Some(message)
    }

    /// The names of all messages so far. After it, everything that was sent before has been acted on.
    pub(super) async fn heard(&mut self) -> Vec<String> {
        self.messages().await.iter().map(name).collect()
    }

    /// All messages so far.
    pub(super) async fn messages(&mut self) -> Vec<Value> {
        self.send(json!({ "event": "pusher:ping", "data": {} })).await;
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            if message["event"] == "pusher:pong" {
                return messages;
            }
            assert!(!message.is_null(), "the connection has ended after {messages:?}");
            messages.push(message);
        }
    }
}

/// What a message is, in short.
pub(super) fn name(message: &Value) -> String {
    let event = message["event"].as_str().unwrap_or_default();
    let event = event.trim_start_matches("pusher:").trim_start_matches("pusher_internal:");
    match message["channel"].as_str() {
        Some(channel) => format!("{event} {channel}"),
        None => event.to_owned(),
    }
}

fn sign(text: &str) -> String {
    format!("key:{}", Secret::new(SECRET).sign(&[text.as_bytes()]))
}
