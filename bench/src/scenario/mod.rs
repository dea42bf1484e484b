//! What is measured. A scenario gets a server that has just been started, and leaves figures and faults.

mod churn;
mod cluster;
mod day;
mod fan_out;
mod idle;
mod operate;
mod presence;
mod slow;
mod small;
mod stage;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::machine::Machine;
use crate::record::{About, Bar, Headline};
use crate::redis::Redis;
use crate::scenario::stage::Stage;
use crate::server::{Kind, Server};

type Play = Box<dyn Fn(&mut Stage) -> io::Result<()>>;

/// One thing to measure.
pub(crate) struct Scenario {
    pub(crate) about: About,
    /// It asks for what the floor does not have.
    pub(crate) beyond_floor: bool,
    /// It asks for what only Fanfare has.
    pub(crate) only_ours: bool,
    /// The configuration it is played with then, if it needs one of its own.
    config: Option<fn() -> String>,
    /// Clients speak TLS.
    pub(crate) secure: bool,
    /// So many nodes that a Redis makes one; 0 is one server without Redis.
    pub(crate) nodes: usize,
    /// Then it is played once more with one server without Redis, and compared.
    against_local: bool,
    play: Play,
}

/// How much of the load there is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// A hundredth of it, to see that everything works.
    pub(crate) quick: bool,
    /// How many times longer what is bad for a server goes on, where that matters.
    pub(crate) patience: f64,
}

/// What one run has come to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) faults: Vec<String>,
}

/// Every scenario, in the order of the report.
pub(crate) fn all() -> Vec<Scenario> {
    [
        idle::all(),
        fan_out::all(),
        small::all(),
        presence::all(),
        churn::all(),
        slow::all(),
        day::all(),
        operate::all(),
        cluster::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        headlines: Vec<Headline>,
        play: impl Fn(&mut Stage) -> io::Result<()> + 'static,
    ) -> Self {
        let about = About { name: name.into(), about: about.into(), headlines };
        Self {
            about,
            beyond_floor: false,
            only_ours: false,
            config: None,
            secure: false,
            nodes: 0,
            against_local: false,
            play: Box::new(play),
        }
    }

    fn beyond_floor(mut self) -> Self {
        self.beyond_floor = true;
        self
    }

    fn ours(mut self) -> Self {
        self.only_ours = true;
        self
    }

    /// With a configuration of its own, which is Fanfare's.
    fn with(mut self, config: fn() -> String) -> Self {
        self.config = Some(config);
        self.ours()
    }

    fn secure(mut self) -> Self {
        self.secure = true;
        self
    }

    /// With so many nodes.
    fn nodes(mut self, nodes: usize) -> Self {
        // The floor has no Redis.
        self.beyond_floor = true;
        self.nodes = nodes;
        self
    }

    fn against_local(mut self) -> Self {
        self.against_local = true;
        self
    }

    /// Starts a server, or the nodes of a cluster, and plays the scenario against it.
    pub(crate) fn run(&self, kind: &Kind, machine: &Machine, effort: Effort) -> io::Result<Outcome> {
        if self.nodes == 0 {
            return self.alone(kind, machine, effort);
        }
        // What a cluster does not manage is a fault of that run, and no reason to lose all others.
        let mut outcome = self.together(kind, machine, effort).unwrap_or_else(|error| Outcome {
            faults: vec![format!("not begun: {error}")],
            ..Outcome::default()
        });
        if self.against_local && outcome.faults.is_empty() {
            outcome.compare_with(self.alone(kind, machine, effort)?);
        }
        Ok(outcome)
    }

    fn alone(&self, kind: &Kind, machine: &Machine, effort: Effort) -> io::Result<Outcome> {
        let kind = if self.secure { kind.secured()? } else { kind.clone() };
        let config = self.config.map(|config| config());
        let server = Server::start(&kind, machine.server_core, config.as_deref())?;
        Ok(self.play(Stage::new(server, Vec::new(), None, effort)?))
    }

    fn together(&self, kind: &Kind, machine: &Machine, effort: Effort) -> io::Result<Outcome> {
        let redis = Redis::start(machine.core_of(self.nodes))?;
        let config = self.config.map(|config| config());
        // A rehearsal waits for no lease of full length.
        let lease_s = if effort.quick { 3 } else { 10 };
        let start = |node| {
            Server::start(&kind.joined(redis.address(), lease_s)?, machine.core_of(node), config.as_deref())
        };
        let first = start(0)?;
        let others = (1..self.nodes).map(start).collect::<io::Result<_>>()?;
        Ok(self.play(Stage::new(first, others, Some(redis), effort)?))
    }

    fn play(&self, mut stage: Stage) -> Outcome {
        // What a server does not manage is a fault of that run, and no reason to lose all others.
        if let Err(error) = (self.play)(&mut stage) {
            stage.outcome.faults.push(format!("broken off: {error}"));
        }
        stage.close()
    }
}

impl Outcome {
    /// Figures that say what the way through Redis costs.
    fn compare_with(&mut self, local: Self) {
        for (name, value) in &local.figures {
            let Some(ours) = self.figures.get(name).copied() else { continue };
            if name.starts_with("cpu_us_per") {
                self.figures.insert(format!("{name}_times_local"), ours / value);
            } else if name.starts_with("latency_") {
                self.figures.insert(format!("{name}_added"), ours - value);
            } else if !name.ends_with("_per_s") {
                continue;
            }
            self.figures.insert(format!("{name}_local"), *value);
        }
        self.faults.extend(local.faults.into_iter().map(|fault| format!("without Redis: {fault}")));
    }
}

fn headline(figure: &str, label: &str, unit: &str) -> Headline {
    Headline { figure: figure.to_owned(), label: label.to_owned(), unit: unit.to_owned(), bar: None }
}

impl Headline {
    fn times_floor(mut self, most: f64) -> Self {
        self.bar = Some(Bar::TimesFloor(most));
        self
    }

    fn at_most(mut self, most: f64) -> Self {
        self.bar = Some(Bar::AtMost(most));
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.figures {
            write!(f, "{name}={value:.4} ")?;
        }
        if self.faults.is_empty() { Ok(()) } else { write!(f, "FAULTS: {}", self.faults.join("; ")) }
    }
}
