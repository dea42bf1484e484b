//! What is known of a load, and whether it is as it should be.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CROWD, Heard, LifeId, Mark, Note, Outcome, Published};

/// What has gone wrong on purpose, and excuses something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trouble {
    /// This node was killed, or stops: publications through it may fail.
    Ends(usize),
    /// This node was cut off, and may have been given up: its connections may have gone for all others.
    CutOff(usize),
    /// Redis is away, but keeps everything: publications may be refused.
    RedisAway,
    /// Redis loses what it knows: events and webhooks of these moments may be lost with it.
    RedisForgets,
}

/// Trouble from one moment to another.
#[derive(Clone, Debug)]
struct Window {
    trouble: Trouble,
    from: Instant,
    to: Option<Instant>,
}

/// Everything that was noted.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    published: HashMap<(Arc<str>, Mark), Published>,
    pub(crate) lives: BTreeMap<LifeId, Life>,
    troubles: Vec<Window>,
    complaints: Vec<(Instant, String)>,
    wrong: Vec<String>,
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) node: usize,
    pub(crate) user: String,
    began: Instant,
    /// Whether it has left on purpose, or been lost.
    ended: Option<Instant>,
    /// It was lost, or closed by the broker.
    pub(crate) is_dropped: bool,
    /// The users it watches, and whether it was told that they are online.
    pub(crate) watched: BTreeMap<String, bool>,
    pub(crate) stints: BTreeMap<Arc<str>, Stint>,
}

/// A connection on a channel.
#[derive(Clone, Debug)]
pub(crate) struct Stint {
    asked: Instant,
    joined: Option<Instant>,
    /// With the first one first.
    events: Vec<Mark>,
    heard: HashSet<Mark>,
    missed: bool,
    /// How many subscribe, as it was told last.
    pub(crate) count: Option<u64>,
    /// Who is there, as far as the connection was told.
    pub(crate) roster: BTreeSet<String>,
    added: Vec<String>,
    removed: Vec<String>,
}

impl Ledger {
    /// Takes over a note.
    pub(crate) fn enter(&mut self, note: Note) {
        match note {
            Note::Published(published) => {
                self.published.insert((published.channel.clone(), published.mark), published);
            }
            Note::Wrong(what) => self.wrong.push(what),
            Note::Heard(_, at, Heard::Complaint(what)) => self.complaints.push((at, what)),
            Note::Heard(id, began, Heard::Began { node, user }) => {
                self.lives.insert(id, Life::new(node, user, began));
            }
            Note::Heard(id, at, what) => {
                let life = self.lives.get_mut(&id).expect("a life that has begun");
                if let Err(wrong) = life.hear(at, what) {
                    self.wrong
                        .push(format!("connection {id} of {} on node {}: {wrong}", life.user, life.node));
                }
            }
        }
    }

    /// From this moment on there is trouble.
    pub(crate) fn begin(&mut self, trouble: Trouble, from: Instant) {
        self.troubles.push(Window { trouble, from, to: None });
    }

    /// There is none any more.
    pub(crate) fn end_all(&mut self, at: Instant) {
        self.troubles.iter_mut().for_each(|window| window.to = window.to.or(Some(at)));
    }

    /// Publications with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.published.values().filter(|published| published.outcome == outcome).count()
    }

    /// Events that were delivered, each as often as it was.
    pub(crate) fn deliveries(&self) -> usize {
        self.stints().map(|(_, stint)| stint.events.len()).sum()
    }

    /// Events that were refused, and delivered all the same.
    pub(crate) fn came_although_refused(&self) -> usize {
        let heard: HashSet<_> = self
            .stints()
            .flat_map(|(channel, stint)| stint.events.iter().map(move |mark| (channel, mark)))
            .collect();
        let refused = self.published.values().filter(|published| published.outcome == Outcome::Refused);
        refused.filter(|published| heard.contains(&(&published.channel, &published.mark))).count()
    }

    /// The connections that are open.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Life> {
        self.lives.values().filter(|life| life.ended.is_none())
    }

    /// Whether every open connection has all it has asked for.
    pub(crate) fn is_settled(&self) -> bool {
        self.open().all(|life| life.stints.values().all(|stint| stint.joined.is_some()))
    }

    /// The channels with how many connections they have.
    pub(crate) fn occupied(&self) -> BTreeMap<String, u64> {
        let mut occupied = BTreeMap::new();
        for channel in self.open().flat_map(|life| life.stints.keys()).filter(|name| !name.starts_with('#')) {
            *occupied.entry(channel.to_string()).or_default() += 1;
        }
        occupied
    }

    /// Who is in a presence channel.
    pub(crate) fn users(&self, channel: &str) -> BTreeSet<String> {
        let there = self.open().filter(|life| life.stints.contains_key(channel));
        there.map(|life| life.user.clone()).collect()
    }

    /// The users who are signed in as themselves.
    pub(crate) fn online(&self) -> BTreeSet<&str> {
        let is_signed_in =
            |life: &&Life| life.stints.keys().any(|channel| channel.starts_with("#server-to-user-"));
        self.open().filter(is_signed_in).map(|life| &life.user[..]).collect()
    }

    /// Every user that has ever been in a channel, and every channel; each with whether its webhooks are certain.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        let mut users: BTreeMap<&str, Vec<&Life>> = BTreeMap::new();
        for life in self.lives.values().filter(|life| life.stints.contains_key(CROWD)) {
            users.entry(&life.user).or_default().push(life);
        }
        let visit = |(user, lives): (&str, Vec<&Life>)| {
            let is_over = |life: &&Life| life.ended.is_some();
            let from = lives.iter().map(|life| life.began).min()?;
            let to = if lives.iter().all(is_over) {
                lives.iter().filter_map(|life| life.ended).max()
            } else {
                None
            };
            let to = to.map(|to| self.told_by(to));
            let is_granted = |life: &&Life| life.stints.values().all(|stint| stint.joined.is_some());
            let cut_off =
                |life: &&Life| self.is_in(from, to, |trouble| trouble == Trouble::CutOff(life.node));
            let rooms = lives.iter().flat_map(|life| life.stints.keys());
            Some(Visit {
                user: user.to_owned(),
                room: rooms.filter(|name| name.starts_with("room-")).map(ToString::to_string).next(),
                is_certain: lives.iter().all(is_granted) && !lives.iter().any(cut_off),
                is_lost: self.is_in(from, to, |trouble| trouble == Trouble::RedisForgets),
            })
        };
        users.into_iter().filter_map(visit).collect()
    }

    /// When webhooks have told of a leave at last: some time later, but not while there is trouble.
    fn told_by(&self, left: Instant) -> Instant {
        let patience = Duration::from_secs(3);
        let mut by = left + patience;
        while let Some(window) = self
            .troubles
            .iter()
            .find(|window| window.from <= by && window.to.is_some_and(|to| to + patience > by))
        {
            by = window.to.map_or(by, |to| to + patience);
        }
        by
    }

    /// Whether there was such trouble at any moment of a time.
    fn is_in(&self, from: Instant, to: Option<Instant>, such: impl Fn(Trouble) -> bool) -> bool {
        self.troubles.iter().any(|window| {
            such(window.trouble)
                && to.is_none_or(|to| window.from <= to)
                && window.to.is_none_or(|end| from <= end)
        })
    }

    fn stints(&self) -> impl Iterator<Item = (&Arc<str>, &Stint)> {
        self.lives.values().flat_map(|life| &life.stints)
    }

    // What must hold.

    /// Everything that is wrong, in sentences.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        for (at, what) in &self.complaints {
            if !self.is_in(*at, Some(*at), |_| true) {
                wrong.push(format!("for no reason: {what}"));
            }
        }
        for published in self.published.values() {
            if published.outcome == Outcome::Refused
                && !self.is_in(published.asked, Some(published.answered), |_| true)
            {
                wrong.push(format!("refused for no reason: {published:?}"));
            }
        }
        for (id, life) in &self.lives {
            for (channel, stint) in &life.stints {
                let found = self.wrong_with(channel, life, stint);
                wrong.extend(found.into_iter().map(|what| {
                    format!("connection {id} of {} on node {}, {channel}: {what}", life.user, life.node)
                }));
            }
        }
        let mut channels: Vec<_> = self.stints().map(|(channel, _)| channel).collect();
        channels.sort_unstable();
        channels.dedup();
        wrong.extend(channels.into_iter().filter_map(|channel| self.disorder(channel)));
        wrong
    }

    /// What a connection should not have heard, or should have heard, on a channel.
    fn wrong_with(&self, channel: &Arc<str>, life: &Life, stint: &Stint) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut heard = Vec::new();
        for mark in &stint.events {
            match self.published.get(&(channel.clone(), *mark)) {
                Some(published) => heard.push(published),
                None => wrong.push(format!("{mark:?} was never published")),
            }
        }
        wrong.extend(wrong_order(&heard));
        if let Some(joined) = stint.joined {
            wrong.extend(self.lost(channel, stint, joined, &heard));
            if **channel == *CROWD {
                wrong.extend(self.wrong_guests(life, joined, stint));
            }
        }
        wrong
    }

    /// Events that were accepted before the last one that was heard was sent, and not heard: after somebody had joined;
    /// or, on a cache channel, before, but behind the one that was replayed. (That one may be a moment old: the next one
    /// is on its way then.)
    fn lost(&self, channel: &Arc<str>, stint: &Stint, joined: Instant, heard: &[&Published]) -> Vec<String> {
        let Some(last) = heard.iter().map(|published| published.asked).max() else { return Vec::new() };
        let replayed = heard.first().filter(|_| channel.contains("cache-") && !stint.missed);
        let is_due = |published: &Published| {
            published.asked > joined
                || stint.missed
                || replayed.is_some_and(|replayed| published.asked > replayed.answered)
        };
        let is_forgotten = |published: &Published| {
            // From a cache, what was there before is forgotten, too.
            let until = if published.asked > joined { published.answered } else { joined };
            self.is_in(published.asked, Some(until), |trouble| trouble == Trouble::RedisForgets)
        };
        let is_lost = |published: &&Published| {
            published.channel == *channel
                && published.outcome == Outcome::Accepted
                && published.answered < last
                && is_due(published)
                && !stint.heard.contains(&published.mark)
                && !is_forgotten(published)
        };
        let lost = self.published.values().filter(is_lost);
        lost.map(|published| format!("{:?} is lost", published.mark)).collect()
    }

    /// Guests whose whole visit fell into the time of a connection, and were not announced once.
    fn wrong_guests(&self, life: &Life, joined: Instant, stint: &Stint) -> Vec<String> {
        if self.is_in(joined, life.ended, |it| matches!(it, Trouble::CutOff(_) | Trouble::RedisForgets)) {
            return Vec::new();
        }
        // Ears that leave at last have seen everything; others may have gone before they were told.
        let has_seen_all = life.is_ear() && !life.is_dropped;
        let mut wrong = Vec::new();
        for visit in self.visits().iter().filter(|visit| visit.room.is_some() && visit.is_certain) {
            let lives: Vec<_> = self.lives.values().filter(|life| life.user == visit.user).collect();
            let asked = lives.iter().filter_map(|life| life.stints.get(CROWD)).map(|stint| stint.asked).min();
            if asked.is_none_or(|asked| asked < joined) || lives.iter().any(|life| life.ended.is_none()) {
                continue;
            }
            let times = |told: &[String]| told.iter().filter(|user| **user == visit.user).count();
            let (added, removed) = (times(&stint.added), times(&stint.removed));
            if added > 1 || removed > 1 || (has_seen_all && (added, removed) != (1, 1)) {
                wrong.push(format!("{} was added {added} times and removed {removed} times", visit.user));
            }
        }
        wrong
    }

    /// Two connections that have heard events of a channel in different order; or more, in a circle.
    fn disorder(&self, channel: &Arc<str>) -> Option<String> {
        let sequences: Vec<&[Mark]> =
            self.stints().filter(|(name, _)| *name == channel).map(|(_, stint)| &stint.events[..]).collect();
        let mut next: HashMap<Mark, HashSet<Mark>> = HashMap::new();
        let mut before: HashMap<Mark, usize> = HashMap::new();
        for sequence in &sequences {
            for mark in *sequence {
                before.entry(*mark).or_default();
            }
            for pair in sequence.windows(2) {
                if next.entry(pair[0]).or_default().insert(pair[1]) {
                    *before.entry(pair[1]).or_default() += 1;
                }
            }
        }
        let mut free: VecDeque<Mark> =
            before.iter().filter(|(_, count)| **count == 0).map(|(mark, _)| *mark).collect();
        let mut sorted = 0;
        while let Some(mark) = free.pop_front() {
            sorted += 1;
            for after in next.get(&mark).into_iter().flatten() {
                let count = before.get_mut(after).expect("every mark is there");
                *count -= 1;
                if *count == 0 {
                    free.push_back(*after);
                }
            }
        }
        let stuck: BTreeSet<_> =
            before.iter().filter(|(_, count)| **count > 0).map(|(mark, _)| mark).take(4).collect();
        (sorted < before.len()).then(|| format!("{channel}: there is no one order of {stuck:?} and others"))
    }
}

/// Events that came behind others although they were first. Who is answered before another one asks is first, and so is
/// the earlier one of the same publisher.
fn wrong_order(heard: &[&Published]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut latest: Option<&Published> = None;
    let mut numbers: HashMap<u32, u32> = HashMap::new();
    for published in heard {
        // What had no answer may have been done late.
        if !matches!(published.outcome, Outcome::Accepted | Outcome::Said) {
            continue;
        }
        let Mark { publisher, number } = published.mark;
        let later = latest.filter(|latest| latest.asked > published.answered);
        if published.outcome == Outcome::Accepted
            && let Some(later) = later
        {
            wrong.push(format!("{:?} came behind {:?}", published.mark, later.mark));
        } else if numbers.insert(publisher, number) >= Some(number) {
            wrong.push(format!("{:?} came behind a later one of its publisher", published.mark));
        }
        latest = latest.filter(|latest| latest.asked >= published.asked).or(Some(published));
    }
    wrong
}

/// A user's time, on however many connections.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) user: String,
    /// A channel of its own, if it was a guest.
    pub(crate) room: Option<String>,
    /// It was there for certain, and nobody had a reason to think otherwise.
    pub(crate) is_certain: bool,
    /// Redis has lost what it knew meanwhile.
    pub(crate) is_lost: bool,
}

impl Life {
    fn new(node: usize, user: String, began: Instant) -> Self {
        let (watched, stints) = (BTreeMap::new(), BTreeMap::new());
        Self { node, user, began, ended: None, is_dropped: false, watched, stints }
    }

    fn hear(&mut self, at: Instant, what: Heard) -> Result<(), String> {
        match what {
            Heard::Asked(channel) => {
                self.stints.insert(channel, Stint::new(at));
                Ok(())
            }
            Heard::Joined(channel, roster) => self.on(&channel)?.join(at, roster),
            Heard::Event(channel, mark) => self.on(&channel)?.hear(mark),
            Heard::Missed(channel) => {
                let stint = self.on(&channel)?;
                stint.missed = true;
                if stint.events.is_empty() {
                    Ok(())
                } else {
                    Err(format!("a miss behind an event of {channel}"))
                }
            }
            Heard::Added(channel, user) => {
                let stint = self.on(&channel)?;
                stint.added.push(user.clone());
                if stint.roster.insert(user.clone()) {
                    Ok(())
                } else {
                    Err(format!("{user} was added twice"))
                }
            }
            Heard::Removed(channel, user) => {
                let stint = self.on(&channel)?;
                stint.removed.push(user.clone());
                if stint.roster.remove(&user) {
                    Ok(())
                } else {
                    Err(format!("{user} left, and was not there"))
                }
            }
            Heard::Counted(channel, count) => {
                self.on(&channel)?.count = Some(count);
                Ok(())
            }
            Heard::Watches(users) => {
                self.watched = users.into_iter().collect();
                Ok(())
            }
            Heard::Turned(user, is_online) => match self.watched.insert(user.clone(), is_online) {
                Some(before) if before != is_online => Ok(()),
                _ => Err(format!(
                    "{user} is told twice to be {}",
                    if is_online { "online" } else { "offline" }
                )),
            },
            Heard::Leaves | Heard::Lost => {
                self.ended = Some(at);
                self.is_dropped = matches!(what, Heard::Lost);
                Ok(())
            }
            Heard::Began { .. } | Heard::Complaint(_) => Ok(()),
        }
    }

    fn on(&mut self, channel: &str) -> Result<&mut Stint, String> {
        self.stints.get_mut(channel).ok_or_else(|| format!("something of {channel}, which was not asked for"))
    }

    /// Whether it is one of those that stay.
    pub(crate) fn is_ear(&self) -> bool {
        self.user.starts_with("ear-")
    }

    /// Whether it has heard an event.
    pub(crate) fn has_heard(&self, channel: &str, mark: Mark) -> bool {
        self.stints.get(channel).is_some_and(|stint| stint.heard.contains(&mark))
    }
}

impl Stint {
    fn new(asked: Instant) -> Self {
        let (joined, events, heard, missed, count) = (None, Vec::new(), HashSet::new(), false, None);
        let (roster, added, removed) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { asked, joined, events, heard, missed, count, roster, added, removed }
    }

    fn join(&mut self, at: Instant, roster: Option<Vec<String>>) -> Result<(), String> {
        self.roster = roster.into_iter().flatten().collect();
        match self.joined.replace(at) {
            // The channel of a user: signing in has subscribed.
            None => Ok(()),
            Some(_) => Err("subscribed twice".to_owned()),
        }
    }

    fn hear(&mut self, mark: Mark) -> Result<(), String> {
        self.events.push(mark);
        if self.joined.is_none() {
            return Err(format!("{mark:?} came before the subscription"));
        }
        if self.heard.insert(mark) { Ok(()) } else { Err(format!("{mark:?} came twice")) }
    }
}
