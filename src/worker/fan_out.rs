//! The mailbox loop: hands out what the hubs have posted to this worker.
//!
//! All that waits is taken at once. What comes in a row for the same listeners is joined into one piece of
//! bytes, so that each socket is written to once, not once per event: under load that is most of what an
//! event costs. Alone in the mailbox, an event goes out at once.
//!
//! After a number of writes the loop lets others have the thread; a roll keeps its place meanwhile.

use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::hub::{Body, ChannelFull, Delivery, Topic};
use crate::mirror::{Grant, Ticket};
use crate::node::{Letter, Mailbox};
use crate::protocol::{CloseReason, Frame, SocketId};
use crate::worker::Worker;
use crate::worker::socket::Socket;

/// Letters taken at a time.
const LETTERS: usize = 512;

/// Bytes joined into one piece, so that one slow client's limit still means something.
const JOINED_BYTES: usize = 64 * 1024;

/// Bytes put into outboxes before they are written, so that a burst alone makes nobody a slow reader.
const ROUND_BYTES: usize = 256 * 1024;

/// Sockets served before others get the thread: at a few microseconds each, about a millisecond.
const SERVED_IN_A_ROW: usize = 256;

/// Deliveries to the same listeners, without another in between.
struct Run {
    topic: Topic,
    epoch: u64,
    except: Option<SocketId>,
    /// When the first of its events was accepted, if there is one.
    accepted: Option<Instant>,
    /// Of all its frames.
    bytes: usize,
    content: Content,
}

enum Content {
    /// Frames with their numbers, in order; and all of them in one piece.
    Frames {
        frames: Vec<(u64, Bytes)>,
        joined: Bytes,
    },
    Disconnect {
        seq: u64,
        reason: CloseReason,
    },
}

pub(super) async fn run(worker: Rc<Worker>, mut mailbox: Mailbox<Letter>) {
    let mut letters = Vec::new();
    let mut hands = Hands { worker, touched: Vec::new(), unwritten: Vec::new(), served: 0 };
    while mailbox.take(&mut letters, LETTERS).await {
        let mut draining = None;
        let mut apps_changed = false;
        let mut questions = Vec::new();
        let mut grants = Vec::new();
        let deliveries = letters.drain(..).filter_map(|letter| match letter {
            Letter::Deliver(delivery, accepted) => Some((delivery, accepted)),
            Letter::Granted(ticket, grant) => {
                grants.push((ticket, grant));
                None
            }
            Letter::AppsChanged => {
                apps_changed = true;
                None
            }
            Letter::Drain(over) => {
                draining = Some(over);
                None
            }
            Letter::Ask(question) => {
                questions.push(question);
                None
            }
        });
        let runs = runs(deliveries);
        // First of all: what is behind their places is for them too. What is before is not, whoever hands it out when.
        hands.admit(grants).await;
        let alone = runs.len() == 1;
        let mut bytes = 0;
        for run in runs {
            bytes += run.bytes;
            hands.hand_out(run, alone).await;
            if bytes > ROUND_BYTES {
                bytes = 0;
                hands.flush().await;
            }
        }
        hands.flush().await;
        if apps_changed {
            hands.worker.follow_apps().await;
        }
        if let Some(over) = draining {
            hands.worker.drain(over);
        }
        for question in questions {
            hands.worker.answer(*question);
        }
    }
}

fn runs(deliveries: impl Iterator<Item = (Delivery, Option<Instant>)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (delivery, accepted) in deliveries {
        let Delivery { app, channel, audience, position, body, except } = delivery;
        let frame = match body {
            Body::Frame(frame) => frame,
            Body::SubscriptionCount(count) => Frame::subscription_count(&channel, count),
            Body::Disconnect(reason) => {
                let topic = Topic { app, channel, audience };
                let content = Content::Disconnect { seq: position.seq, reason };
                runs.push(Run { topic, epoch: position.epoch, except, accepted, bytes: 0, content });
                continue;
            }
        };
        let topic = Topic { app, channel, audience };
        let numbered = (position.seq, frame.wire().clone());
        let more = numbered.1.len();
        if let Some(Run { content: Content::Frames { frames, .. }, accepted: first, bytes, .. }) =
            runs.last_mut().filter(|run| run.goes_on_with(&topic, position.epoch, except, more))
        {
            frames.push(numbered);
            *first = first.or(accepted);
            *bytes += more;
            continue;
        }
        let content = Content::Frames { frames: vec![numbered], joined: Bytes::new() };
        runs.push(Run { topic, epoch: position.epoch, except, accepted, bytes: more, content });
    }
    for run in &mut runs {
        if let Content::Frames { frames, joined } = &mut run.content {
            *joined = join(frames);
        }
    }
    runs
}

impl Run {
    /// Whether a frame of `more` bytes may be joined to this run, if it is one of frames.
    fn goes_on_with(&self, topic: &Topic, epoch: u64, except: Option<SocketId>, more: usize) -> bool {
        self.bytes + more <= JOINED_BYTES
            && self.except == except
            && self.epoch == epoch
            && self.topic == *topic
    }
}

fn join(frames: &[(u64, Bytes)]) -> Bytes {
    if let [(_, only)] = frames {
        return only.clone();
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(|(_, frame)| frame.len()).sum());
    for (_, frame) in frames {
        joined.extend_from_slice(frame);
    }
    joined.freeze()
}

/// The loop's state over one round.
struct Hands {
    worker: Rc<Worker>,
    /// Sockets with frames of this round in their outbox.
    touched: Vec<Rc<Socket>>,
    /// When the events were accepted that are in those outboxes.
    unwritten: Vec<Instant>,
    /// Since others last had the thread.
    served: usize,
}

impl Hands {
    /// Answers those who waited for a place.
    async fn admit(&mut self, grants: Vec<(Ticket, Result<Grant, ChannelFull>)>) {
        for (ticket, grant) in grants {
            self.worker.granted(ticket, grant);
            self.served += 1;
            if self.served >= SERVED_IN_A_ROW {
                self.pause().await;
            }
        }
    }

    async fn hand_out(&mut self, run: Run, alone: bool) {
        while self.hand_out_some(&run, alone) {
            self.pause().await;
        }
        self.unwritten.extend(run.accepted);
    }

    /// Serves listeners until it is time to pause. Whether there may be more.
    fn hand_out_some(&mut self, run: &Run, alone: bool) -> bool {
        let worker = self.worker.clone();
        let mut to_close = Vec::new();
        let mut deliveries = 0;
        let mut rolls = worker.rolls.borrow_mut();
        let Some(roll) = rolls.get_mut(&run.topic).filter(|roll| roll.is_of(run.epoch)) else { return false };
        let more = loop {
            let Some((socket, joined)) = roll.next() else {
                roll.end();
                break false;
            };
            self.served += 1;
            if run.except.is_none_or(|except| !socket.is(except)) {
                match &run.content {
                    Content::Frames { frames, joined: all } => {
                        let given = self.give(socket, frames, all, joined, alone);
                        deliveries += given as u64;
                        if let Some(tally) = socket.tally() {
                            tally.ws_messages_sent.add(given);
                        }
                        if alone && worker.is_over_limit(socket) {
                            to_close.push((socket.clone(), CloseReason::SlowReader));
                        }
                    }
                    Content::Disconnect { seq, reason } if *seq > joined => {
                        to_close.push((socket.clone(), *reason))
                    }
                    Content::Disconnect { .. } => {}
                }
            }
            if self.served >= SERVED_IN_A_ROW {
                break true;
            }
        };
        drop(rolls);
        worker.share.deliveries.inc_by(deliveries);
        for (socket, reason) in to_close {
            worker.close(&socket, reason);
        }
        more
    }

    /// Gives one listener what it has not had: all of it, or what came after it joined. How many frames that is.
    fn give(
        &mut self,
        socket: &Rc<Socket>,
        frames: &[(u64, Bytes)],
        all: &Bytes,
        joined: u64,
        alone: bool,
    ) -> usize {
        let mut given = frames.len();
        if frames.first().is_some_and(|(seq, _)| *seq > joined) {
            if alone {
                socket.send(all);
                return given;
            }
            socket.push(all.clone());
        } else {
            let missed = frames.iter().filter(|(seq, _)| *seq > joined);
            given = missed.map(|(_, frame)| socket.push(frame.clone())).count();
            if given == 0 {
                return 0;
            }
        }
        if !socket.touched.replace(true) {
            self.touched.push(socket.clone());
        }
        given
    }

    /// Writes to each socket that got something in this round.
    async fn flush(&mut self) {
        for socket in std::mem::take(&mut self.touched) {
            socket.touched.set(false);
            socket.flush();
            self.worker.check_backlog(&socket);
            self.served += 1;
            if self.served >= SERVED_IN_A_ROW {
                self.pause().await;
            }
        }
        self.worker.share.written(self.unwritten.drain(..));
    }

    async fn pause(&mut self) {
        self.served = 0;
        tokio::task::yield_now().await;
    }
}
