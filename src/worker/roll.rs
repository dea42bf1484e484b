//! Who listens, on this worker, to one audience of one channel.

use std::collections::HashMap;
use std::rc::Rc;

use crate::app::AppId;
use crate::connection::Membership;
use crate::hub::{Audience, Position};
use crate::protocol::ChannelName;
use crate::worker::socket::Socket;

/// Names a roll.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Topic {
    pub(super) app: AppId,
    pub(super) channel: ChannelName,
    pub(super) audience: Audience,
}

/// All rolls of a worker; empty ones are not kept.
#[derive(Default)]
pub(super) struct Rolls(HashMap<Topic, Roll>);

/// The listeners, in no order.
///
/// While an event is being handed out, those before `cursor` have it and the others have not, whoever
/// leaves meanwhile. So handing out may pause and let others have the thread.
#[derive(Default)]
pub(super) struct Roll {
    epoch: u64,
    seats: Vec<Seat>,
    cursor: usize,
}

struct Seat {
    socket: Rc<Socket>,
    /// Where the socket's connection keeps this membership.
    membership: u32,
    /// What the channel had seen when it joined.
    joined: u64,
}

impl Rolls {
    pub(super) fn get_mut(&mut self, topic: &Topic) -> Option<&mut Roll> {
        self.0.get_mut(topic)
    }

    /// Everybody who listens, in no order.
    pub(super) fn listeners(&self, topic: &Topic) -> impl Iterator<Item = &Rc<Socket>> {
        self.0.get(topic).into_iter().flat_map(|roll| &roll.seats).map(|seat| &seat.socket)
    }

    /// A membership of a socket's connection begins.
    pub(super) fn join(
        &mut self,
        app: &AppId,
        socket: &Rc<Socket>,
        membership: Membership,
        position: Position,
    ) {
        if let Some(connection) = &mut *socket.connection.borrow_mut() {
            let topic = Topic::of(app, &membership);
            let at = connection.joined(membership);
            let seat = self.take_seat(topic, socket.clone(), at, position);
            connection.seated(at, seat);
        }
    }

    /// The membership at index `at` of a socket's connection ends.
    pub(super) fn leave(&mut self, app: &AppId, socket: &Rc<Socket>, at: usize) -> Option<Membership> {
        let (left, moved) = match &mut *socket.connection.borrow_mut() {
            Some(connection) => (connection.left(at), connection.memberships().get(at).cloned()),
            None => return None,
        };
        if let Some(moved) = moved {
            let roll = self.0.get_mut(&Topic::of(app, &moved));
            if let Some(seat) = roll.and_then(|roll| roll.seats.get_mut(moved.seat as usize)) {
                seat.membership = index(at);
            }
        }
        self.give_up_seat(&Topic::of(app, &left), left.seat);
        Some(left)
    }

    /// Adds a listener; returns its seat.
    fn take_seat(&mut self, topic: Topic, socket: Rc<Socket>, membership: usize, position: Position) -> u32 {
        let roll = self.0.entry(topic).or_default();
        if roll.seats.is_empty() {
            // What is under way from an earlier life of the channel is not for this one.
            roll.epoch = position.epoch;
        }
        roll.seats.push(Seat { socket, membership: index(membership), joined: position.seq });
        index(roll.seats.len() - 1)
    }

    /// Takes a listener away and tells those who move where they sit now.
    fn give_up_seat(&mut self, topic: &Topic, seat: u32) {
        let Some(roll) = self.0.get_mut(topic) else { return };
        let mut gap = seat as usize;
        if gap < roll.cursor {
            // The last of those who have the event fills the gap, so that the gap is among those who have not.
            roll.cursor -= 1;
            if gap < roll.cursor {
                roll.seats.swap(gap, roll.cursor);
                roll.reseat(gap);
                gap = roll.cursor;
            }
        }
        if gap < roll.seats.len() {
            roll.seats.swap_remove(gap);
            roll.reseat(gap);
        }
        if roll.seats.is_empty() {
            self.0.remove(topic);
            if self.0.capacity() > 64 && self.0.len() < self.0.capacity() / 8 {
                self.0.shrink_to(self.0.capacity() / 4);
            }
        } else if roll.seats.capacity() > 64 && roll.seats.len() < roll.seats.capacity() / 4 {
            roll.seats.shrink_to(roll.seats.len() * 2);
        }
    }
}

impl Topic {
    fn of(app: &AppId, membership: &Membership) -> Self {
        Self { app: app.clone(), channel: membership.channel.clone(), audience: membership.audience }
    }
}

/// No list of a worker has room for more than that.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

impl Roll {
    /// Whether a position belongs to this life of the channel.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.epoch == epoch
    }

    /// The next listener that has not got the event, and what the channel had seen when it joined.
    pub(super) fn next(&mut self) -> Option<(&Rc<Socket>, u64)> {
        let seat = self.seats.get(self.cursor)?;
        self.cursor += 1;
        Some((&seat.socket, seat.joined))
    }

    /// Everybody has the event: the next one begins anew.
    pub(super) fn end(&mut self) {
        self.cursor = 0;
    }

    fn reseat(&self, at: usize) {
        if let Some(seat) = self.seats.get(at) {
            seat.socket.seated(seat.membership as usize, index(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use actix_rt::net::TcpStream;
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::connection::Connection;
    use crate::protocol::SocketId;
    use crate::tls::Line;
    use crate::worker::socket::State;

    const CHANNELS: [&str; 3] = ["a", "b", "c"];

    /// Sockets of real connections. Must be called on a runtime.
    fn sockets(count: u128) -> Vec<Rc<Socket>> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let app = std::sync::Arc::new(Config::demo_app());
        let socket = |number| {
            let io =
                std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
            io.set_nonblocking(true).expect("nonblocking");
            let connection = Connection::new(app.clone(), SocketId::from_random(number), Instant::now());
            let io = TcpStream::from_std(io).expect("registered");
            let share = Rc::new(crate::metrics::Metrics::new().workers.share(0));
            let line = Line { io, session: None };
            Rc::new(Socket::new(line, Some(connection), None, State::Open, 0, share))
        };
        (0..count).map(socket).collect()
    }

    fn membership(channel: usize) -> Membership {
        let channel = ChannelName::parse(CHANNELS[channel], 164).expect("valid name");
        Membership { channel, audience: Audience::Subscribers, member: None, seat: 0 }
    }

    fn topic(channel: usize) -> Topic {
        Topic::of(&AppId::from("1"), &membership(channel))
    }

    /// Where the socket keeps its membership of a channel.
    fn place(socket: &Socket, channel: usize) -> Option<usize> {
        let connection = socket.connection.borrow();
        let memberships = connection.as_ref().expect("connected").memberships();
        memberships.iter().position(|each| each.channel.as_str() == CHANNELS[channel])
    }

    /// Every membership points to its seat and every seat to its membership.
    fn check(rolls: &Rolls, sockets: &[Rc<Socket>]) {
        let mut memberships = 0;
        for socket in sockets {
            let connection = socket.connection.borrow();
            for (at, each) in connection.as_ref().expect("connected").memberships().iter().enumerate() {
                let seat = &rolls.0[&Topic::of(&AppId::from("1"), each)].seats[each.seat as usize];
                assert!(Rc::ptr_eq(&seat.socket, socket));
                assert_eq!(seat.membership as usize, at);
                memberships += 1;
            }
        }
        assert_eq!(
            rolls.0.values().map(|roll| roll.seats.len()).sum::<usize>(),
            memberships,
            "nobody sits alone"
        );
    }

    #[derive(Clone, Debug)]
    enum Op {
        Toggle(usize, usize),
        /// Go on with handing out to channel 0: so many listeners.
        Serve(usize),
    }

    fn run(ops: Vec<Op>) {
        let app = AppId::from("1");
        let sockets = sockets(6);
        let mut rolls = Rolls::default();
        let mut served: Vec<*const Socket> = Vec::new();
        // Who is owed the event, and has not left since it began.
        let mut owed: Vec<*const Socket> = Vec::new();
        for op in ops {
            match op {
                Op::Toggle(socket, channel) => match place(&sockets[socket], channel) {
                    Some(at) => {
                        rolls.leave(&app, &sockets[socket], at);
                        if channel == 0 {
                            owed.retain(|other| *other != Rc::as_ptr(&sockets[socket]));
                        }
                    }
                    None => {
                        rolls.join(&app, &sockets[socket], membership(channel), Position { epoch: 1, seq: 9 })
                    }
                },
                Op::Serve(count) => {
                    let Some(roll) = rolls.get_mut(&topic(0)) else { continue };
                    if roll.cursor == 0 {
                        served.clear();
                        owed = roll.seats.iter().map(|seat| Rc::as_ptr(&seat.socket)).collect();
                    }
                    for _ in 0..count {
                        let Some((socket, _)) = roll.next() else {
                            assert!(
                                owed.iter().all(|socket| served.contains(socket)),
                                "somebody was passed over"
                            );
                            roll.end();
                            break;
                        };
                        assert!(!served.contains(&Rc::as_ptr(socket)), "somebody was served twice");
                        served.push(Rc::as_ptr(socket));
                    }
                }
            }
            served.retain(|socket| owed.contains(socket));
            check(&rolls, &sockets);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn p38_seats_hold_while_handing_out_pauses(
            ops in prop::collection::vec(
                prop_oneof![
                    3 => (0usize..6, 0usize..3).prop_map(|(socket, channel)| Op::Toggle(socket, channel)),
                    1 => (1usize..4).prop_map(Op::Serve),
                ],
                1..80,
            )
        ) {
            actix_rt::System::new().block_on(async { run(ops) });
        }
    }
}
