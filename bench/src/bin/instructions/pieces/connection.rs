//! What one client says, judged.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::connection::{Connection, Membership, Request, Standing};
use fanfare::hub::Audience;

use super::{
    PRIVATE_CHANNEL, Piece, app, channel, client_event_text, counted_operation, socket_id, subscribe_text,
};

pub(super) const PIECES: &[Piece] = &[
    Piece {
        name: "channel-token",
        about: "A subscribe to a private channel is read and its token verified",
        times: 1000,
        run: channel_token,
    },
    Piece {
        name: "client-event",
        about: "A client event with 100 bytes of data is read, allowed and becomes a frame",
        times: 1000,
        run: client_event,
    },
];

fn channel_token(times: u32) {
    let (text, now) = (subscribe_text(), Instant::now());
    let mut connection = Connection::new(Arc::new(app()), socket_id(), now);
    for _ in 0..times {
        counted_operation(|| {
            let judged = connection.hear(black_box(&text), now);
            assert!(matches!(judged, Ok(Request::Subscribe { .. })));
            judged
        });
    }
}

fn client_event(times: u32) {
    let (text, mut now) = (client_event_text(), Instant::now());
    let mut connection = Connection::new(Arc::new(app()), socket_id(), now);
    let audience = Audience::Subscribers;
    connection.joined(Membership {
        channel: channel(PRIVATE_CHANNEL),
        audience,
        member: None,
        standing: Standing::on(0),
    });
    for _ in 0..times {
        now += Duration::from_millis(100); // ten a second are allowed
        counted_operation(|| {
            let judged = connection.hear(black_box(&text), now);
            assert!(matches!(judged, Ok(Request::Publish { .. })));
            judged
        });
    }
}
