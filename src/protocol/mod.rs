//! Names and words of the Pusher Channels protocol, and the bytes they travel in.
//!
//! Text becomes types here, once, and types become bytes. Everything is a pure function of its input:
//! no sockets, clocks, randomness or locks.
//!
//! Not here: who may say what (`connection`), who is subscribed (`hub`), limits of an app (`app`).

mod auth;
mod channel;
mod client_message;
mod errors;
mod frame;
mod json;
mod member;
mod request_signature;
mod socket_id;
pub mod websocket;

pub use auth::{InvalidToken, Secret, Token};
pub use channel::{ChannelKind, ChannelName, InvalidChannelName, is_user_id};
pub use client_message::{ClientMessage, SignIn, Subscribe};
pub use errors::{ClientError, CloseReason, ErrorKind};
pub use frame::{CachedEvent, Frame};
pub use json::{cut, data_literal, is_longer, object, one_line, string};
pub use member::{Member, Roster, UserData};
pub use request_signature::{Query, QueryError, SignedRequest, WrongSignature};
pub use socket_id::{InvalidSocketId, SocketId};
