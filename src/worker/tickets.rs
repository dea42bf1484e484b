//! Who has asked for a place and waits: only in a cluster, where answers take their time.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::app::App;
use crate::connection::{Membership, Standing};
use crate::hub::give_back;
use crate::mirror::Ticket;
use crate::worker::socket::Socket;

/// The tickets that have not been answered. A number is free again when its answer has come.
#[derive(Default)]
pub(super) struct Tickets {
    holders: HashMap<u32, Holder>,
    last: u32,
}

/// Whose ticket it is.
pub(super) enum Holder {
    /// The socket whose connection has the membership, and where.
    Waits { socket: Rc<Socket>, membership: u32 },
    /// Nobody's any more: the place is to be given back when it comes.
    Gone(Box<Departed>),
}

/// A membership that ended before it began. Its socket need not be there any more.
pub(super) struct Departed {
    pub(super) app: Arc<App>,
    pub(super) membership: Membership,
}

impl Tickets {
    /// A number that nobody waits with.
    pub(super) fn draw(&mut self) -> Ticket {
        loop {
            self.last = if self.last >= Standing::TICKET_MAX { 0 } else { self.last + 1 };
            if !self.holders.contains_key(&self.last) {
                return Ticket(self.last);
            }
        }
    }

    /// A membership waits.
    pub(super) fn wait(&mut self, ticket: Ticket, socket: Rc<Socket>, membership: u32) {
        self.holders.insert(ticket.0, Holder::Waits { socket, membership });
    }

    /// A membership that waits has another index.
    pub(super) fn moved(&mut self, ticket: Ticket, to: u32) {
        if let Some(Holder::Waits { membership, .. }) = self.holders.get_mut(&ticket.0) {
            *membership = to;
        }
    }

    /// Nobody wants the place any more that will be granted. The socket is let go.
    pub(super) fn abandon(&mut self, ticket: Ticket, departed: Departed) {
        self.holders.insert(ticket.0, Holder::Gone(Box::new(departed)));
    }

    /// The ticket has been answered, or never will be.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Holder> {
        let holder = self.holders.remove(&ticket.0);
        give_back(&mut self.holders);
        holder
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    #[cfg(test)]
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Holder> {
        self.holders.get(&ticket.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::Audience;
    use crate::protocol::ChannelName;

    fn departed() -> Departed {
        let channel = ChannelName::parse("a", 164).expect("valid name");
        let (audience, standing) = (Audience::Subscribers, Standing::on(0));
        let membership = Membership { channel, audience, member: None, standing };
        Departed { app: Arc::new(Config::demo_app()), membership }
    }

    #[test]
    fn numbers_begin_anew_and_pass_over_those_that_wait() {
        let mut tickets = Tickets::default();
        let first = tickets.draw();
        tickets.abandon(first, departed());
        tickets.last = Standing::TICKET_MAX - 1;
        let around = [tickets.draw(), tickets.draw(), tickets.draw()];
        assert_eq!(around, [Ticket(Standing::TICKET_MAX), Ticket(0), Ticket(2)], "1 still waits");
        assert!(tickets.take(first).is_some() && tickets.take(first).is_none());
        tickets.last = 0;
        assert_eq!(tickets.draw(), first);
    }
}
