//! What a script is given: the names of keys, and arguments in the order in which it reads them.

use std::time::Duration;

use crate::cluster::envelope::{self, VERSION};
use crate::cluster::script::{Due, DueKind, Head, Invocation, Item, LAYOUT, Script, due_letter};
use crate::hub::{Audience, ClientEventFact, Topic};
use crate::mirror::{Again, Change, Hold, Message, Op, PARTITIONS, Place, Publication, Traits, partition_of};

/// A script in `scripts/`, behind what it shares with others.
macro_rules! script {
    ($name:literal $(, $shared:literal)*) => {
        Script {
            name: $name,
            source: concat!(
                include_str!("../scripts/common.lua"),
                $(include_str!(concat!("../scripts/", $shared, ".lua")),)*
                include_str!(concat!("../scripts/", $name, ".lua"))
            ),
        }
    };
}

static OPEN: Script = script!("open");
static BEAT: Script = script!("beat");
static STEP: Script = script!("step", "topics");
static PUBLISH: Script = script!("publish", "topics");
static LIST: Script = script!("list");
static TAKE: Script = script!("take");
static DONE: Script = script!("done");
static LEAVE: Script = script!("leave");

/// Every script, to be loaded before it is needed.
pub static SCRIPTS: [&Script; 8] = [&OPEN, &BEAT, &STEP, &PUBLISH, &LIST, &TAKE, &DONE, &LEAVE];

/// Most of what is due, or dead, that a beat tells.
const TOLD_MAX: usize = 100;

/// Nothing is kept for longer than a century: times are kept in few bytes.
const TTL_MS_MAX: u128 = 100 * 365 * 24 * 3600 * 1000;

/// Names of keys and bus topics: `{prefix}:{{partition}}:…`.
#[derive(Clone, Debug)]
pub struct Space {
    prefix: String,
}

impl Space {
    /// Names that begin with a prefix.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The bus topic of a topic.
    pub fn bus_topic(&self, topic: &Topic) -> Vec<u8> {
        let partition = partition_of(&topic.app, topic.channel.as_str());
        self.key(partition, &format!("bus:{}:{}", topic.app, field(topic)))
    }

    /// Whose bus topic that is; none if it is no topic's.
    pub fn parse_bus_topic(&self, bytes: &[u8]) -> Option<Topic> {
        let (_, name) = self.parse(bytes)?;
        // An app may be called as it likes; a channel's name has no colon.
        let (app, field) = name.strip_prefix("bus:")?.rsplit_once(':')?;
        super::answers::topic(app, field)
    }

    /// The bus topic by which the owner of a partition's facts hears that there are new ones.
    pub fn wake_topic(&self, partition: u8) -> Vec<u8> {
        self.key(partition, "wake")
    }

    /// Which partition a wake topic is of; none if it is none.
    pub fn parse_wake_topic(&self, bytes: &[u8]) -> Option<u8> {
        self.parse(bytes).filter(|(_, name)| *name == "wake").map(|(partition, _)| partition)
    }

    /// A key of the partition, by which its server is found.
    pub fn route(&self, partition: u8) -> Vec<u8> {
        self.key(partition, "meta")
    }

    /// Takes or renews the lease of a node in a partition. Its last step counts as `number` from now on. Answer:
    /// [`opened`](super::opened).
    pub fn open(&self, partition: u8, node: &str, lease: Duration, number: u64, nonce: u64) -> Invocation {
        let keys = self.keys(partition, &["meta", "nodes", &held(node)]);
        let mut args = self.args(partition);
        args.push(node).push(lease.as_millis()).push(number).push(nonce).push(LAYOUT);
        Invocation { script: &OPEN, keys, args: args.0 }
    }

    /// Renews the lease, and looks what is due. Answer: [`pulse`](super::pulse).
    pub fn beat(&self, partition: u8, node: &str, lease: Duration) -> Invocation {
        let keys = self.keys(partition, &["meta", "nodes", &held(node), "due", "facts", "grave"]);
        let mut args = self.args(partition);
        args.push(node).push(lease.as_millis()).push(TOLD_MAX);
        Invocation { script: &BEAT, keys, args: args.0 }
    }

    /// A step. Answer: [`replies`](super::replies).
    pub fn step(&self, partition: u8, head: &Head<'_>, items: &[Item]) -> Invocation {
        let script = if items.iter().all(is_mere_event) { &PUBLISH } else { &STEP };
        let mut keys = self.keys(partition, &[&held(head.node), "meta", "log:0", "log:1"]);
        if script.name == STEP.name {
            keys.extend(self.keys(partition, &["due", "facts", "nodes", "grave"]));
        }
        let mut touched = Vec::new();
        items.iter().for_each(|item| touched_by(item, &mut touched));
        touched.sort_unstable();
        touched.dedup();
        keys.extend(touched.iter().map(|name| self.key(partition, name)));

        let mut args = self.args(partition);
        args.push(head.node).push(head.number).push(head.log_bytes);
        args.push(if head.sharded { "SPUBLISH" } else { "PUBLISH" });
        args.bytes(head.nonce.to_be_bytes()).push(head.debounce.as_millis()).push(head.outbox_max);
        items.iter().for_each(|item| args.item(item));
        Invocation { script, keys, args: args.0 }
    }

    /// The occupied channels of an app. Answer: [`listed`](super::listed).
    pub fn list(&self, partition: u8, app: &str, prefix: &str) -> Invocation {
        let keys = self.keys(partition, &[&format!("topics:{app}")]);
        let mut args = self.args(partition);
        args.push(prefix);
        Invocation { script: &LIST, keys, args: args.0 }
    }

    /// Takes facts behind `after` (empty: from the beginning), if `node` has the turn: nobody else with a lease has it, or
    /// it has had it before. `release`: gives the turn back instead. Answer: [`taken`](super::taken).
    pub fn take(&self, partition: u8, node: &str, after: &str, max: usize, release: bool) -> Invocation {
        let keys = self.keys(partition, &["meta", "nodes", "facts"]);
        let mut args = self.args(partition);
        args.push(node).push(after).push(max).push(if release { "1" } else { "" });
        Invocation { script: &TAKE, keys, args: args.0 }
    }

    /// Forgets facts that were told. No answer.
    pub fn done(&self, partition: u8, ids: &[String]) -> Invocation {
        let mut args = self.args(partition);
        for id in ids {
            args.push(id);
        }
        Invocation { script: &DONE, keys: self.keys(partition, &["facts"]), args: args.0 }
    }

    /// Gives the lease back, if nothing is held. No answer.
    pub fn leave(&self, partition: u8, node: &str) -> Invocation {
        let mut args = self.args(partition);
        args.push(node);
        Invocation {
            script: &LEAVE,
            keys: self.keys(partition, &["meta", "nodes", &held(node)]),
            args: args.0,
        }
    }

    fn base(&self, partition: u8) -> String {
        format!("{}:{{{partition}}}:", self.prefix)
    }

    fn key(&self, partition: u8, name: &str) -> Vec<u8> {
        let mut key = self.base(partition);
        key.push_str(name);
        key.into_bytes()
    }

    fn keys(&self, partition: u8, names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| self.key(partition, name)).collect()
    }

    /// The partition of a key, and how it is called there.
    fn parse<'a>(&self, bytes: &'a [u8]) -> Option<(u8, &'a str)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let rest = text.strip_prefix(&*self.prefix)?.strip_prefix(":{")?;
        let (partition, name) = rest.split_once("}:")?;
        Some((partition.parse().ok().filter(|partition| *partition < PARTITIONS)?, name))
    }

    /// What the arguments of every script begin with.
    fn args(&self, partition: u8) -> Args {
        Args(vec![self.base(partition).into_bytes()])
    }
}

/// How a node's holdings are called.
fn held(node: &str) -> String {
    format!("held:{node}")
}

/// How a topic is called within its app.
fn field(topic: &Topic) -> String {
    let letter = match topic.audience {
        Audience::Subscribers => 's',
        Audience::Watchers => 'w',
    };
    format!("{letter}{}", topic.channel)
}

/// An event that webhooks are not told.
fn is_mere_event(item: &Item) -> bool {
    matches!(item, Item::Op(Op::Publish(Publication { told: None, .. })))
}

/// The keys of its topic that an item may touch.
fn touched_by(item: &Item, keys: &mut Vec<String>) {
    let topic = match item {
        Item::Op(op) => op.topic(),
        Item::Settle(due) => &due.topic,
        Item::Bury(_, topic) => topic,
        Item::Claim(node) => return keys.push(held(node)),
    };
    let Topic { app, channel, .. } = topic;
    keys.push(format!("{}:{app}", if channel.kind().is_user() { "users" } else { "topics" }));
    if channel.kind().is_presence() {
        keys.push(format!("members:{app}:{channel}"));
    }
    if channel.kind().is_cached() {
        keys.push(format!("cache:{app}:{channel}"));
    }
}

/// Arguments, one after the other.
struct Args(Vec<Vec<u8>>);

impl Args {
    fn push(&mut self, value: impl ToString) -> &mut Self {
        self.bytes(value.to_string())
    }

    fn bytes(&mut self, value: impl Into<Vec<u8>>) -> &mut Self {
        self.0.push(value.into());
        self
    }

    fn topic(&mut self, topic: &Topic) -> &mut Self {
        self.push(&topic.app).bytes(field(topic))
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::Op(Op::Hold(hold)) => self.hold(hold),
            Item::Op(Op::Publish(publication)) => self.publication(publication),
            Item::Op(Op::Miss(topic, traits)) => {
                // Remembered for webhooks alone.
                if traits.tells {
                    self.push("miss").topic(topic);
                }
            }
            Item::Op(Op::Census(topic)) => self.look(topic, b"census".to_vec()),
            Item::Op(Op::Look(topic, since)) => {
                self.look(topic, since.map(place).unwrap_or_default());
            }
            Item::Settle(Due { topic, what }) => {
                let user: &str = if let DueKind::Removed(user) = what { user } else { "" };
                self.push("settle").push(due_letter(what)).topic(topic).push(user);
            }
            Item::Claim(node) => {
                self.push("claim").push(node);
            }
            Item::Bury(node, topic) => {
                self.push("bury").push(node).topic(topic);
            }
        }
    }

    fn hold(&mut self, hold: &Hold) {
        let Hold { topic, count, change, traits: Traits { tells, counts }, again } = hold;
        let again = match again {
            Again::No => 0,
            Again::Silently => 1,
            Again::Marked => 2,
        };
        self.push("hold").topic(topic).push(count).push(u8::from(*tells) + 2 * u8::from(*counts)).push(again);
        match change {
            None => self.push(""),
            Some(Change::Enters { member, max }) => {
                self.push("E").push(&member.user_id).push(&member.user_info).push(max)
            }
            Some(Change::Leaves(user)) => self.push("L").push(user).push("").push(0),
        };
    }

    fn publication(&mut self, publication: &Publication) {
        let Publication { topic, message, except, told } = publication;
        let (kind, tail) = envelope::encode(message, *except);
        self.push("publish").topic(topic).bytes([VERSION, kind]).bytes(tail);
        match message {
            Message::Kept(_, ttl) => self.push(ttl.as_millis().min(TTL_MS_MAX)),
            _ => self.push(""),
        };
        self.bytes(told.as_deref().map(client_event).unwrap_or_default());
    }

    fn look(&mut self, topic: &Topic, since: Vec<u8>) {
        let is_cached = u8::from(topic.channel.kind().is_cached());
        self.push("look").topic(topic).bytes(since).push(is_cached);
    }
}

fn place(place: Place) -> Vec<u8> {
    [place.epoch.to_be_bytes(), place.seq.to_be_bytes()].concat()
}

/// As JSON: name and data are JSON already.
fn client_event(fact: &ClientEventFact) -> Vec<u8> {
    let ClientEventFact { event, data, socket_id, user_id } = fact;
    let user_id = serde_json::json!(user_id);
    format!(r#"{{"event":{event},"data":{data},"socket_id":"{socket_id}","user_id":{user_id}}}"#).into_bytes()
}
