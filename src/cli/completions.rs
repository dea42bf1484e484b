//! `fanfare completions`: what a shell needs to complete our command line.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::say;

const PLACES: &str = "\
Where shells look for it:
  fanfare completions bash > /usr/share/bash-completion/completions/fanfare
  fanfare completions fish > /usr/share/fish/vendor_completions.d/fanfare.fish
  fanfare completions zsh > /usr/share/zsh/vendor-completions/_fanfare

The Debian package has them there already.";

/// For which shell.
#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub(super) struct Completions {
    /// The shell to complete in
    shell: Shell,
}

impl Completions {
    /// Prints the script that completes `command`.
    pub(super) fn run(&self, mut command: Command) -> ExitCode {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        generate(self.shell, &mut command, name, &mut script);
        say(&String::from_utf8_lossy(&script));
        ExitCode::SUCCESS
    }
}
