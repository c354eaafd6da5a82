//! Shows how bursts separate relays from the rest, on recordings.
//!
//! For each recording: every pair of an outside flow and an inside one that the
//! agent began within `CAUSE_NS` of data from outside, whoever owns them, and
//! how many bursts of the inside flow match what the outside flow carried.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use agent_monitor::capture::recording::{Frame, Reader};
use agent_monitor::decode;
use agent_monitor::detect::relay::{Pair, Relays};
use agent_monitor::detect::tunnel::SUSTAINED;
use agent_monitor::flow::{Change, Flow, Table, id_text};
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

/// Every pair of a recording, as it stood at last.
fn pairs(path: &PathBuf) -> Result<Vec<Pair>> {
    let mut flows = Table::default();
    let mut relays = Relays::default();
    let mut ended: HashMap<_, Pair> = HashMap::new();
    for frame in Reader::new(BufReader::new(File::open(path)?))? {
        let Frame::Record(bytes) = frame? else {
            continue;
        };
        let Ok(record) = decode::record(&bytes) else {
            continue;
        };
        flows.apply(&record, |flow: &Flow, change| match change {
            Change::Opened => relays.opened(flow, |_, _| true),
            Change::Burst(burst) => {
                relays.burst(flow, &burst, |_, _| true);
                keep(&relays, &mut ended);
            }
            Change::Closed | Change::Failed => relays.closed(flow, record.time),
            Change::Evicted => relays.forget(flow),
            _ => {}
        });
    }
    keep(&relays, &mut ended);
    let mut pairs: Vec<Pair> = ended.into_values().collect();
    pairs.sort_by_key(|pair| (pair.outside, pair.inside));
    Ok(pairs)
}

fn keep(
    relays: &Relays,
    ended: &mut HashMap<
        (
            agent_monitor_common::event::FlowId,
            agent_monitor_common::event::FlowId,
        ),
        Pair,
    >,
) {
    for pair in relays.pairs() {
        ended.insert((pair.outside, pair.inside), pair.clone());
    }
}
