//! The thread that speaks with the other nodes: it owns the lanes, and knows what arrives for which mirror.

mod care;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::Value;
use thiserror::Error;
use tokio::runtime::Builder;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::engine::care::{Care, node_name};
use crate::cluster::envelope::{self, Unreadable};
use crate::cluster::lane::{Answered, Command, Lane, Limits};
use crate::cluster::outbox::Outbox;
use crate::cluster::script::{self, Fault, Head, Item, Space};
use crate::cluster::servers::{BusEvent, RunError, Servers, SettingsError};
use crate::control::VitalThread;
use crate::hub::{ChannelFull, Topic};
use crate::metrics::{ClusterMetrics, Echo, Failure, StepItem};
use crate::mirror::{Change, Effect, Message, Mirror, Op, PARTITIONS, Reply, Request, partition_of};
use crate::node::{Call, Mailbox, Node};

/// Calls and messages taken at a time.
const TAKEN: usize = 1024;

/// How often lanes look at the clock.
const TICK: Duration = Duration::from_millis(20);

/// Why this node cannot be one of many.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting of Redis cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The system gives no thread, or not what it needs.
    #[error("no thread for the cluster: {0}")]
    Thread(#[from] std::io::Error),
}

/// This node's part in the cluster, under way.
#[derive(Debug)]
pub struct Cluster {
    finish: mpsc::Sender<Finish>,
}

/// Come to an end in this time.
#[derive(Debug)]
struct Finish {
    within: Duration,
    done: oneshot::Sender<()>,
}

/// Begins to speak with the other nodes, if there is a cluster. Whether Redis answers is seen later.
///
/// # Errors
/// When the settings cannot be used.
pub async fn start(node: &Arc<Node>) -> Result<Option<Cluster>, StartError> {
    let Some(calls) = node.take_calls() else { return Ok(None) };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (finish, finishes) = mpsc::channel(1);
    let (begun, begins) = oneshot::channel();
    let node = node.clone();
    std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
        let _vital = VitalThread("the connection to the other nodes has failed");
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let made = Servers::new(&node.config().redis);
            match made {
                Ok((servers, bus)) => {
                    drop(begun.send(Ok(())));
                    Engine::new(node, servers).run(calls, bus, finishes).await;
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
    })?;
    match begins.await {
        Ok(Ok(())) | Err(_) => Ok(Some(Cluster { finish })),
        Ok(Err(error)) => Err(error.into()),
    }
}

impl Cluster {
    /// Says what is still to be said and gives the leases back. To be called when every connection has gone.
    pub async fn finish(&self, within: Duration) {
        let (done, finished) = oneshot::channel();
        if self.finish.send(Finish { within, done }).await.is_ok() {
            // It has ended, one way or the other.
            drop(finished.await);
        }
    }
}

struct Engine {
    node: Arc<Node>,
    servers: Rc<Servers>,
    outbox: Option<Outbox>,
    space: Space,
    limits: Limits,
    /// Unique in the cluster.
    name: String,
    lanes: Vec<Lane>,
    care: Care,
    under_way: JoinSet<Done>,
    /// What is behind the names on the bus.
    listened: HashMap<Vec<u8>, Topic>,
    echo: Echo<(Topic, Message)>,
    finishing: Option<(Instant, oneshot::Sender<()>)>,
}

/// A command that was answered, or not.
struct Done {
    partition: u8,
    command: Command,
    result: Result<Value, RunError>,
    elapsed: Duration,
}

impl Engine {
    fn new(node: Arc<Node>, servers: Servers) -> Self {
        let settings = &node.config().redis;
        let limits = Limits {
            lease: Duration::from_secs(settings.lease_s),
            patience: Duration::from_millis(settings.publish_timeout_ms),
            debounce: Duration::from_secs(node.config().webhooks.debounce_s),
        };
        let (servers, space) = (Rc::new(servers), Space::new(&settings.prefix));
        let name = format!("{}~{:016x}", node_name(&settings.node), rand::random::<u64>());
        Self {
            outbox: Outbox::start(space.clone(), servers.clone(), node.clone(), &name),
            servers,
            space,
            name,
            lanes: (0..PARTITIONS).map(|_| Lane::new(limits)).collect(),
            care: Care::new(),
            limits,
            under_way: JoinSet::new(),
            listened: HashMap::new(),
            echo: Echo::default(),
            finishing: None,
            node,
        }
    }

    async fn run(
        mut self,
        mut calls: Mailbox<Call>,
        mut bus: mpsc::UnboundedReceiver<BusEvent>,
        mut finishes: mpsc::Receiver<Finish>,
    ) {
        let (mut called, mut heard) = (Vec::new(), Vec::new());
        let told = Rc::new(Notify::new());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                true = calls.take(&mut called, TAKEN) => self.called(&mut called),
                _ = bus.recv_many(&mut heard, TAKEN) => self.heard(&mut heard),
                Some(done) = self.under_way.join_next() => self.done(done.ok()),
                _ = tick.tick() => self.tick(),
                () = self.servers.changed() => self.connection_changed(),
                Some(Finish { within, done }) = finishes.recv() => {
                    let (told, outbox) = (told.clone(), self.outbox.take());
                    self.finishing = Some((Instant::now() + within, done));
                    // What was told to webhooks is forgotten first: that takes a lease.
                    spawn_local(async move {
                        if let Some(outbox) = outbox {
                            outbox.finish().await;
                        }
                        told.notify_one();
                    });
                }
                () = told.notified() => {
                    self.lanes.iter_mut().for_each(Lane::finish);
                    self.send_all();
                }
            }
            if self.has_finished() {
                return;
            }
        }
    }

    /// Connections were lost or made.
    fn connection_changed(&mut self) {
        let is_connected = self.servers.health().away_since().is_none();
        if let (Some(outbox), true) = (&self.outbox, is_connected) {
            outbox.reconnected();
        }
        self.look_around(Instant::now());
    }

    fn has_finished(&mut self) -> bool {
        let Some((until, _)) = &self.finishing else { return false };
        if !self.lanes.iter().all(Lane::has_left) && Instant::now() < *until {
            return false;
        }
        if let Some((_, done)) = self.finishing.take() {
            // Nobody need wait for it.
            let _ = done.send(());
        }
        true
    }

    /// What the node asks for.
    fn called(&mut self, calls: &mut Vec<Call>) {
        let now = Instant::now();
        let mut touched = Touched::default();
        for call in calls.drain(..) {
            match call {
                Call::Mirror(Request::Open(topic)) => {
                    let name = self.space.bus_topic(&topic);
                    self.listened.insert(name.clone(), topic);
                    self.servers.listen(name);
                }
                Call::Mirror(Request::Close(topic)) => {
                    let name = self.space.bus_topic(&topic);
                    self.listened.remove(&name);
                    self.servers.unlisten(&name);
                }
                Call::Mirror(Request::Op(op)) => self.lane(touched.of(op.topic())).tell(op),
                Call::Op(op, caller) => {
                    self.watch(&op, now);
                    self.lane(touched.of(op.topic())).ask(op, caller, now);
                }
                Call::List { partition, app, prefix, reply } => {
                    touched.add(partition);
                    self.lane(partition).list(app, prefix, reply, now);
                }
            }
        }
        touched.each(|partition| self.send(partition, now));
    }

    /// What the bus tells.
    fn heard(&mut self, events: &mut Vec<BusEvent>) {
        let now = Instant::now();
        let node = self.node.clone();
        let metrics = &node.metrics().cluster;
        for event in events.drain(..) {
            match event {
                BusEvent::Message { topic, payload } => {
                    metrics.bus_messages.inc();
                    metrics.bus_bytes.inc_by(payload.len() as u64);
                    let Some(topic) = self.listened.get(&topic) else {
                        self.wake_outbox(&topic);
                        continue;
                    };
                    match envelope::decode(topic, &payload) {
                        Ok(arrival) => {
                            let ours =
                                |(to, what): &(Topic, Message)| to == topic && *what == arrival.message;
                            if let Some(lag) = self.echo.heard(ours, now) {
                                metrics.bus_lag.observe(lag.as_secs_f64());
                            }
                            self.node.arrived(topic, arrival, now);
                        }
                        Err(error) => {
                            match error {
                                Unreadable::Version(_) => metrics.unknown_version.inc(),
                                Unreadable::Malformed => metrics.malformed.inc(),
                            }
                            self.care.unreadable(error);
                        }
                    }
                }
                BusEvent::Listening(names) => {
                    for name in &names {
                        let Some(topic) = self.listened.get(name) else {
                            self.wake_outbox(name);
                            continue;
                        };
                        self.node.mirrored_topic(topic, |mirror, effects| mirror.listening(topic, effects));
                    }
                }
                BusEvent::Deaf(topics) => {
                    self.echo.forget();
                    let topics = topics.iter().filter_map(|topic| self.listened.get(topic));
                    let partitions: HashSet<u8> = topics.map(partition_of_topic).collect();
                    for partition in partitions {
                        self.node.mirrored(partition, |mirror, _| mirror.deaf());
                    }
                }
            }
        }
    }

    /// A command was answered, or not.
    fn done(&mut self, done: Option<Done>) {
        let now = Instant::now();
        let mut touched = Touched::default();
        let mut next = done;
        let node = self.node.clone();
        let metrics = &node.metrics().cluster;
        while let Some(Done { partition, command, result, elapsed }) = next {
            metrics.ran(command.as_str(), elapsed);
            let items = self.lanes[usize::from(partition)].items();
            if let (Command::Step, Ok(_)) = (&command, &result) {
                metrics.steps.inc();
                count_items(metrics, items);
            }
            let answered = result.and_then(|value| read(&command, items, value));
            let answered = self.judge(partition, answered);
            let outcome = self.lane(partition).answered(answered, now);
            if let Some((why, holdings)) = outcome.restated {
                self.node.metrics().cluster.restated(why);
                self.care.restated(holdings);
                if let Some(outbox) = &self.outbox {
                    outbox.doubt(partition);
                }
                // Whatever was heard before belongs to a state that is gone.
                self.node.mirrored(partition, |mirror, effects| mirror.look_again(effects));
            }
            if !outcome.replies.is_empty() {
                self.node.mirrored(partition, |mirror, effects| {
                    for (op, reply) in outcome.replies {
                        replied(mirror, metrics, op, reply, now, effects);
                    }
                });
            }
            if let Some(pulse) = outcome.pulse {
                self.pulse(partition, pulse, now);
            }
            touched.add(partition);
            next = self.under_way.try_join_next().and_then(Result::ok);
        }
        touched.each(|partition| self.send(partition, now));
    }

    /// What an answer means for its lane.
    fn judge(&mut self, partition: u8, result: Result<Answered, RunError>) -> Answered {
        let error = match result {
            Ok(answered) => return answered,
            Err(error) => error,
        };
        let fault = match &error {
            RunError::Script(text) => script::fault(text),
            _ => None,
        };
        let (failure, answered) = match (&error, fault) {
            (_, Some(Fault::Fenced)) => (Failure::Fenced, Answered::Fenced),
            (_, Some(Fault::Behind(_))) => (Failure::Behind, Answered::Behind),
            (_, Some(Fault::Layout { .. })) => (Failure::Layout, Answered::NotRun),
            (_, Some(Fault::Nonsense(_))) => (Failure::Nonsense, Answered::Unknown),
            (RunError::NotRun(_), None) => (Failure::NotRun, Answered::NotRun),
            (RunError::Refused(_), None) => (Failure::Refused, Answered::NotRun),
            (RunError::Unknown(_), None) => (Failure::Unknown, Answered::Unknown),
            (RunError::Script(_), None) => (Failure::Script, Answered::Unknown),
        };
        self.node.metrics().cluster.failed(failure);
        if matches!(answered, Answered::NotRun | Answered::Unknown) {
            self.care.failed(partition, &error);
        }
        answered
    }

    /// There may be facts for webhooks, if it is the topic by which that is told.
    fn wake_outbox(&self, name: &[u8]) {
        if let (Some(outbox), Some(partition)) = (&self.outbox, self.space.parse_wake_topic(name)) {
            outbox.wake(partition);
        }
    }

    /// Watches how long an event takes over the bus and back, if none is watched and somebody here listens.
    fn watch(&mut self, op: &Op, now: Instant) {
        let Op::Publish(publication) = op else { return };
        if self.echo.is_free(now) && self.listened.contains_key(&self.space.bus_topic(&publication.topic)) {
            self.echo.sent(|| (publication.topic.clone(), publication.message.clone()), now);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        for partition in 0..PARTITIONS {
            self.node.mirrored(partition, |mirror, effects| mirror.settle(now, effects));
            self.lane(partition).expire(now);
        }
        self.send_all();
        self.look_now_and_then(now);
    }

    fn send_all(&mut self) {
        let now = Instant::now();
        for partition in 0..PARTITIONS {
            self.send(partition, now);
        }
    }

    /// Sends the next command of a lane, if there is one.
    fn send(&mut self, partition: u8, now: Instant) {
        let Some(command) =
            self.lanes[usize::from(partition)].next(self.servers.run_of(&self.space.route(partition)), now)
        else {
            return;
        };
        let (space, node) = (&self.space, &*self.name);
        let lane = &self.lanes[usize::from(partition)];
        let settings = &self.node.config().redis;
        let invocation = match &command {
            Command::Open => space.open(partition, node, self.limits.lease, lane.start(), rand::random()),
            Command::Beat => space.beat(partition, node, self.limits.lease),
            Command::Step => {
                let head = Head {
                    node,
                    number: lane.number(),
                    nonce: rand::random(),
                    debounce: self.limits.debounce,
                    log_bytes: settings.log_bytes,
                    outbox_max: settings.outbox_max,
                    // Nothing can be run before it is known.
                    sharded: self.servers.is_sharded().unwrap_or_default(),
                };
                space.step(partition, &head, lane.items())
            }
            Command::List { app, prefix } => space.list(partition, app, prefix),
            Command::Leave => space.leave(partition, node),
        };
        let servers = self.servers.clone();
        self.under_way.spawn_local(async move {
            let began = Instant::now();
            let result = servers.run(&invocation).await;
            Done { partition, command, result, elapsed: began.elapsed() }
        });
    }

    fn lane(&mut self, partition: u8) -> &mut Lane {
        &mut self.lanes[usize::from(partition)]
    }
}

/// Lanes that have something new.
#[derive(Default)]
struct Touched(u64);

impl Touched {
    fn add(&mut self, partition: u8) {
        self.0 |= 1 << partition;
    }

    /// Adds the partition of a topic; returns it.
    fn of(&mut self, topic: &Topic) -> u8 {
        let partition = partition_of_topic(topic);
        self.add(partition);
        partition
    }

    fn each(self, mut run: impl FnMut(u8)) {
        (0..PARTITIONS).filter(|partition| self.0 & (1 << partition) != 0).for_each(&mut run);
    }
}

fn partition_of_topic(topic: &Topic) -> u8 {
    partition_of(&topic.app, topic.channel.as_str())
}

fn count_items(metrics: &ClusterMetrics, items: &[Item]) {
    for item in items {
        let kind = match item {
            Item::Op(Op::Hold(_)) => StepItem::Hold,
            Item::Op(Op::Publish(_)) => StepItem::Publish,
            Item::Op(Op::Miss(..)) => StepItem::Miss,
            Item::Op(Op::Census(_)) => StepItem::Census,
            Item::Op(Op::Look(..)) => StepItem::Look,
            Item::Settle(_) => StepItem::Settle,
            Item::Claim(_) => StepItem::Claim,
            Item::Bury(..) => StepItem::Bury,
        };
        metrics.stepped(kind, 1);
    }
}

/// Brings a reply back to the mirror that has asked.
fn replied(
    mirror: &mut Mirror,
    metrics: &ClusterMetrics,
    op: Op,
    reply: Reply,
    now: Instant,
    effects: &mut Vec<Effect>,
) {
    match (op, reply) {
        (Op::Hold(hold), reply) => {
            let outcome = match reply {
                Reply::Held(place) => Ok(place),
                _ => Err(ChannelFull),
            };
            let entered = match &hold.change {
                Some(Change::Enters { member, .. }) => Some(&*member.user_id),
                _ => None,
            };
            mirror.held(&hold.topic, entered, outcome, now, effects);
        }
        (Op::Look(topic, _), Reply::Seen(snapshot)) => {
            let gap = mirror.seen(&topic, *snapshot, now, effects);
            metrics.healed.inc_by(gap.healed);
            metrics.lost.inc_by(gap.lost);
        }
        _ => {}
    }
}

/// What an answer of Redis means.
fn read(command: &Command, items: &[Item], value: Value) -> Result<Answered, RunError> {
    let answered = match command {
        Command::Open => script::opened(value).map(Answered::Opened),
        Command::Beat => script::pulse(value).map(Answered::Pulse),
        Command::Step => script::replies(items, value).map(Answered::Replies),
        Command::List { .. } => script::listed(value).map(Answered::Listed),
        Command::Leave => Ok(Answered::Left),
    };
    answered.map_err(|fault| RunError::Script(fault.to_string()))
}
