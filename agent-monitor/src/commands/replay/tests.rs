//! Recordings.

use super::replay;
use crate::capture::recording::{About, RecordedAgent, Writer};
use agent_monitor_common::event::{Exit, Header, kind};
use anyhow::Result;

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
