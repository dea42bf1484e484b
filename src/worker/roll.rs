//! Who listens, on this worker, to one audience of one channel, and who waits to.

use std::collections::HashMap;
use std::rc::Rc;

use crate::app::AppId;
use crate::connection::{Membership, Standing};
use crate::hub::{Position, Topic, give_back};
use crate::mirror::Ticket;
use crate::protocol::ChannelName;
use crate::worker::socket::Socket;
use crate::worker::tickets::{Departed, Holder, Tickets};

/// All rolls of a worker; empty ones are not kept. And the tickets of those who wait for a seat.
#[derive(Default)]
pub(super) struct Rolls {
    rolls: HashMap<Topic, Roll>,
    tickets: Tickets,
}

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
        self.rolls.get_mut(topic)
    }

    /// Everybody who listens, in no order.
    pub(super) fn listeners(&self, topic: &Topic) -> impl Iterator<Item = &Rc<Socket>> {
        self.rolls.get(topic).into_iter().flat_map(|roll| &roll.seats).map(|seat| &seat.socket)
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
            let topic = topic_of(app, &membership);
            let at = connection.joined(membership);
            let seat = self.take_seat(topic, socket.clone(), at, position);
            connection.seated(at, seat);
        }
    }

    /// A number for a membership that may have to wait.
    pub(super) fn draw_ticket(&mut self) -> Ticket {
        self.tickets.draw()
    }

    /// A membership of a socket's connection waits for its seat.
    pub(super) fn ask(&mut self, socket: &Rc<Socket>, membership: Membership, ticket: Ticket) {
        if let Some(connection) = &mut *socket.connection.borrow_mut() {
            let at = connection.asked(Membership { standing: Standing::with(ticket), ..membership });
            self.tickets.wait(ticket, socket.clone(), index(at));
        }
    }

    /// The ticket has been answered, or never will be.
    pub(super) fn take_ticket(&mut self, ticket: Ticket) -> Option<Holder> {
        self.tickets.take(ticket)
    }

    /// How many tickets are out.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.tickets.len()
    }

    /// Nobody wants the place any more that the ticket will bring.
    pub(super) fn abandon_ticket(&mut self, ticket: Ticket, departed: Departed) {
        self.tickets.abandon(ticket, departed);
    }

    /// The membership at index `at`, which waited, begins. `name` is the channel's.
    pub(super) fn seat(
        &mut self,
        app: &AppId,
        socket: &Rc<Socket>,
        at: usize,
        name: &ChannelName,
        position: Position,
    ) {
        if let Some(connection) = &mut *socket.connection.borrow_mut() {
            connection.granted(at, name);
            let Some(membership) = connection.memberships().get(at) else { return };
            let seat = self.take_seat(topic_of(app, membership), socket.clone(), at, position);
            connection.seated(at, seat);
        }
    }

    /// The membership at index `at` is given only what comes after a later position than before.
    pub(super) fn listen_from(&mut self, app: &AppId, socket: &Rc<Socket>, at: usize, position: Position) {
        let connection = socket.connection.borrow();
        let Some(membership) = connection.as_ref().and_then(|connection| connection.memberships().get(at))
        else {
            return;
        };
        let roll = self.rolls.get_mut(&topic_of(app, membership));
        let seat = membership.standing.seat().map(|seat| seat as usize);
        if let Some(seat) = roll.zip(seat).and_then(|(roll, seat)| roll.seats.get_mut(seat)) {
            seat.joined = position.seq;
        }
    }

    /// The membership at index `at` of a socket's connection ends. If it waited, its ticket is still there.
    pub(super) fn leave(&mut self, app: &AppId, socket: &Rc<Socket>, at: usize) -> Option<Membership> {
        let (left, moved) = match &mut *socket.connection.borrow_mut() {
            Some(connection) => (connection.left(at), connection.memberships().get(at).cloned()),
            None => return None,
        };
        if let Some(moved) = moved {
            match moved.standing.ticket() {
                Some(ticket) => self.tickets.moved(ticket, index(at)),
                None => self.moved(&topic_of(app, &moved), moved.standing, at),
            }
        }
        if let Some(seat) = left.standing.seat() {
            self.give_up_seat(&topic_of(app, &left), seat);
        }
        Some(left)
    }

    /// A membership that has a seat has another index.
    fn moved(&mut self, topic: &Topic, standing: Standing, at: usize) {
        let roll = self.rolls.get_mut(topic);
        let seat = standing.seat().map(|seat| seat as usize);
        if let Some(seat) = roll.zip(seat).and_then(|(roll, seat)| roll.seats.get_mut(seat)) {
            seat.membership = index(at);
        }
    }

    /// Adds a listener; returns its seat.
    fn take_seat(&mut self, topic: Topic, socket: Rc<Socket>, membership: usize, position: Position) -> u32 {
        let roll = self.rolls.entry(topic).or_default();
        if roll.seats.is_empty() {
            // What is under way from an earlier life of the channel is not for this one.
            roll.epoch = position.epoch;
        }
        roll.seats.push(Seat { socket, membership: index(membership), joined: position.seq });
        index(roll.seats.len() - 1)
    }

    /// Takes a listener away and tells those who move where they sit now.
    fn give_up_seat(&mut self, topic: &Topic, seat: u32) {
        let Some(roll) = self.rolls.get_mut(topic) else { return };
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
            self.rolls.remove(topic);
            give_back(&mut self.rolls);
        } else if roll.seats.capacity() > 64 && roll.seats.len() < roll.seats.capacity() / 4 {
            roll.seats.shrink_to(roll.seats.len() * 2);
        }
    }
}

/// What a membership listens to.
pub(super) fn topic_of(app: &AppId, membership: &Membership) -> Topic {
    Topic { app: app.clone(), channel: membership.channel.clone(), audience: membership.audience }
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
    use crate::hub::Audience;
    use crate::protocol::{ChannelName, SocketId};
    use crate::tls::Line;
    use crate::worker::socket::State;

    const CHANNELS: [&str; 3] = ["a", "b", "c"];
    const POSITION: Position = Position { epoch: 1, seq: 9 };

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
        let (audience, standing) = (Audience::Subscribers, Standing::on(0));
        Membership { channel, audience, member: None, standing }
    }

    fn topic(channel: usize) -> Topic {
        topic_of(&AppId::from("1"), &membership(channel))
    }

    /// Where the socket keeps its membership of a channel.
    fn place(socket: &Socket, channel: usize) -> Option<usize> {
        let connection = socket.connection.borrow();
        let memberships = connection.as_ref().expect("connected").memberships();
        memberships.iter().position(|each| each.channel.as_str() == CHANNELS[channel])
    }

    /// Every membership points to its seat or ticket, and every seat and ticket to its membership.
    fn check(rolls: &Rolls, sockets: &[Rc<Socket>]) {
        let mut memberships = 0;
        for socket in sockets {
            let connection = socket.connection.borrow();
            for (at, each) in connection.as_ref().expect("connected").memberships().iter().enumerate() {
                let (holder, membership) = match (each.standing.seat(), each.standing.ticket()) {
                    (Some(seat), _) => {
                        let seat = &rolls.rolls[&topic_of(&AppId::from("1"), each)].seats[seat as usize];
                        (&seat.socket, seat.membership)
                    }
                    (None, ticket) => match rolls.tickets.get(ticket.expect("a seat or a ticket")) {
                        Some(Holder::Waits { socket, membership }) => (socket, *membership),
                        _ => panic!("a ticket of nobody"),
                    },
                };
                assert!(Rc::ptr_eq(holder, socket));
                assert_eq!(membership as usize, at);
                memberships += 1;
            }
        }
        let seats: usize = rolls.rolls.values().map(|roll| roll.seats.len()).sum();
        assert_eq!(seats + rolls.tickets.len(), memberships, "nobody sits alone");
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_there_is_hundreds_of_thousands_of_is_this_large() {
        use crate::node::Letter;

        let sizes = [size_of::<Membership>(), size_of::<Seat>(), size_of::<Connection>()];
        assert_eq!(sizes, [40, 24, 96]);
        assert_eq!(size_of::<Letter>(), 144);
        // A little less where the runtime does not watch over itself.
        assert!(size_of::<Socket>() <= 280);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Toggle(usize, usize),
        /// Leave, or ask for a seat.
        Ask(usize, usize),
        /// One that waits is given its seat.
        Answer(usize),
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
        let mut waiting: Vec<(Ticket, usize)> = Vec::new();
        for op in ops {
            match op {
                Op::Toggle(socket, channel) | Op::Ask(socket, channel) => {
                    match place(&sockets[socket], channel) {
                        Some(at) => {
                            let left = rolls.leave(&app, &sockets[socket], at).expect("connected");
                            if let Some(ticket) = left.standing.ticket() {
                                assert!(rolls.take_ticket(ticket).is_some());
                                waiting.retain(|(other, _)| *other != ticket);
                            }
                            if channel == 0 {
                                owed.retain(|other| *other != Rc::as_ptr(&sockets[socket]));
                            }
                        }
                        None if matches!(op, Op::Ask(..)) => {
                            let ticket = rolls.draw_ticket();
                            rolls.ask(&sockets[socket], membership(channel), ticket);
                            waiting.push((ticket, channel));
                        }
                        None => rolls.join(&app, &sockets[socket], membership(channel), POSITION),
                    }
                }
                Op::Answer(which) => {
                    if waiting.is_empty() {
                        continue;
                    }
                    let (ticket, channel) = waiting.swap_remove(which % waiting.len());
                    let Some(Holder::Waits { socket, membership: at }) = rolls.take_ticket(ticket) else {
                        panic!("somebody waits");
                    };
                    let name = membership(channel).channel;
                    rolls.seat(&app, &socket, at as usize, &name, POSITION);
                }
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
                    2 => (0usize..6, 0usize..3).prop_map(|(socket, channel)| Op::Ask(socket, channel)),
                    1 => (0usize..18).prop_map(Op::Answer),
                    1 => (1usize..4).prop_map(Op::Serve),
                ],
                1..80,
            )
        ) {
            actix_rt::System::new().block_on(async { run(ops) });
        }
    }
}
