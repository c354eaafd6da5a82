//! The commands, one a module. Each answers with an exit code or an error for a person.

use std::process::ExitCode;

use crate::attach::offsets;
use crate::cli::{Cli, Command};

mod alerts;
mod config;
pub mod doctor;
pub mod filter;
mod manual;
pub mod pretty;
mod privileges;
mod reconfigure;
pub mod record;
pub mod replay;
mod rules;
mod run;
mod service;
mod sinks;
mod status;
mod table;
mod tail;
mod top;
mod watch;

/// Runs what was typed. An error is shown on stderr and is exit code 1.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Top(args) => top::run(args),
        Command::Alerts(args) => alerts::run(&args),
        Command::Sinks(args) => sinks::run(&args),
        Command::Status(args) => status::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Record(args) => record::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Config(args) => config::run(args.command),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        Command::KernelOffsets => offsets::print().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
