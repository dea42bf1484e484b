//! The hub alone, and under random commands against a model that keeps plain lists.

use proptest::prelude::*;

use super::*;
use crate::app::Webhook;
use crate::protocol::CloseReason;

const CHANNELS: [&str; 4] = ["news", "presence-room", "cache-last", "#server-to-user-u"];
const USERS: [&str; 3] = ["ann", "bob", "cid"];

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 164).expect("valid name")
}

fn member(user_id: &str) -> Arc<Member> {
    Arc::new(Member { user_id: user_id.into(), user_info: "{}".into() })
}

fn event(name: &ChannelName, number: usize) -> Event {
    let event = CachedEvent::new(name, "\"e\"", &format!("\"{number}\""));
    if name.kind().is_cached() { Event::Kept(event) } else { Event::Passing(event.frame) }
}

const DEBOUNCE: Duration = Duration::from_secs(3);

/// Connections are numbers, and each is a listener of its own worker. What a listener hears is what the
/// worker would give it: deliveries behind the position it joined at.
struct Bench {
    app: App,
    hub: Hub,
    now: Instant,
    listeners: Vec<Listener>,
    occurred: Vec<(String, Fact)>,
}

#[derive(Debug)]
struct Listener {
    connection: usize,
    channel: ChannelName,
    audience: Audience,
    member: Option<Arc<Member>>,
    joined: Position,
    heard: Vec<Body>,
}

impl Bench {
    fn new(app: App) -> Self {
        let hub = Hub::new(7, DEBOUNCE);
        Self {
            app: App { id: "1".into(), webhooks: vec![Webhook::default()], ..app },
            hub,
            now: Instant::now(),
            listeners: vec![],
            occurred: vec![],
        }
    }

    fn worker(connection: usize) -> WorkerId {
        WorkerId(u16::try_from(connection % 3).expect("small"))
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Occurred(Occurrence { channel, fact, .. }) => {
                    self.occurred.push((channel.to_string(), fact))
                }
                Effect::Deliver(worker, delivery) => {
                    let listens = |listener: &&mut Listener| {
                        Self::worker(listener.connection) == worker
                            && listener.channel == delivery.channel
                            && listener.audience == delivery.audience
                            && listener.joined.epoch == delivery.position.epoch
                            && listener.joined.seq < delivery.position.seq
                    };
                    let mut listeners: Vec<_> = self.listeners.iter_mut().filter(listens).collect();
                    assert!(!listeners.is_empty(), "a worker without listeners is not bothered");
                    for listener in &mut listeners {
                        listener.heard.push(delivery.body.clone());
                    }
                }
            }
        }
    }

    fn join(&mut self, connection: usize, name: &str, user_id: Option<&str>) -> Result<Joined, ChannelFull> {
        let (channel, member) = (channel(name), user_id.map(member));
        let mut effects = Vec::new();
        let notice = notice(&channel, member.as_deref(), true);
        let worker = Self::worker(connection);
        let (app, now) = (&self.app, self.now);
        let new = Subscription { app, channel: &channel, worker, member: member.as_ref(), notice, now };
        let joined = self.hub.subscribe(new, &mut effects);
        if let Ok(joined) = &joined {
            let (audience, joined) = (Audience::Subscribers, joined.position);
            self.listeners.push(Listener { connection, channel, audience, member, joined, heard: vec![] });
        }
        self.carry_out(effects);
        joined
    }

    fn leave(&mut self, connection: usize, name: &str) -> bool {
        let wanted = |listener: &Listener| {
            listener.connection == connection
                && listener.channel.as_str() == name
                && listener.audience == Audience::Subscribers
        };
        let Some(at) = self.listeners.iter().position(wanted) else { return false };
        let Listener { channel, member, .. } = self.listeners.remove(at);
        let mut effects = Vec::new();
        let notice = notice(&channel, member.as_deref(), false);
        let worker = Self::worker(connection);
        let (app, now) = (&self.app, self.now);
        let old = Subscription { app, channel: &channel, worker, member: member.as_ref(), notice, now };
        self.hub.unsubscribe(old, &mut effects);
        self.carry_out(effects);
        true
    }

    fn publish(&mut self, name: &str, number: usize) -> Census {
        let channel = channel(name);
        let mut effects = Vec::new();
        let event = event(&channel, number);
        let new =
            Publish { app: &self.app, channel: &channel, event, except: None, told: None, now: self.now };
        let census = self.hub.publish(new, &mut effects);
        self.carry_out(effects);
        census
    }

    fn watch(&mut self, connection: usize) -> bool {
        let channel = channel(CHANNELS[3]);
        let watched = self.hub.watch(&self.app, &channel, Self::worker(connection));
        let (audience, joined) = (Audience::Watchers, watched.position);
        self.listeners.push(Listener { connection, channel, audience, member: None, joined, heard: vec![] });
        watched.online
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let mut effects = Vec::new();
        self.hub.settle(self.now, |_| Some(&self.app), &mut effects);
        self.carry_out(effects);
    }

    fn heard(&mut self, connection: usize) -> Vec<Body> {
        let listener = self.listeners.iter_mut().find(|listener| listener.connection == connection);
        std::mem::take(&mut listener.expect("it listens").heard)
    }

    fn occurred(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.occurred).into_iter().map(|(_, fact)| fact).collect()
    }
}

fn notice(channel: &ChannelName, member: Option<&Member>, joins: bool) -> Option<Frame> {
    match (member, joins) {
        (Some(member), true) => Some(Frame::member_added(channel, member)),
        (Some(member), false) => Some(Frame::member_removed(channel, &member.user_id)),
        (None, true) => Frame::watchlist_events(channel.user_id(), []),
        (None, false) => Frame::watchlist_events([], channel.user_id()),
    }
}

fn counts() -> App {
    App { subscription_counts: true, ..App::default() }
}

#[test]
fn p30_a_cached_event_outlives_the_last_subscriber_until_its_time() {
    let mut bench = Bench::new(App::default());
    bench.publish("cache-last", 1);
    let joined = bench.join(0, "cache-last", None).expect("room");
    assert!(joined.cached.flatten().is_some());
    bench.leave(0, "cache-last");
    bench.wait(Duration::from_secs(30 * 60 - 1));
    assert!(bench.join(0, "cache-last", None).expect("room").cached.flatten().is_some());
    bench.leave(0, "cache-last");
    bench.wait(DEBOUNCE);
    assert_eq!(bench.hub.all().count(), 0, "nothing is kept any longer");
}

#[test]
fn p28_client_events_are_not_cached() {
    let mut bench = Bench::new(App::default());
    bench.join(0, "private-cache-a", None).expect("room");
    let channel = channel("private-cache-a");
    let event = Event::Passing(Frame::client_event(&channel, "\"client-x\"", "\"1\"", None));
    let new = Publish { app: &bench.app, channel: &channel, event, except: None, told: None, now: bench.now };
    bench.hub.publish(new, &mut Vec::new());
    assert_eq!(bench.hub.census("1", &channel, bench.now).cached, None);
}

#[test]
fn p29_many_misses_are_reported_once() {
    let mut bench = Bench::new(App::default());
    for connection in 0..5 {
        assert_eq!(bench.join(connection, "cache-last", None).expect("room").cached, Some(None));
    }
    assert_eq!(bench.occurred(), [Fact::Occupied, Fact::CacheMissed]);
    (0..5).for_each(|connection| assert!(bench.leave(connection, "cache-last")));
    bench.wait(DEBOUNCE);
    bench.join(0, "cache-last", None).expect("room");
    assert_eq!(bench.occurred(), [Fact::Vacated, Fact::Occupied], "the miss is remembered");
    bench.wait(Duration::from_secs(10));
    bench.join(1, "cache-last", None).expect("room");
    assert_eq!(bench.occurred(), [Fact::CacheMissed]);
}

#[test]
fn p94_who_is_back_in_time_was_never_away() {
    let mut bench = Bench::new(App::default());
    bench.join(0, "presence-room", Some("ann")).expect("room");
    bench.occurred();
    bench.leave(0, "presence-room");
    bench.wait(DEBOUNCE - Duration::from_millis(1));
    bench.join(1, "presence-room", Some("ann")).expect("room");
    bench.wait(DEBOUNCE * 2);
    assert_eq!(bench.occurred(), []);
}

#[test]
fn p95_who_is_not_is_reported_once_the_member_before_the_channel() {
    let mut bench = Bench::new(App::default());
    bench.join(0, "presence-room", Some("ann")).expect("room");
    bench.join(1, "presence-room", Some("bob")).expect("room");
    bench.occurred();
    bench.leave(0, "presence-room");
    bench.wait(DEBOUNCE / 2);
    bench.leave(1, "presence-room");
    bench.wait(DEBOUNCE / 2);
    assert_eq!(bench.occurred(), [Fact::MemberRemoved("ann".into())]);
    bench.wait(DEBOUNCE / 2);
    assert_eq!(bench.occurred(), [Fact::MemberRemoved("bob".into()), Fact::Vacated]);
    bench.wait(DEBOUNCE * 2);
    assert_eq!(bench.occurred(), []);
    assert_eq!(bench.hub.all().count(), 0, "nothing is kept any longer");
}

#[test]
fn p94_who_was_there_in_an_earlier_life_has_the_same_time_to_come_back() {
    let mut before = Bench::new(App::default());
    before.join(0, "presence-room", Some("ann")).expect("room");
    before.join(1, "presence-room", Some("bob")).expect("room");
    // The other one stays to the end.
    assert!(before.leave(0, "presence-room"));
    assert_eq!(before.hub.leavers(|_| false).count(), 0, "nobody wants to know");
    let mut after = Bench::new(App::default());
    for leavers in before.hub.leavers(|_| true) {
        after.hub.restore(&after.app, &leavers, after.now);
    }
    after.join(0, "presence-room", Some("bob")).expect("room");
    after.wait(DEBOUNCE);
    assert_eq!(after.occurred(), [Fact::MemberRemoved("ann".into())]);
    assert!(after.leave(0, "presence-room"));
    after.wait(DEBOUNCE);
    assert_eq!(after.occurred(), [Fact::MemberRemoved("bob".into()), Fact::Vacated]);
}

#[test]
fn a_channel_that_outlives_its_app_for_a_moment_is_looked_after_again() {
    for is_back in [false, true] {
        let mut bench = Bench::new(App::default());
        bench.join(0, "presence-room", Some("ann")).expect("room");
        bench.join(1, "presence-room", Some("bob")).expect("room");
        bench.leave(0, "presence-room");
        bench.now += DEBOUNCE;
        bench.hub.settle(bench.now, |_| None, &mut Vec::new());
        bench.leave(1, "presence-room");
        bench.occurred();
        bench.now += DEBOUNCE;
        let mut effects = Vec::new();
        bench.hub.settle(bench.now, |_| is_back.then_some(&bench.app), &mut effects);
        bench.carry_out(effects);
        let told = [Fact::MemberRemoved("ann".into()), Fact::MemberRemoved("bob".into()), Fact::Vacated];
        assert_eq!(bench.occurred(), if is_back { told.to_vec() } else { vec![] });
        assert_eq!(bench.hub.all().count(), 0, "nothing is kept any longer");
    }
}

#[test]
fn an_app_without_receivers_of_webhooks_keeps_nothing_for_them() {
    let mut bench = Bench::new(App::default());
    bench.app.webhooks.clear();
    bench.join(0, "presence-room", Some("ann")).expect("room");
    bench.leave(0, "presence-room");
    assert_eq!((bench.occurred(), bench.hub.all().count()), (vec![], 0));
}

#[test]
fn what_an_app_leaves_behind_goes_with_it() {
    let mut bench = Bench::new(App::default());
    bench.join(0, "news", None).expect("room");
    bench.leave(0, "news");
    bench.hub.settle(bench.now + DEBOUNCE, |_| None, &mut Vec::new());
    assert_eq!(bench.hub.all().count(), 0);
}

#[test]
fn p34_a_full_channel_takes_no_further_user_but_further_tabs() {
    let mut bench = Bench::new(App { presence_members_max: 2, ..App::default() });
    bench.join(0, "presence-room", Some("ann")).expect("room");
    bench.join(1, "presence-room", Some("bob")).expect("room");
    assert_eq!(bench.join(2, "presence-room", Some("cid")).expect_err("full"), ChannelFull);
    assert!(bench.join(3, "presence-room", Some("ann")).is_ok());
    assert_eq!(bench.hub.census("1", &channel("presence-room"), bench.now).subscriptions, 3);
}

#[test]
fn p37_counts_are_told_at_once_up_to_100_and_every_5_seconds_above() {
    let mut bench = Bench::new(counts());
    for connection in 0..100 {
        bench.join(connection, "news", None).expect("room");
    }
    let told: Vec<Body> = (1..=100).map(Body::SubscriptionCount).collect();
    assert_eq!(bench.heard(0), told);
    bench.join(100, "news", None).expect("room");
    bench.join(101, "news", None).expect("room");
    assert_eq!(bench.heard(0), []);
    bench.wait(Duration::from_millis(4999));
    assert_eq!(bench.heard(0), []);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.heard(0), [Body::SubscriptionCount(102)]);
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.heard(0), [], "nothing has changed");
    bench.join(102, "news", None).expect("room");
    assert_eq!(bench.heard(0), [Body::SubscriptionCount(103)]);
}

#[test]
fn p37_presence_channels_and_apps_without_the_switch_are_not_counted() {
    let mut bench = Bench::new(counts());
    bench.join(0, "presence-room", Some("ann")).expect("room");
    bench.join(1, "presence-room", Some("ann")).expect("room");
    assert_eq!(bench.heard(0), []);
    let mut bench = Bench::new(App::default());
    bench.join(0, "news", None).expect("room");
    assert_eq!(bench.heard(0), []);
}

#[test]
fn p23_what_is_still_under_way_from_an_earlier_life_is_for_nobody() {
    let mut bench = Bench::new(App::default());
    bench.app.webhooks.clear();
    bench.join(0, "news", None).expect("room");
    let late = {
        let (channel, mut effects) = (channel("news"), Vec::new());
        let event = event(&channel, 1);
        bench.hub.publish(
            Publish { app: &bench.app, channel: &channel, event, except: None, told: None, now: bench.now },
            &mut effects,
        );
        effects
    };
    bench.leave(0, "news");
    let joined = bench.join(3, "news", None).expect("room");
    let [Effect::Deliver(_, delivery)] = &late[..] else { panic!("one delivery") };
    assert_ne!(delivery.position.epoch, joined.position.epoch);
}

#[test]
fn p58_terminate_reaches_the_users_connections_alone() {
    let mut bench = Bench::new(App::default());
    bench.join(0, CHANNELS[3], None).expect("room");
    bench.join(1, "#server-to-user-other", None).expect("room");
    let mut effects = Vec::new();
    let body = Body::Disconnect(CloseReason::Terminated);
    bench.hub.terminate(&bench.app, &channel(CHANNELS[3]), body.clone(), &mut effects);
    bench.carry_out(effects);
    assert_eq!((bench.heard(0), bench.heard(1)), (vec![body], vec![]));
}

#[derive(Clone, Debug)]
enum Op {
    Join(usize, usize, usize),
    Leave(usize, usize),
    Publish(usize),
    Watch(usize),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0usize..7, 0usize..4, 0usize..3).prop_map(|(connection, channel, user)| Op::Join(connection, channel, user)),
        4 => (0usize..7, 0usize..4).prop_map(|(connection, channel)| Op::Leave(connection, channel)),
        3 => (0usize..3).prop_map(Op::Publish),
        1 => (100usize..104).prop_map(Op::Watch),
        2 => prop_oneof![1u64..4, 1u64..1000].prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 1..120)
}

/// What should have happened, from lists of everybody.
#[derive(Default)]
struct Model {
    /// Connection, channel, user, and what it heard.
    listeners: Vec<(usize, usize, Option<usize>, Vec<Frame>)>,
    watchers: Vec<(usize, Vec<Frame>)>,
    occurred: Vec<Fact>,
    cached: Option<(usize, Instant)>,
    missed: Option<Instant>,
    /// Channels, and users of the presence channel, that were left and are not reported yet.
    vacated: [Option<Instant>; 4],
    removed: [Option<Instant>; 3],
}

impl Model {
    fn count(&self, channel: usize) -> usize {
        self.listeners.iter().filter(|listener| listener.1 == channel).count()
    }

    fn tabs(&self, user: usize) -> usize {
        self.listeners.iter().filter(|listener| listener.2 == Some(user)).count()
    }

    fn tell(&mut self, to: usize, frame: &Frame) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.1 == to) {
            listener.3.push(frame.clone());
        }
    }

    /// The first or last connection of a user, or of a member.
    fn edge(&mut self, to: usize, user: Option<usize>, joins: bool, now: Instant) {
        let name = channel(CHANNELS[to]);
        match (to, user) {
            (3, _) if self.count(3) == 0 => {
                let frame = notice(&name, None, joins).expect("an edge");
                self.watchers.iter_mut().for_each(|watcher| watcher.1.push(frame.clone()));
            }
            (_, Some(user)) if self.tabs(user) == 0 => {
                self.tell(to, &notice(&name, Some(&member(USERS[user])), joins).expect("an edge"));
                if !joins {
                    self.removed[user] = Some(now + DEBOUNCE);
                } else if self.removed[user].take().is_none() {
                    self.occurred.push(Fact::MemberAdded(USERS[user].into()));
                }
            }
            _ => {}
        }
    }

    fn join(&mut self, connection: usize, to: usize, user: Option<usize>, now: Instant) -> Option<usize> {
        if to != 3 && self.count(to) == 0 && self.vacated[to].take().is_none() {
            self.occurred.push(Fact::Occupied);
        }
        self.edge(to, user, true, now);
        self.listeners.push((connection, to, user, vec![]));
        self.cached.take_if(|(_, until)| *until <= now);
        if to == 2
            && self.cached.is_none()
            && self.missed.is_none_or(|missed| now >= missed + Duration::from_secs(10))
        {
            self.missed = Some(now);
            self.occurred.push(Fact::CacheMissed);
        }
        self.cached.filter(|_| to == 2).map(|(number, _)| number)
    }

    fn leave(&mut self, connection: usize, from: usize, now: Instant) -> bool {
        let wanted = |listener: &(usize, usize, _, _)| listener.0 == connection && listener.1 == from;
        let Some(at) = self.listeners.iter().position(wanted) else { return false };
        let (_, _, user, _) = self.listeners.remove(at);
        self.edge(from, user, false, now);
        if from != 3 && self.count(from) == 0 {
            self.vacated[from] = Some(now + DEBOUNCE);
        }
        true
    }

    /// Reports what is due, channel by channel in the order in which the first of it was due, members first.
    fn wait(&mut self, now: Instant) {
        let is_due = |until: &mut Instant| *until <= now;
        let mut due: Vec<(Instant, Instant, &str, Fact)> = Vec::new();
        let mut removed: Vec<(Instant, &str)> =
            (0..3).filter_map(|user| Some((self.removed[user].take_if(is_due)?, USERS[user]))).collect();
        removed.sort_unstable();
        let first = removed.first().map(|(until, _)| *until);
        for (until, user) in removed {
            due.push((first.unwrap_or(until), until, CHANNELS[1], Fact::MemberRemoved(user.into())));
        }
        for (at, name) in CHANNELS.iter().enumerate() {
            if let Some(until) = self.vacated[at].take_if(is_due) {
                due.push((first.filter(|_| at == 1).unwrap_or(until), until, name, Fact::Vacated));
            }
        }
        due.sort_by_key(|(first, _, channel, _)| (*first, *channel));
        self.occurred.extend(due.into_iter().map(|(.., fact)| fact));
    }
}

fn run(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(App::default());
    let mut model = Model::default();
    for (number, op) in ops.into_iter().enumerate() {
        match op {
            Op::Join(connection, to, user) => {
                if bench
                    .listeners
                    .iter()
                    .any(|l| l.connection == connection && l.channel.as_str() == CHANNELS[to])
                {
                    continue;
                }
                let user = (to == 1).then_some(user);
                let joined =
                    bench.join(connection, CHANNELS[to], user.map(|user| USERS[user])).expect("room");
                let replayed = model.join(connection, to, user, bench.now);
                let expected = replayed.map(|number| match event(&channel(CHANNELS[to]), number) {
                    Event::Kept(event) => event.frame,
                    Event::Passing(frame) => frame,
                });
                prop_assert_eq!(joined.cached, (to == 2).then_some(expected));
                let users = joined.roster.map(|roster| roster.len()).unwrap_or_default();
                prop_assert_eq!(users, (0..3).filter(|user| to == 1 && model.tabs(*user) > 0).count());
            }
            Op::Leave(connection, from) => {
                prop_assert_eq!(
                    bench.leave(connection, CHANNELS[from]),
                    model.leave(connection, from, bench.now)
                );
            }
            Op::Publish(to) => {
                let census = bench.publish(CHANNELS[to], number);
                let frame = match event(&channel(CHANNELS[to]), number) {
                    Event::Kept(event) => event.frame,
                    Event::Passing(frame) => frame,
                };
                model.tell(to, &frame);
                if to == 2 {
                    model.cached = Some((number, bench.now + bench.app.cache_ttl()));
                    model.missed = None;
                }
                prop_assert_eq!(census.subscriptions, model.count(to) as u64);
            }
            Op::Watch(connection) => {
                prop_assert_eq!(bench.watch(connection), model.count(3) > 0);
                model.watchers.push((connection, vec![]));
            }
            Op::Wait(seconds) => {
                bench.wait(Duration::from_secs(seconds));
                model.wait(bench.now);
            }
        }
        compare(&bench, &model)?;
    }
    Ok(())
}

fn compare(bench: &Bench, model: &Model) -> Result<(), TestCaseError> {
    let frames = |bodies: &[Body]| -> Vec<Frame> {
        bodies
            .iter()
            .filter_map(|body| if let Body::Frame(frame) = body { Some(frame.clone()) } else { None })
            .collect()
    };
    let mut expected = model.listeners.iter();
    let mut watchers = model.watchers.iter();
    for listener in &bench.listeners {
        let heard = match listener.audience {
            Audience::Subscribers => expected.next().map(|expected| &expected.3),
            Audience::Watchers => watchers.next().map(|expected| &expected.1),
        };
        prop_assert_eq!(Some(&frames(&listener.heard)), heard, "{:?}", listener);
    }
    let occurred: Vec<&Fact> = bench.occurred.iter().map(|(_, fact)| fact).collect();
    prop_assert_eq!(occurred, model.occurred.iter().collect::<Vec<_>>());
    let mut occupied: Vec<&str> =
        bench.hub.occupied("1", "", bench.now).map(|(name, _)| name.as_str()).collect();
    occupied.sort_unstable();
    let mut channels: Vec<&str> = (0..3).filter(|at| model.count(*at) > 0).map(|at| CHANNELS[at]).collect();
    channels.sort_unstable();
    prop_assert_eq!(bench.hub.occupied_count("1"), channels.len());
    prop_assert_eq!(occupied, channels);
    for (at, name) in CHANNELS.iter().enumerate() {
        let census = bench.hub.census("1", &channel(name), bench.now);
        prop_assert_eq!(census.subscriptions, model.count(at) as u64);
    }
    let kept =
        usize::from(model.cached.is_some_and(|(_, until)| until > bench.now) || model.missed.is_some());
    prop_assert!(bench.hub.all().count() <= channels_in_use(model) + kept, "what is over is forgotten");
    Ok(())
}

fn channels_in_use(model: &Model) -> usize {
    let watched = |at: usize| at == 3 && !model.watchers.is_empty();
    let left =
        |at: usize| model.vacated[at].is_some() || (at == 1 && model.removed.iter().any(Option::is_some));
    (0..4).filter(|at| model.count(*at) > 0 || watched(*at) || left(*at)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn p38_under_random_commands_everybody_hears_what_a_plain_list_would_tell(ops in ops()) {
        run(ops)?;
    }
}
