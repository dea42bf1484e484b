//! Counts the instructions of the server's hot pieces and compares them with the stored baselines.
//!
//! Time on a shared machine says little; instructions come out the same on every run. So this is what
//! finds out that a piece has become dearer, whatever else the machine is doing.
//!
//! Not here: how long things take and how many (`fanfare-bench`).

mod baseline;
mod callgrind;
mod pieces;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser};
use thiserror::Error;

use crate::baseline::{Baselines, BaselinesError, Verdict, row};
use crate::callgrind::{CountError, Toolchain, count};
use crate::pieces::Piece;

/// Counts instructions per operation with callgrind and compares them with the stored baselines.
///
/// Exits 1 when a piece needs more than 10 % more than its baseline, and 2 when nothing can be counted.
#[derive(Debug, Parser)]
struct Arguments {
    /// Store what is counted as the new baselines.
    #[arg(long)]
    store: bool,
    /// The pieces to count; all if none is named.
    #[arg(value_name = "PIECE", value_parser = names())]
    pieces: Vec<String>,
    /// Run this piece, to be counted from outside.
    #[arg(long, hide = true, requires = "times", value_parser = names())]
    piece: Option<String>,
    /// How often.
    #[arg(long, hide = true, requires = "piece")]
    times: Option<u32>,
}

/// Why nothing can be said.
#[derive(Debug, Error)]
enum Trouble {
    #[error("instructions are counted of optimised code: run it with --release")]
    NotOptimised,
    #[error(transparent)]
    Count(#[from] CountError),
    #[error(transparent)]
    Baselines(#[from] BaselinesError),
    #[error("the other baselines were made with {0}: store all of them, without naming pieces")]
    OtherToolchain(String),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<&Piece> = pieces::all().filter(|piece| arguments.wants(piece)).collect();
    if let Some(times) = arguments.times {
        chosen.iter().for_each(|piece| (piece.run)(times));
        return ExitCode::SUCCESS;
    }
    let done = if arguments.store { store(&chosen) } else { compare(&chosen) };
    done.unwrap_or_else(|trouble| {
        eprintln!("error: {trouble}");
        ExitCode::from(2)
    })
}

fn names() -> PossibleValuesParser {
    pieces::all().map(|piece| PossibleValue::new(piece.name).help(piece.about)).into()
}

impl Arguments {
    fn wants(&self, piece: &Piece) -> bool {
        match &self.piece {
            Some(name) => name == piece.name,
            None => self.pieces.is_empty() || self.pieces.iter().any(|name| name == piece.name),
        }
    }
}

/// Where the baselines are, in the repository this was built from.
fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// Counts and compares. The last line is for test runners.
fn compare(chosen: &[&Piece]) -> Result<ExitCode, Trouble> {
    let toolchain = check_tools()?;
    let baselines = Baselines::load(&file())?;
    let baseline = |name: &str| baselines.as_ref()?.instructions.get(name).copied();
    let mut verdicts = Vec::new();
    print_head();
    for piece in chosen {
        let baseline = baseline(piece.name);
        let counted = count(piece);
        let now = counted.as_ref().ok().copied();
        let verdict = now.map_or(Verdict::Uncounted, |now| Verdict::of(baseline, now));
        println!("{}", row(piece.name, baseline, now, verdict.advice()));
        if let Err(error) = counted {
            println!("{error}");
        }
        verdicts.push(verdict);
    }
    if chosen.len() == pieces::all().count() {
        let stored = baselines.iter().flat_map(|baselines| &baselines.instructions);
        for (name, baseline) in stored.filter(|(name, _)| pieces::all().all(|piece| piece.name != *name)) {
            println!("{}", row(name, Some(*baseline), None, Verdict::Stale.advice()));
            verdicts.push(Verdict::Stale);
        }
    }
    let passed = verdicts.iter().filter(|verdict| verdict.is_pass()).count();
    let failed = verdicts.len() - passed;
    if let Some(baselines) = baselines.filter(|baselines| failed > 0 && baselines.made_with != toolchain) {
        println!("The baselines were made with {}. Here are {toolchain}.", baselines.made_with);
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Counts, and makes that the baselines of the chosen pieces; the others keep theirs.
fn store(chosen: &[&Piece]) -> Result<ExitCode, Trouble> {
    let made_with = check_tools()?;
    let before = Baselines::load(&file())?;
    let is_all = chosen.len() == pieces::all().count();
    if let Some(before) = before.as_ref().filter(|before| !is_all && before.made_with != made_with) {
        return Err(Trouble::OtherToolchain(before.made_with.to_string()));
    }
    let before = before.map(|before| before.instructions).unwrap_or_default();
    let mut instructions = if is_all { Default::default() } else { before.clone() };
    print_head();
    for piece in chosen {
        let now = count(piece)?;
        println!("{}", row(piece.name, before.get(piece.name).copied(), Some(now), ""));
        instructions.insert(piece.name.to_owned(), now);
    }
    Baselines { instructions, made_with }.store(&file())?;
    println!("stored in {}", file().display());
    Ok(ExitCode::SUCCESS)
}

fn print_head() {
    println!("{:<32}{:>12}{:>12}{:>10}", "instructions per operation", "baseline", "now", "change");
}

/// Whether counting makes sense here, and with what it is done.
fn check_tools() -> Result<Toolchain, Trouble> {
    if cfg!(debug_assertions) {
        return Err(Trouble::NotOptimised);
    }
    Ok(Toolchain::installed()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_piece_has_a_name_of_its_own_and_runs() {
        let mut names = BTreeSet::new();
        for piece in pieces::all() {
            assert!(names.insert(piece.name), "{} twice", piece.name);
            (piece.run)(2);
        }
    }
}
