//! Names that belong to no app, remembered for a while so that the store is not asked again and again.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::node::AppName;

/// So many are remembered; the oldest make room.
const NAMES_MAX: usize = 10_000;

/// The names, and until when each is taken to be unknown.
pub(super) struct Unknown {
    ttl: Duration,
    until: HashMap<AppName, Instant>,
    /// As they came: that is as they end.
    order: VecDeque<AppName>,
}

impl Unknown {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, until: HashMap::new(), order: VecDeque::new() }
    }

    /// They may be known by now.
    pub(super) fn clear(&mut self) {
        self.until.clear();
        self.order.clear();
    }

    pub(super) fn contains(&self, name: &AppName, now: Instant) -> bool {
        self.until.get(name).is_some_and(|until| *until > now)
    }

    pub(super) fn insert(&mut self, name: AppName, now: Instant) {
        while let Some(oldest) = self.order.front()
            && (self.order.len() >= NAMES_MAX || !self.contains(oldest, now))
        {
            self.until.remove(oldest);
            self.order.pop_front();
        }
        // One that is unknown still keeps its place and its time.
        if !self.ttl.is_zero() && !self.until.contains_key(&name) {
            self.until.insert(name.clone(), now + self.ttl);
            self.order.push_back(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(at: usize) -> AppName {
        AppName::Key(at.to_string())
    }

    #[test]
    fn a_name_is_unknown_for_its_time() {
        let mut unknown = Unknown::new(Duration::from_secs(10));
        let now = Instant::now();
        unknown.insert(key(1), now);
        assert!(unknown.contains(&key(1), now + Duration::from_secs(9)));
        assert!(!unknown.contains(&key(1), now + Duration::from_secs(10)));
        assert!(!unknown.contains(&AppName::Id("1".into()), now));
        unknown.insert(key(1), now + Duration::from_secs(11));
        assert!(unknown.contains(&key(1), now + Duration::from_secs(20)));
    }

    #[test]
    fn guessing_does_not_fill_the_memory() {
        let mut unknown = Unknown::new(Duration::from_secs(10));
        let now = Instant::now();
        for at in 0..NAMES_MAX + 5 {
            unknown.insert(key(at), now);
        }
        assert_eq!((unknown.order.len(), unknown.until.len()), (NAMES_MAX, NAMES_MAX));
        assert!(!unknown.contains(&key(4), now) && unknown.contains(&key(5), now));
        unknown.insert(key(0), now + Duration::from_secs(10));
        assert_eq!((unknown.order.len(), unknown.until.len()), (1, 1));
    }

    #[test]
    fn without_a_time_nothing_is_remembered() {
        let mut unknown = Unknown::new(Duration::ZERO);
        unknown.insert(key(1), Instant::now());
        assert!(unknown.order.is_empty());
    }
}
