//! Timers of all sockets of one worker, without a timer for any.
//!
//! A ring of slots, one for each tick. A socket stands in exactly one slot, knows where, and can be taken
//! out at once; so the wheel is also the list of all sockets. A socket that was heard meanwhile is not
//! moved: when its slot comes, it says when it wants to be looked at next.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// What one slot stands for.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Enough for the longest usual wait, 60 seconds, to be one round. Longer ones take several.
const SLOTS: usize = 1024;

/// Ticks since the worker began.
pub(super) type Ticks = u32;

/// The ticks in a time, rounded up.
pub(super) fn ticks(time: Duration) -> Ticks {
    Ticks::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(Ticks::MAX)
}

/// Something that stands in a wheel.
pub(super) trait Timed {
    /// Where it stands. Written by the wheel alone.
    fn place(&self) -> &Place;
}

/// Slot and index in it; nowhere at first.
#[derive(Debug, Default)]
pub(super) struct Place(Cell<Option<(u16, u32)>>);

pub(super) struct Wheel<T> {
    slots: Vec<Vec<Rc<T>>>,
    now: Ticks,
}

impl<T: Timed> Wheel<T> {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), now: 0 }
    }

    pub(super) fn now(&self) -> Ticks {
        self.now
    }

    /// Puts an item where it will come up at tick `at`, or as late as one round allows.
    pub(super) fn set(&mut self, item: &Rc<T>, at: Ticks) {
        self.remove(item);
        let ahead = at.saturating_sub(self.now).clamp(1, SLOTS as Ticks - 1);
        let slot = (self.now.wrapping_add(ahead)) as usize % SLOTS;
        let index = self.slots[slot].len();
        item.place().0.set(u16::try_from(slot).ok().zip(u32::try_from(index).ok()));
        self.slots[slot].push(item.clone());
    }

    pub(super) fn remove(&mut self, item: &Rc<T>) {
        let Some((slot, index)) = item.place().0.take() else { return };
        let slot_items = &mut self.slots[usize::from(slot)];
        slot_items.swap_remove(index as usize);
        if let Some(moved) = slot_items.get(index as usize) {
            moved.place().0.set(Some((slot, index)));
        }
        if slot_items.is_empty() {
            *slot_items = Vec::new();
        }
    }

    /// Goes on by one tick; what comes up stands nowhere now.
    pub(super) fn turn(&mut self) -> Vec<Rc<T>> {
        self.now = self.now.wrapping_add(1);
        let due = std::mem::take(&mut self.slots[self.now as usize % SLOTS]);
        for item in &due {
            item.place().0.set(None);
        }
        due
    }

    pub(super) fn all(&self) -> Vec<Rc<T>> {
        self.iter().cloned().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<T>> {
        self.slots.iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Item(Place);

    impl Timed for Item {
        fn place(&self) -> &Place {
            &self.0
        }
    }

    #[test]
    fn times_round_up_to_ticks() {
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_secs(1)), 10);
    }

    proptest! {
        #[test]
        fn each_item_comes_up_once_at_its_tick(ops in prop::collection::vec((0usize..8, 0u32..40, any::<bool>()), 1..200)) {
            let items: Vec<Rc<Item>> = (0..8).map(|_| Rc::default()).collect();
            let mut expected = [None; 8];
            let mut wheel = Wheel::new();
            for (which, ahead, remove) in ops {
                if remove {
                    wheel.remove(&items[which]);
                    expected[which] = None;
                } else {
                    wheel.set(&items[which], wheel.now() + ahead);
                    expected[which] = Some(wheel.now() + ahead.max(1));
                }
                let due = wheel.turn();
                for (item, at) in items.iter().zip(&mut expected) {
                    let up = due.iter().any(|up| Rc::ptr_eq(up, item));
                    prop_assert_eq!(up, *at == Some(wheel.now()));
                    at.take_if(|_| up);
                }
                prop_assert_eq!(wheel.all().len(), expected.iter().flatten().count());
            }
        }
    }
}
