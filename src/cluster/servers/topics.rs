//! Which topics are listened to, and how far that has come: pure.
//!
//! A topic waits until a command with it goes out, then for the answer, and then it is heard. The topics of a slot go to
//! the server that has the slot, and begin anew when that changes or its connection is lost.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use crate::cluster::servers::topology::slot_of;

/// Names a connection to a server, as long as there is a server at that address.
pub(super) type LinkId = u64;

/// Names of topics, for events.
pub(super) type Names = Vec<Vec<u8>>;

/// All topics.
#[derive(Debug, Default)]
pub(super) struct Topics {
    slots: BTreeMap<u16, Slot>,
    /// Commands so far.
    batches: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Who has it.
    at: Option<LinkId>,
    topics: HashMap<Rc<[u8]>, State>,
    /// Topics that may wait for a command; what has gone meanwhile, or stands here twice, is passed over.
    asks: VecDeque<Rc<[u8]>>,
    /// Topics to listen to no longer. They go out before all asks: one may be asked for again.
    ends: Vec<Rc<[u8]>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// For a command.
    Waits,
    /// For the answer to this batch.
    Asked(u64),
    /// Told to be listened to.
    Heard,
}

/// Topics of one slot, for one command.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Batch {
    number: u64,
    slot: u16,
    /// To begin, or to end.
    pub(super) is_begin: bool,
    /// Which.
    pub(super) topics: Vec<Rc<[u8]>>,
}

/// Most topics of one command.
const BATCH_MAX: usize = 500;

impl Topics {
    /// Listens to a topic. Tells who has something to do: whoever has its slot, or by `owner` should have it.
    pub(super) fn listen(&mut self, topic: &[u8], owner: impl Fn(u16) -> Option<LinkId>) -> Option<LinkId> {
        let name = slot_of(topic);
        let slot = self.slots.entry(name).or_default();
        if slot.topics.contains_key(topic) {
            return None;
        }
        let topic: Rc<[u8]> = topic.into();
        slot.topics.insert(Rc::clone(&topic), State::Waits);
        slot.asks.push_back(topic);
        slot.at = slot.at.or_else(|| owner(name));
        slot.at
    }

    /// Listens to a topic no longer. Tells who has something to do.
    pub(super) fn unlisten(&mut self, topic: &[u8]) -> Option<LinkId> {
        let slot = self.slots.get_mut(&slot_of(topic))?;
        let (topic, state) = slot.topics.remove_entry(topic)?;
        if state == State::Waits {
            return None;
        }
        slot.ends.push(topic);
        slot.at
    }

    /// The next command for a server.
    pub(super) fn take(&mut self, link: LinkId) -> Option<Batch> {
        let number = self.batches + 1;
        let batch =
            self.slots.iter_mut().filter(|(_, slot)| slot.at == Some(link)).find_map(|(&name, slot)| {
                let (is_begin, topics) =
                    if slot.ends.is_empty() { (true, slot.asked(number)) } else { (false, slot.ended()) };
                (!topics.is_empty()).then_some(Batch { number, slot: name, is_begin, topics })
            })?;
        self.batches = number;
        Some(batch)
    }

    /// A command has been answered. Gives the topics that are listened to from now on.
    pub(super) fn confirm(&mut self, batch: &Batch) -> Names {
        let Some(slot) = self.slots.get_mut(&batch.slot).filter(|_| batch.is_begin) else {
            return Names::new();
        };
        let mut heard = Names::with_capacity(batch.topics.len());
        for topic in &batch.topics {
            // One that was given up and asked for again meanwhile waits for its later command.
            if let Some(state) = slot.topics.get_mut(topic)
                && *state == State::Asked(batch.number)
            {
                *state = State::Heard;
                heard.push(topic.to_vec());
            }
        }
        heard
    }

    /// A server has ended a subscription. If nobody asked for that, the slot has gone elsewhere: gives its topics that
    /// are not heard any more.
    pub(super) fn ended(&mut self, link: LinkId, topic: &[u8]) -> Names {
        match self.slots.get_mut(&slot_of(topic)) {
            Some(slot) if slot.at == Some(link) && slot.topics.get(topic) == Some(&State::Heard) => {
                slot.at = None;
                slot.begin_anew()
            }
            _ => Names::new(),
        }
    }

    /// The slot of a batch is not where it was sent.
    pub(super) fn unseat(&mut self, link: LinkId, batch: &Batch) -> Names {
        match self.slots.get_mut(&batch.slot) {
            Some(slot) if slot.at == Some(link) => {
                slot.at = None;
                slot.begin_anew()
            }
            _ => Names::new(),
        }
    }

    /// A connection is lost. Gives the topics that are not heard any more.
    pub(super) fn lost(&mut self, link: LinkId) -> Names {
        let slots = self.slots.values_mut().filter(|slot| slot.at == Some(link));
        slots.flat_map(Slot::begin_anew).collect()
    }

    /// Slots have these servers now. Gives the topics that are not heard any more.
    pub(super) fn place(&mut self, owner: impl Fn(u16) -> Option<LinkId>) -> Names {
        let mut deaf = Names::new();
        for (&name, slot) in &mut self.slots {
            let owner = owner(name);
            if slot.at != owner {
                slot.at = owner;
                deaf.append(&mut slot.begin_anew());
            }
        }
        deaf
    }
}

impl Slot {
    /// Everything waits again. Gives what was heard.
    fn begin_anew(&mut self) -> Names {
        self.ends.clear();
        self.asks.clear();
        let mut heard = Names::new();
        for (topic, state) in &mut self.topics {
            if *state == State::Heard {
                heard.push(topic.to_vec());
            }
            *state = State::Waits;
            self.asks.push_back(Rc::clone(topic));
        }
        heard
    }

    fn asked(&mut self, number: u64) -> Vec<Rc<[u8]>> {
        let mut topics = Vec::new();
        while topics.len() < BATCH_MAX
            && let Some(topic) = self.asks.pop_front()
        {
            if let Some(state) = self.topics.get_mut(&topic)
                && *state == State::Waits
            {
                *state = State::Asked(number);
                topics.push(topic);
            }
        }
        topics
    }

    fn ended(&mut self) -> Vec<Rc<[u8]>> {
        self.ends.drain(..self.ends.len().min(BATCH_MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<LinkId> = Some(1);
    const B: Option<LinkId> = Some(2);

    fn names(topics: &[&str]) -> Names {
        topics.iter().map(|topic| topic.as_bytes().to_vec()).collect()
    }

    fn sorted(mut names: Names) -> Names {
        names.sort();
        names
    }

    #[track_caller]
    fn take(topics: &mut Topics, link: LinkId, is_begin: bool, expected: &[&str]) -> Batch {
        let batch = topics.take(link).expect("a command");
        let found = sorted(batch.topics.iter().map(|topic| topic.to_vec()).collect());
        assert_eq!((batch.is_begin, found), (is_begin, names(expected)));
        batch
    }

    /// Topics of one slot that server 1 has confirmed.
    fn heard(list: &[&str]) -> Topics {
        let mut topics = Topics::default();
        for topic in list {
            assert_eq!(topics.listen(topic.as_bytes(), |_| A), A);
        }
        let batch = take(&mut topics, 1, true, list);
        assert_eq!(topics.take(1), None);
        assert_eq!(sorted(topics.confirm(&batch)), names(list));
        topics
    }

    #[test]
    fn a_topic_is_asked_for_once_and_heard_when_that_is_confirmed() {
        let mut topics = heard(&["{1}a", "{1}b"]);
        assert_eq!(topics.listen(b"{1}a", |_| A), None);
        assert_eq!(topics.take(1), None);
        assert_eq!(topics.unlisten(b"{1}a"), A);
        let batch = take(&mut topics, 1, false, &["{1}a"]);
        assert_eq!(topics.confirm(&batch), Names::new());
        assert_eq!(topics.unlisten(b"{1}a"), None);
        assert_eq!(topics.take(1), None);
    }

    #[test]
    fn what_was_not_asked_for_yet_is_given_up_without_a_word() {
        let mut topics = Topics::default();
        topics.listen(b"a", |_| A);
        assert_eq!(topics.unlisten(b"a"), None);
        assert_eq!(topics.take(1), None);
    }

    #[test]
    fn who_comes_back_at_once_is_heard_only_by_the_later_command() {
        let mut topics = Topics::default();
        topics.listen(b"a", |_| A);
        let first = take(&mut topics, 1, true, &["a"]);
        topics.unlisten(b"a");
        topics.listen(b"a", |_| A);
        let end = take(&mut topics, 1, false, &["a"]);
        let second = take(&mut topics, 1, true, &["a"]);
        assert_eq!(topics.confirm(&first), Names::new());
        assert_eq!(topics.ended(1, b"a"), Names::new(), "that was asked for");
        assert_eq!(topics.confirm(&end), Names::new());
        assert_eq!(topics.confirm(&second), names(&["a"]));
    }

    #[test]
    fn commands_have_topics_of_one_slot_and_not_too_many() {
        let mut topics = Topics::default();
        for number in 0..BATCH_MAX + 1 {
            topics.listen(format!("{{1}}{number}").as_bytes(), |_| A);
        }
        topics.listen(b"{2}a", |_| A);
        let mut sizes: Vec<usize> = std::iter::from_fn(|| topics.take(1)).map(|it| it.topics.len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 1, BATCH_MAX]);
    }

    #[test]
    fn a_lost_connection_makes_deaf_and_everything_is_asked_for_again() {
        let mut topics = heard(&["{1}a", "{1}b"]);
        topics.listen(b"{1}c", |_| A);
        topics.unlisten(b"{1}b");
        assert_eq!(topics.lost(2), Names::new());
        assert_eq!(topics.lost(1), names(&["{1}a"]));
        assert_eq!(topics.lost(1), Names::new(), "told once");
        let batch = take(&mut topics, 1, true, &["{1}a", "{1}c"]);
        assert_eq!(sorted(topics.confirm(&batch)), names(&["{1}a", "{1}c"]));
    }

    #[test]
    fn an_end_that_nobody_asked_for_makes_the_whole_slot_deaf_until_it_has_a_place_again() {
        let mut topics = heard(&["{1}a", "{1}b"]);
        assert_eq!(topics.ended(2, b"{1}a"), Names::new(), "not its business");
        assert_eq!(sorted(topics.ended(1, b"{1}a")), names(&["{1}a", "{1}b"]));
        assert_eq!(topics.ended(1, b"{1}b"), Names::new());
        assert_eq!(topics.take(1), None);
        assert_eq!(topics.place(|_| B), Names::new());
        let batch = take(&mut topics, 2, true, &["{1}a", "{1}b"]);
        assert_eq!(sorted(topics.confirm(&batch)), names(&["{1}a", "{1}b"]));
    }

    #[test]
    fn a_slot_that_moves_is_asked_for_at_its_new_place() {
        let mut topics = heard(&["{1}a"]);
        assert_eq!(topics.place(|_| A), Names::new(), "nothing has moved");
        assert_eq!(topics.place(|_| None), names(&["{1}a"]));
        assert_eq!(topics.place(|_| B), Names::new());
        let batch = take(&mut topics, 2, true, &["{1}a"]);
        assert_eq!(topics.unseat(1, &batch), Names::new(), "an answer that comes late");
        assert_eq!(topics.unseat(2, &batch), Names::new(), "nothing was heard yet");
        assert_eq!(topics.confirm(&batch), Names::new(), "it waits again");
        assert_eq!(topics.take(2), None);
    }

    #[test]
    fn topics_wait_for_a_place() {
        let mut topics = Topics::default();
        assert_eq!(topics.listen(b"a", |_| None), None);
        assert_eq!(topics.take(1), None);
        topics.place(|_| A);
        take(&mut topics, 1, true, &["a"]);
    }
}
