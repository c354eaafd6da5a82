//! The demo behind `cargo xtask demo`.

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor_tests::{demo, paths, wait};
use anyhow::{Context, Result};
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Alerts are not as expected: other than 1, which is a demo that could not be run.
const DIFFERS: u8 = 3;
/// As shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(
    about = "Shows agent-monitor at work beside an agent (needs root)",
    after_help = "Exit codes: 0 every expected alert was seen and no other, 1 could not be run, \
                  2 wrong usage, 3 alerts differ or records were lost, 130 interrupted."
)]
struct Options {
    /// The agent-monitor to show [default: the one next to this program]
    #[arg(long, value_name = "FILE")]
    monitor: Option<PathBuf>,
    /// Let the agent be a plain cgroup with namespaces instead of a Docker container
    #[arg(long)]
    no_docker: bool,
}

fn main() -> ExitCode {
    let result = watch_for_signals().and_then(|()| run(&Options::parse()));
    match result {
        Ok(code) => code,
        Err(_) if wait::interrupted() => {
            eprintln!("interrupted; everything was removed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    let program = match &options.monitor {
        Some(program) => program.clone(),
        None => paths::bin()?.join("agent-monitor"),
    };
    let result = demo::run(&program, options.no_docker)?;
    anstream::print!("{}", demo::show::summary(&result));
    if !result.is_met() {
        return Ok(ExitCode::from(DIFFERS));
    }
    let program = program.display();
    println!(
        "\nNext: {program} doctor   can this machine watch your agents?\n      \
         README.md     how to choose them and forward alerts"
    );
    Ok(ExitCode::SUCCESS)
}

/// On Ctrl-C and the like everything under way is given up, and cleaned up on the
/// way out.
fn watch_for_signals() -> Result<()> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot listen for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if !wait::interrupted() {
                eprintln!("\ninterrupted: cleaning up …");
            }
            wait::interrupt();
        }
    });
    Ok(())
}
