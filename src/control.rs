//! What the process may be told while it runs, by signals and by the admin API, and what it cannot run without.
//!
//! Not here: how it is carried out (`server`).

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// To whoever runs the process.
pub type Orders = UnboundedSender<Order>;

/// Runs a task without which the process would go on and do only half of what it is there for: if it panics, the process
/// ends, so that whoever watches over it starts another. `loss` is a line for the log.
pub fn vital(loss: &'static str, task: impl Future<Output = ()> + 'static) {
    let task = actix_rt::spawn(task);
    actix_rt::spawn(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("{loss}, the process ends");
            std::process::exit(1);
        }
    });
}

/// The same for a thread: to be kept by it. If the thread panics, the process ends.
#[derive(Debug)]
pub struct VitalThread(pub &'static str);

impl Drop for VitalThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("{}, the process ends", self.0);
            std::process::exit(1);
        }
    }
}

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
