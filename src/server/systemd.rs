//! What systemd is told of the life of the process, if it runs us (sd_notify(3)).

use sd_notify::{NotifyState, notify};

use crate::health;
use crate::node::Node;

/// Clients are served, with the configuration as it is now.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again.
pub(super) fn reloading() {
    // Type=notify-reload wants to know when that began; without a clock it is ignored.
    let states = NotifyState::monotonic_usec_now().map(|now| vec![NotifyState::Reloading, now]);
    tell(&states.unwrap_or_else(|_| vec![NotifyState::Reloading]));
}

/// Connections are being closed.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The process has not hung up, if it is so: this thread goes on, and so do the workers.
pub(super) fn alive(node: &Node) {
    if may_go_on(health::live(node).is_good(), node.is_draining()) {
        tell(&[NotifyState::Watchdog]);
    }
}

/// Workers that have ended are silent, too; how long the end may take is for `TimeoutStopSec` to say.
fn may_go_on(is_live: bool, is_ending: bool) -> bool {
    is_live || is_ending
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens unless systemd has started us.
    if let Err(error) = notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_workers_hang_is_not_kept_alive_unless_it_ends_anyway() {
        assert!(may_go_on(true, false) && may_go_on(false, true));
        assert!(!may_go_on(false, false));
    }
}
