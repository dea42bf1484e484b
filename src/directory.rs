//! Which apps there are: those of the file, and of the store those that somebody asked for.
//!
//! One task owns what is known of both, and it alone replaces the node's apps. A key or id that the snapshot does not
//! know is asked of the store: one query is on its way at a time, and what is asked meanwhile goes into the next one.
//! Known apps are read again every `store.cache_ttl_s`; unknown ones are remembered for `store.unknown_ttl_s`. While
//! the store is away known apps go on as they are, and nobody waits for it.
//!
//! An app of the file wins over one of the store with its id or one of its keys. One that the file has no longer goes
//! on until the store has said whether it has it: moving an app drops nobody.
//! Not here: tables and SQL (`store`).

mod known;
mod unknown;

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval_at};

use crate::app::{App, AppId};
use crate::control::vital;
use crate::node::{AppName, Lookup, Node, StoreAway};
use crate::store::{Row, Store, StoreError, is_name};

use known::Known;
use unknown::Unknown;

/// Most unknown names in one query, and most known apps that are read again with it.
const NAMES_MAX: usize = 500;
/// How soon a store that is away is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The way to the task that owns the apps.
#[derive(Clone, Debug)]
pub struct Directory {
    messages: mpsc::UnboundedSender<Refresh>,
}

/// What reading everything again came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refreshed {
    /// Apps that are served now.
    pub apps: usize,
    /// Why the store's apps are as they were before, if they are.
    pub problem: Option<String>,
}

/// These are the file's apps from now on, and everything is to be read again.
#[derive(Debug)]
struct Refresh {
    files: Vec<App>,
    answer: oneshot::Sender<Refreshed>,
}

impl Directory {
    /// Begins with the apps of the node's configuration. The store has been opened before, so that a wrong one stops
    /// the start.
    pub fn start(node: &Arc<Node>, store: Option<Store>) -> Self {
        let (messages, received) = mpsc::unbounded_channel();
        let files = node.config().apps.clone();
        // Here, not in the task: whoever connects at once has to wait for it already.
        let lookups = store.as_ref().and_then(|_| node.take_lookups());
        let task = Task::new(node.clone(), files, store);
        vital("the task that owns the apps has failed", task.run(received, lookups));
        Self { messages }
    }

    /// These are the file's apps from now on, and those of the store are read again at once.
    pub async fn refresh(&self, files: Vec<App>) -> Refreshed {
        let (answer, answered) = oneshot::channel();
        // The task ends with the process.
        let _ = self.messages.send(Refresh { files, answer });
        answered.await.unwrap_or_default()
    }
}

type Rows = Result<Vec<Row>, StoreError>;

/// A question on its way to the database.
struct Asked {
    /// Known apps that are read again.
    ids: Vec<AppId>,
    /// Those who wait for apps that are not known.
    waiting: Vec<Lookup>,
    since: Instant,
    rows: Pin<Box<dyn Future<Output = Rows>>>,
}

struct Task {
    node: Arc<Node>,
    store: Option<Arc<Store>>,
    known: Known,
    unknown: Unknown,
    /// Who asks, until the query before has been answered.
    waiting: VecDeque<Lookup>,
    /// Known apps that are to be read again.
    stale: VecDeque<AppId>,
    asked: Option<Asked>,
    /// Since when the store is away, and when it is asked again.
    away: Option<(Instant, Instant)>,
    /// Who waits for all known apps to be read again.
    refreshing: Vec<oneshot::Sender<Refreshed>>,
}

impl Task {
    fn new(node: Arc<Node>, files: Vec<App>, store: Option<Store>) -> Self {
        let ttl = Duration::from_secs(node.config().store.unknown_ttl_s);
        Self {
            node,
            store: store.map(Arc::new),
            known: Known::new(files),
            unknown: Unknown::new(ttl),
            waiting: VecDeque::new(),
            stale: VecDeque::new(),
            asked: None,
            away: None,
            refreshing: Vec::new(),
        }
    }

    async fn run(
        mut self,
        mut messages: mpsc::UnboundedReceiver<Refresh>,
        lookups: Option<mpsc::Receiver<Lookup>>,
    ) {
        // Without a store nobody asks: what is not in the snapshot is unknown.
        let (_nobody, silence) = mpsc::channel(1);
        let mut lookups = lookups.unwrap_or(silence);
        let ttl = Duration::from_secs(self.node.config().store.cache_ttl_s);
        let mut look_again = interval_at(tokio::time::Instant::now() + ttl, ttl);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.ask();
            let retry_at = self.away.filter(|_| self.asked.is_none()).map(|(_, at)| at);
            tokio::select! {
                // The others wait in the channel, which has an end.
                Some(lookup) = lookups.recv(), if self.waiting.len() < NAMES_MAX => self.look_up(lookup),
                refresh = messages.recv() => match refresh {
                    Some(refresh) => self.refresh(refresh),
                    None => return,
                },
                rows = answer(&mut self.asked) => self.answered(rows),
                _ = look_again.tick(), if self.store.is_some() => self.look_again(Instant::now()),
                () = sleep_until(retry_at) => self.look_again(Instant::now()),
            }
        }
    }

    fn refresh(&mut self, Refresh { files, answer }: Refresh) {
        self.known.set_files(files, self.store.is_some());
        self.known.publish(&self.node);
        // Whoever has just made an app wants it served, also if somebody was here before it.
        self.unknown.clear();
        self.refreshing.push(answer);
        match self.store {
            Some(_) => self.look_again(Instant::now()),
            None => self.refreshed(None),
        }
    }

    /// Takes a question. Those whose answer is known are answered at once.
    fn look_up(&mut self, lookup: Lookup) {
        let Lookup { name, answer } = &lookup;
        let (AppName::Id(text) | AppName::Key(text)) = name;
        let is_settled =
            is_known(&self.node, name) || !is_name(text) || self.unknown.contains(name, Instant::now());
        if answer.is_closed() {
            return; // the client has gone meanwhile
        }
        if is_settled {
            let _ = lookup.answer.send(Ok(()));
        } else if self.away.is_some() {
            let _ = lookup.answer.send(Err(StoreAway));
        } else {
            self.waiting.push_back(lookup);
        }
    }

    /// All known apps are to be read again.
    fn look_again(&mut self, now: Instant) {
        match &mut self.away {
            // What is let go of now could not be had back.
            Some((_, retry_at)) => *retry_at = now,
            None => {
                self.known.forget_idle(&self.node.apps_in_use(), now);
                // At once: nobody is to come in by an app that goes a moment later.
                self.known.publish(&self.node);
            }
        }
        self.stale = self.known.ids().collect();
        if self.stale.is_empty() {
            match self.away {
                // Nothing to read is still a reason to see whether the store is back.
                Some(_) => self.stale.push_back(AppId::from("")),
                None => self.refreshed(None),
            }
        }
    }

    /// Puts the next question to the database, unless one is on its way or the store is away.
    fn ask(&mut self) {
        let may = self.asked.is_none() && self.away.is_none_or(|(_, retry_at)| retry_at <= Instant::now());
        let (true, Some(store)) = (may, &self.store) else { return };
        let (mut ids, mut keys, mut names) = (Vec::new(), Vec::new(), HashSet::new());
        let mut waiting = Vec::new();
        while names.len() < NAMES_MAX
            && let Some(lookup) = self.waiting.pop_front()
        {
            if names.insert(lookup.name.clone()) {
                match &lookup.name {
                    AppName::Id(id) => ids.push(id.clone()),
                    AppName::Key(key) => keys.push(key.clone()),
                }
            }
            waiting.push(lookup);
        }
        // With every question, so that those who guess keep no change from being seen.
        let count = self.stale.len().min(NAMES_MAX);
        let again: Vec<AppId> = self.stale.drain(..count).collect();
        ids.extend(again.iter().map(|id| id.to_string()));
        if ids.is_empty() && keys.is_empty() {
            return;
        }
        let store = store.clone();
        let rows = Box::pin(async move { store.read(&ids, &keys).await });
        self.asked = Some(Asked { ids: again, waiting, since: Instant::now(), rows });
    }

    fn answered(&mut self, rows: Rows) {
        let Some(asked) = self.asked.take() else { return };
        let figures = &self.node.metrics().store;
        figures.queries.inc();
        figures.seconds.observe(asked.since.elapsed().as_secs_f64());
        match rows {
            Ok(rows) => {
                self.is_back();
                self.learn(asked, rows);
            }
            Err(error) => {
                figures.errors.inc();
                self.is_away(&error, asked.waiting);
            }
        }
        self.node.metrics().store.apps.set(i64::try_from(self.known.len()).unwrap_or(i64::MAX));
    }

    fn learn(&mut self, asked: Asked, rows: Vec<Row>) {
        let now = Instant::now();
        let mut gone: HashSet<AppId> = asked.ids.iter().cloned().collect();
        for row in rows {
            gone.remove(&*row.id);
            if !self.known.learn(row, now) {
                self.node.metrics().store.skipped.inc();
            }
        }
        for id in gone {
            self.known.forget(&id);
        }
        for id in &asked.ids {
            self.known.has_moved(id);
        }
        self.known.publish(&self.node);
        for Lookup { name, answer } in asked.waiting {
            if !is_known(&self.node, &name) {
                self.unknown.insert(name, now);
            }
            let _ = answer.send(Ok(()));
        }
        if self.stale.is_empty() {
            self.refreshed(None);
        }
    }

    fn is_back(&mut self) {
        let Some((since, _)) = self.away.take() else { return };
        self.node.set_store_away(false);
        self.node.metrics().store.up.set(1);
        tracing::info!(elapsed_ms = since.elapsed().as_millis(), "the store of apps is back");
    }

    fn is_away(&mut self, error: &StoreError, waiting: Vec<Lookup>) {
        let now = Instant::now();
        if self.away.is_none() {
            self.node.set_store_away(true);
            self.node.metrics().store.up.set(0);
            tracing::warn!(%error, "the store of apps is away: known apps go on, unknown ones have to wait");
        }
        let since = self.away.map_or(now, |(since, _)| since);
        self.away = Some((since, now + RETRY_AFTER));
        for lookup in waiting.into_iter().chain(self.waiting.drain(..)) {
            let _ = lookup.answer.send(Err(StoreAway));
        }
        self.stale.clear();
        self.known.has_moved_nothing();
        self.known.publish(&self.node);
        self.refreshed(Some(error.to_string()));
    }

    fn refreshed(&mut self, problem: Option<String>) {
        if self.refreshing.is_empty() {
            return;
        }
        let apps = self.node.apps().all().count();
        for answer in self.refreshing.drain(..) {
            let _ = answer.send(Refreshed { apps, problem: problem.clone() });
        }
    }
}

fn is_known(node: &Node, name: &AppName) -> bool {
    match name {
        AppName::Id(id) => node.apps().by_id(id).is_some(),
        AppName::Key(key) => node.apps().by_key(key).is_some(),
    }
}

/// The answer to the question on its way; never, if there is none.
async fn answer(asked: &mut Option<Asked>) -> Rows {
    match asked {
        Some(asked) => asked.rows.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
