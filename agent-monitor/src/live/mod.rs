//! The live end: which cgroups are agents, and the kernel's records of them.
//!
//! A cgroup that may be an agent is watched from birth by the kernel; whether it
//! is one is decided here. While a container runtime has to be asked, its
//! records are held, bounded; then they are released in order, or dropped.

mod agents;
mod coverage;
mod huge_pages;
mod losses;
mod questions;
mod sockets;
mod takeover;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_monitor_common::event::{self as wire, kind};
use agent_monitor_common::limits::{MAX_AGENT_CGROUPS, MAX_AGENTS, PATH_CAP};
use agent_monitor_common::policy::{AgentState as KernelState, CLASSES, Settings, Told};
use anyhow::{Context as _, Result};
use bytes::Bytes;

use crate::api::status::{AgentStatus, RunTime};
use crate::attach::programs::PROGRAMS;
use crate::attach::{self, Kernel, Pins, RunStats};
use crate::capture::recording::{RecordedAgent, Usage, Writer};
use crate::capture::rings::{Rings, boot_time};
use crate::coverage::Coverage;
use crate::decode::{self, Body, CgroupAction, ProcessKey};
use crate::detect::blind::Hole;
use crate::enrich::cgroup_path::{ContainerRef, agent_root, parent};
use crate::enrich::cgroupfs::CgroupFs;
use crate::enrich::huge_pages::HugePages;
use crate::enrich::lookups::{Answer, Lookups};
use crate::enrich::runtime::RuntimeInfo;
use crate::enrich::selector::{Decision, Selectors};
use crate::event::{Agent, AgentState, Container, Event, Loss};
use crate::loss::Stage;
use crate::pipeline::Pipeline;
use crate::rules::set::RuleSet;

/// Records of each class that an agent may cause in a second: several times
/// what builds and test suites do, and below what fills a ring in the time
/// user space may be kept from running.
const QUOTA: [u64; CLASSES] = [20_000, 30_000, 30_000, 60_000, 60_000, 5_000, 60_000, 2_000];
/// Records that are held of one agent while a selector is undecided, and of all.
const MAX_HELD: usize = 4_096;
const MAX_HELD_IN_ALL: usize = 16_384;
/// Cgroups looked at when the watch begins.
const MAX_SCAN: usize = 65_536;
/// Cgroups looked at for the path of one that a process was born into and has left.
const MAX_WALK: usize = 4_096;
/// How often losses are read from the kernel.
const LOSS_EVERY: u64 = 500_000_000;
/// How often what is known of agents is compared with what there is.
const MEND_EVERY: u64 = 2_000_000_000;
/// How often it is looked for what is not covered, unless that takes long.
const LOOK_EVERY: u64 = 250_000_000;
/// Looking takes at most one part in so many of a processor: with thousands of
/// processes on the node it is done less often.
const LOOK_SHARE: u64 = 400;
/// The kernel's agent that stands for the node.
const NODE: u64 = 0;
/// How long an agent's counters stay after its cgroup is gone: connections
/// outlive the process that made them.
const TOMBSTONE: u64 = 30_000_000_000;
/// Longest wait for records.
const IDLE: Duration = Duration::from_millis(100);

/// A cgroup that is, or may be, an agent.
struct Watched {
    agent: Agent,
    container: Option<ContainerRef>,
    decision: Decision,
    held: VecDeque<Bytes>,
    /// Times that were not covered, told once it has appeared: why, from, to.
    gaps: Vec<(String, u64, u64)>,
    /// Holes in its coverage, alike.
    holes: Vec<Hole>,
    /// What the kernel had counted when last read.
    counted: KernelState,
    /// What the next daemon will be told.
    word: takeover::Word,
    /// Its network could not be covered.
    unseen: bool,
    /// When it was first watched.
    born: u64,
    /// When its cgroup was removed.
    gone: Option<u64>,
}

/// A running watch.
pub struct Live {
    kernel: Kernel,
    rings: Rings,
    cgroups: CgroupFs,
    selectors: Selectors,
    lookups: Lookups,
    answers: tokio::sync::mpsc::Receiver<(ContainerRef, Answer)>,
    pipeline: Pipeline,
    watched: HashMap<u64, Watched>,
    held: usize,
    /// Containers that could not be asked for yet: as many as there are agents, at most.
    unasked: Vec<ContainerRef>,
    /// Agents of the kernel's that were not known here when last looked at.
    strangers: HashSet<u64>,
    /// Agents whose cgroup was gone when last looked at.
    ended: HashSet<u64>,
    mended: u64,
    coverage: Coverage,
    /// When coverage was last looked at.
    looked: u64,
    /// When it is looked at next.
    look_next: u64,
    /// What the kernel had counted for the node when last read.
    node: KernelState,
    node_word: takeover::Word,
    losses_read: u64,
    losses: losses::Losses,
    holders: huge_pages::Look,
    recording: Option<Writer<BufWriter<File>>>,
}

impl Live {
    /// Loads and attaches everything, and adopts the agents that are there. With
    /// `pinned`, the socket of the daemon, all is pinned, or taken over from an
    /// earlier daemon there.
    ///
    /// # Errors
    /// There is no cgroup2, or the kernel refuses a program: nothing stays attached.
    pub fn start(
        cgroups: CgroupFs,
        selectors: Selectors,
        lookups: Lookups,
        answers: tokio::sync::mpsc::Receiver<(ContainerRef, Answer)>,
        pipeline: Pipeline,
        pinned: Option<&Path>,
        out: &mut Vec<Event>,
    ) -> Result<Self> {
        let settings = Settings {
            quota: QUOTA,
            watch_containers: u32::from(selectors.chooses_containers()),
            pad: 0,
        };
        let pins = pinned
            .map(|socket| Pins::open(socket, attach::version(&settings, &selectors)))
            .transpose()?;
        let mut kernel = Kernel::load(settings, pins)?;
        let mut rings = Rings::new(kernel.rings()?);
        kernel.count_for_the_node()?;
        for place in selectors.birthplaces() {
            let place = place.existing(|path| cgroups.dir(path).is_dir());
            let id = cgroups.id(&place.base).with_context(|| {
                format!(
                    "cannot look at the cgroup {}",
                    cgroups.dir(&place.base).display()
                )
            })?;
            kernel.nursery(id, place.depth)?;
        }
        kernel.attach_node()?;
        let legacy = takeover::Legacy::read(&kernel, &mut rings);
        let mut live = Self {
            kernel,
            rings,
            cgroups,
            selectors,
            lookups,
            answers,
            pipeline,
            watched: HashMap::new(),
            held: 0,
            unasked: Vec::new(),
            strangers: HashSet::new(),
            ended: HashSet::new(),
            mended: boot_time(),
            coverage: Coverage::default(),
            looked: boot_time(),
            look_next: 0,
            node: KernelState::default(),
            node_word: takeover::Word::default(),
            losses_read: 0,
            losses: losses::Losses::new()?,
            holders: huge_pages::Look::default(),
            recording: None,
        };
        live.adopt(out)?;
        live.take_over(legacy, out);
        Ok(live)
    }

    /// Writes every record of an agent to a recording, from now on.
    ///
    /// # Errors
    /// Writing failed.
    pub fn record_to(&mut self, mut recording: Writer<BufWriter<File>>) -> Result<()> {
        for (id, watched) in &self.watched {
            if watched.decision == Decision::Yes {
                recording.agent(&RecordedAgent::new(*id, &watched.agent))?;
            }
        }
        self.recording = Some(recording);
        Ok(())
    }

    /// Whether there is a recording into which nothing more fits.
    pub fn recording_is_full(&self) -> bool {
        self.recording.as_ref().is_some_and(Writer::is_full)
    }

    /// Ends the recording, if there is one.
    ///
    /// # Errors
    /// Writing failed.
    pub fn finish_recording(&mut self) -> Result<()> {
        match self.recording.take() {
            Some(recording) => Ok(recording.finish()?),
            None => Ok(()),
        }
    }

    /// Judges by other rules from now on.
    pub fn replace_rules(&mut self, rules: Arc<RuleSet>) {
        self.pipeline.replace_rules(rules);
    }

    /// The pipeline, to look at.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Where everything is pinned, if it is.
    pub fn pins(&self) -> Option<&Path> {
        self.kernel.pins()
    }

    /// Programs, each with the number of places it is attached to.
    pub fn programs(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let points = u32::try_from(self.kernel.attach_points().count()).unwrap_or(u32::MAX);
        PROGRAMS.iter().map(move |program| {
            let places = match program.hook {
                _ if !self.kernel.has(program) => 0,
                hook if hook.is_on_cgroups() => points,
                _ => 1,
            };
            (program.name, places)
        })
    }

    /// What programs took, of those that the kernel has counted.
    pub fn run_times(&self) -> impl Iterator<Item = (&'static str, RunTime)> {
        let stats = self.kernel.run_stats().filter(|(_, stats)| stats.runs > 0);
        stats.map(|(program, stats)| {
            let RunStats {
                runs, nanoseconds, ..
            } = stats;
            (program, RunTime { runs, nanoseconds })
        })
    }

    /// Records that are held until a selector is decided.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Agents, those included whose selector is undecided.
    pub fn agents(&self) -> impl Iterator<Item = AgentStatus> {
        self.watched
            .values()
            .filter(|watched| watched.gone.is_none())
            .map(|watched| {
                let point = self.selectors.attach_point(&watched.agent.cgroup);
                let losses = self.losses.of(watched.agent.cgroup_id);
                let losses = losses.into_iter().flatten();
                let losses: BTreeMap<_, _> = losses
                    .map(|(stage, records)| (stage.name().to_owned(), *records))
                    .collect();
                AgentStatus {
                    id: watched.agent.id.clone(),
                    name: watched.agent.name.clone(),
                    cgroup: watched.agent.cgroup.clone(),
                    state: match watched.decision {
                        Decision::Undecided => "tentative".to_owned(),
                        Decision::Yes | Decision::No => "watched".to_owned(),
                    },
                    attached: self
                        .kernel
                        .attach_points()
                        .any(|attached| attached == point),
                    events: watched.counted.emitted.iter().sum(),
                    lost: losses.values().sum(),
                    losses,
                }
            })
    }

    /// Records lost since the start, by the stage that lost them.
    pub fn losses(&self) -> impl Iterator<Item = (Stage, u64)> {
        let told = self.losses.told().iter();
        told.map(|(stage, records)| (*stage, *records))
    }

    /// Waits for records, a tenth of a second at most, and takes them.
    ///
    /// # Errors
    /// The rings cannot be waited for, or the recording cannot be written.
    pub fn step(&mut self, out: &mut Vec<Event>) -> Result<()> {
        self.rings
            .wait(IDLE)
            .context("cannot wait for the kernel's records")?;
        self.take(false, out)
    }

    /// Takes everything that is left, without waiting.
    ///
    /// # Errors
    /// The recording cannot be written.
    pub fn take_rest(&mut self, out: &mut Vec<Event>) -> Result<()> {
        self.take(true, out)
    }

    fn take(&mut self, all: bool, out: &mut Vec<Event>) -> Result<()> {
        let mut records = Vec::new();
        self.rings.drain(all, |bytes| records.push(bytes));
        for bytes in records {
            self.record(bytes, out)?;
        }
        while let Ok((container, answer)) = self.answers.try_recv() {
            self.answered(&container, answer, out)?;
        }
        for wish in self.pipeline.steering() {
            match wish.control {
                // A full map leaves the flow at its default: its bursts still come.
                Some(control) => {
                    if self.kernel.steer(wish.flow, control).is_err() {
                        let flow = self.pipeline.flows().get(wish.flow);
                        self.no_room(flow.map_or(NODE, |flow| flow.agent));
                    }
                }
                None => self.kernel.unsteer(wish.flow),
            }
        }
        let now = boot_time();
        if !self.watched.is_empty() && (now >= self.look_next || all) {
            self.look(now, out);
        }
        if !self.watched.is_empty() && now >= self.holders.next {
            self.read_huge_pages(now, out)?;
        }
        if now.saturating_sub(self.losses_read) >= LOSS_EVERY || all {
            self.losses_read = now;
            self.read_losses(out);
            self.leave_word(all);
            self.bury(now);
            self.cover_the_unseen(out);
            if now.saturating_sub(self.mended) >= MEND_EVERY {
                self.mended = now;
                self.mend(now, out);
                self.read_usage(now, out)?;
            }
            let lookups = &self.lookups;
            self.unasked
                .retain(|container| !lookups.ask(container.clone()));
        }
        Ok(())
    }

    /// Reads how much processor time agents use for which it matters.
    fn read_usage(&mut self, time: u64, out: &mut Vec<Event>) -> Result<()> {
        for agent in self.pipeline.suspects() {
            let watched = self.watched.get(&agent);
            let used = watched.and_then(|it| self.cgroups.processor_time(&it.agent.cgroup));
            let Some(used) = used else { continue };
            if let Some(recording) = &mut self.recording {
                let usage = Usage { agent, time, used };
                recording
                    .usage(usage)
                    .context("cannot write the recording")?;
            }
            self.pipeline.used(agent, used, time, out);
        }
        Ok(())
    }

    fn record(&mut self, bytes: Bytes, out: &mut Vec<Event>) -> Result<()> {
        let Ok(header) = decode::header(&bytes) else {
            self.losses.count(NODE, Stage::Decode, "entry", 1);
            return Ok(());
        };
        if header.kind == kind::UNCOVERED
            && let Ok(found) = decode::uncovered(&bytes)
        {
            if let Some(hole) = self.coverage.ended(&found) {
                self.hole(hole, out);
            }
            return Ok(());
        }
        if header.kind == kind::CGROUP
            && let Ok(record) = decode::record(&bytes)
            && let Body::Cgroup {
                action, id, path, ..
            } = &record.body
        {
            match action {
                CgroupAction::Created if *id == record.agent || record.agent == 0 => {
                    self.born(*id, path, record.time, out);
                }
                CgroupAction::Removed if *id == record.agent => {
                    self.pass(record.agent, bytes, out)?;
                    self.removed(*id, record.time, out);
                    return Ok(());
                }
                CgroupAction::Entered if path.is_empty() => {
                    let bytes = self.with_path(&bytes, *id, record.process.pid);
                    return self.pass(header.agent, bytes, out);
                }
                _ => {}
            }
        }
        self.pass(header.agent, bytes, out)
    }

    /// A record of a cgroup, with the path that the kernel side could not tell:
    /// that of the process, else that of the cgroup with this id.
    fn with_path(&self, bytes: &Bytes, id: u64, pid: u32) -> Bytes {
        let fits = |path: &String| self.cgroups.id(path).is_ok_and(|found| found == id);
        let path = CgroupFs::of_process(pid)
            .filter(fits)
            .or_else(|| self.cgroups.path_of(id, MAX_WALK));
        let fixed = bytes.get(..size_of::<wire::Cgroup>());
        let (Some(path), Some(fixed)) = (path, fixed) else {
            return bytes.clone();
        };
        let mut cgroup: wire::Cgroup = bytemuck::pod_read_unaligned(fixed);
        let path = &path.as_bytes()[..path.len().min(PATH_CAP)];
        // At most PATH_CAP, which is small.
        cgroup.path_len = path.len() as u32;
        cgroup.header.len = (fixed.len() + path.len()) as u32;
        [bytemuck::bytes_of(&cgroup), path].concat().into()
    }

    /// Something of an agent could not be remembered in a map of the kernel's.
    fn no_room(&mut self, agent: u64) {
        let kind = kind::name(kind::MEMORY);
        self.losses.count(agent, Stage::Kernel, kind, 1);
    }

    /// Hands a record on if its agent is one, holds it while that is undecided.
    fn pass(&mut self, agent: u64, bytes: Bytes, out: &mut Vec<Event>) -> Result<()> {
        let Some(watched) = self.watched.get_mut(&agent) else {
            return Ok(());
        };
        match watched.decision {
            Decision::Yes => {
                if let Some(recording) = &mut self.recording {
                    recording
                        .record(&bytes)
                        .context("cannot write the recording")?;
                }
                if let Ok(header) = decode::header(&bytes) {
                    watched.word.count(header.kind);
                }
                if !self.pipeline.bytes(&bytes, out) {
                    let kind = kind_name(&bytes);
                    self.losses.count(agent, Stage::Decode, kind, 1);
                }
            }
            Decision::No => {}
            Decision::Undecided => {
                if watched.held.len() < MAX_HELD && self.held < MAX_HELD_IN_ALL {
                    // A copy: records lie together in larger pieces of memory.
                    watched.held.push_back(Bytes::copy_from_slice(&bytes));
                    self.held += 1;
                } else {
                    let kind = kind_name(&bytes);
                    self.losses.count(agent, Stage::Held, kind, 1);
                }
            }
        }
        Ok(())
    }
}

fn kind_name(bytes: &[u8]) -> &'static str {
    decode::header(bytes).map_or("other", |header| kind::name(header.kind))
}
