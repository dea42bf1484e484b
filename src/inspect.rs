//! What may be asked about the connections of a worker, and the answers.
//!
//! A question is a letter like any other: it waits its turn in the worker's mailbox, and the answer comes back
//! through the channel it carries. An answer is as long as was asked for, however many connections there are.
//!
//! Not here: who asks (`admin`), how it is found out (`worker`).

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::app::AppId;
use crate::connection::Connection;
use crate::hub::WorkerId;
use crate::protocol::{ChannelName, CloseReason, SocketId};

/// A question to one worker.
#[derive(Debug)]
pub enum Question {
    /// How many sockets it has, with those that are just closing.
    Count(oneshot::Sender<usize>),
    /// Some of its connections, in the order of their ids.
    List(Page, oneshot::Sender<Vec<Summary>>),
    /// Everything about one connection; none if it is not this worker's.
    Show(SocketId, oneshot::Sender<Option<Box<Details>>>),
    /// End one connection; answers whose it was, none if it is not this worker's.
    Close(SocketId, CloseReason, oneshot::Sender<Option<AppId>>),
}

/// Which connections, and how many.
#[derive(Clone, Debug)]
pub struct Page {
    /// Which.
    pub filter: Filter,
    /// Only those behind this id.
    pub after: Option<SocketId>,
    /// At most so many.
    pub limit: usize,
}

/// Which connections.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All of them.
    All,
    /// Those of an app.
    App(AppId),
    /// Those of an app that are subscribed to a channel, or signed in as the user whose channel it is.
    Channel(AppId, ChannelName),
    /// Those of an app that are subscribed to a channel and signed in as a user.
    ChannelAndUser(AppId, ChannelName, String),
}

impl Filter {
    /// Whether a connection is meant. Whether it is subscribed to the channel is not looked at.
    pub fn lets_through(&self, connection: &Connection) -> bool {
        match self {
            Self::All => true,
            Self::App(app) | Self::Channel(app, _) => connection.app().id == *app,
            Self::ChannelAndUser(app, _, user) => {
                connection.app().id == *app && connection.user_id() == Some(user)
            }
        }
    }

    /// The app and channel whose subscribers alone are meant.
    pub fn channel(&self) -> Option<(&AppId, &ChannelName)> {
        match self {
            Self::All | Self::App(_) => None,
            Self::Channel(app, channel) | Self::ChannelAndUser(app, channel, _) => Some((app, channel)),
        }
    }
}

/// A connection in a list.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub socket_id: SocketId,
    /// Its app.
    pub app: AppId,
    /// Who it is signed in as.
    pub user: Option<Box<str>>,
    /// Who serves it.
    pub worker: WorkerId,
    /// For how long it has been open.
    pub connected: Duration,
    /// Channels it is subscribed to.
    pub subscriptions: usize,
    /// Bytes that wait for it to read.
    pub outbox_bytes: usize,
}

/// Everything about a connection.
#[derive(Clone, Debug)]
pub struct Details {
    /// What a list tells.
    pub summary: Summary,
    /// Where its client connects from.
    pub remote_address: Option<IpAddr>,
    /// How long ago it was heard.
    pub heard: Duration,
    /// It has signed in or subscribed with authorization.
    pub authorized: bool,
    /// Frames that wait for it to read.
    pub outbox_frames: usize,
    /// Users it watches.
    pub watching: usize,
    /// Its channels by name, up to [`Details::CHANNELS_MAX`], and who it is in each presence channel.
    pub channels: Vec<(ChannelName, Option<Box<str>>)>,
}

impl Details {
    /// Most channels that are told: a client may have as many as it likes.
    pub const CHANNELS_MAX: usize = 1000;
}
