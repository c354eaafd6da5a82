//! `agent-monitor record`: an agent's records as the kernel sent them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Duration;

use agent_monitor::capture::recording::{Frame, Reader};
use agent_monitor::commands::replay::replay;
use agent_monitor::decode::{self, Body, Head, Record, Way};
use agent_monitor::event::Event;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::Agent;
use crate::monitor::{SOON, Site};
use crate::process::Process;

/// A recording of an agent that is being made.
#[derive(Debug)]
pub struct Recorder {
    process: Process,
    file: PathBuf,
    _site: Site,
}

impl Recorder {
    /// Starts to record `agent`.
    ///
    /// # Errors
    /// When agent-monitor cannot be attached.
    pub fn of(agent: &Agent) -> Result<Self> {
        let site = Site::new()?.asking(agent.docker_host());
        let file = site.dir().join("recording.agmr");
        let mut command = site.command(&["record", "--agent", &agent.selector(), "-o"])?;
        command.arg(&file);
        let mut process = Process::start(&mut command, &site.dir().join("log"))?;
        process.wait_for_line("recording to", Duration::from_secs(30))?;
        Ok(Self {
            process,
            file,
            _site: site,
        })
    }

    /// Ends the recording and reads it.
    ///
    /// # Errors
    /// When it was not written to its end.
    pub fn finish(mut self) -> Result<Recording> {
        let pid = i32::try_from(self.process.pid()?)?;
        kill_process(Pid::from_raw(pid).context("a pid")?, Signal::INT)?;
        self.process.finish(SOON)?;
        let (mut raw, mut records) = (Vec::new(), Vec::new());
        for frame in Reader::new(BufReader::new(File::open(&self.file)?))? {
            if let Frame::Record(bytes) = frame? {
                records.push(decode::record(&bytes)?);
                raw.push(bytes);
            }
        }
        let mut events = Vec::new();
        replay(&self.file, 0, |event| {
            events.push(event.clone());
            Ok(())
        })?;
        Ok(Recording {
            raw,
            records,
            events,
        })
    }
}

/// What a recording holds.
#[derive(Debug)]
pub struct Recording {
    /// Its records, byte by byte.
    pub raw: Vec<Bytes>,
    /// Its records.
    pub records: Vec<Record>,
    /// What follows from them.
    pub events: Vec<Event>,
}

impl Recording {
    /// The pieces of heads of flows with this port at either end, in one direction.
    pub fn heads(&self, port: u16, way: Way) -> Vec<&Head> {
        let bodies = self.records.iter().map(|record| &record.body);
        let heads = bodies.filter_map(|body| match body {
            Body::Head(head) => Some(head),
            _ => None,
        });
        heads
            .filter(|it| it.way == way && (it.local.port == port || it.remote.port == port))
            .collect()
    }

    /// The bytes of those heads, which belong to one flow, put in order.
    ///
    /// # Errors
    /// Some are missing, or differ where two pieces have the same.
    pub fn head(&self, port: u16, way: Way) -> Result<Vec<u8>> {
        let heads = self.heads(port, way).into_iter();
        joined(heads.map(|head| (head.offset, &head.data[..])))
    }

    /// The bytes of the one datagram from or to this port in one direction.
    ///
    /// # Errors
    /// As [`Recording::head`].
    pub fn datagram(&self, port: u16, way: Way) -> Result<Vec<u8>> {
        let bodies = self.records.iter().map(|record| &record.body);
        joined(bodies.filter_map(|body| match body {
            Body::Datagram(it) if it.way == way && it.remote.port == port => {
                Some((it.offset, &it.data[..]))
            }
            _ => None,
        }))
    }
}

/// Pieces, each with its place, put in order.
fn joined<'a>(pieces: impl Iterator<Item = (u32, &'a [u8])>) -> Result<Vec<u8>> {
    let mut bytes = BTreeMap::new();
    for (offset, data) in pieces {
        for (place, byte) in data.iter().enumerate() {
            let place = offset as usize + place;
            let before = bytes.insert(place, *byte);
            ensure!(before.is_none_or(|it| it == *byte), "{place} differs");
        }
    }
    for (expected, place) in bytes.keys().enumerate() {
        ensure!(expected == *place, "byte {expected} is missing");
    }
    Ok(bytes.into_values().collect())
}
