//! What the metrics and the probes of health ask a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::app::{App, AppId, Apps};
use crate::hub::WorkerId;
use crate::metrics::{OTHER_APPS, State, Tally};
use crate::mirror::PARTITIONS;
use crate::node::cluster::Cluster;
use crate::node::{Node, Usage, Waiting, hold};

impl Node {
    /// The metrics page.
    pub fn page(&self) -> Vec<u8> {
        let soketi_port = self.config.metrics.soketi_names.then(|| self.config.server.bind.port());
        self.metrics.page(&self.state(), soketi_port)
    }

    /// Everything that is counted from state.
    fn state(&self) -> State {
        let mut state = State { draining: self.is_leaving(), ..State::default() };
        let usages = self.usages.load();
        let label = |app: &AppId| match usages.get(app) {
            Some(usage) if usage.labelled => app.to_string(),
            _ => OTHER_APPS.to_owned(),
        };
        for (app, usage) in &**usages {
            let figures = state.apps.entry(label(app)).or_default();
            figures.connections += usage.open.load(Ordering::Relaxed);
            figures.tally.clone_from(&usage.tally);
        }
        for hub in &self.hubs {
            let shard = hold(hub);
            for (app, channels) in shard.hub.all() {
                let mut occupied = channels.filter(|channel| channel.1 > 0).peekable();
                if occupied.peek().is_none() {
                    continue;
                }
                let figures = state.apps.entry(label(app)).or_default();
                for (channel, subscriptions, members) in occupied {
                    figures.add_channel(channel, subscriptions, members);
                }
            }
        }
        for partition in 0..PARTITIONS {
            self.mirrored(partition, |mirror, _| {
                for (app, channel, subscriptions, members) in mirror.occupied(None) {
                    let figures = state.apps.entry(label(app)).or_default();
                    figures.add_channel(channel, subscriptions, members);
                }
            });
        }
        let waiting = |waiting: &Waiting| {
            (waiting.letters.load(Ordering::Relaxed), waiting.bytes.load(Ordering::Relaxed))
        };
        state.cluster = self.cluster.as_ref().map(Cluster::figures).unwrap_or_default();
        state.mailboxes = self.outlets.iter().map(|outlet| waiting(&outlet.waiting)).collect();
        state
    }

    /// A worker says that it is alive.
    pub fn beat(&self, worker: WorkerId) {
        if let Some(beat) = self.beats.get(usize::from(worker.0)) {
            beat.store(self.elapsed_ms(), Ordering::Relaxed);
        }
    }

    /// For how long each worker has not said that it is alive.
    pub fn silences(&self) -> impl Iterator<Item = Duration> {
        let now = self.elapsed_ms();
        let silence = move |beat: &AtomicU64| now.saturating_sub(beat.load(Ordering::Relaxed));
        self.beats.iter().map(move |beat| Duration::from_millis(silence(beat)))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives each new app its figures. Those with the first ids get labels of their own in the metrics while there are
    /// some; which app has one never changes while it is known, since its counters would jump.
    pub(super) fn make_known(&self, usages: &mut HashMap<AppId, Arc<Usage>>, apps: &Apps) {
        let labelled = usages.values().filter(|usage| usage.labelled).count();
        let mut labels = self.config.metrics.apps_max.saturating_sub(labelled);
        let mut new: Vec<&AppId> = apps.all().map(|app| &app.id).collect();
        new.retain(|id| !usages.contains_key(*id));
        new.sort_unstable();
        for id in new {
            let labelled = labels > 0;
            labels = labels.saturating_sub(1);
            let of_others = self.other_tally.clone();
            let tally = of_others.map(|others| if labelled { Arc::default() } else { others });
            usages.insert(id.clone(), Arc::new(Usage { labelled, tally, ..Usage::default() }));
        }
    }

    /// Where soketi's figures of an app are counted, if they are wanted.
    pub fn tally(&self, app: &App) -> Option<Arc<Tally>> {
        self.other_tally.as_ref()?;
        self.usages.load().get(&app.id)?.tally.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::KeyPair;
    use crate::config::Config;
    use crate::protocol::Secret;

    fn apps(ids: &[&str]) -> Apps {
        let app = |id: &&str| {
            let keys = vec![KeyPair { key: (*id).to_owned(), secret: Secret::new("s") }];
            App { id: (*id).into(), keys, ..App::default() }
        };
        Apps::new(ids.iter().map(app)).expect("valid apps")
    }

    fn labels(node: &Node) -> Vec<String> {
        node.state().apps.into_keys().collect()
    }

    #[test]
    fn an_app_keeps_its_label_and_a_new_one_takes_what_became_free() {
        let mut config = Config::default();
        config.metrics.apps_max = 2;
        let node = Node::new(config, apps(&["c", "b", "a"]));
        assert_eq!(labels(&node), ["a", "b", "other"]);
        node.replace_apps(apps(&["0", "a", "b", "c"]));
        assert_eq!(labels(&node), ["a", "b", "other"], "whoever has one keeps it");
        node.replace_apps(apps(&["b", "c", "d"]));
        assert_eq!(labels(&node), ["b", "d", "other"], "whoever is among the others stays there");
    }

    #[test]
    fn what_waits_in_a_mailbox_is_known_to_those_who_post() {
        let node = Node::new(Config::default(), apps(&["a"]));
        let letters = |node: &Node| node.state().mailboxes.iter().map(|mailbox| mailbox.0).sum::<usize>();
        let workers = node.config().workers();
        assert_eq!(letters(&node), 0);
        node.drain(Duration::ZERO);
        assert_eq!(letters(&node), workers);
    }
}
