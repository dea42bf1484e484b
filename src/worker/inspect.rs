//! Answers to questions about this worker's connections.
//!
//! A list is one walk over all sockets, or over the listeners of a channel, that keeps no more than the page asked
//! for. Nothing is cloned or encoded for the others, so that clients wait for it as little as for a fan-out.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::connection::{Connection, Membership};
use crate::hub::{Audience, Topic};
use crate::inspect::{Details, Page, Question, Summary};
use crate::protocol::{ChannelName, SocketId};
use crate::worker::Worker;
use crate::worker::socket::Socket;
use crate::worker::wheel::{TICK, Ticks};

impl Worker {
    /// Answers a question.
    pub(super) fn answer(self: &Rc<Self>, question: Question) {
        // Whoever asked may have gone: nobody misses the answer then.
        match question {
            Question::Count(reply) => drop(reply.send(self.wheel.borrow().len())),
            Question::List(page, reply) => drop(reply.send(self.page(&page))),
            Question::Show(id, reply) => {
                drop(reply.send(self.socket(id).and_then(|socket| self.details(&socket))));
            }
            Question::Close(id, reason, reply) => {
                let socket = self.socket(id);
                let app = socket.as_ref().and_then(|socket| {
                    socket.connection.borrow().as_ref().map(|connection| connection.app().id.clone())
                });
                if let Some(socket) = socket {
                    self.close(&socket, reason);
                }
                drop(reply.send(app));
            }
        }
    }

    fn socket(&self, id: SocketId) -> Option<Rc<Socket>> {
        self.wheel.borrow().iter().find(|socket| socket.is(id)).cloned()
    }

    fn page(&self, page: &Page) -> Vec<Summary> {
        let mut first: BTreeMap<SocketId, Rc<Socket>> = BTreeMap::new();
        let consider = |socket: &Rc<Socket>| {
            let connection = socket.connection.borrow();
            let Some(connection) = connection.as_ref() else { return };
            let id = connection.socket_id();
            let full = first.len() >= page.limit;
            let is_behind = full && first.last_key_value().is_some_and(|(last, _)| *last < id);
            let is_before = page.after.is_some_and(|after| id <= after);
            if is_behind || is_before || !page.filter.lets_through(connection) {
                return;
            }
            first.insert(id, socket.clone());
            if full {
                first.pop_last();
            }
        };
        match page.filter.channel() {
            Some((app, channel)) => {
                let (app, channel) = (app.clone(), channel.clone());
                let topic = Topic { app, channel, audience: Audience::Subscribers };
                self.rolls.borrow().listeners(&topic).for_each(consider);
            }
            None => self.wheel.borrow().iter().for_each(consider),
        }
        let summary = |socket: &Rc<Socket>| Some(self.summary(socket, socket.connection.borrow().as_ref()?));
        first.values().filter_map(summary).collect()
    }

    fn summary(&self, socket: &Socket, connection: &Connection) -> Summary {
        Summary {
            socket_id: connection.socket_id(),
            app: connection.app().id.clone(),
            user: connection.user_id().map(Into::into),
            worker: self.id,
            connected: self.since(socket.opened),
            subscriptions: connection.subscriptions(),
            outbox_bytes: socket.backlog().1,
        }
    }

    fn details(&self, socket: &Socket) -> Option<Box<Details>> {
        let connection = socket.connection.borrow();
        let connection = connection.as_ref()?;
        Some(Box::new(Details {
            summary: self.summary(socket, connection),
            remote_address: socket.address(),
            heard: self.since(socket.heard.get()),
            authorized: connection.is_authorized(),
            outbox_frames: socket.backlog().0,
            watching: connection.watched().len(),
            channels: channels(connection.memberships()),
        }))
    }

    fn since(&self, then: Ticks) -> Duration {
        TICK * self.now().saturating_sub(then)
    }
}

/// The first channels by name, and who the connection is in each.
fn channels(memberships: &[Membership]) -> Vec<(ChannelName, Option<Box<str>>)> {
    let is_channel =
        |each: &&Membership| each.audience == Audience::Subscribers && !each.channel.kind().is_user();
    let user_id = |each: &Membership| each.member.as_ref().map(|member| member.user_id.clone());
    let all = memberships.iter().filter(is_channel);
    let mut channels: Vec<_> = all.map(|each| (each.channel.clone(), user_id(each))).collect();
    channels.sort_unstable_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
    channels.truncate(Details::CHANNELS_MAX);
    channels
}
