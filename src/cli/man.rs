//! `fanfare man`: the manual, made of what `--help` and `config default` say.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{EXIT_FAILED, fail, say};
use crate::config::default_toml;

/// The manual that each page says it belongs to.
const MANUAL: &str = "Fanfare";

const ABOUT_FILE: &str = "\
The configuration file of fanfare(1), in TOML. What it leaves out keeps its default; an unknown key or a bad value \
stops the start and is named with its line, and fanfare-config-check(1) tells the same without a start. The \
environment is stronger than the file (FANFARE_SERVER_BIND for server.bind), and flags are stronger than both. \
This is the whole file with its defaults, as fanfare-config-default(1) prints it.";

/// Where to put the pages.
#[derive(Debug, Args)]
pub(super) struct Manual {
    /// Write a page for each command, and fanfare.toml(5), into this folder; without it fanfare(1) is printed
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Manual {
    /// Writes the pages about `command` and those below it.
    pub(super) fn run(&self, command: Command) -> ExitCode {
        let mut command = command.disable_help_subcommand(true);
        command.build();
        let done = match &self.out {
            Some(folder) => write_all(command, folder),
            None => page(command).map(|page| say(&String::from_utf8_lossy(&page))),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILED, &format!("the manual cannot be written: {error}")),
        }
    }
}

fn write_all(command: Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("fanfare.toml.5"), page_of_file(command.get_version())?)?;
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().cloned());
        fs::write(folder.join(Man::new(command.clone()).get_filename()), page(command)?)?;
    }
    Ok(())
}

/// The page of one command.
fn page(command: Command) -> io::Result<Vec<u8>> {
    let examples = command.get_after_help().map(ToString::to_string);
    let (has_options, has_commands) =
        (command.get_arguments().next().is_some(), command.get_subcommands().next().is_some());
    let source = source(command.get_version());
    let man = Man::new(command).source(source).manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if has_options {
        man.render_options_section(&mut page)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(examples) = examples {
        // Not with the sections above: the lines of examples must stay lines.
        as_it_is(&mut page, "NOTES", &examples)?;
    }
    Ok(page)
}

/// The page of the configuration file.
fn page_of_file(version: Option<&str>) -> io::Result<Vec<u8>> {
    let mut page = Roff::new();
    page.control("TH", ["fanfare.toml", "5", "", &source(version), MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("fanfare.toml - configuration of Fanfare")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(ABOUT_FILE)]);
    let mut page = page.render().into_bytes();
    as_it_is(&mut page, "SETTINGS", &default_toml())?;
    Ok(page)
}

/// A section whose lines are not joined.
fn as_it_is(page: &mut Vec<u8>, head: &str, text: &str) -> io::Result<()> {
    let mut section = Roff::new();
    section.control("SH", [head]);
    section.control("nf", []);
    for line in text.lines() {
        section.text([roman(line)]);
    }
    section.control("fi", []);
    page.write_all(section.render().as_bytes())
}

fn source(version: Option<&str>) -> String {
    format!("fanfare {}", version.unwrap_or(env!("CARGO_PKG_VERSION")))
}
