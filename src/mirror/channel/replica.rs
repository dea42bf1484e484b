//! How the replica of a topic follows the state, and what its listeners are told of that.

use super::*;

/// Who is believed to be there though a snapshot does not list them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Believed {
    /// Members of this node.
    Ours,
    /// All that were: the state has lost what it knew, or some of it.
    Everybody,
}

impl Channel {
    /// Until where nothing is missing, if all that a snapshot tells of is there or may still be under way: messages come in
    /// order, so that only what is before one that has come is known to be lost.
    pub(super) fn is_complete(&self, missed: &[Arrival], early: &[Arrival], until: Place) -> Option<Place> {
        let Place { epoch, seq } = self.place;
        let seq_of = |arrival: &Arrival| (arrival.place.epoch == epoch).then_some(arrival.place.seq);
        let last = early.iter().filter_map(seq_of).max().unwrap_or(seq).min(until.seq);
        let mut seqs: Vec<u64> = early.iter().chain(missed).filter_map(seq_of).collect();
        seqs.sort_unstable();
        let reached = seqs.into_iter().fold(seq, |reached, next| reached + u64::from(next == reached + 1));
        (self.place.is_of_one_era(until) && reached >= last).then_some(Place { epoch, seq: last })
    }

    /// Applies what was missed until a snapshot, as far as anybody still has it; `is_all` is the snapshot's. Returns what
    /// is left of the early messages.
    pub(super) fn heal(
        &mut self,
        (missed, is_all): (Vec<Arrival>, bool),
        until: Place,
        early: Vec<Arrival>,
        now: Instant,
        out: &mut Out<'_>,
    ) -> (Gap, Vec<Arrival>) {
        let epoch = self.place.epoch;
        let is_before = |arrival: &Arrival| {
            arrival.place.epoch == epoch && (until.epoch != epoch || arrival.place.seq <= until.seq)
        };
        let (before, early): (Vec<_>, Vec<_>) = early.into_iter().partition(is_before);
        // Of the same message twice, the early one is applied: it was not missed.
        let before = before.into_iter().map(|arrival| (arrival, 0));
        let missed = missed.into_iter().filter(is_before).map(|arrival| (arrival, 1));
        let mut all: Vec<(Arrival, u64)> = before.chain(missed).collect();
        all.sort_by_key(|(arrival, _)| arrival.place.seq);
        let mut gap = Gap::default();
        for (arrival, healed) in all {
            if arrival.place.seq > self.place.seq {
                let itself = u64::from(self.place.is_of_one_era(arrival.place));
                gap.lost += self.place.missing_to(arrival.place, is_all) - itself;
                gap.healed += healed;
                self.apply(arrival, now, out);
            }
        }
        if until.epoch == epoch {
            gap.lost += self.place.missing_to(until, is_all);
        }
        (gap, early)
    }

    /// Applies what came while it was looked. If something is missing again, the rest waits for another look.
    pub(super) fn replay(&mut self, early: Vec<Arrival>, now: Instant, out: &mut Out<'_>) {
        let epoch = self.place.epoch;
        for arrival in early {
            // Once it is looked again, what is of another life is part of the answer.
            if self.stage == Stage::Open || arrival.place.epoch == epoch {
                self.follow(arrival, now, out);
            }
        }
    }

    /// Puts everybody who is there in the place of those who were thought to be, and tells the difference to the
    /// listeners, if there are any, but for those who are believed to be there.
    pub(super) fn adopt_roster(
        &mut self,
        members: Vec<Arc<Member>>,
        believed: Option<Believed>,
        now: Instant,
        out: &mut Out<'_>,
    ) {
        let mut roster = Roster::default();
        for member in &members {
            roster.join(member);
        }
        let presence = self.presence.get_or_insert_default();
        let before = presence.roster.clone();
        if let Some(unsettled) = &mut self.unsettled {
            unsettled
                .doubts
                .members
                .retain(|user_id, _| before.contains(user_id) && !roster.contains(user_id));
        }
        let Some(believed) = believed else {
            presence.roster = Arc::new(roster);
            return;
        };
        let mut gone = Vec::new();
        for member in before.all() {
            if roster.contains(&member.user_id) {
                continue;
            }
            let is_new_doubt = believed == Believed::Everybody || self.is_ours(&member.user_id);
            if is_new_doubt || self.is_doubtful(&member.user_id) {
                roster.join(member);
            } else {
                gone.push(member);
            }
            if is_new_doubt {
                self.doubt_member(&member.user_id, now);
            }
        }
        let roster = Arc::new(roster);
        self.presence.get_or_insert_default().roster = roster.clone();
        for member in gone {
            self.tell(out, |name| Frame::member_removed(name, &member.user_id));
        }
        for member in roster.members() {
            match before.get(&member.user_id) {
                Some(known) if **known == *member || self.is_ours(&member.user_id) => continue,
                // Gone, and back as somebody else would describe it.
                Some(_) => self.tell(out, |name| Frame::member_removed(name, &member.user_id)),
                None => {}
            }
            self.tell(out, |name| Frame::member_added(name, member));
        }
    }

    /// Takes over whether a user is online.
    pub(super) fn adopt_online(
        &mut self,
        is_online: bool,
        is_believed: bool,
        now: Instant,
        out: &mut Out<'_>,
    ) {
        if self.is_online && !is_online && is_believed {
            self.unsettled().doubts.online = Some(now + BELIEF);
        }
        let doubt = self.unsettled.as_mut().map(|unsettled| &mut unsettled.doubts.online);
        match doubt {
            Some(doubt) if is_online => *doubt = None,
            Some(Some(_)) => return,
            _ => {}
        }
        self.turn(is_online, out);
    }

    /// The next message of the topic.
    pub(super) fn apply(&mut self, arrival: Arrival, now: Instant, out: &mut Out<'_>) {
        let Arrival { place, message, except } = arrival;
        self.place = place;
        match message {
            Message::Event(frame) => self.deliver(Body::Frame(frame), except, out),
            Message::Kept(event, ttl) => {
                let frame = event.frame.clone();
                self.cached = Some(Box::new((event, now + ttl)));
                self.deliver(Body::Frame(frame), except, out);
            }
            Message::MemberAdded(member) => self.add_member(&member, out),
            Message::MemberRemoved(user_id) if self.is_ours(&user_id) => self.doubt_member(&user_id, now),
            Message::MemberRemoved(user_id) => self.remove_member(&user_id, out),
            Message::Count(count) => self.deliver(Body::SubscriptionCount(count), except, out),
            Message::Online | Message::Offline => {
                if let Some(unsettled) = &mut self.unsettled {
                    unsettled.doubts.online = None;
                }
                self.turn(message == Message::Online, out);
            }
            Message::Disconnect(reason) => self.deliver(Body::Disconnect(reason), except, out),
        }
    }

    fn add_member(&mut self, member: &Arc<Member>, out: &mut Out<'_>) {
        let place = self.place;
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.doubts.members.remove(&member.user_id);
            let newcomer = unsettled.newcomers.get(&member.user_id);
            if newcomer
                .and_then(|newcomer| newcomer.entered)
                .is_some_and(|entered| place.has_come_to(entered))
            {
                unsettled.entered.push_front((place, member.user_id.clone()));
            }
        }
        let presence = self.presence.get_or_insert_default();
        if presence.roster.contains(&member.user_id) {
            return;
        }
        Arc::make_mut(&mut presence.roster).join(member);
        self.tell(out, |name| Frame::member_added(name, member));
    }

    /// A member has gone.
    pub(super) fn remove_member(&mut self, user_id: &str, out: &mut Out<'_>) {
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.doubts.members.remove(user_id);
        }
        let presence = self.presence.get_or_insert_default();
        if presence.roster.contains(user_id) {
            Arc::make_mut(&mut presence.roster).leave(user_id);
            self.tell(out, |name| Frame::member_removed(name, user_id));
        }
    }

    /// The state says that a member is not there, which may not be for long.
    pub(super) fn doubt_member(&mut self, user_id: &str, now: Instant) {
        self.unsettled().doubts.members.insert(user_id.into(), now + BELIEF);
    }

    fn is_doubtful(&self, user_id: &str) -> bool {
        self.unsettled.as_ref().is_some_and(|unsettled| unsettled.doubts.members.contains_key(user_id))
    }

    /// A user is online or is not, and watchers are told if that is new.
    pub(super) fn turn(&mut self, is_online: bool, out: &mut Out<'_>) {
        if std::mem::replace(&mut self.is_online, is_online) == is_online || self.listeners.is_empty() {
            return;
        }
        let user_id = self.name.user_id();
        let (online, offline) = if is_online { (user_id, None) } else { (None, user_id) };
        if let Some(frame) = Frame::watchlist_events(online, offline) {
            self.deliver(Body::Frame(frame), None, out);
        }
    }

    /// Tells every listener, if there are any.
    fn tell(&mut self, out: &mut Out<'_>, frame: impl FnOnce(&ChannelName) -> Frame) {
        if !self.listeners.is_empty() {
            self.deliver(Body::Frame(frame(&self.name)), None, out);
        }
    }

    /// Gives something to every listener.
    pub(super) fn deliver(&mut self, body: Body, except: Option<SocketId>, out: &mut Out<'_>) {
        self.position.seq += 1;
        let (position, audience) = (self.position, out.topic.audience);
        out.effects.extend(self.listeners.workers().map(|worker| {
            let (app, channel, body) = (out.topic.app.clone(), self.name.clone(), body.clone());
            Effect::Deliver(worker, Delivery { app, channel, audience, position, body, except })
        }));
    }
}
