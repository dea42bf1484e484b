//! What a node looks after beside its own calls: others' leases, what is due, and what operators are told.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cluster::engine::Engine;
use crate::cluster::envelope::Unreadable;
use crate::cluster::lane::Lane;
use crate::cluster::script::{Item, Pulse, fault};
use crate::cluster::servers::RunError;
use crate::mirror::PARTITIONS;
use crate::node::{ClusterStatus, Lease};

/// How often the state of the cluster is told to whoever asks.
const STATUS_EVERY: Duration = Duration::from_millis(250);

/// Until the next look at what a dead node has left.
const BURY_PAUSE: Duration = Duration::from_millis(50);

/// A dead node is told in the log once in this time: it dies in every partition.
const DEATH_TOLD_EVERY: Duration = Duration::from_secs(60);

/// What is known of the others, and what is still to be said.
pub(super) struct Care {
    began: Instant,
    /// What Redis told last, by partition.
    leases: Vec<Vec<(String, i64)>>,
    facts: Vec<u64>,
    /// How many facts were lost when the partition was first seen, and are by now.
    facts_lost: Vec<Option<u64>>,
    trouble: Option<String>,
    told_at: Option<Instant>,
    deaths_told: HashMap<String, Instant>,
    restated: (usize, usize),
    unreadable_told: bool,
}

impl Care {
    pub(super) fn new() -> Self {
        let partitions = usize::from(PARTITIONS);
        Self {
            began: Instant::now(),
            leases: vec![Vec::new(); partitions],
            facts: vec![0; partitions],
            facts_lost: vec![None; partitions],
            trouble: None,
            told_at: None,
            deaths_told: HashMap::new(),
            restated: (0, 0),
            unreadable_told: false,
        }
    }

    /// A message of another version, or none at all.
    pub(super) fn unreadable(&mut self, error: Unreadable) {
        if !std::mem::replace(&mut self.unreadable_told, true) {
            tracing::warn!(%error, "messages on the bus cannot be read: are all nodes of one version?");
        }
    }

    /// A command has failed.
    pub(super) fn failed(&mut self, partition: u8, error: &RunError) {
        let text = match error {
            RunError::Script(text) => fault(text).map_or_else(|| text.clone(), |fault| fault.to_string()),
            other => other.to_string(),
        };
        if self.trouble.as_ref() == Some(&text) {
            return;
        }
        // Of connections that come and go their owner speaks.
        if matches!(error, RunError::Script(_) | RunError::Refused(_)) {
            tracing::error!(partition, error = %text, "Redis does not do what this node needs");
        }
        self.trouble = Some(text);
    }

    /// A partition has lost what this node holds, and is told again.
    pub(super) fn restated(&mut self, holdings: usize) {
        self.restated.0 += 1;
        self.restated.1 += holdings;
    }

    fn died(&mut self, node: &str, now: Instant) {
        let is_told = |at: &Instant| now < *at + DEATH_TOLD_EVERY;
        if !self.deaths_told.get(node).is_some_and(is_told) {
            tracing::warn!(node, "a node is dead, its connections count as gone");
            self.deaths_told.retain(|_, at| is_told(at));
            self.deaths_told.insert(node.to_owned(), now);
        }
    }
}

impl Engine {
    /// Looks after what is due, and after what dead nodes have left.
    pub(super) fn pulse(&mut self, partition: u8, pulse: Pulse, now: Instant) {
        let lease_ms = i64::try_from(self.limits.lease.as_millis()).unwrap_or(i64::MAX);
        let mut alive: Vec<&String> =
            pulse.nodes.iter().filter(|(_, left)| *left > 0).map(|(node, _)| node).collect();
        alive.sort_unstable();
        // One does it, and the others only if it does not.
        let turn = usize::from(partition) % alive.len().max(1);
        let is_ours = alive.get(turn).is_some_and(|node| **node == self.name);
        if let Some(outbox) = &self.outbox {
            outbox.follow(partition, alive.iter().map(|node| (*node).clone()).collect());
        }
        let lane = &mut self.lanes[usize::from(partition)];
        if lane.may_judge(now) {
            for (node, left) in &pulse.nodes {
                if *left < 0 && (is_ours || *left < -lease_ms / 4) {
                    self.care.died(node, now);
                    lane.care(Item::Claim(node.clone()));
                    lane.beat_at(now + BURY_PAUSE);
                }
            }
        }
        for due in pulse.due {
            lane.care(Item::Settle(due));
        }
        if let Some((node, topics)) = pulse.dead {
            lane.beat_at(now + BURY_PAUSE);
            for topic in topics {
                lane.care(Item::Bury(node.clone(), topic));
            }
        }
        let at = usize::from(partition);
        let lost = self.care.facts_lost[at].replace(pulse.facts_lost).unwrap_or(pulse.facts_lost);
        self.node.metrics().cluster.facts_lost.inc_by(pulse.facts_lost.saturating_sub(lost));
        self.care.facts[at] = pulse.facts;
        self.care.leases[at] = pulse.nodes;
    }

    /// Tells operators how it is, every now and then.
    pub(super) fn look_now_and_then(&mut self, now: Instant) {
        if self.care.told_at.is_none_or(|at| now >= at + STATUS_EVERY) {
            self.look_around(now);
        }
    }

    /// Tells operators how it is.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.care.told_at = Some(now);
        let status = self.status(now);
        if status.away_since.is_none() {
            self.care.trouble = None;
        }
        self.node.set_cluster_status(status);
        let (partitions, holdings) = std::mem::take(&mut self.care.restated);
        if partitions > 0 {
            tracing::warn!(partitions, holdings, "Redis had lost what this node holds, it is told again");
        }
        let metrics = &self.node.metrics().cluster;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.facts.set(number(self.care.facts.iter().sum()));
        let (mut calls, mut bytes) = (0, 0);
        for lane in &mut self.lanes {
            let load = lane.load();
            calls += load.0 as u64;
            bytes += load.1 as u64;
            metrics.given_up.inc_by(lane.take_given_up());
        }
        metrics.calls_taken.set(number(calls));
        metrics.calls_taken_bytes.set(number(bytes));
    }

    fn status(&self, now: Instant) -> ClusterStatus {
        let failing = self.lanes.iter().filter_map(Lane::failing).min();
        let failing = failing.filter(|since| now >= *since + self.limits.patience);
        let closed = self.lanes.iter().any(|lane| !lane.is_open() && lane.renewed().is_none());
        let health = self.servers.health();
        let begun = closed.then_some(self.care.began);
        let away_since = health.away_since().into_iter().chain(failing).chain(begun).min();
        let mut left: HashMap<&str, i64> = HashMap::new();
        for (node, ms) in self.care.leases.iter().flatten() {
            let least = left.entry(&**node).or_insert(i64::MAX);
            *least = (*least).min(*ms);
        }
        let lease = |(node, ms): (&str, i64)| Lease {
            node: node.to_owned(),
            left: Duration::from_millis(u64::try_from(ms).unwrap_or_default()),
        };
        let mut nodes: Vec<Lease> = left.into_iter().map(lease).collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let trouble = away_since.and(health.trouble.or_else(|| self.care.trouble.clone()));
        let renewed: Option<Vec<Instant>> = self.lanes.iter().map(Lane::renewed).collect();
        let renewed = renewed.and_then(|renewed| renewed.into_iter().min());
        ClusterStatus { node: self.name.clone(), away_since, trouble, nodes, renewed }
    }
}

/// What an operator calls the node, or the system does.
pub(super) fn node_name(configured: &str) -> String {
    if !configured.is_empty() {
        return configured.to_owned();
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}
