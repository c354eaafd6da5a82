//! Pairs of an outside flow and an inside one in a recording, compared burst by burst.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use agent_monitor::capture::recording::{Frame, Reader};
use agent_monitor::decode;
use agent_monitor::detect::relay::{Pair, Relays};
use agent_monitor::flow::{Change, Flow, Table};
use agent_monitor_common::event::FlowId;
use anyhow::Result;

/// Every pair of a recording, as it stood at last.
///
/// # Errors
/// When the recording cannot be read.
pub fn pairs(path: &Path) -> Result<Vec<Pair>> {
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

fn keep(relays: &Relays, ended: &mut HashMap<(FlowId, FlowId), Pair>) {
    for pair in relays.pairs() {
        ended.insert((pair.outside, pair.inside), pair.clone());
    }
}
