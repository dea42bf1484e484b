//! The task that delivers: it feeds the queue, makes the attempts, and says what becomes of them.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{interval, sleep_until};

use crate::app::Apps;
use crate::hub::Occurrence;
use crate::metrics::Dropped;
use crate::node::{FactAnswer, Mailbox, News, Node, Room, Told, Weighed};
use crate::webhook::delivery::{Endpoint, Failure, Now, Ticket};
use crate::webhook::post::Outside;
use crate::webhook::queue::{Limits, Queue};
use crate::webhook::receiver::Change;
use crate::webhook::state::{StateError, StateFile};
use crate::webhook::strangers::{Introduced, Strangers};
use crate::webhook::{Finish, Question};

/// Occurrences taken at a time.
const TAKEN: usize = 512;

/// How often figures are set and changed apps looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often losses are put into the log, all since the last time in one line.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Facts of apps that are being looked up may take one part in so many of the queue's bytes.
const STRANGERS_SHARE: usize = 4;

/// Lines about single receivers in that time; more say nothing new.
const LINES_MAX: u32 = 20;

/// Owns all state of webhooks.
pub(super) struct Courier {
    node: Arc<Node>,
    mailbox: Mailbox<Occurrence>,
    /// From the cluster, if this node is one of many. Then nothing comes from its hubs.
    news: Option<Mailbox<News>>,
    strangers: Strangers,
    /// What was taken from `news` and is not made room for yet.
    taken: Room,
    queue: Queue,
    /// Made for the first attempt: who has no webhooks pays nothing for it.
    outside: Option<Outside>,
    /// It could not be begun and is tried again then.
    no_way_until: Option<Instant>,
    attempts: JoinSet<Done>,
    state_file: Option<StateFile>,
    apps: Arc<Apps>,
    report: Report,
}

/// An attempt that has ended.
struct Done {
    ticket: Ticket,
    outcome: Result<(), Failure>,
    elapsed: Duration,
}

/// What is to be said in the log next.
#[derive(Default)]
struct Report {
    at: Option<Instant>,
    lines: u32,
    overloads_told: u64,
    queue_full: usize,
    receiver_gone: usize,
    given_up: usize,
    last: Option<(Arc<Endpoint>, String)>,
}

impl Courier {
    /// Takes over what an earlier run has left.
    pub(super) async fn new(node: &Arc<Node>) -> Result<Self, StateError> {
        let settings = &node.config().webhooks;
        let mut queue = Queue::new(Limits::from(settings), rand::random());
        let state_file = StateFile::open(&settings.state_file)?;
        if let Some(file) = &state_file {
            file.restore(node, &mut queue, now).await?;
        }
        let mailbox = node.take_occurrences().expect("webhooks begin once");
        Ok(Self {
            node: node.clone(),
            mailbox,
            news: node.take_news(),
            strangers: Strangers::new(node),
            taken: Room::default(),
            queue,
            outside: None,
            no_way_until: None,
            attempts: JoinSet::new(),
            state_file,
            apps: node.apps().clone(),
            report: Report::default(),
        })
    }

    /// Delivers until it is told to finish.
    pub(super) async fn run(
        mut self,
        mut questions: UnboundedReceiver<Question>,
        mut finishes: Receiver<Finish>,
    ) {
        let (mut occurred, mut news) = (Vec::new(), Vec::new());
        let mut look = interval(LOOK_EVERY);
        loop {
            self.begin_attempts();
            self.count_losses();
            self.make_room();
            tokio::select! {
                true = self.mailbox.take(&mut occurred, TAKEN) => self.accept(&mut occurred),
                true = take(&mut self.news, &mut news) => self.hear(&mut news),
                Some(introduced) = self.strangers.next() => self.introduce(introduced),
                Some(done) = self.attempts.join_next() => self.finished(done),
                Some(question) = questions.recv() => self.answer(question),
                () = sleep(self.queue.wake()) => self.queue.settle(Instant::now()),
                _ = look.tick() => self.look(),
                Some(Finish { within, done }) = finishes.recv() => {
                    self.finish(within, &mut finishes).await;
                    // Nobody need wait for it.
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Lives by the apps that there are now.
    fn follow_apps(&mut self) {
        if !Arc::ptr_eq(&self.node.apps(), &self.apps) {
            self.follow();
        }
    }

    fn follow(&mut self) {
        self.apps = self.node.apps().clone();
        // A node of a cluster forgets apps of the store that none of its own clients use.
        if self.news.is_some() && self.node.has_store() {
            self.queue.apps_missing_in(&self.apps).iter().for_each(|app| self.strangers.meet(app));
        }
        self.queue.follow(&self.apps, |app| self.strangers.has(app));
    }

    fn accept(&mut self, occurred: &mut Vec<Occurrence>) {
        // First, so that what waits already is sent first.
        self.follow_apps();
        let now = now();
        for occurrence in occurred.drain(..) {
            match self.apps.by_id(&occurrence.app) {
                Some(app) => self.queue.accept(app, &occurrence, now),
                None => self.node.metrics().webhooks.dropped(Dropped::ReceiverGone, 1),
            }
        }
    }

    /// Takes what the cluster tells.
    fn hear(&mut self, news: &mut Vec<News>) {
        self.follow_apps();
        let now = now();
        for news in news.drain(..) {
            match news {
                News::Fact(told) => {
                    self.taken.facts += 1;
                    self.taken.bytes += told.weight();
                    self.accept_fact(told, now);
                }
                News::Lost => {
                    let events = self.queue.let_go_of_lost(now.at);
                    tracing::info!(events, "another node has taken over the telling of webhooks");
                }
            }
        }
    }

    fn accept_fact(&mut self, told: Told, now: Now) {
        let app = &told.occurrence.app;
        match self.apps.by_id(app) {
            // What happened before is told first.
            Some(known) if !self.strangers.has(app) => self.queue.accept_fact(known, told, now),
            None if !self.node.has_store() => self.let_go(told),
            _ => self.strangers.add(told),
        }
    }

    /// The store has told of an app.
    fn introduce(&mut self, Introduced { app, facts }: Introduced) {
        // If there is no such app, that is settled, and not asked again by what waits for its receivers.
        self.queue.follow(&self.node.apps(), |other| *other != app);
        self.follow();
        let now = now();
        for told in facts {
            match self.apps.by_id(&app) {
                Some(app) => self.queue.accept_fact(app, told, now),
                None => self.let_go(told),
            }
        }
    }

    /// Nobody is to be told.
    fn let_go(&mut self, told: Told) {
        self.node.metrics().webhooks.dropped(Dropped::ReceiverGone, 1);
        told.receipt.done();
    }

    /// Has more taken out of Redis, in the place of what was taken, unless there should not be more for now.
    fn make_room(&mut self) {
        let strangers_max = self.node.config().webhooks.queue_bytes_max / STRANGERS_SHARE;
        let is_held_up = || self.strangers.bytes() > strangers_max || self.queue.is_held_up(Instant::now());
        if self.taken.facts > 0 && !is_held_up() {
            self.node.answer_facts(FactAnswer::Room(std::mem::take(&mut self.taken)));
        }
    }

    fn begin_attempts(&mut self) {
        if self.queue.may_attempt() {
            self.go_outside();
        }
        let Some(outside) = &self.outside else { return };
        while let Some(attempt) = self.queue.next_attempt(Instant::now()) {
            let (ticket, began) = (attempt.ticket, Instant::now());
            let done = move |outcome| Done { ticket, outcome, elapsed: began.elapsed() };
            outside.post(&mut self.attempts, attempt, done);
        }
    }

    /// Begins the thread for requests, if there is none. What waits does so until the system has one to spare.
    fn go_outside(&mut self) {
        if self.outside.is_some() || self.no_way_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        match Outside::new(&self.node.config().webhooks) {
            Ok(outside) => self.outside = Some(outside),
            Err(error) => {
                tracing::warn!(%error, "there is no thread for webhooks, they have to wait");
                self.no_way_until = Some(Instant::now() + REPORT_EVERY);
            }
        }
    }

    fn finished(&mut self, done: Result<Done, JoinError>) {
        let Done { ticket, outcome, elapsed } = match done {
            Ok(done) => done,
            // Its delivery would never end otherwise.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => return,
            },
        };
        let metrics = &self.node.metrics().webhooks;
        let name = outcome.as_ref().map_or_else(Failure::as_str, |()| "delivered");
        metrics.attempts.with_label_values(&[name]).inc();
        metrics.attempt_seconds.observe(elapsed.as_secs_f64());
        let changed = self.queue.finished(ticket, &outcome, Instant::now());
        if let Err(error) = &outcome {
            tracing::debug!(%error, elapsed_ms = elapsed.as_millis(), "a webhook was not delivered");
        }
        let Some((change, endpoint)) = changed else { return };
        if self.report.lines >= LINES_MAX {
            return;
        }
        self.report.lines += 1;
        let (app, receiver) = (&endpoint.app, endpoint.origin());
        match (change, outcome) {
            (Change::Failing, Err(error)) => {
                tracing::warn!(%app, receiver, %error, "a receiver of webhooks fails");
            }
            (Change::Down, Err(error)) => {
                tracing::warn!(%app, receiver, %error, "a receiver of webhooks is down and only probed");
            }
            _ => tracing::info!(%app, receiver, "a receiver of webhooks is back"),
        }
    }

    fn answer(&mut self, question: Question) {
        // Whoever has asked may be gone.
        match question {
            Question::DeadLetters(selection, reply) => {
                let _ = reply.send(self.queue.dead().select(&selection));
            }
            Question::Replay(selection, reply) => {
                self.follow_apps();
                let replayed = self.queue.replay(&selection, &self.apps, now());
                let _ = reply.send(replayed);
            }
        }
    }

    /// What is to be done every now and then.
    fn look(&mut self) {
        self.follow_apps();
        self.strangers.ask_again();
        self.show_load();
        if self.report.at.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.report();
        }
    }

    fn show_load(&self) {
        let (load, metrics) = (self.queue.load(), &self.node.metrics().webhooks);
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.deliveries.set(number(load.deliveries));
        metrics.bytes.set(number(load.bytes));
        metrics.dead_letters.set(number(load.dead_letters));
        metrics.receivers_down.set(number(load.receivers_down));
    }

    fn count_losses(&mut self) {
        let (tally, metrics) = (self.queue.take_tally(), &self.node.metrics().webhooks);
        if tally.queue_full > 0 {
            metrics.dropped(Dropped::QueueFull, tally.queue_full);
            self.report.queue_full += tally.queue_full;
        }
        if tally.receiver_gone > 0 {
            metrics.dropped(Dropped::ReceiverGone, tally.receiver_gone);
            self.report.receiver_gone += tally.receiver_gone;
        }
        if tally.given_up > 0 {
            metrics.given_up.inc_by(u64::try_from(tally.given_up).unwrap_or(u64::MAX));
            self.report.given_up += tally.given_up;
            self.report.last = tally.last;
        }
    }

    /// Says what was lost since the last time.
    fn report(&mut self) {
        let overloads = self.node.metrics().webhooks.dropped_so_far(Dropped::Overload);
        let overload = overloads - self.report.overloads_told;
        let told = std::mem::take(&mut self.report);
        self.report.overloads_told = overloads;
        if overload > 0 || told.queue_full > 0 {
            let queue_full = told.queue_full;
            tracing::warn!(overload, queue_full, "events for webhooks were dropped, too many waited");
            self.report.at = Some(Instant::now());
        }
        if told.receiver_gone > 0 {
            let events = told.receiver_gone;
            tracing::warn!(events, "events for webhooks were dropped, their receivers are gone");
            self.report.at = Some(Instant::now());
        }
        if let Some((endpoint, error)) = told.last {
            let (deliveries, app, receiver) = (told.given_up, &endpoint.app, endpoint.origin());
            tracing::warn!(deliveries, %app, receiver, error, "webhooks were given up, they are dead letters now");
            self.report.at = Some(Instant::now());
        }
        if told.lines > 0 {
            self.report.at = Some(Instant::now());
        }
    }

    /// Delivers what can still be delivered and keeps the rest, if there is a place for it.
    async fn finish(mut self, within: Duration, finishes: &mut Receiver<Finish>) {
        let mut deadline = Instant::now() + within;
        // Whoever is in more of a hurry waits for the end, too.
        let mut hurried = Vec::new();
        let is_kept = self.state_file.is_some() || self.news.is_some();
        if !is_kept {
            // Whoever left cannot be back before we have gone.
            let debounce = Duration::from_secs(self.node.config().webhooks.debounce_s);
            self.node.settle(Instant::now() + debounce);
        }
        self.take_the_last();
        self.queue.close_batches(Instant::now());
        while Instant::now() < deadline {
            self.begin_attempts();
            // What must wait for its next attempt can do that in the file, or in Redis.
            let wake = self.queue.wake().filter(|at| !is_kept && *at < deadline);
            if self.attempts.is_empty() && wake.is_none() {
                break;
            }
            tokio::select! {
                Some(done) = self.attempts.join_next() => self.finished(done),
                () = sleep(wake) => self.queue.settle(Instant::now()),
                () = sleep(Some(deadline)) => {}
                Some(Finish { within, done }) = finishes.recv() => {
                    deadline = deadline.min(Instant::now() + within);
                    hurried.push(done);
                }
            }
        }
        self.attempts.abort_all();
        self.count_losses();
        self.report();
        self.leave_behind();
    }

    /// Takes what waits in the mailboxes.
    fn take_the_last(&mut self) {
        let mut occurred = Vec::new();
        self.mailbox.take_waiting(&mut occurred);
        self.accept(&mut occurred);
        let Some(mailbox) = &mut self.news else { return };
        let mut news = Vec::new();
        mailbox.take_waiting(&mut news);
        self.hear(&mut news);
        self.node.answer_facts(FactAnswer::Closing);
    }

    fn leave_behind(&mut self) {
        let (events, dead_letters) = (self.queue.events(), self.queue.dead().len());
        if self.news.is_some() {
            return self.leave_to_others(events - self.queue.kept_events(), dead_letters);
        }
        let Some(file) = &self.state_file else {
            if events > 0 || dead_letters > 0 {
                self.node.metrics().webhooks.dropped(Dropped::Stopped, events);
                tracing::warn!(
                    events,
                    dead_letters,
                    "webhooks were lost by stopping, webhooks.state_file would keep them"
                );
            }
            return;
        };
        let leavers = self.node.leavers();
        match file.save(&leavers, &self.queue) {
            Ok(()) => {
                let channels = leavers.len();
                tracing::info!(events, dead_letters, channels, "webhooks are kept for the next start");
            }
            Err(error) => {
                self.node.metrics().webhooks.dropped(Dropped::Stopped, events);
                tracing::error!(%error, events, dead_letters, "webhooks were lost by stopping");
            }
        }
    }

    /// Their receipts go unsigned, so Redis keeps them for another node, or for the next start.
    fn leave_to_others(&mut self, lost: usize, dead_letters: usize) {
        let events = self.queue.kept_events();
        tracing::info!(events, "webhooks are left to other nodes");
        if lost > 0 || dead_letters > 0 {
            self.node.metrics().webhooks.dropped(Dropped::Stopped, lost);
            tracing::warn!(
                events = lost,
                dead_letters,
                "replayed webhooks and dead letters were lost by stopping"
            );
        }
    }
}

/// Waits for what the cluster tells; for ever, if there is none.
async fn take(mailbox: &mut Option<Mailbox<News>>, news: &mut Vec<News>) -> bool {
    match mailbox {
        Some(mailbox) => mailbox.take(news, TAKEN).await,
        None => pending().await,
    }
}

fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { at: Instant::now(), ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX) }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
