//! What happens on channels becomes signed requests to the backends of apps.

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::app::AppId;

/// A request that could not be delivered in its time.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Names it, also to the receiver (`X-Fanfare-Delivery`).
    pub id: String,
    /// The app.
    pub app: AppId,
    /// The receiver.
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
    Replay(Selection, oneshot::Sender<usize>),
}

/// To whoever delivers webhooks.
pub type Desk = UnboundedSender<Question>;
