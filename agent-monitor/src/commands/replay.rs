//! `agent-monitor replay`: a recording through the same pipeline as live.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::pretty::Pretty;
use super::tail::is_broken_pipe;
use crate::capture::recording::{Frame, Reader};
use crate::cli::{Output, ReplayArgs};
use crate::decode;
use crate::enrich::devices::Devices;
use crate::enrich::process::Processes;
use crate::enrich::procfs::Procfs;
use crate::event::{Agent, AgentState, Body, Event};
use crate::pipeline::Pipeline;
use crate::rules::set::RuleSet;

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
    let replayed = args.files.iter().enumerate().try_for_each(|(n, file)| {
        replay(file, n, |event| {
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

/// Replays one recording and hands on every event in order. Ids of events are
/// made from when the recording's node was booted and from `n`, the place of the
/// recording among those replayed: the same each time, and no id comes twice.
///
/// # Errors
/// The file cannot be read, is no recording, or is damaged; events from before
/// the damage have been handed on. `hand_on`'s own errors end the replay.
pub fn replay(path: &Path, n: usize, hand_on: impl FnMut(&Event) -> Result<()>) -> Result<()> {
    replay_with(path, n, RuleSet::builtin(), hand_on)
}

/// The same with other rules.
///
/// # Errors
/// As [`replay`].
pub fn replay_with(
    path: &Path,
    n: usize,
    rules: Arc<RuleSet>,
    mut hand_on: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let cannot = || format!("cannot replay {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let reader = Reader::new(BufReader::new(file)).with_context(cannot)?;
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
                whole = Err(error).with_context(cannot);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::recording::{About, RecordedAgent, Writer};
    use agent_monitor_common::event::{Exit, Header, kind};

    const BOOT: u64 = 0xabc;

    /// A recording of an agent, the end of a process, and another agent.
    fn recording() -> Vec<u8> {
        let about = About {
            node: "n".into(),
            kernel: "6.1".into(),
            boot_epoch: BOOT,
        };
        let agent = |name: &str, cgroup_id| RecordedAgent {
            cgroup_id,
            id: cgroup_id.to_string(),
            name: name.into(),
            cgroup: format!("/{name}"),
        };
        let mut exit: Exit = bytemuck::Zeroable::zeroed();
        exit.header = Header {
            kind: kind::EXIT,
            len: u32::try_from(size_of::<Exit>()).expect("it is small"),
            time: 5,
            agent: 7,
            ..bytemuck::Zeroable::zeroed()
        };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &about).expect("a Vec takes all");
        writer.agent(&agent("one", 7)).expect("a Vec takes all");
        writer
            .record(bytemuck::bytes_of(&exit))
            .expect("a Vec takes all");
        writer.agent(&agent("two", 8)).expect("a Vec takes all");
        writer.finish().expect("a Vec takes all");
        bytes
    }

    /// What a replay hands on: (id, kind, agent, nanoseconds since boot).
    type Seen = Vec<(String, &'static str, Option<String>, u64)>;

    fn events(bytes: &[u8], n: usize) -> (Seen, Result<()>) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("a file");
        let mut seen = Vec::new();
        let outcome = replay(file.path(), n, |event| {
            let agent = event.agent.as_ref().map(|agent| agent.name.clone());
            let since_boot = event.time.0 - BOOT;
            seen.push((event.id.to_string(), event.body.kind(), agent, since_boot));
            Ok(())
        });
        (seen, outcome)
    }

    #[test]
    fn an_agent_after_the_last_record_appears_even_if_the_end_is_damaged() {
        let mut bytes = recording();
        let (seen, outcome) = events(&bytes, 0);
        outcome.expect("it is whole");
        let brief: Vec<_> = seen
            .iter()
            .map(|(_, kind, agent, time)| (*kind, agent.as_deref(), *time))
            .collect();
        assert_eq!(
            brief,
            [
                ("agent", Some("one"), 5),
                ("exit", Some("one"), 5),
                ("agent", Some("two"), 5)
            ]
        );
        bytes.push(0);
        let (damaged, outcome) = events(&bytes, 0);
        assert_eq!(damaged, seen);
        assert!(outcome.is_err());
    }

    #[test]
    fn ids_are_the_same_each_time_and_differ_between_recordings() {
        let ids = |n| -> Vec<_> { events(&recording(), n).0.into_iter().map(|e| e.0).collect() };
        assert_eq!(
            ids(0),
            ["replay-abc-0-0", "replay-abc-0-1", "replay-abc-0-2"]
        );
        assert_eq!(ids(0), ids(0));
        assert!(ids(1).iter().all(|id| !ids(0).contains(id)));
    }
}
