//! Where a scenario plays: a server, a crowd, and what every scenario does with them.

use std::io;
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Heard};
use crate::ledger::{Ledger, Stamp};
use crate::machine;
use crate::pusher;
use crate::redis::Redis;
use crate::scenario::{Effort, Outcome};
use crate::server::{Sample, Server};

/// How long anything may take before a run is broken off.
const LIMIT: Duration = Duration::from_secs(30);

/// Handshakes under way at a time, where the number is not the point.
const GATHERING: usize = 64;

/// A server on trial, or several nodes that are one.
pub(crate) struct Stage {
    pub(crate) server: Server,
    /// The nodes beside that one.
    pub(crate) others: Vec<Server>,
    /// What makes them one.
    pub(crate) redis: Option<Redis>,
    pub(crate) crowd: Crowd,
    pub(crate) desk: Desk,
    pub(crate) outcome: Outcome,
    /// The caller that asks questions, once there was one.
    asker: Option<usize>,
    quick: bool,
    /// See [`Effort`].
    pub(crate) patience: f64,
    /// Channels made up so far.
    pub(crate) visited: usize,
}

/// What is known of every peer, and what they have heard so far.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) ledger: Ledger,
    /// By id. Callers have an entry too, without meaning.
    clients: Vec<Client>,
    /// Clients that are subscribed to all they want.
    pub(crate) ready: usize,
    /// Clients that have gone, by their own will or not.
    pub(crate) gone: usize,
    /// Callers that wait for nothing.
    pub(crate) idle: Vec<usize>,
    pub(crate) replies: u64,
    /// The body of the last reply.
    pub(crate) body: String,
    pub(crate) pongs: u64,
    pub(crate) member_added: u64,
    /// Members that were there already when clients joined, themselves left out.
    pub(crate) members_met: u64,
    /// When clients were told to come back elsewhere.
    pub(crate) goodbyes: Vec<Instant>,
    faults: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    socket_id: String,
    /// Channels it wants as soon as it is let in.
    wants: Vec<String>,
    user: usize,
    /// Subscriptions that are not confirmed yet.
    unconfirmed: usize,
    /// `member_removed` it has seen.
    removals: u64,
    /// It may be closed without that being a fault.
    may_go: bool,
}

/// From here to [`Stage::measured`].
pub(crate) struct Meter {
    /// One for each node.
    servers: Vec<Sample>,
    redis_cpu: Duration,
    own_cpu: Duration,
}

/// What a server and the load have used since a [`Meter`] began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Of all nodes, and of the Redis between them.
    pub(crate) cpu: Duration,
    /// Of that Redis alone.
    pub(crate) redis_cpu: Duration,
    pub(crate) time: Duration,
}

impl Spent {
    /// CPU of the server per unit of work, in microseconds.
    pub(crate) fn cpu_us_per(&self, units: u64) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / units as f64
    }

    pub(crate) fn per_second(&self, units: u64) -> f64 {
        units as f64 / self.time.as_secs_f64()
    }
}

impl Stage {
    pub(crate) fn new(
        server: Server,
        others: Vec<Server>,
        redis: Option<Redis>,
        effort: Effort,
    ) -> io::Result<Self> {
        let addresses = std::iter::once(&server).chain(&others).map(Server::address).collect();
        let crowd = Crowd::new(addresses, server.identity().cloned())?;
        let Effort { quick, patience } = effort;
        let (desk, outcome) = (Desk::new(), Outcome::default());
        let asker = None;
        Ok(Self { server, others, redis, crowd, desk, outcome, asker, quick, patience, visited: 0 })
    }

    /// All nodes.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        std::iter::once(&self.server).chain(&self.others)
    }

    fn redis_cpu(&self) -> Duration {
        self.redis.as_ref().and_then(|redis| redis.work().ok()).map(|work| work.cpu).unwrap_or_default()
    }

    /// A number of things, fewer if only the workings are to be seen.
    pub(crate) fn many(&self, full: usize) -> usize {
        if self.quick { (full / 100).clamp(2, 20) } else { full }
    }

    /// How long to load the server.
    pub(crate) fn seconds(&self, full: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { 0.2 } else { full })
    }

    pub(crate) fn figure(&mut self, name: &str, value: f64) {
        // Of nothing there is no share.
        if value.is_finite() {
            self.outcome.figures.insert(name.to_owned(), value);
        }
    }

    pub(crate) fn fault(&mut self, text: String) {
        self.outcome.faults.push(text);
    }

    /// Notes what must be so.
    pub(crate) fn expect(&mut self, what: &str, is: u64, due: u64) {
        if is != due {
            self.fault(format!("{what}: {is} instead of {due}"));
        }
    }

    /// Notes if there are more open files than before, which is a leak.
    pub(crate) fn expect_no_more_files(&mut self, before: &Sample, after: &Sample) {
        if after.files > before.files {
            self.fault(format!("open files: {} where there were {}", after.files, before.files));
        }
    }

    /// Lets happen what happens, until `until` at the latest.
    pub(crate) fn turn(&mut self, until: Instant) -> io::Result<()> {
        let desk = &mut self.desk;
        self.crowd.turn(until, &mut |crowd, id, heard| desk.hear(crowd, id, heard))
    }

    /// Lets happen what happens for a while.
    pub(crate) fn rest(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(until)?;
        }
        Ok(())
    }

    /// Lets things happen until something is so.
    ///
    /// # Errors
    /// When it is not within [`LIMIT`].
    pub(crate) fn until(&mut self, what: &str, so: impl Fn(&Desk) -> bool) -> io::Result<()> {
        let limit = Instant::now() + LIMIT;
        while !so(&self.desk) {
            if Instant::now() > limit {
                return Err(io::Error::other(format!("{what}: not within {} s", LIMIT.as_secs())));
            }
            self.turn(Instant::now() + Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Lets clients in, each subscribed to the channels that `wants` says. Returns their ids.
    pub(crate) fn gather(
        &mut self,
        count: usize,
        wants: impl Fn(usize) -> Vec<String>,
    ) -> io::Result<Vec<usize>> {
        let ready = self.desk.ready;
        let mut ids = Vec::with_capacity(count);
        for at in 0..count {
            ids.push(self.begin(wants(at), at)?);
            if at + 1 >= GATHERING {
                self.until("clients subscribe", |desk| desk.ready + GATHERING > ready + at)?;
            }
        }
        self.until("clients subscribe", |desk| desk.ready >= ready + count)?;
        Ok(ids)
    }

    /// Lets a client begin its handshake. `user` is who it is in presence channels; clients take nodes in turn.
    pub(crate) fn begin(&mut self, wants: Vec<String>, user: usize) -> io::Result<usize> {
        self.begin_at(user % self.crowd.nodes(), wants, user)
    }

    /// The same with a node.
    pub(crate) fn begin_at(&mut self, node: usize, wants: Vec<String>, user: usize) -> io::Result<usize> {
        let id = self.crowd.client_of(node)?;
        *self.desk.client(id) = Client { wants, user, ..Client::default() };
        Ok(id)
    }

    /// A client subscribes to one more channel.
    pub(crate) fn subscribe(&mut self, id: usize, channel: &str) -> io::Result<()> {
        let client = self.desk.client(id);
        client.unconfirmed += 1;
        let message = pusher::subscribe(channel, &client.socket_id, client.user);
        self.crowd.say(id, &message)
    }

    /// Callers of the API, all idle. They take nodes in turn.
    pub(crate) fn callers(&mut self, count: usize) -> Vec<usize> {
        self.callers_of(count, |at, nodes| at % nodes)
    }

    /// The same, each with the node that `node_of` says, from its number and how many nodes there are.
    pub(crate) fn callers_of(&mut self, count: usize, node_of: impl Fn(usize, usize) -> usize) -> Vec<usize> {
        let nodes = self.crowd.nodes();
        let ids: Vec<usize> = (0..count).map(|at| self.crowd.caller_of(node_of(at, nodes))).collect();
        for id in &ids {
            self.desk.client(*id).may_go = true;
        }
        self.desk.idle.extend(&ids);
        ids
    }

    /// Asks the API and waits for the answer.
    pub(crate) fn ask(&mut self, request: Vec<u8>) -> io::Result<String> {
        let caller = match self.asker {
            Some(caller) => caller,
            None => self.callers(1)[0],
        };
        self.asker = Some(caller);
        self.desk.idle.retain(|id| *id != caller);
        let before = self.desk.replies;
        self.crowd.call(caller, request)?;
        self.until("an answer", |desk| desk.replies > before)?;
        self.desk.idle.retain(|id| *id != caller);
        Ok(std::mem::take(&mut self.desk.body))
    }

    /// Waits until an app is served: its API answers.
    pub(crate) fn until_served(&mut self, app: &str, key: &str, secret: &str) -> io::Result<()> {
        let limit = Instant::now() + LIMIT;
        loop {
            let known = self.desk.faults.len();
            self.ask(pusher::channels_of(self.crowd.address(), app, key, secret))?;
            // That it was not served yet is no fault.
            if self.desk.faults.len() == known {
                return Ok(());
            }
            self.desk.faults.truncate(known);
            if Instant::now() > limit {
                return Err(io::Error::other(format!("app {app} is not served")));
            }
            self.rest(Duration::from_millis(5))?;
        }
    }

    /// A number in the answer about a channel.
    pub(crate) fn count_of(&mut self, channel: &str, key: &str) -> io::Result<u64> {
        let answer = self.ask(pusher::counts(self.crowd.address(), channel))?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        Ok(answer[key].as_u64().unwrap_or(0))
    }

    /// Sends clients away; that they go is no fault. Returns when the server has let all of them go.
    pub(crate) fn dismiss(&mut self, ids: &[usize]) -> io::Result<()> {
        let gone = self.desk.gone;
        for id in ids {
            self.desk.may_go(*id);
            self.crowd.leave(*id)?;
        }
        self.until("connections end", |desk| desk.gone >= gone + ids.len())
    }

    /// Waits until a number in the answer about a channel is what it must be: some servers clean up a little later.
    pub(crate) fn expect_count(&mut self, what: &str, channel: &str, key: &str, due: u64) -> io::Result<()> {
        let limit = Instant::now() + Duration::from_secs(2);
        loop {
            let count = self.count_of(channel, key)?;
            if count == due || Instant::now() > limit {
                self.expect(what, count, due);
                return Ok(());
            }
            self.rest(Duration::from_millis(20))?;
        }
    }

    /// Waits until the server has no more open files than `before`: it has closed what has ended.
    pub(crate) fn until_closed(&mut self, before: &Sample) -> io::Result<()> {
        let limit = Instant::now() + LIMIT;
        while self.server.sample().files > before.files && Instant::now() < limit {
            self.rest(Duration::from_millis(5))?;
        }
        self.expect_no_more_files(before, &self.server.sample());
        Ok(())
    }

    /// Publishes at a fixed pace, whatever the server does: what waits is late from when it was due.
    ///
    /// `publish` gets the number of the event, when it was due, and the desk, and makes the request.
    pub(crate) fn paced(
        &mut self,
        per_second: f64,
        time: Duration,
        mut publish: impl FnMut(&mut Desk, usize, Instant) -> Vec<u8>,
    ) -> io::Result<u64> {
        let count = (per_second * time.as_secs_f64()).ceil() as usize;
        let begin = Instant::now() + Duration::from_millis(1);
        let due = |number: usize| begin + Duration::from_secs_f64(number as f64 / per_second);
        let mut number = 0;
        while number < count {
            if Instant::now() >= due(number)
                && let Some(caller) = self.desk.idle.pop()
            {
                let request = publish(&mut self.desk, number, due(number));
                self.crowd.call(caller, request)?;
                number += 1;
                continue;
            }
            let idle = !self.desk.idle.is_empty();
            self.turn(if idle { due(number) } else { Instant::now() + Duration::from_millis(100) })?;
            if Instant::now() > due(count) + LIMIT {
                return Err(io::Error::other(format!("{number} of {count} publishes in {:?}", time + LIMIT)));
            }
        }
        Ok(count as u64)
    }

    /// Publishes as fast as the callers are answered.
    ///
    /// `publish` gets the number of the call, who makes it, and the desk, and makes the request.
    pub(crate) fn at_full_speed(
        &mut self,
        count: usize,
        mut publish: impl FnMut(&mut Desk, usize, usize) -> Vec<u8>,
    ) -> io::Result<()> {
        let before = self.desk.replies;
        let limit = Instant::now() + LIMIT * 2;
        let mut number = 0;
        while self.desk.replies < before + count as u64 {
            while number < count
                && let Some(caller) = self.desk.idle.pop()
            {
                let request = publish(&mut self.desk, number, caller);
                self.crowd.call(caller, request)?;
                number += 1;
            }
            self.turn(Instant::now() + Duration::from_millis(100))?;
            if Instant::now() > limit {
                return Err(io::Error::other(format!("{number} of {count} publishes in {:?}", LIMIT * 2)));
            }
        }
        Ok(())
    }

    /// Waits until everything published has been delivered, or nothing more comes for a while: that is lost.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let mut delivered = self.desk.ledger.delivered;
        let mut quiet = Instant::now();
        while self.desk.ledger.outstanding() > 0 {
            self.turn(Instant::now() + Duration::from_millis(10))?;
            if self.desk.ledger.delivered > delivered {
                delivered = self.desk.ledger.delivered;
                quiet = Instant::now();
            } else if quiet.elapsed() > Duration::from_secs(5) {
                break;
            }
        }
        Ok(())
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter {
            servers: self.servers().map(Server::sample).collect(),
            redis_cpu: self.redis_cpu(),
            own_cpu: machine::own_cpu(),
        }
    }

    /// What has been used since, noted with how busy server and load were.
    pub(crate) fn measured(&mut self, meter: &Meter) -> Spent {
        let now: Vec<Sample> = self.servers().map(Server::sample).collect();
        let redis_cpu = self.redis_cpu().saturating_sub(meter.redis_cpu);
        let of_nodes = now.iter().zip(&meter.servers).map(|(now, before)| now.cpu.saturating_sub(before.cpu));
        let cpu = of_nodes.sum::<Duration>() + redis_cpu;
        let spent = Spent { cpu, redis_cpu, time: now[0].at - meter.servers[0].at };
        let share = |cpu: Duration| cpu.as_secs_f64() / spent.time.as_secs_f64() * 100.0;
        self.figure("server_busy_percent", share(spent.cpu));
        self.figure("load_busy_percent", share(machine::own_cpu().saturating_sub(meter.own_cpu)));
        self.figure("server_rss_mib", now.iter().map(|now| now.rss_bytes as f64).sum::<f64>() / 1_048_576.0);
        self.figure("server_threads", now.iter().map(|now| now.threads as f64).sum());
        self.figure("server_files", now.iter().map(|now| now.files as f64).sum());
        if self.redis.is_some() {
            self.figure("redis_busy_percent", share(spent.redis_cpu));
        }
        spent
    }

    /// Notes how late events were.
    pub(crate) fn latencies(&mut self) {
        let late = &self.desk.ledger.late;
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let figures = [
            ("latency_p50_ms", ms(late.value_at_quantile(0.5))),
            ("latency_p99_ms", ms(late.value_at_quantile(0.99))),
            ("latency_max_ms", ms(late.max())),
        ];
        for (name, value) in figures {
            self.figure(name, value);
        }
    }

    /// Ends the run. Whatever is still owed is lost.
    pub(crate) fn close(mut self) -> Outcome {
        let ledger = &self.desk.ledger;
        let (lost, doubled) = (ledger.lost + ledger.outstanding(), ledger.doubled);
        self.expect("events lost", lost, 0);
        self.expect("events doubled or out of order", doubled, 0);
        self.outcome.faults.append(&mut self.desk.faults);
        self.outcome
    }
}

impl Desk {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            clients: Vec::new(),
            ready: 0,
            gone: 0,
            idle: Vec::new(),
            replies: 0,
            body: String::new(),
            pongs: 0,
            member_added: 0,
            members_met: 0,
            goodbyes: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn client(&mut self, id: usize) -> &mut Client {
        if self.clients.len() <= id {
            self.clients.resize(id + 1, Client::default());
        }
        &mut self.clients[id]
    }

    /// A client may be closed from now on without that being a fault, and is owed nothing more.
    pub(crate) fn may_go(&mut self, id: usize) {
        self.client(id).may_go = true;
        self.ledger.release(id);
    }

    pub(crate) fn removals_seen_by(&self, ids: &[usize]) -> u64 {
        ids.iter().filter_map(|id| self.clients.get(*id)).map(|client| client.removals).sum()
    }

    /// Event data for everybody who is owed this stream.
    pub(crate) fn data(&mut self, stream: u16, due: Instant, bytes: usize) -> String {
        self.ledger.next(stream, due).data(bytes)
    }

    pub(crate) fn hear(&mut self, crowd: &mut Crowd, id: usize, heard: Heard<'_>) -> io::Result<()> {
        match heard {
            Heard::Message(message) => match Stamp::find(message) {
                Some(stamp) => self.ledger.enter(id, stamp, Instant::now()),
                None => self.notice(id, message),
            },
            Heard::Opened(socket_id) => return self.let_in(crowd, id, socket_id),
            Heard::Reply(status, body) => {
                self.idle.push(id);
                self.replies += 1;
                self.body = String::from_utf8_lossy(body).into_owned();
                // soketi says 200 to what it refuses.
                if status != 200 || self.body.starts_with("{\"error\"") {
                    self.fault(format!("a call was answered with {status}: {}", self.body.trim()));
                }
            }
            Heard::Closed => {
                if !self.client(id).may_go {
                    self.fault("the server closed a connection".to_owned());
                }
                self.ledger.release(id);
                self.gone += 1;
            }
        }
        Ok(())
    }

    fn let_in(&mut self, crowd: &mut Crowd, id: usize, socket_id: &str) -> io::Result<()> {
        let client = self.client(id);
        client.socket_id = socket_id.to_owned();
        let wants = std::mem::take(&mut client.wants);
        client.unconfirmed = wants.len();
        if wants.is_empty() {
            self.ready += 1;
            return Ok(());
        }
        let user = client.user;
        let messages: Vec<String> =
            wants.iter().map(|channel| pusher::subscribe(channel, socket_id, user)).collect();
        crowd.say_all(id, &messages)
    }

    fn notice(&mut self, id: usize, message: &[u8]) {
        let says = |what: &str| memchr::memmem::find(message, what.as_bytes()).is_some();
        if says("subscription_succeeded") {
            let client = self.client(id);
            match client.unconfirmed.checked_sub(1) {
                Some(left) => client.unconfirmed = left,
                None => return self.fault("a subscription was confirmed twice".to_owned()),
            }
            if client.unconfirmed == 0 {
                self.ready += 1;
            }
            self.members_met += members_in(message).saturating_sub(1);
        } else if says("pusher:pong") {
            self.pongs += 1;
        } else if says("member_added") {
            self.member_added += 1;
        } else if says("member_removed") {
            self.client(id).removals += 1;
        } else if says("\"code\":4200") {
            self.goodbyes.push(Instant::now());
        } else if says("pusher:error") || says("subscription_error") {
            self.fault(format!("a client was told: {}", String::from_utf8_lossy(message)));
        }
    }

    fn fault(&mut self, text: String) {
        // One of a kind tells enough.
        if self.faults.len() < 20 && !self.faults.contains(&text) {
            self.faults.push(text);
        }
    }
}

/// How many members the confirmation of a subscription tells of; 0 if it is of no presence channel.
fn members_in(message: &[u8]) -> u64 {
    const COUNT: &[u8] = br#"\"count\":"#;
    let digits = memchr::memmem::find(message, COUNT).and_then(|at| message.get(at + COUNT.len()..));
    let digits = digits.into_iter().flatten().map_while(|byte| char::from(*byte).to_digit(10));
    digits.fold(0, |number, digit| number * 10 + u64::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted_in_doubly_encoded_data() {
        let joined = br#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","data":"{\"presence\":{\"count\":12,\"ids\":[]}}"}"#;
        assert_eq!(members_in(joined), 12);
        assert_eq!(members_in(br#"{"event":"pusher_internal:subscription_succeeded","data":"{}"}"#), 0);
    }
}
