//! Honest work for an hour, or as long as is asked for, that must raise no alert.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent_monitor_tests::{benign, wait};
use anyhow::{Context, Result, bail};
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(Parser)]
#[command(
    about = "Has an agent work honestly beside a daemon, and shows what is said of it (needs root)",
    after_help = "Exit codes: 0 silence, 1 an alert above `info`, a loss, work that never succeeded, \
                  or it could not be run; 2 wrong usage."
)]
struct Args {
    /// For how long: 90s, 10m, 1h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "1h")]
    time: Duration,
    /// Rest after each piece of work
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "8s")]
    pause: Duration,
    /// Also keep a recording of all of it
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot listen for signals")?;
    std::thread::spawn(move || signals.forever().for_each(|_| wait::interrupt()));
    let report = benign::run(&benign::Options {
        time: args.time,
        pause: args.pause,
        record: args.record,
    })?;
    print!("{}", report.text());
    Ok(match report.is_silent() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn duration(text: &str) -> Result<Duration> {
    let unit = text.trim_start_matches(|it: char| it.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()]
        .parse()
        .context("not a number")?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => bail!("the unit is s, m or h"),
    };
    let seconds = number.checked_mul(seconds).context("too long")?;
    Ok(Duration::from_secs(seconds))
}
