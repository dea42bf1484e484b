//! What the process may be told while it runs, by signals and by the admin API.
//!
//! Not here: how it is carried out (`server`).

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// To whoever runs the process.
pub type Orders = UnboundedSender<Order>;

/// An order. Nobody need wait for the answer.
#[derive(Debug)]
pub enum Order {
    /// Read configuration, apps and certificates again.
    Reload(oneshot::Sender<Reloaded>),
    /// Stop: unready at once, then close connections over a time, then end.
    Drain,
}

/// What a reload came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// Apps that are served now.
    pub apps: usize,
    /// What is wrong, each in a sentence. What it is about is as it was before: the configuration with its apps, the apps
    /// of the store, or the certificate.
    pub problems: Vec<String>,
    /// Changed settings that take a restart.
    pub needs_restart: Vec<String>,
}
