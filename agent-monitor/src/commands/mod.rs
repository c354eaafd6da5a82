//! The commands, one a module. Each answers with an exit code or an error for a person.

use std::process::ExitCode;

use crate::cli::{Cli, Command};

mod escape;
pub mod pretty;
mod status;
mod tail;

/// Runs what was typed. An error is shown on stderr and is exit code 1.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Tail(args) => tail::run(args),
        Command::Status(args) => status::run(args),
        _ => Err(anyhow::anyhow!("this command is not in this build")),
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
