//! Counting: this program runs itself under callgrind, one piece at a time.
//!
//! What runs beside does not matter, and the processor hardly does: valgrind shows every program the same
//! one, with AVX2 and without SHA instructions. So hashes count for more here than they cost a server, and
//! large copies count one instruction per byte, which makes them easy to see.
//!
//! Counts do depend on the compiler and on valgrind, hence [`Toolchain`]; a little on libc, too.

use std::env;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::pieces::{COUNTED, Piece};

/// Why something could not be counted.
#[derive(Debug, Error)]
pub(crate) enum CountError {
    /// There is no valgrind on the `PATH`.
    #[error("valgrind is not installed, and counting needs it: apt-get install valgrind")]
    NoValgrind,
    /// A program cannot be run.
    #[error("cannot run {0}: {1}")]
    Run(&'static str, io::Error),
    /// The piece panicked, or valgrind does not understand this processor.
    #[error("the piece failed under valgrind:\n{0}")]
    Failed(String),
    /// Callgrind ran to its end and reported no count, or 0.
    #[error("callgrind counted nothing: is {COUNTED} still a function?")]
    Nothing,
    /// A program has said something else than its version.
    #[error("{0} does not tell its version")]
    NoVersion(&'static str),
}

/// What counts depend on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Toolchain {
    /// As in `rustc 1.95.0 (59807616e 2026-04-14)`.
    pub(crate) rustc: String,
    /// As in `x86_64-unknown-linux-gnu`.
    pub(crate) target: String,
    /// As in `valgrind-3.19.0`.
    pub(crate) valgrind: String,
}

impl Toolchain {
    /// What is installed here.
    ///
    /// # Errors
    /// When `rustc` or `valgrind` is not, or cannot be asked.
    pub(crate) fn installed() -> Result<Self, CountError> {
        let valgrind = text(run("valgrind", Command::new("valgrind").arg("--version"))?.stdout);
        let rustc = text(run("rustc", Command::new("rustc").arg("-vV"))?.stdout);
        let version = rustc.lines().next().ok_or(CountError::NoVersion("rustc"))?;
        let target = rustc.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            rustc: version.to_owned(),
            target: target.ok_or(CountError::NoVersion("rustc"))?.to_owned(),
            valgrind: valgrind.trim().to_owned(),
        })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} and {}", self.rustc, self.target, self.valgrind)
    }
}

/// Instructions per operation of a piece.
///
/// # Errors
/// When valgrind is missing or the piece fails.
pub(crate) fn count(piece: &Piece) -> Result<u64, CountError> {
    let program = env::current_exe().map_err(|error| CountError::Run("this program", error))?;
    let mut command = Command::new("valgrind");
    // Whatever is in the environment lies in memory and moves the rest, and VALGRIND_OPTS would be obeyed.
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--command-line-only=yes"]);
    command.arg(format!("--toggle-collect={COUNTED}"));
    // So does the program's name, hence not its path: that is longer on one machine than on another.
    command.current_dir(program.parent().unwrap_or(Path::new("/")));
    command.arg(Path::new(".").join(program.file_name().unwrap_or_default()));
    command.args(["--piece", piece.name, "--times", &piece.times.to_string()]);
    let output = run("valgrind", &mut command)?;
    let report = text(output.stderr);
    if !output.status.success() {
        return Err(CountError::Failed(report));
    }
    let times = u64::from(piece.times);
    let total = collected(&report).filter(|total| *total > 0).ok_or(CountError::Nothing)?;
    Ok((total + times / 2) / times)
}

/// The count in callgrind's report: the line `==123== Collected : 456`.
fn collected(report: &str) -> Option<u64> {
    let collected = |line: &str| line.split_once("Collected :")?.1.split_whitespace().next()?.parse().ok();
    report.lines().find_map(collected)
}

fn run(program: &'static str, command: &mut Command) -> Result<Output, CountError> {
    command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if program == "valgrind" => CountError::NoValgrind,
        _ => CountError::Run(program, error),
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_the_report() {
        let report = "==7== Callgrind, a call-graph generating cache profiler\n\
                      ==7== Events    : Ir\n\
                      ==7== Collected : 1016000\n==7== \n\
                      ==7== I   refs:      1,016,000\n";
        assert_eq!(collected(report), Some(1_016_000));
        assert_eq!(collected("==7== Collected : 1016000 12 3\n"), Some(1_016_000), "more events");
    }

    #[test]
    fn a_report_without_a_count_has_none() {
        for report in ["", "==7== Events    : Ir\n", "==7== Collected : \n", "==7== Collected : many\n"] {
            assert_eq!(collected(report), None, "{report:?}");
        }
    }
}
