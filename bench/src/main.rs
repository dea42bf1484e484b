//! Measures Pusher Channels servers: one load, several servers in turn, and a bare epoll loop as the floor.
//!
//! ```text
//!  scenario ─▶ server: started anew, on a core of its own, watched through /proc
//!     │
//!     └──────▶ crowd: every client and every caller of the API, in one epoll loop on the other core
//!                └▶ ledger: was everything delivered, once, in order, and how late
//! ```

mod chart;
mod crowd;
mod floor;
mod identity;
mod ledger;
mod machine;
mod pusher;
mod record;
mod redis;
mod report;
mod scenario;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::machine::Machine;
use crate::record::{Record, Run, Setting};
use crate::redis::Redis;
use crate::scenario::{Effort, Scenario};
use crate::server::Kind;

/// Measures Pusher Channels servers side by side.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:
  fanfare-bench run                          everything, Fanfare and the floor, three rounds
  fanfare-bench run fan-out many --rounds 5  scenarios whose name begins so
  fanfare-bench run --sockudo ./sockudo --soketi ./soketi/bin/server.js
  fanfare-bench run idle --fanfare ./new --server old=./old"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs scenarios against each server in turn, and writes the results.
    Run(RunArgs),
    /// Lists the scenarios.
    List,
    /// Draws a table and charts of results.
    Report {
        /// What `run` wrote.
        record: PathBuf,
        /// Where the table and the charts go.
        #[arg(long, default_value = "bench/results")]
        out: PathBuf,
    },
    /// Runs the floor: a server that does no more than it must.
    Floor {
        /// The port on 127.0.0.1.
        port: u16,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Scenarios whose names begin so; all without.
    scenarios: Vec<String>,
    /// How often each scenario runs against each server.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fanfare's binary.
    #[arg(long, default_value = "target/release/fanfare")]
    fanfare: PathBuf,
    /// Another build of Fanfare to compare with, under a name of its own.
    #[arg(long, value_name = "NAME=PATH", value_parser = named)]
    server: Vec<(String, PathBuf)>,
    /// sockudo's binary; it gets the settings in bench/rivals.
    #[arg(long)]
    sockudo: Option<PathBuf>,
    /// soketi's entry script, `bin/server.js`, to be run by `node`; it gets the settings in bench/rivals.
    #[arg(long)]
    soketi: Option<PathBuf>,
    /// In how many of the rounds sockudo and soketi take part.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    rival_rounds: usize,
    /// Leave the floor out.
    #[arg(long)]
    no_floor: bool,
    /// A hundredth of the load, to see that everything works. Its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Let a receiver of webhooks be dead for so many times 30 seconds.
    #[arg(long, default_value_t = 1.0)]
    patience: f64,
    /// Where the results go.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

fn named(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fanfare-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False when a server did something wrong.
fn run(command: Command) -> Result<bool, Box<dyn std::error::Error>> {
    match command {
        Command::Run(args) => measure(&args),
        Command::List => {
            for scenario in scenario::all() {
                println!("{:24} {}", scenario.about.name, scenario.about.about);
            }
            Ok(true)
        }
        Command::Report { record, out } => {
            report::write(&Record::read(&record)?, &out)?;
            Ok(true)
        }
        Command::Floor { port } => floor::serve(port).map(|()| true).map_err(Into::into),
    }
}

fn measure(args: &RunArgs) -> Result<bool, Box<dyn std::error::Error>> {
    let machine = Machine::prepare()?;
    let mut scenarios: Vec<Scenario> =
        scenario::all().into_iter().filter(|each| is_chosen(each, args)).collect();
    if Redis::program().is_none() && scenarios.iter().any(|each| each.nodes > 0) {
        println!("!!! the scenarios of clusters are skipped: there is no redis-server in PATH !!!");
        scenarios.retain(|each| each.nodes == 0);
    }
    if scenarios.is_empty() {
        return Err("no scenario has such a name: see `fanfare-bench list`".into());
    }
    let servers = servers(args)?;
    let mut record = Record {
        setting: Setting {
            time: machine::now(),
            machine: machine.describe(),
            commit: machine::commit(),
            servers: servers.iter().map(|(name, kind)| (name.clone(), kind.command_line())).collect(),
            rounds: args.rounds,
        },
        scenarios: scenarios.iter().map(|scenario| scenario.about.clone()).collect(),
        runs: Vec::new(),
    };
    std::fs::create_dir_all(&args.out)?;
    for scenario in &scenarios {
        for round in 1..=args.rounds {
            for (name, kind) in servers.iter().filter(|(_, kind)| takes_part(kind, scenario, round, args)) {
                let outcome =
                    scenario.run(kind, &machine, Effort { quick: args.quick, patience: args.patience })?;
                println!("{} {name} {round}/{}: {outcome}", scenario.about.name, args.rounds);
                record.runs.push(Run {
                    scenario: scenario.about.name.clone(),
                    server: name.clone(),
                    round,
                    figures: outcome.figures,
                    faults: outcome.faults,
                });
            }
        }
        // After each scenario: a long session that is broken off leaves what it has.
        record.write(&args.out.join("results.json"))?;
    }
    report::write(&record, &args.out)?;
    println!("written: {}", args.out.display());
    let right = record.runs.iter().filter(|run| run.faults.is_empty()).count();
    println!("{right} passed, {} failed, 0 skipped", record.runs.len() - right);
    Ok(right == record.runs.len())
}

fn takes_part(kind: &Kind, scenario: &Scenario, round: usize, args: &RunArgs) -> bool {
    match kind {
        Kind::Fanfare(_) | Kind::Secured { .. } | Kind::Joined { .. } => true,
        _ if scenario.only_ours || scenario.secure => false,
        Kind::Floor(_) => !scenario.beyond_floor,
        Kind::Sockudo { .. } => round <= args.rival_rounds,
        Kind::Soketi { .. } => scenario.nodes == 0 && round <= args.rival_rounds,
    }
}

fn is_chosen(scenario: &Scenario, args: &RunArgs) -> bool {
    args.scenarios.is_empty() || args.scenarios.iter().any(|prefix| scenario.about.name.starts_with(prefix))
}

fn servers(args: &RunArgs) -> Result<Vec<(String, Kind)>, Box<dyn std::error::Error>> {
    let mut servers = vec![("fanfare".to_owned(), Kind::fanfare(&args.fanfare)?)];
    for (name, path) in &args.server {
        servers.push((name.clone(), Kind::fanfare(path)?));
    }
    if !args.no_floor {
        servers.push(("floor".to_owned(), Kind::floor()?));
    }
    if let Some(binary) = &args.sockudo {
        servers.push(("sockudo".to_owned(), Kind::sockudo(binary)?));
    }
    if let Some(script) = &args.soketi {
        servers.push(("soketi".to_owned(), Kind::soketi(script)?));
    }
    Ok(servers)
}
