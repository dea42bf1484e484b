//! Connections to Redis: one, with Sentinels, a cluster; and what comes of their loss.

mod many;
mod one;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use deadpool_redis::redis::Value;
use fanfare::cluster::script::{Invocation, Script};
use fanfare::cluster::servers::{BusEvent, RunError, Servers};
use fanfare::config::{Masked, Redis};
use tokio::runtime::Builder;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// How long anything may take: also a fail-over, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Counts in a key, and publishes where it lives.
static SAY: Script = Script {
    name: "say",
    source: "local n = redis.call('INCR', KEYS[1]) redis.call(ARGV[1], ARGV[2], ARGV[3]) return n",
};

/// Connections of one story, and what the bus has told.
struct Node {
    servers: Servers,
    events: UnboundedReceiver<BusEvent>,
    told: VecDeque<BusEvent>,
}

/// Tells a story in a runtime as the engine has it.
#[track_caller]
fn tell(story: impl AsyncFnOnce()) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(story()));
}

fn settings(url: &str) -> Redis {
    Redis { url: Masked::new(url), ..Redis::default() }
}

impl Node {
    fn new(url: &str) -> Self {
        Self::with(&settings(url))
    }

    fn with(settings: &Redis) -> Self {
        let (servers, events) = Servers::new(settings).expect("settings that make sense");
        Self { servers, events, told: VecDeque::new() }
    }

    /// Connected, commands and bus.
    async fn up(url: &str) -> Self {
        let node = Self::new(url);
        node.expect_up().await;
        node
    }

    async fn until(&self, what: &str, condition: impl Fn(&Servers) -> bool) {
        let began = Instant::now();
        while !condition(&self.servers) {
            assert!(began.elapsed() < DEADLINE, "{what}: {:?}", self.servers.health());
            let _ = timeout(Duration::from_millis(20), self.servers.changed()).await;
        }
    }

    async fn expect_up(&self) {
        self.until("connected", |servers| servers.health().away_since().is_none()).await;
    }

    async fn expect_away(&self) {
        self.until("away", |servers| servers.health().away_since().is_some()).await;
    }

    /// The next event that `wanted` takes. Those before it are forgotten.
    async fn event<T>(&mut self, what: &str, wanted: impl Fn(&BusEvent) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(at) = self.told.iter().position(|event| wanted(event).is_some()) {
                let event = self.told.drain(..=at).next_back();
                return event.and_then(|event| wanted(&event)).expect("it was wanted");
            }
            let left = DEADLINE.saturating_sub(began.elapsed());
            let event = timeout(left, self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("{what}: not told; {:?}", self.servers.health()));
            self.told.push_back(event.expect("an event"));
        }
    }

    async fn expect_listening(&mut self, topic: &str) {
        let has = |event: &BusEvent| {
            matches!(event, BusEvent::Listening(all) if all.iter().any(|it| it == topic.as_bytes()))
                .then_some(())
        };
        self.event(&format!("listening to {topic}"), has).await;
    }

    async fn expect_deaf(&mut self, topic: &str) {
        let has = |event: &BusEvent| {
            matches!(event, BusEvent::Deaf(all) if all.iter().any(|it| it == topic.as_bytes())).then_some(())
        };
        self.event(&format!("deaf to {topic}"), has).await;
    }

    /// The next message of a topic; there is no other before it.
    async fn expect_message(&mut self, topic: &str, expected: &str) {
        let of_topic = |event: &BusEvent| match event {
            BusEvent::Message { topic: of, payload } if of == topic.as_bytes() => Some(payload.clone()),
            _ => None,
        };
        let found = self.event(&format!("a message on {topic}"), of_topic).await;
        assert_eq!(String::from_utf8_lossy(&found), expected, "on {topic}");
    }

    async fn listen(&mut self, topic: &str) {
        self.servers.listen(topic.into());
        self.expect_listening(topic).await;
    }

    /// Counts in `{tag}:count` and says `text` on `topic` of the same tag.
    async fn say(&self, tag: &str, topic: &str, text: &str) -> Result<Value, RunError> {
        let publish = if self.servers.is_sharded() == Some(true) { "SPUBLISH" } else { "PUBLISH" };
        let invocation = Invocation {
            script: &SAY,
            keys: vec![format!("fanfare:{{{tag}}}:count").into()],
            args: vec![publish.into(), topic.into(), text.into()],
        };
        self.servers.run(&invocation).await
    }

    /// As [`Node::say`], again and again while it was not run for certain.
    async fn say_at_last(&self, tag: &str, topic: &str, text: &str) -> Value {
        let began = Instant::now();
        loop {
            match self.say(tag, topic, text).await {
                Ok(value) => return value,
                Err(RunError::NotRun(_)) if began.elapsed() < DEADLINE => {
                    sleep(Duration::from_millis(20)).await
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}
