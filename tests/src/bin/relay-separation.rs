//! Shows how bursts separate relays from the rest, on recordings.
//!
//! For each recording: every pair of an outside flow and an inside one that the
//! agent began within `CAUSE_NS` of data from outside, whoever owns them, and
//! how many bursts of the inside flow match what the outside flow carried.

use std::path::PathBuf;

use agent_monitor::detect::relay::Pair;
use agent_monitor::detect::tunnel::SUSTAINED;
use agent_monitor::flow::id_text;
use agent_monitor_tests::pairs::pairs;
use anyhow::{Context as _, Result};
use clap::Parser;

#[derive(Parser)]
struct Options {
    /// What `agent-monitor record` wrote.
    #[arg(required = true)]
    recordings: Vec<PathBuf>,
}

fn main() -> Result<()> {
    println!("| recording | pairs | requests matched | answers matched | unmatched | verdict |");
    println!("|---|---|---|---|---|---|");
    for path in Options::parse().recordings {
        let seen = pairs(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let relays = seen.iter().filter(|pair| pair.score.is_relay()).count();
        let sustained = seen
            .iter()
            .filter(|pair| u64::from(pair.score.exchanges()) >= SUSTAINED.default)
            .count();
        let sum = |of: fn(&Pair) -> u32| seen.iter().map(of).sum::<u32>();
        println!(
            "| {name} | {} | {} | {} | {} | {relays} relays, {sustained} sustained |",
            seen.len(),
            sum(|pair| pair.score.requests),
            sum(|pair| pair.score.answers),
            sum(|pair| pair.score.unmatched),
        );
        for pair in &seen {
            eprintln!(
                "{name}: {} → {} {:?} {:?}",
                id_text(pair.outside),
                id_text(pair.inside),
                pair.cause,
                pair.score
            );
        }
    }
    Ok(())
}
