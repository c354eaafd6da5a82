//! A recording, replayed.

use std::io::Read;
use std::sync::Arc;

use anyhow::Result;

use super::PROCESSES;
use crate::capture::recording::{Frame, Reader, Usage};
use crate::decode;
use crate::enrich::devices::Devices;
use crate::enrich::process::Processes;
use crate::enrich::procfs::Procfs;
use crate::event::{Agent, AgentState, Event};
use crate::pipeline::Pipeline;
use crate::rules::set::RuleSet;

/// Replays a recording, and hands on every event in order.
///
/// # Errors
/// It is damaged; events from before the damage have been handed on. `hand_on`'s
/// own errors end the replay.
pub(super) fn replay(
    from: impl Read,
    n: usize,
    rules: Arc<RuleSet>,
    mut hand_on: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let reader = Reader::new(from)?;
    // A recording's processes and devices are not this machine's.
    let processes = Processes::new(Procfs::at("/nonexistent"), PROCESSES);
    let about = reader.about.clone();
    let mut pipeline = Pipeline::new(
        &about.node,
        format!("replay-{:x}-{n}", about.boot_epoch),
        about.boot_epoch,
        processes,
        Devices::default(),
        rules,
    );
    let mut events = Vec::new();
    // Agents are written without a time: they appear with the next record, and
    // those after the last one with that.
    let mut appearing: Vec<(u64, Agent)> = Vec::new();
    let mut time = 0;
    let mut whole = Ok(());
    for frame in reader {
        match frame {
            Ok(Frame::Record(bytes)) => {
                time = decode::header(&bytes).map_or(time, |header| header.time);
                appear(&mut pipeline, &mut appearing, time, &mut events);
                pipeline.bytes(&bytes, &mut events);
            }
            Ok(Frame::Usage(Usage { agent, time, used })) => {
                pipeline.used(agent, used, time, &mut events)
            }
            Ok(Frame::Agent(agent)) => {
                let id = agent.cgroup_id;
                let agent = Agent {
                    id: agent.id,
                    name: agent.name,
                    cgroup: agent.cgroup,
                    cgroup_id: id,
                    container: None,
                    pod: None,
                };
                appearing.push((id, agent));
            }
            Err(error) => {
                whole = Err(error.into());
                break;
            }
        }
        for event in events.drain(..) {
            hand_on(&event)?;
        }
    }
    appear(&mut pipeline, &mut appearing, time, &mut events);
    for event in events.drain(..) {
        hand_on(&event)?;
    }
    whole
}

fn appear(
    pipeline: &mut Pipeline,
    appearing: &mut Vec<(u64, Agent)>,
    time: u64,
    events: &mut Vec<Event>,
) {
    for (id, agent) in appearing.drain(..) {
        pipeline.agent(id, agent, AgentState::Appeared, time, events);
    }
}
