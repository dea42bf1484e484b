//! What happens on channels becomes signed requests to the backends of apps.
//!
//! ```text
//! hubs ─ Occurrence ─▶ courier ─▶ queue ─▶ receiver (one for each endpoint) ─ Attempt ─▶ post
//!                                   │            lanes: whose turn it is on a channel
//!                                   └─▶ dead letters ◀─ Question ─ admin API
//! ```
//!
//! [`start`] begins the *courier*, a task that owns everything below: a pure `queue`, driven with values and times, and
//! the requests under way, which are made on a thread of their own. Nobody waits for it: what is too much for the node's
//! outlet or for the queue is dropped and counted.
//!
//! Invariants: first attempts are made in the order of each channel, and requests of one channel never overlap; a
//! delivery is the same, byte for byte, in all its attempts; one endpoint's failures cost no other endpoint anything.
//!
//! Not here: what happened and whether it counts, debounced leaves among it (`hub`); who asks for dead letters.

mod address;
mod body;
mod courier;
mod dead_letters;
mod delivery;
mod lanes;
mod post;
mod queue;
mod receiver;
mod state;
mod strangers;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Sender, UnboundedSender, channel, unbounded_channel};
use tokio::sync::oneshot;

use crate::app::AppId;
use crate::control::vital;
use crate::node::Node;
use crate::webhook::courier::Courier;

pub use crate::webhook::state::StateError;

/// A request that could not be delivered in its time.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Names it, also to the receiver (`X-Fanfare-Delivery`).
    pub id: String,
    /// The app.
    pub app: AppId,
    /// The receiver; credentials and query are masked.
    pub url: String,
    /// The body that was to be posted.
    pub body: String,
    /// When the events happened, in milliseconds since 1970.
    pub time_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last attempt came to.
    pub error: String,
}

/// Which dead letters.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// Those of one app.
    App(AppId),
    /// The one with this id.
    Id(String),
}

/// A question to whoever delivers webhooks.
#[derive(Debug)]
pub enum Question {
    /// Dead letters, newest first.
    DeadLetters(Selection, oneshot::Sender<Vec<DeadLetter>>),
    /// Try them again; how many there were.
    ///
    /// They keep their ids, but tell the time of now and are signed with the app's key of now, since receivers refuse
    /// what is more than five minutes old. Those of deleted receivers, and those for which there is no room, stay.
    Replay(Selection, oneshot::Sender<usize>),
}

/// To whoever delivers webhooks.
pub type Desk = UnboundedSender<Question>;

/// The delivery of webhooks, under way.
#[derive(Debug)]
pub struct Webhooks {
    desk: Desk,
    finish: Sender<Finish>,
}

/// Come to an end in this time.
#[derive(Debug)]
struct Finish {
    within: Duration,
    done: oneshot::Sender<()>,
}

/// Begins to deliver webhooks, with what an earlier run has left in the state file.
///
/// To be called before the first client connects, in a runtime for local tasks, and when nothing else can stop the
/// start any more: the file is gone then.
///
/// # Errors
/// When the state file cannot be used. It is as it was then.
pub async fn start(node: &Arc<Node>) -> Result<Webhooks, StateError> {
    let (desk, questions) = unbounded_channel();
    let (finish, finishes) = channel(1);
    let courier = Courier::new(node).await?;
    vital("the delivery of webhooks has failed", courier.run(questions, finishes));
    Ok(Webhooks { desk, finish })
}

impl Webhooks {
    /// Where questions go.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Ends the delivery: to be called when every connection has gone.
    ///
    /// With a state file, what cannot be delivered at once is kept there, with the leaves that were not told yet.
    /// Without one, these are told now, and what is not delivered within the time is lost, with a line that says so.
    /// To be called again by who cannot wait so long after all.
    pub async fn finish(&self, within: Duration) {
        let (done, finished) = oneshot::channel();
        if self.finish.send(Finish { within, done }).await.is_ok() {
            // It has ended, one way or the other.
            let _ = finished.await;
        }
    }
}
