//! Recordings and captures, and what is neither.

use std::io::{self, Read as _, Write as _};

use agent_monitor_common::event::{Exit, Header, kind};
use anyhow::Result;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::replay;
use crate::capture::recording::{About, Bounds, RecordedAgent, Writer};
use crate::event::Agent;

const BOOT: u64 = 0xabc;

/// A recording of what `fill` writes.
fn recorded(fill: impl FnOnce(&mut Writer<&mut Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
    let about = About {
        node: "n".into(),
        kernel: "6.1".into(),
        boot_epoch: BOOT,
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &about, Bounds::default()).expect("a Vec takes all");
    fill(&mut writer).expect("a Vec takes all");
    writer.finish().expect("a Vec takes all");
    bytes
}

fn agent(name: &str, cgroup_id: u64) -> RecordedAgent {
    let agent = Agent {
        id: cgroup_id.to_string(),
        name: name.into(),
        ..Agent::default()
    };
    RecordedAgent::new(cgroup_id, &agent)
}

/// The end of a process of an agent's.
fn exit(agent: u64) -> Exit {
    let mut exit: Exit = bytemuck::Zeroable::zeroed();
    exit.header = Header {
        kind: kind::EXIT,
        len: u32::try_from(size_of::<Exit>()).expect("it is small"),
        time: 5,
        agent,
        ..bytemuck::Zeroable::zeroed()
    };
    exit
}

/// A recording of an agent, the end of a process, and another agent.
fn recording() -> Vec<u8> {
    recorded(|writer| {
        writer.agent(&agent("one", 7))?;
        writer.record(bytemuck::bytes_of(&exit(7)))?;
        writer.agent(&agent("two", 8))
    })
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

#[test]
fn what_is_known_of_an_agent_later_is_an_update() {
    let bytes = recorded(|writer| {
        writer.agent(&agent("7f3a", 7))?;
        writer.record(bytemuck::bytes_of(&exit(7)))?;
        writer.agent(&agent("named", 7))?;
        writer.record(bytemuck::bytes_of(&exit(7)))
    });
    let (seen, outcome) = events(&bytes, 0);
    outcome.expect("it is whole");
    let brief: Vec<_> = (seen.iter())
        .map(|(_, kind, agent, _)| (*kind, agent.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(
        brief,
        [
            ("agent", "7f3a"),
            ("exit", "7f3a"),
            ("agent", "named"),
            ("exit", "named")
        ]
    );
}

#[test]
fn a_recording_of_more_agents_than_are_watched_forgets_the_first() {
    let last = u64::from(agent_monitor_common::limits::MAX_WATCHED) + 7;
    let bytes = recorded(|writer| {
        (7..=last).try_for_each(|id| writer.agent(&agent("a", id)))?;
        writer.record(bytemuck::bytes_of(&exit(7)))?;
        writer.record(bytemuck::bytes_of(&exit(last)))
    });
    let (seen, outcome) = events(&bytes, 0);
    outcome.expect("it is whole");
    let exits = seen.iter().filter(|(_, kind, ..)| *kind == "exit");
    let agents: Vec<_> = exits.map(|(_, _, agent, _)| agent.is_some()).collect();
    assert_eq!(agents, [false, true]);
}

/// A miner and its pool, captured with all interfaces of its network namespace.
const STRATUM: &[u8] = include_bytes!("../../../../tests/data/captures/stratum_monero.pcap.gz");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::fast());
    to.write_all(bytes).expect("a Vec takes all");
    to.finish().expect("a Vec takes all")
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = Vec::new();
    let mut from = GzDecoder::new(bytes);
    from.read_to_end(&mut to).expect("it is whole");
    to
}

#[test]
fn what_is_gzipped_is_replayed_as_what_is_not() {
    let (packed, outcome) = events(STRATUM, 0);
    outcome.expect("it is whole");
    assert!(packed.iter().any(|(_, kind, ..)| *kind == "alert"));
    let (plain, outcome) = events(&gunzip(STRATUM), 0);
    outcome.expect("it is whole");
    assert_eq!(plain, packed);
    let (packed, outcome) = events(&gzip(&recording()), 0);
    outcome.expect("it is whole");
    assert_eq!(packed, events(&recording(), 0).0);
}

#[test]
fn what_packets_tell_is_an_agent_s_of_which_no_process_is_known() {
    let mut seen = 0;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), STRATUM).expect("a file");
    replay(file.path(), 0, |event| {
        let json = serde_json::to_value(event)?;
        assert_eq!(json["agent"]["id"], "replay");
        assert!(json["agent"].get("cgroup").is_none(), "{json}");
        assert!(json["agent"].get("cgroup_id").is_none(), "{json}");
        assert!(json.get("process").is_none(), "{json}");
        seen += 1;
        Ok(())
    })
    .expect("it is whole");
    assert!(seen > 5);
}

#[test]
fn a_capture_that_ends_in_a_packet_gives_what_was_before_and_an_error_that_names_it() {
    let whole = gunzip(STRATUM);
    let (all, _) = events(&whole, 0);
    let (seen, outcome) = events(&whole[..whole.len() - 1], 0);
    let error = format!("{:#}", outcome.expect_err("it is cut"));
    assert!(
        error.contains("the capture ends in the middle of packet"),
        "{error}"
    );
    assert_eq!(seen, all[..seen.len()]);
    assert!(seen.iter().any(|(_, kind, ..)| *kind == "alert"));
}

#[test]
fn a_compressed_capture_that_is_damaged_gives_what_was_before() {
    let mut damaged = gzip(&gunzip(STRATUM));
    let at = damaged.len() - 6;
    damaged[at] ^= 0xff;
    let (seen, outcome) = events(&damaged, 0);
    let error = format!("{:#}", outcome.expect_err("its checksum is wrong"));
    assert!(error.contains("cannot be read at packet"), "{error}");
    assert_eq!(seen, events(STRATUM, 0).0);
}

#[test]
fn what_is_neither_a_recording_nor_a_capture_is_said_to_be_neither() {
    let (seen, outcome) = events(b"hello", 0);
    let error = format!("{:#}", outcome.expect_err("it is neither"));
    assert!(error.contains("neither a packet capture"), "{error}");
    assert_eq!(seen, []);
}

#[test]
fn a_reader_that_has_gone_is_told_from_other_errors_through_json_too() {
    struct Fails(io::ErrorKind);
    impl io::Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for (kind, gone) in [
        (io::ErrorKind::BrokenPipe, true),
        (io::ErrorKind::StorageFull, false),
    ] {
        let json = serde_json::to_writer(Fails(kind), &1).expect_err("it fails");
        let plain = Fails(kind).write_all(b"1").expect_err("it fails");
        for error in [json.into(), plain.into()] {
            assert_eq!(super::is_broken_pipe(&error), gone, "{error}");
        }
    }
}
