//! `agent-monitor replay`: a recording through the same pipeline as live.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::capture::recording::{Frame, Reader};
use crate::decode;
use crate::enrich::process::Processes;
use crate::enrich::procfs::Procfs;
use crate::event::{Agent, AgentState, Event};
use crate::pipeline::Pipeline;

/// Processes that are kept of a recording, as live.
const PROCESSES: usize = agent_monitor_common::limits::MAX_TASKS as usize;

/// Replays one recording and hands on every event in order.
///
/// # Errors
/// The file cannot be read, is no recording, or is damaged; events from before
/// the damage have been handed on. `hand_on`'s own errors end the replay.
pub fn replay(path: &Path, mut hand_on: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    let cannot = || format!("cannot replay {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let reader = Reader::new(BufReader::new(file)).with_context(cannot)?;
    // A recording's processes are not this machine's.
    let processes = Processes::new(Procfs::at("/nonexistent"), PROCESSES);
    let about = reader.about.clone();
    let mut pipeline =
        Pipeline::new(&about.node, "replay".to_owned(), about.boot_epoch, processes);
    let mut events = Vec::new();
    let mut time = 0;
    for frame in reader {
        match frame.with_context(cannot)? {
            Frame::Record(bytes) => {
                time = decode::header(&bytes).map_or(time, |header| header.time);
                pipeline.bytes(&bytes, &mut events);
            }
            Frame::Agent(agent) => {
                let id = agent.cgroup_id;
                let agent = Agent {
                    id: agent.id,
                    name: agent.name,
                    cgroup: agent.cgroup,
                    cgroup_id: id,
                    container: None,
                    pod: None,
                };
                pipeline.agent(id, agent, AgentState::Appeared, time, &mut events);
            }
        }
        for event in events.drain(..) {
            hand_on(&event)?;
        }
    }
    Ok(())
}
