//! Nodes of a cluster without anything but the scripts: what each has said to Redis, and what the bus has told.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use deadpool_redis::redis::{Connection, Value, cmd};
use fanfare::cluster::envelope;
use fanfare::cluster::script::{
    self, Due, Fault, Head, Invocation, Item, Opened, Pulse, SCRIPTS, Space, TakenFact,
};
use fanfare::hub::Topic;
use fanfare::mirror::{Arrival, Op, Place, Reply, Snapshot};
use fanfare::node::Listed;

use crate::support::RedisServer;

pub(super) const LEASE: Duration = Duration::from_secs(10);
pub(super) const DEBOUNCE: Duration = Duration::from_secs(3);

/// So far in the future that nothing ends by Redis' own clock meanwhile.
const BEGINNING_MS: u64 = 4_000_000_000_000;

/// What the scripts have to do with the world: instead of the time a key, and nothing that is not declared.
const TIME: &str = "call('TIME')";
const TIME_IN_A_KEY: &str = "{ 0, redis.call('GET', ARGV[1] .. 'clock') * 1000 }";
const CALL: &str = "local call = redis.call\n";
const CALL_OF_DECLARED: &str = r"
local declared = {}
for _, key in ipairs(KEYS) do declared[key] = true end
local function call(name, key, ...)
  local is_free = name == 'PUBLISH' or name == 'SPUBLISH'
  assert(is_free or declared[key], name .. ' of an undeclared ' .. tostring(key))
  assert(name ~= 'RENAME' or declared[...], 'RENAME to an undeclared key')
  return redis.call(name, key, ...)
end
";

/// Everybody who speaks with one partition.
pub(super) struct Nodes {
    pub(super) redis: Connection,
    bus: Connection,
    shas: HashMap<&'static str, String>,
    space: Space,
    partition: u8,
    sharded: bool,
    pub(super) log_bytes: usize,
    pub(super) facts_max: usize,
    now_ms: u64,
    nonce: u64,
    /// Which run of Redis the scripts take it for, if it says so.
    pub(super) run: Option<u64>,
    pub(super) nodes: Vec<Node>,
    /// What the bus has told of each topic.
    pub(super) heard: HashMap<Topic, Vec<Arrival>>,
    news: Vec<(Topic, Arrival)>,
    /// Redis has gone back to an earlier state.
    pub(super) has_lost: bool,
    /// Who takes facts, and up to which.
    taker: usize,
    after: String,
}

/// One node.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) number: u64,
}

impl Nodes {
    pub(super) fn new(
        server: &RedisServer,
        sharded: bool,
        partition: u8,
        count: usize,
        topics: &[Topic],
    ) -> Self {
        let mut redis = server.connect();
        cmd("FLUSHALL").exec(&mut redis).expect("a flush");
        let space = Space::new("agreement");
        let mut shas = HashMap::new();
        for script in SCRIPTS {
            assert!(script.source.contains(TIME) && script.source.contains(CALL), "{}", script.name);
            let source = script.source.replace(TIME, TIME_IN_A_KEY).replace(CALL, CALL_OF_DECLARED);
            let sha = cmd("SCRIPT").arg("LOAD").arg(source).query(&mut redis).expect("Lua");
            shas.insert(script.name, sha);
        }
        let nodes = (0..count).map(|at| Node { name: format!("node-{at}"), number: 0 }).collect();
        let mut all = Self {
            redis,
            bus: server.connect(),
            shas,
            space,
            partition,
            sharded,
            log_bytes: 0,
            facts_max: 1000,
            now_ms: BEGINNING_MS,
            nonce: 0,
            run: Some(1),
            nodes,
            heard: HashMap::new(),
            news: Vec::new(),
            has_lost: false,
            taker: 0,
            after: String::new(),
        };
        let mut names: Vec<Vec<u8>> = topics.iter().map(|topic| all.space.bus_topic(topic)).collect();
        names.extend([all.space.wake_topic(partition), all.marker()]);
        let subscribe =
            cmd(if sharded { "SSUBSCRIBE" } else { "SUBSCRIBE" }).arg(&names).get_packed_command();
        all.bus.send_packed_command(&subscribe).expect("a subscription");
        for _ in names {
            all.bus.recv_response().expect("a confirmation");
        }
        all.wait(Duration::ZERO);
        for at in 0..count {
            all.open(at).expect("a lease");
        }
        all
    }

    pub(super) fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms - BEGINNING_MS)
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now_ms += u64::try_from(time.as_millis()).expect("a short time");
        let clock = [self.base(), b"clock".to_vec()].concat();
        cmd("SET").arg(clock).arg(self.now_ms).exec(&mut self.redis).expect("a clock");
    }

    pub(super) fn base(&self) -> Vec<u8> {
        let meta = self.space.route(self.partition);
        meta[..meta.len() - "meta".len()].to_vec()
    }

    fn marker(&self) -> Vec<u8> {
        [self.base(), b"marker".to_vec()].concat()
    }

    pub(super) fn run(&mut self, invocation: &Invocation) -> Result<Value, Fault> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.shas[invocation.script.name]).arg(invocation.keys.len());
        let run = self.run.map(|run| run.to_string()).unwrap_or_default();
        command.arg(&invocation.keys).arg(&invocation.args).arg(run);
        command.query(&mut self.redis).map_err(|error| {
            script::fault(&error.to_string()).unwrap_or_else(|| Fault::Nonsense(error.to_string()))
        })
    }

    pub(super) fn open(&mut self, at: usize) -> Result<Opened, Fault> {
        self.nonce += 0x9e37_79b9;
        let Node { name, number, .. } = &self.nodes[at];
        let invocation = self.space.open(self.partition, name, LEASE, *number, self.nonce);
        self.run(&invocation).and_then(script::opened)
    }

    pub(super) fn beat(&mut self, at: usize) -> Result<Pulse, Fault> {
        let invocation = self.space.beat(self.partition, &self.nodes[at].name, LEASE);
        self.run(&invocation).and_then(script::pulse)
    }

    pub(super) fn leave(&mut self, at: usize) {
        let invocation = self.space.leave(self.partition, &self.nodes[at].name);
        self.run(&invocation).expect("an end");
    }

    /// A step with a number that is so far from the one that is due.
    pub(super) fn step_aside(&mut self, at: usize, offset: i64, items: &[Item]) -> Result<Vec<Reply>, Fault> {
        self.nonce += 0x9e37_79b9_7f4a_7c15 % 0xffff_ffff;
        let head = Head {
            node: &self.nodes[at].name,
            number: (self.nodes[at].number + 1).strict_add_signed(offset),
            nonce: self.nonce.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            debounce: DEBOUNCE,
            log_bytes: self.log_bytes,
            outbox_max: self.facts_max,
            sharded: self.sharded,
        };
        let invocation = self.space.step(self.partition, &head, items);
        let answer = self.run(&invocation)?;
        script::replies(items, answer)
    }

    /// The next step of a node; if it is done twice, the second time must change nothing.
    #[track_caller]
    pub(super) fn step(&mut self, at: usize, twice: bool, items: &[Item]) -> Vec<Reply> {
        let replies = self.step_aside(at, 0, items).expect("a step");
        self.nodes[at].number += 1;
        let wakes = self.listen();
        assert!(wakes <= 1, "{wakes} wakes for {items:?}");
        if twice {
            let state = self.state();
            let again = self.step_aside(at, -1, items).expect("the same step");
            assert_eq!((self.listen(), self.state()), (0, state), "{items:?}");
            assert_eq!(without_places(again), without_places(replies.clone()), "{items:?}");
        }
        replies
    }

    /// Reads what the bus has told by now; returns how often it has woken the taker of facts.
    fn listen(&mut self) -> usize {
        let (marker, wake) = (self.marker(), self.space.wake_topic(self.partition));
        let publish = if self.sharded { "SPUBLISH" } else { "PUBLISH" };
        cmd(publish).arg(&marker).arg("").exec(&mut self.redis).expect("a marker");
        let mut wakes = 0;
        loop {
            let Value::Array(message) = self.bus.recv_response().expect("a message") else {
                panic!("a message")
            };
            let [_, Value::BulkString(name), Value::BulkString(payload)] = &message[..] else {
                panic!("{message:?}")
            };
            if *name == marker {
                return wakes;
            } else if *name == wake {
                wakes += 1;
                continue;
            }
            let topic = self.space.parse_bus_topic(name).expect("a topic");
            let arrival = envelope::decode(&topic, &payload.clone().into()).expect("a message");
            let before = self.heard.entry(topic.clone()).or_default();
            // Nothing is missing within a life of the topic, and each begins anew. Eras go on counting.
            let place = before.last().map(|before| before.place).unwrap_or_default();
            let new = arrival.place;
            let is_next = match new.epoch == place.epoch {
                true => number(new) == number(place) + 1 && new.seq > place.seq,
                false => number(new) == 1,
            };
            assert!(is_next || self.has_lost, "{new:?} after {place:?} of {topic:?}");
            before.push(arrival.clone());
            self.news.push((topic, arrival));
        }
    }

    /// What the bus has told since the last time.
    pub(super) fn news(&mut self) -> Vec<(Topic, Arrival)> {
        std::mem::take(&mut self.news)
    }

    /// Everything that is shared, byte by byte.
    pub(super) fn state(&mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let dump = r"
            local state = {}
            for _, key in ipairs(redis.call('KEYS', '*')) do
              state[#state + 1], state[#state + 2] = key, redis.call('DUMP', key)
            end
            return state
        ";
        cmd("EVAL").arg(dump).arg(0).query(&mut self.redis).expect("a dump")
    }

    /// Another server takes over, which has only what there was at some time.
    pub(super) fn fall_back(&mut self, earlier: &BTreeMap<Vec<u8>, Vec<u8>>) {
        cmd("FLUSHALL").exec(&mut self.redis).expect("a flush");
        for (key, dump) in earlier {
            let restore = cmd("RESTORE").arg(key).arg(0).arg(dump).exec(&mut self.redis);
            restore.expect("the state of a moment ago");
        }
        self.run = self.run.map(|run| run + 1);
        self.has_lost = true;
    }

    /// How topics are.
    pub(super) fn look(&mut self, at: usize, twice: bool, looks: &[(Topic, Option<Place>)]) -> Vec<Snapshot> {
        let items: Vec<Item> =
            looks.iter().map(|(topic, since)| Item::Op(Op::Look(topic.clone(), *since))).collect();
        let replies = self.step(at, twice, &items).into_iter();
        let snapshot = |reply| match reply {
            Reply::Seen(snapshot) => *snapshot,
            other => panic!("{other:?} is no snapshot"),
        };
        replies.map(snapshot).collect()
    }

    pub(super) fn list(&mut self, app: &str, prefix: &str) -> Vec<Listed> {
        let invocation = self.space.list(self.partition, app, prefix);
        let mut listed = self.run(&invocation).and_then(script::listed).expect("a list");
        listed.sort_by_key(|listed| listed.channel.to_string());
        listed
    }

    pub(super) fn take(&mut self, at: usize, after: &str, release: bool) -> Result<script::Taken, Fault> {
        let invocation = self.space.take(self.partition, &self.nodes[at].name, after, 1000, release);
        self.run(&invocation).and_then(script::taken)
    }

    pub(super) fn done(&mut self, ids: &[String]) {
        let invocation = self.space.done(self.partition, ids);
        self.run(&invocation).expect("an end");
    }

    /// Facts that nobody has seen; they are done.
    pub(super) fn facts(&mut self) -> Vec<TakenFact> {
        let after = self.after.clone();
        let taken = self.take(self.taker, &after, false).expect("facts");
        if let Some(last) = taken.facts.last() {
            self.after = last.id.clone();
        }
        let ids: Vec<String> = taken.facts.iter().map(|fact| fact.id.clone()).collect();
        self.done(&ids);
        taken.facts
    }

    /// Everybody's lease is renewed, but one's.
    pub(super) fn beat_all(&mut self, but: Option<usize>) -> Pulse {
        let alive = (0..self.nodes.len()).filter(|at| Some(*at) != but).collect::<Vec<_>>();
        let mut pulse = Pulse::default();
        for at in alive {
            pulse = self.beat(at).expect("a lease");
        }
        pulse
    }

    /// Does what is due by now.
    pub(super) fn settle(&mut self, by: usize, twice: bool, but: Option<usize>) {
        loop {
            let pulse = self.beat_all(but);
            assert_eq!(pulse.dead, None);
            if pulse.due.is_empty() {
                assert_ne!(pulse.next_due_ms, Some(0));
                return;
            }
            let items: Vec<Item> = pulse.due.into_iter().map(|due: Due| Item::Settle(due)).collect();
            self.step(by, twice, &items);
        }
    }

    /// Claims the lease of a node that has run out, and removes what it held.
    pub(super) fn bury(&mut self, dead: usize, by: usize, twice: bool) {
        let name = self.nodes[dead].name.clone();
        self.step(by, twice, &[Item::Claim(name.clone())]);
        assert_eq!(self.step_aside(dead, 0, &[]), Err(Fault::Fenced));
        assert_eq!(self.beat(dead), Err(Fault::Fenced));
        assert_eq!(self.take(dead, "", false), Err(Fault::Fenced));
        // It may come back while its earlier life is still being removed.
        let opened = self.open(dead).expect("another lease");
        assert_eq!(opened.held, []);
        while let Some((buried, topics)) = self.beat_all(Some(dead)).dead {
            assert_eq!(buried, name);
            let items: Vec<Item> = topics.into_iter().map(|topic| Item::Bury(name.clone(), topic)).collect();
            // In batches, as it is with many.
            for batch in items.chunks(2) {
                self.step(by, twice, batch);
            }
        }
    }
}

/// How many messages a topic had, whatever the era.
pub(super) fn number(place: Place) -> u64 {
    place.seq & ((1 << 44) - 1)
}

/// Replies as they are whatever was said since.
fn without_places(replies: Vec<Reply>) -> Vec<Reply> {
    let without = |reply| match reply {
        Reply::Held(_) => Reply::Held(Place::default()),
        other => other,
    };
    replies.into_iter().map(without).collect()
}
