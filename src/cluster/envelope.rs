//! Messages on the bus and in the log, as bytes.
//!
//! A head that the script writes: version (1 byte), kind (1 byte), epoch and number (8 bytes each, big endian). Then the
//! tail, which is the publisher's: the excluded connection (16 bytes, zeros for none), and what the kind needs.
//!
//! Some kinds are made by the script itself (`scripts/step.lua`): changes here are changes there.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use thiserror::Error;

use crate::hub::{Audience, Topic};
use crate::mirror::{Arrival, Message, Place};
use crate::protocol::{CachedEvent, CloseReason, Frame, Member, SocketId};

/// The layout that this node writes and reads.
pub const VERSION: u8 = 1;

/// What follows the excluded connection, by kind.
mod kind {
    /// The frame.
    pub(super) const EVENT: u8 = 1;
    /// How long it is kept (ms, 8 bytes), how long its data is (4 bytes), the frame.
    pub(super) const KEPT: u8 = 2;
    /// Length of the user's id (2 bytes), the id, its info.
    pub(super) const MEMBER_ADDED: u8 = 3;
    /// The user's id.
    pub(super) const MEMBER_REMOVED: u8 = 4;
    /// Subscriptions (8 bytes).
    pub(super) const COUNT: u8 = 5;
    /// Nothing.
    pub(super) const ONLINE: u8 = 6;
    /// Nothing.
    pub(super) const OFFLINE: u8 = 7;
    /// The place in `REASONS` (1 byte).
    pub(super) const DISCONNECT: u8 = 8;
}

/// Never put in another order: nodes of several versions may speak with each other.
const REASONS: [CloseReason; 19] = [
    CloseReason::TlsOnly,
    CloseReason::UnknownApp,
    CloseReason::AppDisabled,
    CloseReason::OverQuota,
    CloseReason::UnknownPath,
    CloseReason::InvalidVersion,
    CloseReason::UnsupportedVersion,
    CloseReason::MissingVersion,
    CloseReason::NotAuthorizedInTime,
    CloseReason::Terminated,
    CloseReason::OriginNotAllowed,
    CloseReason::OverCapacity,
    CloseReason::StoreAway,
    CloseReason::AddressConnections,
    CloseReason::AddressHandshakes,
    CloseReason::SlowReader,
    CloseReason::ShuttingDown,
    CloseReason::ToReconnect,
    CloseReason::PongMissing,
];

/// Bytes that are not a message to this node.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Unreadable {
    /// Of a node with another version of Fanfare.
    #[error("version {0} of the envelope, which this node does not know")]
    Version(u8),
    /// Cut short, of a kind that does not exist, or not for such a topic.
    #[error("not an envelope")]
    Malformed,
}

/// The kind and the tail of a message.
pub fn encode(message: &Message, except: Option<SocketId>) -> (u8, Vec<u8>) {
    let mut tail = Vec::with_capacity(16 + 12 + message.weight());
    tail.extend_from_slice(&except.map_or([0; 16], SocketId::to_bytes));
    let kind = match message {
        Message::Event(frame) => {
            tail.extend_from_slice(frame.wire());
            kind::EVENT
        }
        Message::Kept(event, ttl) => {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let data_len = u32::try_from(event.data.len()).unwrap_or_default();
            tail.extend_from_slice(&ttl_ms.to_be_bytes());
            tail.extend_from_slice(&data_len.to_be_bytes());
            tail.extend_from_slice(event.frame.wire());
            kind::KEPT
        }
        Message::MemberAdded(member) => {
            let id_len = u16::try_from(member.user_id.len()).unwrap_or_default();
            tail.extend_from_slice(&id_len.to_be_bytes());
            tail.extend_from_slice(member.user_id.as_bytes());
            tail.extend_from_slice(member.user_info.as_bytes());
            kind::MEMBER_ADDED
        }
        Message::MemberRemoved(user_id) => {
            tail.extend_from_slice(user_id.as_bytes());
            kind::MEMBER_REMOVED
        }
        Message::Count(count) => {
            tail.extend_from_slice(&count.to_be_bytes());
            kind::COUNT
        }
        Message::Online => kind::ONLINE,
        Message::Offline => kind::OFFLINE,
        Message::Disconnect(reason) => {
            let at = REASONS.iter().position(|known| known == reason).unwrap_or_default();
            tail.push(u8::try_from(at).unwrap_or_default());
            kind::DISCONNECT
        }
    };
    (kind, tail)
}

/// A message of a topic.
///
/// # Errors
/// When another version wrote it, or nobody.
pub fn decode(topic: &Topic, bytes: &Bytes) -> Result<Arrival, Unreadable> {
    let mut rest = bytes.clone();
    let kind = kind_of(&mut rest)?;
    let place = Place { epoch: number(&mut rest)?, seq: number(&mut rest)? };
    let except = take(&mut rest, 16)?;
    let message = message(kind, rest)?;
    let fits = match &message {
        Message::Online | Message::Offline => topic.audience == Audience::Watchers,
        Message::MemberAdded(_) | Message::MemberRemoved(_) => topic.channel.kind().is_presence(),
        _ => topic.audience == Audience::Subscribers,
    };
    if !fits {
        return Err(Unreadable::Malformed);
    }
    let except = <[u8; 16]>::try_from(&except[..]).ok().filter(|except| *except != [0; 16]);
    Ok(Arrival { place, message, except: except.map(SocketId::from_bytes) })
}

/// The event in version, kind and tail of a kept one, as a cache channel has it.
///
/// # Errors
/// As for [`decode`].
pub(super) fn decode_kept(bytes: Bytes) -> Result<CachedEvent, Unreadable> {
    let mut rest = bytes;
    let kind = kind_of(&mut rest)?;
    take(&mut rest, 16)?;
    match message(kind, rest)? {
        Message::Kept(event, _) => Ok(event),
        _ => Err(Unreadable::Malformed),
    }
}

fn kind_of(rest: &mut Bytes) -> Result<u8, Unreadable> {
    match *take(rest, 2)? {
        [VERSION, kind] => Ok(kind),
        [version, _] => Err(Unreadable::Version(version)),
        _ => Err(Unreadable::Malformed),
    }
}

/// What the kind says that the rest is.
fn message(kind: u8, mut rest: Bytes) -> Result<Message, Unreadable> {
    let message = match kind {
        kind::EVENT => Message::Event(Frame::from_wire(rest).ok_or(Unreadable::Malformed)?),
        kind::KEPT => {
            let ttl = Duration::from_millis(number(&mut rest)?);
            let data_len = take(&mut rest, 4)?.get_u32();
            let data_len = usize::try_from(data_len).map_err(|_| Unreadable::Malformed)?;
            Message::Kept(CachedEvent::from_wire(rest, data_len).ok_or(Unreadable::Malformed)?, ttl)
        }
        kind::MEMBER_ADDED => {
            let id_len = usize::from(take(&mut rest, 2)?.get_u16());
            let user_id = text(&take(&mut rest, id_len)?)?;
            Message::MemberAdded(Arc::new(Member { user_id, user_info: text(&rest)? }))
        }
        kind::MEMBER_REMOVED => Message::MemberRemoved(text(&rest)?),
        kind::COUNT => Message::Count(number(&mut rest)?),
        kind::ONLINE => Message::Online,
        kind::OFFLINE => Message::Offline,
        kind::DISCONNECT => {
            let reason = REASONS.get(usize::from(take(&mut rest, 1)?.get_u8()));
            Message::Disconnect(*reason.ok_or(Unreadable::Malformed)?)
        }
        _ => return Err(Unreadable::Malformed),
    };
    Ok(message)
}

/// The next bytes, shared with those they come from.
fn take(rest: &mut Bytes, len: usize) -> Result<Bytes, Unreadable> {
    if rest.len() < len { Err(Unreadable::Malformed) } else { Ok(rest.split_to(len)) }
}

fn number(rest: &mut Bytes) -> Result<u64, Unreadable> {
    Ok(take(rest, 8)?.get_u64())
}

fn text(bytes: &[u8]) -> Result<Box<str>, Unreadable> {
    std::str::from_utf8(bytes).map(Box::from).map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ChannelName;

    fn topic(channel: &str, audience: Audience) -> Topic {
        Topic { app: "1".into(), channel: ChannelName::parse(channel, 164).expect("a name"), audience }
    }

    /// A topic that may have such a message.
    fn topic_of(message: &Message) -> Topic {
        match message {
            Message::Online | Message::Offline => topic("#server-to-user-ann", Audience::Watchers),
            _ => topic("presence-cache-a", Audience::Subscribers),
        }
    }

    /// The whole, as the script makes it.
    fn envelope(message: &Message, except: Option<SocketId>, place: Place) -> Bytes {
        let (kind, tail) = encode(message, except);
        [&[VERSION, kind][..], &place.epoch.to_be_bytes(), &place.seq.to_be_bytes(), &tail].concat().into()
    }

    fn messages() -> impl Strategy<Value = Message> {
        let channel = topic("presence-cache-a", Audience::Subscribers).channel;
        let channel_too = channel.clone();
        let ttl = (0u64..1 << 40).prop_map(Duration::from_millis);
        prop_oneof![
            "[a-z]{0,300}".prop_map(move |data| Message::Event(Frame::event(&channel, "\"e\"", &data))),
            ("[a-z]{0,300}", ttl).prop_map(move |(data, ttl)| {
                Message::Kept(CachedEvent::new(&channel_too, "\"e\"", &format!("\"{data}\"")), ttl)
            }),
            ("\\PC{1,128}", "\\PC{0,64}").prop_map(|(id, info)| {
                Message::MemberAdded(Arc::new(Member { user_id: id.into(), user_info: info.into() }))
            }),
            "\\PC{1,128}".prop_map(|id| Message::MemberRemoved(id.into())),
            any::<u64>().prop_map(Message::Count),
            Just(Message::Online),
            Just(Message::Offline),
            prop::sample::select(REASONS.to_vec()).prop_map(Message::Disconnect),
        ]
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_after_the_journey(
            message in messages(),
            except in any::<Option<u128>>(),
            epoch: u64,
            seq: u64,
        ) {
            let except = except.map(|random| SocketId::from_random(random | 1));
            let place = Place { epoch, seq };
            let bytes = envelope(&message, except, place);
            let arrival = decode(&topic_of(&message), &bytes).expect("readable");
            prop_assert_eq!(arrival, Arrival { place, message, except });
        }

        #[test]
        fn what_is_cut_or_foreign_is_refused(message in messages(), at in any::<prop::sample::Index>(), version: u8) {
            let bytes = envelope(&message, None, Place::default());
            let cut = at.index(bytes.len());
            let topic = topic_of(&message);
            // Texts have no end of their own; nothing travels in pieces, so nothing is cut within them.
            let has_end = !matches!(message, Message::MemberAdded(_) | Message::MemberRemoved(_));
            if has_end || cut < 34 {
                prop_assert_eq!(decode(&topic, &bytes.slice(..cut)), Err(Unreadable::Malformed));
            } else {
                // Not beyond what is there.
                let _ = decode(&topic, &bytes.slice(..cut));
            }
            let mut foreign = bytes.to_vec();
            foreign[0] = version;
            let read = decode(&topic, &foreign.into());
            prop_assert_eq!(read.err(), (version != VERSION).then_some(Unreadable::Version(version)));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut ours = vec![VERSION, bytes.first().copied().unwrap_or_default() % 10];
            ours.extend_from_slice(&bytes);
            let _ = decode(&topic("presence-a", Audience::Subscribers), &ours.into());
        }
    }

    #[test]
    fn every_reason_has_a_number() {
        for reason in REASONS {
            // A new one that is missing here belongs to the end of `REASONS`, too.
            match reason {
                CloseReason::TlsOnly
                | CloseReason::UnknownApp
                | CloseReason::AppDisabled
                | CloseReason::OverQuota
                | CloseReason::UnknownPath
                | CloseReason::InvalidVersion
                | CloseReason::UnsupportedVersion
                | CloseReason::MissingVersion
                | CloseReason::NotAuthorizedInTime
                | CloseReason::Terminated
                | CloseReason::OriginNotAllowed
                | CloseReason::OverCapacity
                | CloseReason::StoreAway
                | CloseReason::AddressConnections
                | CloseReason::AddressHandshakes
                | CloseReason::SlowReader
                | CloseReason::ShuttingDown
                | CloseReason::ToReconnect
                | CloseReason::PongMissing => {}
            }
        }
    }

    #[test]
    fn frames_are_not_copied() {
        let channel = topic("cache-a", Audience::Subscribers);
        let event = CachedEvent::new(&channel.channel, "\"e\"", "\"data\"");
        let bytes = envelope(&Message::Kept(event, Duration::ZERO), None, Place::default());
        let Message::Kept(event, _) = decode(&channel, &bytes).expect("readable").message else {
            panic!("kept")
        };
        let whole = bytes.as_ptr_range();
        for part in [event.frame.wire(), &event.data] {
            assert!(whole.contains(&part.as_ptr()));
        }
        assert_eq!(&event.data[..], b"\"data\"");
    }

    #[test]
    fn a_message_that_does_not_fit_its_topic_is_refused() {
        let member = Arc::new(Member { user_id: "ann".into(), user_info: "{}".into() });
        for (message, channel, audience) in [
            (Message::MemberAdded(member), "news", Audience::Subscribers),
            (Message::MemberRemoved("ann".into()), "news", Audience::Subscribers),
            (Message::Online, "#server-to-user-ann", Audience::Subscribers),
            (Message::Count(1), "#server-to-user-ann", Audience::Watchers),
        ] {
            let bytes = envelope(&message, None, Place::default());
            assert_eq!(decode(&topic(channel, audience), &bytes), Err(Unreadable::Malformed), "{message:?}");
        }
    }
}
