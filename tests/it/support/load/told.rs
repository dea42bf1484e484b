//! What webhooks have told during a load, and whether that is what has happened.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::{super::Hook, CHANNELS, CROWD, Ledger};

/// A channel; or a member of it.
type Place = (String, Option<String>);

/// Everything that was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    places: BTreeMap<Place, Vec<Telling>>,
    deliveries: HashSet<String>,
    redeliveries: usize,
}

/// That a channel is occupied or a member there; or not any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Telling {
    is_there: bool,
    is_marked: bool,
}

impl Told {
    /// Takes over a request.
    pub(crate) fn take(&mut self, hook: &Hook) {
        // Another attempt of the same delivery.
        if !self.deliveries.insert(hook.header("X-Fanfare-Delivery").to_owned()) {
            return;
        }
        let is_marked = hook.is_marked();
        self.redeliveries += usize::from(is_marked);
        for event in hook.events() {
            self.tell(&event, is_marked);
        }
    }

    fn tell(&mut self, event: &Value, is_marked: bool) {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let is_there = match event["name"].as_str().expect("a name") {
            "channel_occupied" | "member_added" => true,
            "channel_vacated" | "member_removed" => false,
            _ => return,
        };
        let place = (text("channel").expect("a channel"), text("user_id"));
        self.places.entry(place).or_default().push(Telling { is_there, is_marked });
    }

    /// Deliveries that were marked as repetitions.
    pub(crate) fn redeliveries(&self) -> usize {
        self.redeliveries
    }

    /// What is wrong when everybody has gone.
    pub(crate) fn violations(&self, ledger: &Ledger) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut known: HashSet<Place> = HashSet::new();
        let mut check = |place: Place, wanted: Wanted| {
            let tellings = self.places.get(&place).map_or(&[][..], Vec::as_slice);
            if let Err(what) = wanted.check(tellings) {
                wrong.push(format!("webhooks about {place:?}: {what} ({tellings:?})"));
            }
            known.insert(place);
        };
        for channel in CHANNELS.into_iter().filter(|channel| !channel.starts_with('#')) {
            check((channel.to_owned(), None), Wanted::Once);
        }
        for visit in ledger.visits() {
            let wanted = match visit {
                _ if visit.is_lost => Wanted::Anything,
                _ if visit.room.is_some() && visit.is_certain => Wanted::Once,
                _ => Wanted::InTurns,
            };
            if visit.room.is_none() {
                check(("presence-cache-crew".to_owned(), Some(visit.user.clone())), wanted);
            }
            check((CROWD.to_owned(), Some(visit.user)), wanted);
            if let Some(room) = visit.room {
                check((room, None), wanted);
            }
        }
        let unknown = self.places.keys().filter(|place| !known.contains(*place));
        wrong.extend(unknown.map(|place| format!("webhooks about {place:?}, where nobody has been")));
        wrong
    }
}

/// How often somebody was there in truth.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// It has come once, and gone.
    Once,
    /// It may have come and gone several times, or not at all.
    InTurns,
    /// Nobody can know.
    Anything,
}

impl Wanted {
    fn check(self, tellings: &[Telling]) -> Result<(), String> {
        if matches!(self, Self::Anything) {
            return Ok(());
        }
        let (mut is_there, mut times) = (false, 0);
        for telling in tellings {
            if telling.is_there == is_there {
                if telling.is_marked {
                    continue;
                }
                return Err(format!("the same twice, unmarked: {}", if is_there { "there" } else { "gone" }));
            }
            is_there = telling.is_there;
            // What is told again after its opposite was told is no other time.
            times += usize::from(is_there && !telling.is_marked)
                + usize::from(is_there && telling.is_marked && times == 0);
        }
        match self {
            _ if is_there => Err("nothing tells that it has gone".to_owned()),
            Self::Once if times != 1 => Err(format!("it was there {times} times")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Telling, Wanted};

    fn tellings(text: &str) -> Vec<Telling> {
        let telling = |letter: char| Telling {
            is_there: letter.eq_ignore_ascii_case(&'t'),
            is_marked: letter.is_ascii_uppercase(),
        };
        text.chars().map(telling).collect()
    }

    #[test]
    fn what_webhooks_tell_once_is_told_once_and_repetitions_are_marked() {
        for good in ["tg", "tTg", "TG", "tgTG", "tgG", "TtG"] {
            let found = Wanted::Once.check(&tellings(good));
            // A first telling behind its own repetition cannot be told from a second one.
            assert_eq!(found.is_ok(), good != "TtG", "{good}: {found:?}");
        }
        for bad in ["", "t", "g", "ttg", "tgg", "tgtg", "tgT"] {
            assert!(Wanted::Once.check(&tellings(bad)).is_err(), "{bad}");
        }
        for good in ["", "tg", "tgtg"] {
            assert!(Wanted::InTurns.check(&tellings(good)).is_ok(), "{good}");
        }
        assert!(Wanted::InTurns.check(&tellings("tgt")).is_err());
        assert!(Wanted::Anything.check(&tellings("gg")).is_ok());
    }
}
