//! `agent-monitor replay`: a recording through the same pipeline as live.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::pretty::Pretty;
use super::tail::is_broken_pipe;
use crate::capture::recording::{Frame, Reader};
use crate::cli::{Output, ReplayArgs};
use crate::decode;
use crate::enrich::process::Processes;
use crate::enrich::procfs::Procfs;
use crate::event::{Agent, AgentState, Body, Event};
use crate::pipeline::Pipeline;

/// Exit code with `--fail-on-alert` when there was one.
const ALERTS_FOUND: u8 = 3;
/// Processes that are kept of a recording, as live.
const PROCESSES: usize = agent_monitor_common::limits::MAX_TASKS as usize;

/// Runs the command.
///
/// # Errors
/// As [`replay`].
pub fn run(args: ReplayArgs) -> Result<ExitCode> {
    let format = args.output.format();
    let pretty = Pretty::for_stdout();
    let mut stdout = BufWriter::new(anstream::stdout());
    let mut alerts = false;
    let replayed = args.files.iter().try_for_each(|file| {
        replay(file, |event| {
            alerts |= matches!(event.body, Body::Alert(_));
            match format {
                Output::Json => {
                    serde_json::to_writer(&mut stdout, event)?;
                    stdout.write_all(b"\n")?;
                }
                Output::Pretty => {
                    stdout.write_all(pretty.show(&serde_json::to_value(event)?).as_bytes())?;
                }
            }
            Ok(())
        })
    });
    match replayed.and_then(|()| Ok(stdout.flush()?)) {
        Err(error) if is_broken_pipe(&error) => {}
        other => other?,
    }
    Ok(if alerts && args.fail_on_alert {
        ExitCode::from(ALERTS_FOUND)
    } else {
        ExitCode::SUCCESS
    })
}

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
    let mut pipeline = Pipeline::new(
        &about.node,
        "replay".to_owned(),
        about.boot_epoch,
        processes,
    );
    let mut events = Vec::new();
    // Agents are written without a time: they appear with the next record.
    let mut appearing: Vec<(u64, Agent)> = Vec::new();
    for frame in reader {
        match frame.with_context(cannot)? {
            Frame::Record(bytes) => {
                for (id, agent) in appearing.drain(..) {
                    let time = decode::header(&bytes).map_or(0, |header| header.time);
                    pipeline.agent(id, agent, AgentState::Appeared, time, &mut events);
                }
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
                appearing.push((id, agent));
            }
        }
        for event in events.drain(..) {
            hand_on(&event)?;
        }
    }
    Ok(())
}
