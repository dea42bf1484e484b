//! Channels and who is in them. What a command leads to is built and dropped, not carried out.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::app::App;
use fanfare::hub::{Effect, Event, Hub, Publish, Subscription, WorkerId};
use fanfare::protocol::{ChannelName, Frame, Member};

use super::{EVENT, Piece, app, channel, counted_operation, data_literal};

pub(super) const PIECES: &[Piece] = &[
    Piece {
        name: "hub-publish-1000",
        about: "An event is published to a channel of 1,000 subscribers on 4 workers",
        times: 2000,
        run: publish,
    },
    Piece {
        name: "hub-subscribe-unsubscribe",
        about: "A connection joins a public channel of 1,000 subscribers and leaves it",
        times: 2000,
        run: subscribe_unsubscribe,
    },
    Piece {
        name: "hub-subscribe-first-last",
        about: "A connection joins a public channel that nobody else is in, and leaves it",
        times: 2048,
        run: subscribe_first_last,
    },
    Piece {
        name: "hub-join-leave-presence",
        about: "A user joins a presence channel of 1,000 users on 4 workers and leaves it",
        times: 2048,
        run: join_leave_presence,
    },
];

const WORKERS: u16 = 4;

/// Other channels beside one that comes and goes, so that the app stays; far from where their map would grow.
const NEIGHBOURS: usize = 64;

/// How many channels or users take turns where there are others to be mistaken for.
const TURNS: usize = 512;

fn publish(times: u32) {
    let channel = channel("orders");
    let mut bench = Bench::with_listeners(&channel);
    let frame = Frame::event(&channel, EVENT, &data_literal(100));
    for _ in 0..times {
        counted_operation(|| bench.publish(black_box(&channel), frame.clone()));
    }
}

fn subscribe_unsubscribe(times: u32) {
    let channel = channel("orders");
    let mut bench = Bench::with_listeners(&channel);
    for _ in 0..times {
        counted_operation(|| {
            bench.join(black_box(&channel), 0, None);
            bench.leave(black_box(&channel), 0, None);
        });
    }
}

fn subscribe_first_last(times: u32) {
    let mut bench = Bench::new();
    for number in 0..NEIGHBOURS {
        bench.join(&channel(&format!("private-orders-{number}")), number, None);
    }
    let channels: Vec<_> = (0..TURNS).map(|number| channel(&format!("orders-{number:04}"))).collect();
    for (_, channel) in (0..times).zip(channels.iter().cycle()) {
        counted_operation(|| {
            bench.join(black_box(channel), 0, None);
            bench.leave(black_box(channel), 0, None);
        });
    }
}

fn join_leave_presence(times: u32) {
    let channel = channel("presence-orders-1234");
    let mut bench = Bench::with_listeners(&channel);
    let guest = |number| {
        let member = member(1000 + number);
        let added = Frame::member_added(&channel, &member);
        (added, Frame::member_removed(&channel, &member.user_id), member)
    };
    let guests: Vec<_> = (0..TURNS).map(guest).collect();
    for (_, (added, removed, member)) in (0..times).zip(guests.iter().cycle()) {
        counted_operation(|| {
            bench.join(black_box(&channel), 0, Some((member, added)));
            bench.leave(black_box(&channel), 0, Some((member, removed)));
        });
    }
}

fn member(number: usize) -> Arc<Member> {
    let user_info = format!(r#"{{"name":"User {number:04}"}}"#).into();
    Arc::new(Member { user_id: format!("user-{number:04}").into(), user_info })
}

/// Who a connection is in a presence channel, and what the others are told of it.
type Introduction<'a> = Option<(&'a Arc<Member>, &'a Frame)>;

/// A hub with channels of one app.
struct Bench {
    app: App,
    hub: Hub,
    effects: Vec<Effect>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            app: app(),
            hub: Hub::new(7, Duration::from_secs(3)),
            effects: Vec::new(),
            now: Instant::now(),
        }
    }

    /// A bench in whose channel there are 1,000, spread over all workers.
    fn with_listeners(channel: &ChannelName) -> Self {
        let mut bench = Self::new();
        for number in 0..1000 {
            let member = member(number);
            let notice = Frame::member_added(channel, &member);
            let introduction = channel.kind().is_presence().then_some((&member, &notice));
            bench.join(channel, number, introduction);
        }
        bench
    }

    fn join(&mut self, channel: &ChannelName, number: usize, introduction: Introduction<'_>) {
        let new = subscription(&self.app, channel, number, introduction, self.now);
        let joined = self.hub.subscribe(new, &mut self.effects);
        assert!(black_box(joined).is_ok());
        black_box(&mut self.effects).clear();
    }

    fn leave(&mut self, channel: &ChannelName, number: usize, introduction: Introduction<'_>) {
        let old = subscription(&self.app, channel, number, introduction, self.now);
        self.hub.unsubscribe(old, &mut self.effects);
        black_box(&mut self.effects).clear();
    }

    fn publish(&mut self, channel: &ChannelName, frame: Frame) {
        let (app, now) = (&self.app, self.now);
        let new = Publish { app, channel, event: Event::Passing(frame), except: None, told: None, now };
        black_box(self.hub.publish(new, &mut self.effects));
        assert_eq!(self.effects.len(), usize::from(WORKERS));
        black_box(&mut self.effects).clear();
    }
}

fn subscription<'a>(
    app: &'a App,
    channel: &'a ChannelName,
    number: usize,
    introduction: Introduction<'a>,
    now: Instant,
) -> Subscription<'a> {
    let worker = WorkerId(u16::try_from(number).unwrap_or_default() % WORKERS);
    let (member, notice) = introduction.unzip();
    Subscription { app, channel, worker, member, notice: notice.cloned(), now }
}
