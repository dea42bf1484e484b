//! What is measured. A scenario gets a server that has just been started, and leaves figures and faults.

mod churn;
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
use crate::scenario::stage::Stage;
use crate::server::{Kind, Server};

type Play = Box<dyn Fn(&mut Stage) -> io::Result<()>>;

/// One thing to measure.
pub(crate) struct Scenario {
    pub(crate) about: About,
    /// It asks for what the floor does not have.
    pub(crate) beyond_floor: bool,
    /// It asks for what only Fanfare has: the configuration it is played with.
    pub(crate) ours: Option<fn() -> String>,
    /// Clients speak TLS.
    pub(crate) secure: bool,
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
        Self { about, beyond_floor: false, ours: None, secure: false, play: Box::new(play) }
    }

    fn beyond_floor(mut self) -> Self {
        self.beyond_floor = true;
        self
    }

    fn ours(mut self, config: fn() -> String) -> Self {
        self.ours = Some(config);
        self
    }

    fn secure(mut self) -> Self {
        self.secure = true;
        self
    }

    /// Starts a server and plays the scenario against it.
    pub(crate) fn run(&self, kind: &Kind, machine: &Machine, effort: Effort) -> io::Result<Outcome> {
        let kind = if self.secure { kind.secured()? } else { kind.clone() };
        let config = self.ours.map(|config| config());
        let server = Server::start(&kind, machine.server_core, config.as_deref())?;
        let mut stage = Stage::new(server, effort)?;
        // What a server does not manage is a fault of that run, and no reason to lose all others.
        if let Err(error) = (self.play)(&mut stage) {
            stage.outcome.faults.push(format!("broken off: {error}"));
        }
        Ok(stage.close())
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
