//! A recording, replayed.

use std::collections::{HashSet, VecDeque};
use std::io::Read;
use std::sync::Arc;

use anyhow::Result;

use super::PROCESSES;
use crate::capture::recording::{Frame, Reader, RecordedAgent, Usage};
use crate::decode;
use crate::enrich::devices::Devices;
use crate::enrich::process::Processes;
use crate::enrich::procfs::Procfs;
use crate::event::{AgentState, Event};
use crate::pipeline::Pipeline;
use crate::rules::set::RuleSet;

/// Agents that are kept, as many as are watched at once: which of them are gone a
/// recording does not say.
const AGENTS: usize = agent_monitor_common::limits::MAX_WATCHED as usize;

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
    let mut appearing: Vec<RecordedAgent> = Vec::new();
    let mut agents = Agents::default();
    let mut time = 0;
    let mut whole = Ok(());
    for frame in reader {
        match frame {
            Ok(Frame::Record(bytes)) => {
                time = decode::header(&bytes).map_or(time, |header| header.time);
                agents.appear(&mut pipeline, &mut appearing, time, &mut events);
                pipeline.bytes(&bytes, &mut events);
            }
            Ok(Frame::Usage(Usage { agent, time, used })) => {
                pipeline.used(agent, used, time, &mut events)
            }
            Ok(Frame::Holding(holding)) => pipeline.holds(&holding, &mut events),
            Ok(Frame::Agent(agent)) => {
                appearing.push(*agent);
                // In vain if no record comes: nothing else is bounded by the file.
                if appearing.len() == AGENTS {
                    agents.appear(&mut pipeline, &mut appearing, time, &mut events);
                }
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
    agents.appear(&mut pipeline, &mut appearing, time, &mut events);
    for event in events.drain(..) {
        hand_on(&event)?;
    }
    whole
}

/// Who has appeared, the first one first.
#[derive(Default)]
struct Agents {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Agents {
    fn appear(
        &mut self,
        pipeline: &mut Pipeline,
        appearing: &mut Vec<RecordedAgent>,
        time: u64,
        events: &mut Vec<Event>,
    ) {
        for agent in appearing.drain(..) {
            let id = agent.cgroup_id;
            let state = match self.known.insert(id) {
                true => AgentState::Appeared,
                false => AgentState::Updated,
            };
            pipeline.agent(id, agent.into(), state, time, events);
            if state == AgentState::Updated {
                continue;
            }
            self.order.push_back(id);
            if self.order.len() > AGENTS
                && let Some(first) = self.order.pop_front()
            {
                self.known.remove(&first);
                pipeline.forget(first);
            }
        }
    }
}
