//! A budget per second that many threads spend without waiting for each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What has been spent of a budget. Who owns it says how large the budget is, so that can change at any time.
///
/// The generic cell rate algorithm: one number, the time at which the budget will be whole again.
#[derive(Debug, Default)]
pub struct Rate(AtomicU64);

const SECOND_NS: u64 = 1_000_000_000;

impl Rate {
    /// Spends `count` of `per_s`, of which a whole second's may be spent at once. `now` is the time since any fixed
    /// point. More than a second's budget passes when nothing else was spent.
    ///
    /// # Errors
    /// When there is not enough left; nothing is spent then. In how long there will be.
    pub fn spend(&self, count: u32, per_s: u32, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let cost = SECOND_NS / u64::from(per_s.max(1)) * u64::from(count.min(per_s));
        let spend = |whole_at: u64| {
            let after = whole_at.max(now) + cost;
            (after <= now + SECOND_NS).then_some(after)
        };
        match self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => Ok(()),
            Err(whole_at) => Err(Duration::from_nanos((whole_at + cost).saturating_sub(now + SECOND_NS))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_second_s_budget_can_be_spent_at_once_and_comes_back_over_a_second() {
        let rate = Rate::default();
        assert_eq!(rate.spend(10, 10, ms(5000)), Ok(()));
        assert_eq!(rate.spend(1, 10, ms(5000)), Err(ms(100)));
        assert_eq!(rate.spend(1, 10, ms(5099)), Err(ms(1)));
        assert_eq!(rate.spend(1, 10, ms(5100)), Ok(()));
        assert_eq!(rate.spend(5, 10, ms(5500)), Err(ms(100)));
        assert_eq!(rate.spend(10, 10, ms(60_000)), Ok(()));
    }

    #[test]
    fn more_than_a_second_s_budget_needs_all_of_it() {
        let rate = Rate::default();
        assert_eq!(rate.spend(100, 10, ms(1000)), Ok(()));
        assert_eq!(rate.spend(100, 10, ms(1001)), Err(ms(999)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_one_burst(per_s in 1u32..1000, spends in prop::collection::vec((0u64..200, 1u32..50), 1..200)) {
            let rate = Rate::default();
            let (mut now, mut spent) = (ms(1000), 0.0);
            for (pause, count) in spends {
                now += ms(pause);
                if rate.spend(count, per_s, now).is_ok() {
                    spent += f64::from(count.min(per_s));
                }
                let allowed = f64::from(per_s) * ((now - ms(1000)).as_secs_f64() + 1.0);
                prop_assert!(spent <= allowed * 1.001 + 0.5, "{spent} of {allowed}");
            }
        }
    }
}
