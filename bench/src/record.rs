//! What a benchmark leaves behind: every figure of every run, and where it was measured.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Everything measured by one call of the program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Record {
    /// When, where and with what.
    pub(crate) setting: Setting,
    /// What each scenario does, in the order they ran.
    pub(crate) scenarios: Vec<About>,
    /// One entry for each server, scenario and round, in the order they ran.
    pub(crate) runs: Vec<Run>,
}

/// What a figure can only be understood with.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Setting {
    /// UTC, `2026-11-21T12:00:00Z`.
    pub(crate) time: String,
    /// Processor, cores, memory, kernel.
    pub(crate) machine: String,
    /// Of the project, with `+` for uncommitted changes.
    pub(crate) commit: String,
    /// Each server and the command it was started with.
    pub(crate) servers: BTreeMap<String, String>,
    /// How often each scenario ran against each server.
    pub(crate) rounds: usize,
}

/// A scenario as the report presents it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct About {
    /// Names it on the command line, as in `fan-out-1000-100b`.
    pub(crate) name: String,
    /// One sentence.
    pub(crate) about: String,
    /// What is compared first. The first one is charted.
    pub(crate) headlines: Vec<Headline>,
}

/// A figure that is compared with the floor.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Headline {
    /// The figure's name in [`Run::figures`], as in `cpu_us_per_delivery`.
    pub(crate) figure: String,
    /// For people, as in `CPU per delivery`.
    pub(crate) label: String,
    /// As in `µs`; empty for a plain number.
    pub(crate) unit: String,
    /// What the figure may be at most.
    pub(crate) bar: Option<Bar>,
}

/// What Fanfare promises of a figure. Smaller is better for all of them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// So many times the floor's.
    TimesFloor(f64),
    /// So much.
    AtMost(f64),
}

/// One scenario against one server, once.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Run {
    /// [`About::name`].
    pub(crate) scenario: String,
    /// `fanfare`, `floor`, `sockudo` and so on.
    pub(crate) server: String,
    /// From 1.
    pub(crate) round: usize,
    /// By name; the unit is part of the name.
    pub(crate) figures: BTreeMap<String, f64>,
    /// What was not as it must be: events lost, doubled or out of order, wrong counts. Empty is right.
    pub(crate) faults: Vec<String>,
}

impl Record {
    /// Reads what [`Record::write`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }

    /// The median of a figure over all rounds in which nothing went wrong.
    pub(crate) fn median(&self, scenario: &str, server: &str, figure: &str) -> Option<f64> {
        // A server that does something wrong may well be quick about it.
        let of_server =
            |run: &&Run| run.scenario == scenario && run.server == server && run.faults.is_empty();
        let mut values: Vec<f64> =
            self.runs.iter().filter(of_server).filter_map(|run| run.figures.get(figure).copied()).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }
}
