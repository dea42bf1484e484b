//! How the connections are: for probes, for metrics, and a few lines of log.

use std::time::{Duration, Instant};

use crate::cluster::servers::error::Trouble;

/// How the connections to Redis are.
#[derive(Clone, Debug)]
pub struct Health {
    /// Since when commands cannot be sent to all masters; none if they can.
    pub commands_away_since: Option<Instant>,
    /// Since when messages cannot come from all masters; none if they can.
    pub bus_away_since: Option<Instant>,
    /// What is wrong while something is away, in a sentence, without secrets.
    pub trouble: Option<String>,
    /// Somebody has to mend it: it will not pass by itself.
    pub is_refused: bool,
    /// Connections that were made since the beginning.
    pub connects: u64,
    /// Connections that were lost.
    pub losses: u64,
    /// Connections that could not be made.
    pub failures: u64,
}

impl Health {
    /// Since when commands or bus are away; none if neither is.
    pub fn away_since(&self) -> Option<Instant> {
        self.commands_away_since.into_iter().chain(self.bus_away_since).min()
    }
}

/// Keeps the health, and says in the log what an operator should know.
#[derive(Debug)]
pub(super) struct Monitor {
    health: Health,
    /// When the log was told that something is away, and of a trouble to mend.
    said: Option<(Instant, bool)>,
    was_up: bool,
}

/// While something is away, the log says so at most as often.
const REMINDER: Duration = Duration::from_secs(30);

impl Monitor {
    /// Nothing is connected yet.
    pub(super) fn new() -> Self {
        let now = Some(Instant::now());
        let health = Health {
            commands_away_since: now,
            bus_away_since: now,
            trouble: None,
            is_refused: false,
            connects: 0,
            losses: 0,
            failures: 0,
        };
        Self { health, said: None, was_up: false }
    }

    /// The health of now.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// A connection was made.
    pub(super) fn connected(&mut self) {
        self.health.connects += 1;
    }

    /// A connection was lost.
    pub(super) fn lost(&mut self) {
        self.health.losses += 1;
    }

    /// A connection could not be made.
    pub(super) fn failed(&mut self) {
        self.health.failures += 1;
    }

    /// Whether commands and bus have all their connections. Tells whether that is new.
    pub(super) fn see(&mut self, commands: bool, bus: bool) -> bool {
        let now = Instant::now();
        let before = self.health.away_since();
        let turn = |since: &mut Option<Instant>, is_up: bool| {
            let turns = since.is_none() != is_up;
            if turns {
                *since = (!is_up).then_some(now);
            }
            turns
        };
        let turned = turn(&mut self.health.commands_away_since, commands);
        let turned = turn(&mut self.health.bus_away_since, bus) || turned;
        if let Some(since) = before
            && self.health.away_since().is_none()
        {
            let elapsed_ms = now.duration_since(since).as_millis();
            if !self.was_up {
                tracing::info!(elapsed_ms, "connected to redis");
            } else if self.said.is_some() {
                tracing::info!(elapsed_ms, "redis is back");
            }
            (self.was_up, self.said) = (true, None);
            (self.health.trouble, self.health.is_refused) = (None, false);
        }
        turned
    }

    /// Why something is away. What does not keep anything away is not worth a word.
    pub(super) fn trouble(&mut self, trouble: &Trouble) {
        let Some(since) = self.health.away_since() else { return };
        let (error, is_refused) = match trouble {
            Trouble::Away(text) => (text, false),
            Trouble::Refused(text) => (text, true),
        };
        (self.health.trouble, self.health.is_refused) = (Some(error.clone()), is_refused);
        let is_time = match self.said {
            None => true,
            Some((when, was_refused)) => when.elapsed() >= REMINDER || (is_refused && !was_refused),
        };
        if !is_time {
            return;
        }
        let away_ms = since.elapsed().as_millis();
        match (is_refused, self.said) {
            (true, _) => tracing::error!(error, away_ms, "redis refuses"),
            (false, None) => tracing::warn!(error, "redis is away"),
            (false, Some(_)) => tracing::warn!(error, away_ms, "redis is still away"),
        }
        let has_refused = is_refused || self.said.is_some_and(|(_, refused)| refused);
        self.said = Some((Instant::now(), has_refused));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn away_is_from_the_first_loss_to_the_last_return() {
        let mut monitor = Monitor::new();
        assert!(monitor.health().away_since().is_some(), "nothing is connected at first");
        assert!(monitor.see(true, false));
        let since = monitor.health().away_since();
        assert!(since.is_some() && since == monitor.health().bus_away_since);
        assert!(monitor.see(true, true));
        assert!(!monitor.see(true, true));
        assert_eq!(monitor.health().away_since(), None);
        monitor.see(false, true);
        let since = monitor.health().away_since();
        monitor.see(false, false);
        monitor.trouble(&Trouble::Refused("why".into()));
        assert_eq!(monitor.health().away_since(), since);
        assert_eq!((monitor.health().trouble.as_deref(), monitor.health().is_refused), (Some("why"), true));
        monitor.see(true, true);
        assert_eq!((monitor.health().trouble.as_deref(), monitor.health().is_refused), (None, false));
    }

    #[test]
    fn what_keeps_nothing_away_is_no_trouble() {
        let mut monitor = Monitor::new();
        monitor.see(true, true);
        monitor.trouble(&Trouble::Away("a Sentinel of three".into()));
        assert_eq!(monitor.health().trouble, None);
    }
}
