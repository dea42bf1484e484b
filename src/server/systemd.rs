//! What systemd is told of the life of the process, if it runs us (sd_notify(3)).

use sd_notify::{NotifyState, notify};

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

/// The process has not hung up.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens unless systemd has started us.
    if let Err(error) = notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
