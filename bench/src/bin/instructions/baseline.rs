//! What each piece needed when its baseline was stored, and what to say when it needs something else now.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::callgrind::Toolchain;

/// How many per cent more are too many, and how many fewer are worth keeping.
///
/// Runs of one build differ by less than a tenth of a per cent. But the compiler inlines differently when
/// code elsewhere changes, which was seen to move a piece by 6.
pub(crate) const TOLERANCE_PERCENT: u64 = 10;

/// The stored file.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Baselines {
    /// Instructions per operation, by the names of pieces.
    pub(crate) instructions: BTreeMap<String, u64>,
    /// What they were counted with.
    pub(crate) made_with: Toolchain,
}

/// The file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum BaselinesError {
    /// It cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// It is not ours.
    #[error("{0}: {1}")]
    Json(String, serde_json::Error),
}

impl Baselines {
    /// Reads the file; none if there is none.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, BaselinesError> {
        let name = || path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| BaselinesError::Json(name(), e)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BaselinesError::Io(name(), error)),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn store(&self, path: &Path) -> Result<(), BaselinesError> {
        let name = || path.display().to_string();
        let text = serde_json::to_string_pretty(self).map_err(|error| BaselinesError::Json(name(), error))?;
        fs::write(path, text + "\n").map_err(|error| BaselinesError::Io(name(), error))
    }
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// As before, or nearly.
    Same,
    /// Better, so much that the old baseline would let it get worse again unnoticed.
    Fewer,
    /// Worse.
    More,
    /// Nothing to compare with.
    NoBaseline,
    /// A baseline whose piece is gone.
    Stale,
    /// The piece could not be counted.
    Uncounted,
}

impl Verdict {
    /// Compares instructions per operation.
    pub(crate) fn of(baseline: Option<u64>, now: u64) -> Self {
        let Some(baseline) = baseline else { return Self::NoBaseline };
        let percent = u128::from(now) * 100;
        let limit = |percent: u64| u128::from(baseline) * u128::from(percent);
        match () {
            () if percent > limit(100 + TOLERANCE_PERCENT) => Self::More,
            () if percent <= limit(100 - TOLERANCE_PERCENT) => Self::Fewer,
            () => Self::Same,
        }
    }

    /// Whether it is no failure.
    pub(crate) fn is_pass(self) -> bool {
        matches!(self, Self::Same | Self::Fewer)
    }

    /// What to do about it; nothing if there is nothing to do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Fewer => "better: keep it so with --store",
            Self::More => "FAILED: more than 10 % more",
            Self::NoBaseline => "FAILED: no baseline, run with --store",
            Self::Stale => "FAILED: a baseline without a piece, run with --store",
            Self::Uncounted => "FAILED: not counted",
        }
    }
}

/// One line of the table.
pub(crate) fn row(name: &str, baseline: Option<u64>, now: Option<u64>, remark: &str) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
    let change = baseline.zip(now).map_or_else(|| "-".to_owned(), |(baseline, now)| change(baseline, now));
    let line = format!("{name:<32}{:>12}{:>12} {change:>9}  {remark}", number(baseline), number(now));
    line.trim_end().to_owned()
}

/// As in `+12.3 %`.
fn change(baseline: u64, now: u64) -> String {
    let percent = (now as f64 / baseline as f64 - 1.0) * 100.0;
    if percent.abs() < 0.05 { "0.0 %".to_owned() } else { format!("{percent:+.1} %") }
}

/// As in `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(baseline: u64, now: u64, verdict: Verdict) {
        assert_eq!(Verdict::of(Some(baseline), now), verdict, "{now} after {baseline}");
    }

    #[test]
    fn ten_per_cent_more_pass_and_one_instruction_beyond_fails() {
        check(1000, 1000, Verdict::Same);
        check(1000, 1100, Verdict::Same);
        check(1000, 1101, Verdict::More);
        check(u64::MAX, u64::MAX, Verdict::Same);
        check(7, 8, Verdict::More);
    }

    #[test]
    fn ten_per_cent_fewer_pass_and_ask_for_a_new_baseline() {
        check(1000, 901, Verdict::Same);
        check(1000, 900, Verdict::Fewer);
        check(1000, 1, Verdict::Fewer);
    }

    #[test]
    fn what_cannot_be_compared_fails() {
        assert_eq!(Verdict::of(None, 1), Verdict::NoBaseline);
        for verdict in [Verdict::NoBaseline, Verdict::Stale, Verdict::More, Verdict::Uncounted] {
            assert!(!verdict.is_pass() && verdict.advice().starts_with("FAILED"), "{verdict:?}");
        }
        for verdict in [Verdict::Same, Verdict::Fewer] {
            assert!(verdict.is_pass() && !verdict.advice().contains("FAILED"), "{verdict:?}");
        }
    }

    #[test]
    fn the_advice_names_the_tolerance() {
        assert!(Verdict::More.advice().contains(&format!("more than {TOLERANCE_PERCENT} % more")));
    }

    #[test]
    fn a_row_shows_what_there_is() {
        let cells = |row: String| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(cells(row("a", Some(1000), Some(1_234_567), "!")), "a 1,000 1,234,567 +123356.7 % !");
        assert_eq!(cells(row("b", None, Some(12), "")), "b - 12 -");
        assert_eq!(cells(row("c", Some(123), None, "")), "c 123 - -");
        assert_eq!(cells(row("d", Some(1000), Some(900), "")), "d 1,000 900 -10.0 %");
        assert_eq!(cells(row("e", Some(99_999), Some(99_998), "")), "e 99,999 99,998 0.0 %");
    }

    #[test]
    fn the_file_reads_back_and_is_sorted() {
        let made_with = Toolchain { rustc: "r".into(), target: "t".into(), valgrind: "v".into() };
        let instructions = [("b", 2), ("a", 1)].map(|(name, count)| (name.to_owned(), count)).into();
        let baselines = Baselines { instructions, made_with };
        let text = serde_json::to_string(&baselines).expect("JSON");
        assert_eq!(
            text,
            r#"{"instructions":{"a":1,"b":2},"made_with":{"rustc":"r","target":"t","valgrind":"v"}}"#
        );
        assert_eq!(serde_json::from_str::<Baselines>(&text).expect("ours"), baselines);
    }
}
