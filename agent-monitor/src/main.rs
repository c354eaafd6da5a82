//! The binary: reads the command line and runs the command.

use std::process::ExitCode;

use agent_monitor::cli::Cli;
use agent_monitor::commands;
use clap::Parser as _;

fn main() -> ExitCode {
    commands::run(Cli::parse())
}
