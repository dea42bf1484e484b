//! `fanfare config convert`: another server's configuration as ours.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{EXIT_CONFIG, EXIT_FAILED, fail, say};
use crate::config::convert;

/// What to convert, and where to.
#[derive(Debug, Args)]
pub(super) struct Convert {
    /// soketi's JSON, sockudo's JSON or TOML, or an .env file of Laravel, soketi or Reverb
    file: PathBuf,
    /// Write to this file, for its owner alone, instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite it
    #[arg(long, requires = "out")]
    force: bool,
}

impl Convert {
    pub(super) fn run(&self) -> ExitCode {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) => {
                return fail(
                    EXIT_CONFIG,
                    &format!("{}: the file cannot be read: {error}", self.file.display()),
                );
            }
        };
        let converted = match convert(&self.file, &text) {
            Ok(converted) => converted,
            Err(error) => {
                return fail(EXIT_CONFIG, &format!("The configuration cannot be converted:\n{error}"));
            }
        };
        match &self.out {
            None => say(&converted.toml),
            Some(out) => {
                if let Err(error) = self.write(out, &converted.toml) {
                    let hint = if error.kind() == io::ErrorKind::AlreadyExists {
                        ": overwrite it with --force"
                    } else {
                        ""
                    };
                    return fail(EXIT_FAILED, &format!("{}: {error}{hint}", out.display()));
                }
                say(&format!("Written to {}.\n", out.display()));
            }
        }
        for note in converted.notes.iter().filter(|note| note.warn) {
            let _ = writeln!(io::stderr(), "fanfare: {}: {}", note.name, note.message);
        }
        ExitCode::SUCCESS
    }

    /// There are secrets in it.
    fn write(&self, out: &Path, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        if self.force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let mut file = options.open(out)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    }
}
