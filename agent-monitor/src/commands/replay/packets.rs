//! A capture of packets, replayed.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::Result;

use super::{Options, PROCESSES};
use crate::capture::packets::file::{self, Frame};
use crate::capture::packets::{self, AGENT, Lost, Packets};
use crate::decode::Record;
use crate::enrich::devices::Devices;
use crate::enrich::process::Processes;
use crate::enrich::procfs::Procfs;
use crate::event::{Agent, AgentState, Event, Loss};
use crate::loss::Stage;
use crate::pipeline::Pipeline;

/// What the node and the agent are called: packets name neither.
const NAME: &str = "replay";

/// Replays a capture, and hands on every event in order.
///
/// # Errors
/// It is damaged, or of a link that is not read; events from before that have been
/// handed on. `hand_on`'s own errors end the replay.
pub(super) fn replay(
    from: impl Read + Send,
    n: usize,
    options: &Options,
    hand_on: impl FnMut(&Event) -> Result<()>,
) -> Result<()> {
    let mut replay = Replay {
        packets: Packets::new(options.agent_nets.clone()),
        pipeline: None,
        records: Vec::new(),
        events: Vec::new(),
        hand_on,
    };
    let whole = file::read(from, file::BUFFER, |number, frame| {
        replay.take(number, frame, n, options)
    });
    // What was seen before the damage is told to its end.
    match whole {
        Err(Stop::HandOn(error)) => return Err(error),
        _ => replay.end()?,
    }
    whole.map_err(|stop| match stop {
        Stop::File(error) => error.into(),
        Stop::Packet(error) => error.into(),
        Stop::HandOn(error) => error,
    })
}

/// Why a replay ended.
enum Stop {
    File(file::Error),
    Packet(packets::Error),
    HandOn(anyhow::Error),
}

impl From<file::Error> for Stop {
    fn from(error: file::Error) -> Self {
        Self::File(error)
    }
}

struct Replay<H> {
    packets: Packets,
    /// Made with the first packet, whose time is in every event's id.
    pipeline: Option<Pipeline>,
    records: Vec<Record>,
    events: Vec<Event>,
    hand_on: H,
}

impl<H: FnMut(&Event) -> Result<()>> Replay<H> {
    fn take(
        &mut self,
        number: u64,
        frame: Frame<'_>,
        n: usize,
        options: &Options,
    ) -> Result<(), Stop> {
        let events = &mut self.events;
        let taken = self.packets.take(number, frame, &mut self.records);
        let now = self.packets.now();
        let pipeline = (self.pipeline).get_or_insert_with(|| begin(now, n, options, events));
        for record in self.records.drain(..) {
            pipeline.record(&record, events);
        }
        for wish in pipeline.steering() {
            if let Some(control) = wish.control {
                self.packets.steer(wish.flow, control);
            }
        }
        self.hand_on().map_err(Stop::HandOn)?;
        taken.map_err(Stop::Packet)
    }

    fn hand_on(&mut self) -> Result<()> {
        self.events
            .drain(..)
            .try_for_each(|event| (self.hand_on)(&event))
    }

    fn end(&mut self) -> Result<()> {
        let Some(pipeline) = &mut self.pipeline else {
            return Ok(());
        };
        let lost = self.packets.end(&mut self.records);
        for record in self.records.drain(..) {
            pipeline.record(&record, &mut self.events);
        }
        for loss in losses(lost, pipeline) {
            pipeline.loss(AGENT, loss, self.packets.now(), &mut self.events);
        }
        self.hand_on()
    }
}

/// A pipeline with the one agent. Records have times since the epoch instead of boot.
fn begin(now: u64, n: usize, options: &Options, events: &mut Vec<Event>) -> Pipeline {
    let mut pipeline = Pipeline::new(
        NAME,
        format!("{NAME}-{now:x}-{n}"),
        0,
        Processes::new(Procfs::at("/nonexistent"), PROCESSES),
        Devices::default(),
        options.rules.clone(),
    );
    let agent = Agent {
        id: NAME.to_owned(),
        name: NAME.to_owned(),
        ..Agent::default()
    };
    pipeline.agent(AGENT, agent, AgentState::Appeared, now, events);
    pipeline
}

fn losses(lost: Lost, pipeline: &Pipeline) -> Vec<Loss> {
    let evicted: u64 = pipeline.flows().evictions().map(|(_, flows)| flows).sum();
    let at = |stage, kinds: &[(&str, u64)]| {
        let kinds = kinds.iter().filter(|(_, n)| *n > 0);
        let kinds: BTreeMap<Arc<str>, u64> = kinds.map(|(kind, n)| ((*kind).into(), *n)).collect();
        let records = kinds.values().sum();
        (records > 0).then_some(Loss {
            stage,
            records,
            kinds,
        })
    };
    let packets = [
        ("packet", lost.packets),
        ("fragmented", lost.fragmented),
        ("cut", lost.cut),
    ];
    let flows = [("flow", lost.flows + evicted)];
    let all = [at(Stage::Decode, &packets), at(Stage::Flow, &flows)];
    all.into_iter().flatten().collect()
}
