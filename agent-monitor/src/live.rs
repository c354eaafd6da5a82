//! The live end: which cgroups are agents, and the kernel's records of them.
//!
//! A cgroup that may be an agent is watched from birth by the kernel; whether it
//! is one is decided here. While a container runtime has to be asked, its
//! records are held, bounded; then they are released in order, or dropped.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::BufWriter;
use std::time::Duration;

use agent_monitor_common::event::kind;
use agent_monitor_common::limits::MAX_AGENTS;
use agent_monitor_common::policy::{
    AgentState as KernelState, CLASS_NAMES, CLASSES, LOSS_REASON_NAMES, Settings,
};
use anyhow::{Context as _, Result};
use bytes::Bytes;

use crate::api::status::AgentStatus;
use crate::attach::{Kernel, offsets};
use crate::capture::recording::{RecordedAgent, Writer};
use crate::capture::rings::{Rings, boot_time};
use crate::decode::{self, Body, CgroupAction, ProcessKey};
use crate::enrich::cgroup_path::{ContainerRef, agent_root, parent};
use crate::enrich::cgroupfs::CgroupFs;
use crate::enrich::lookups::{Answer, Lookups};
use crate::enrich::runtime::RuntimeInfo;
use crate::enrich::selector::{Decision, Selectors};
use crate::event::{Agent, AgentState, Container, Event, Loss};
use crate::pipeline::Pipeline;

/// Records of each class that an agent may cause in a second: several times
/// what builds and test suites do, and below what fills a ring in the time
/// user space may be kept from running.
const QUOTA: [u64; CLASSES] = [20_000, 30_000, 30_000, 60_000, 60_000];
/// Records that are held of one agent while a selector is undecided, and of all.
const MAX_HELD: usize = 4_096;
const MAX_HELD_IN_ALL: usize = 16_384;
/// Cgroups looked at when the watch begins.
const MAX_SCAN: usize = 65_536;
/// How often losses are read from the kernel.
const LOSS_EVERY: u64 = 500_000_000;
/// How often what is known of agents is compared with what there is.
const MEND_EVERY: u64 = 2_000_000_000;
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
    gaps: Vec<(&'static str, u64, u64)>,
    /// What the kernel had counted when last read.
    counted: KernelState,
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
    /// What the kernel had counted for the node when last read.
    node: KernelState,
    losses_read: u64,
    losses: BTreeMap<&'static str, u64>,
    recording: Option<Writer<BufWriter<File>>>,
}

impl Live {
    /// Loads and attaches everything, and adopts the agents that are there.
    ///
    /// # Errors
    /// There is no cgroup2, or the kernel refuses a program: nothing stays attached.
    pub fn start(
        cgroups: CgroupFs,
        selectors: Selectors,
        lookups: Lookups,
        answers: tokio::sync::mpsc::Receiver<(ContainerRef, Answer)>,
        pipeline: Pipeline,
        out: &mut Vec<Event>,
    ) -> Result<Self> {
        let settings = Settings {
            quota: QUOTA,
            watch_containers: u32::from(selectors.chooses_containers()),
            pad: 0,
        };
        let mut kernel = Kernel::load(offsets::resolve_in_child()?, settings)?;
        let rings = Rings::new(kernel.rings()?);
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
            node: KernelState::default(),
            losses_read: 0,
            losses: BTreeMap::new(),
            recording: None,
        };
        live.adopt(out);
        Ok(live)
    }

    /// Writes every record of an agent to a recording, from now on.
    ///
    /// # Errors
    /// Writing failed.
    pub fn record_to(&mut self, mut recording: Writer<BufWriter<File>>) -> Result<()> {
        for (id, watched) in &self.watched {
            if watched.decision == Decision::Yes {
                recording.agent(&recorded(*id, &watched.agent))?;
            }
        }
        self.recording = Some(recording);
        Ok(())
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

    /// The pipeline, to look at.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Where network programs are attached.
    pub fn attach_points(&self) -> impl Iterator<Item = &str> {
        self.kernel.attach_points()
    }

    /// Agents, those included whose selector is undecided.
    pub fn agents(&self) -> impl Iterator<Item = AgentStatus> {
        self.watched
            .values()
            .filter(|watched| watched.gone.is_none())
            .map(|watched| {
                let point = self.selectors.attach_point(&watched.agent.cgroup);
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
                    lost: watched.counted.lost.iter().flatten().sum(),
                }
            })
    }

    /// Records lost since the start, by the stage that lost them.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.losses
            .iter()
            .map(|(stage, records)| (*stage, *records))
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
                Some(control) => drop(self.kernel.steer(wish.flow, control)),
                None => self.kernel.unsteer(wish.flow),
            }
        }
        let now = boot_time();
        if now.saturating_sub(self.losses_read) >= LOSS_EVERY || all {
            self.losses_read = now;
            self.read_losses(out);
            self.bury(now);
            self.cover_the_unseen(out);
            if now.saturating_sub(self.mended) >= MEND_EVERY {
                self.mended = now;
                self.mend(now, out);
            }
            let lookups = &self.lookups;
            self.unasked
                .retain(|container| !lookups.ask(container.clone()));
        }
        Ok(())
    }

    fn record(&mut self, bytes: Bytes, out: &mut Vec<Event>) -> Result<()> {
        let Ok(header) = decode::header(&bytes) else {
            self.pipeline.bytes(&bytes, out);
            return Ok(());
        };
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
                _ => {}
            }
        }
        self.pass(header.agent, bytes, out)
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
                self.pipeline.bytes(&bytes, out);
            }
            Decision::No => {}
            Decision::Undecided => {
                if watched.held.len() < MAX_HELD && self.held < MAX_HELD_IN_ALL {
                    // A copy: records lie together in larger pieces of memory.
                    watched.held.push_back(Bytes::copy_from_slice(&bytes));
                    self.held += 1;
                } else {
                    let loss = Loss {
                        stage: "held",
                        records: 1,
                        kinds: [("record", 1)].into_iter().collect(),
                    };
                    self.lost(agent, loss, out);
                }
            }
        }
        Ok(())
    }

    /// Finds the agents that were there before the watch began.
    fn adopt(&mut self, out: &mut Vec<Event>) {
        let scan = self.cgroups.scan(MAX_SCAN);
        if scan.omitted > 0 {
            tracing::warn!(
                omitted = scan.omitted,
                "too many cgroups: some were not looked at"
            );
        }
        // Parents come before children: what lies below an agent is its own.
        let mut owners: HashMap<String, u64> = HashMap::new();
        for group in scan.groups {
            if let Some(agent) = owners.get(parent(&group.path)).copied() {
                self.watch_too(&group.path, group.id, agent);
                owners.insert(group.path, agent);
                continue;
            }
            if let Some(depth) = self.selectors.nursery_depth(&group.path)
                && let Err(error) = self.kernel.nursery(group.id, depth)
            {
                tracing::warn!(cgroup = group.path, "{error:#}");
            }
            let container = own_container(&group.path);
            if self.selectors.decide(&group.path, container.as_ref(), None) == Decision::No {
                continue;
            }
            let now = boot_time();
            if let Err(error) = self.kernel.watch(group.id, group.id, now) {
                tracing::error!(cgroup = group.path, "cannot watch an agent: {error:#}");
                continue;
            }
            self.born(group.id, &group.path, now, out);
            self.take_over_processes(&group.path, group.id, group.id);
            self.gap(
                group.id,
                "the agent was there before the watch began",
                0,
                out,
            );
            owners.insert(group.path, group.id);
        }
        // Cgroups that were made below an agent between the scan and its watch.
        for group in self.cgroups.scan(MAX_SCAN).groups {
            if let Some(agent) = owners.get(parent(&group.path)).copied()
                && self.kernel.watched(group.id).is_none()
            {
                self.watch_too(&group.path, group.id, agent);
                owners.insert(group.path, agent);
            }
        }
    }

    /// A cgroup below an agent's, from before the watch.
    fn watch_too(&mut self, path: &str, cgroup: u64, agent: u64) {
        if let Err(error) = self.kernel.watch(cgroup, agent, boot_time()) {
            tracing::error!(cgroup = path, "cannot watch a part of an agent: {error:#}");
        }
        self.take_over_processes(path, cgroup, agent);
    }

    /// Brings in the processes that are in a cgroup already, here and in the kernel.
    fn take_over_processes(&mut self, path: &str, cgroup: u64, agent: u64) {
        let list = std::fs::read_to_string(self.cgroups.dir(path).join("cgroup.procs"));
        for pid in list
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
        {
            let Some(process) = self.pipeline.take_over(pid, boot_time()) else {
                continue;
            };
            let start = ProcessKey {
                pid,
                start: process.start,
            };
            if let Err(error) = self.kernel.remember(pid, agent, cgroup, start.start_ns()) {
                tracing::error!(pid, "cannot follow a process of an agent: {error:#}");
            }
        }
    }

    /// A cgroup that may be an agent exists and is watched.
    fn born(&mut self, id: u64, path: &str, time: u64, out: &mut Vec<Event>) {
        if self.watched.contains_key(&id) {
            return;
        }
        let container = own_container(path);
        let decision = self.selectors.decide(path, container.as_ref(), None);
        match self.selectors.nursery_depth(path) {
            Some(depth) => {
                if let Err(error) = self.kernel.nursery(id, depth) {
                    tracing::error!(cgroup = path, "{error:#}");
                }
            }
            None => self.kernel.forget_nursery(id),
        }
        if decision == Decision::No || self.watched.len() >= MAX_AGENTS as usize {
            if decision != Decision::No {
                tracing::error!(
                    cgroup = path,
                    "too many agents at once: this one is not watched"
                );
            }
            self.kernel.forget_agent(id);
            return;
        }
        let agent = Agent {
            id: container
                .as_ref()
                .map_or_else(|| id.to_string(), |found| found.id.clone()),
            name: short_name(path, container.as_ref()),
            cgroup: path.to_owned(),
            cgroup_id: id,
            container: container.as_ref().map(|found| Container {
                id: found.id.clone(),
                name: None,
                image: None,
                runtime: found.runtime.as_str().to_owned(),
            }),
            pod: None,
        };
        let watched = Watched {
            agent,
            container: container.clone(),
            decision: Decision::Undecided,
            held: VecDeque::new(),
            gaps: Vec::new(),
            counted: KernelState::default(),
            unseen: false,
            born: time,
            gone: None,
        };
        self.watched.insert(id, watched);
        if self.kernel.watched(id).is_none() {
            // The kernel found no room at its birth, or its record was lost.
            if let Err(error) = self.kernel.watch(id, id, boot_time()) {
                tracing::error!(cgroup = path, "an agent is not watched: {error:#}");
            }
            self.gap(id, "the agent was not watched from its birth", time, out);
        }
        self.cover(id, path, out);
        if decision == Decision::Yes {
            self.appeared(id, out);
        }
        if let Some(container) = container
            && !self.lookups.ask(container.clone())
        {
            self.unasked.push(container);
        }
    }

    /// Attaches the network programs for an agent, where they are not yet.
    fn cover(&mut self, id: u64, path: &str, out: &mut Vec<Event>) {
        let point = self.selectors.attach_point(path).to_owned();
        // The root of a subtree may have been removed and made again.
        let point_id = self.cgroups.id(&point).unwrap_or_default();
        if self.kernel.is_attached(&point, point_id) {
            return;
        }
        let mount = self.cgroups.mount();
        match self.kernel.attach_cgroup(&point, point_id, mount) {
            Ok(()) => {
                if let Some(watched) = self.watched.get_mut(&id) {
                    watched.unseen = false;
                }
                let reason = "network programs were attached after the agent's birth";
                let born = self.watched.get(&id).map_or(0, |watched| watched.born);
                self.gap(id, reason, born, out);
            }
            Err(error) => {
                let first = self
                    .watched
                    .get_mut(&id)
                    .is_some_and(|watched| !std::mem::replace(&mut watched.unseen, true));
                if first {
                    tracing::error!(cgroup = path, "an agent's network is not seen: {error:#}");
                }
            }
        }
    }

    /// Tries again for agents whose network could not be covered.
    fn cover_the_unseen(&mut self, out: &mut Vec<Event>) {
        let unseen: Vec<(u64, String)> = self
            .watched
            .iter()
            .filter(|(_, watched)| watched.unseen && watched.gone.is_none())
            .map(|(id, watched)| (*id, watched.agent.cgroup.clone()))
            .collect();
        for (id, path) in unseen {
            self.cover(id, &path, out);
        }
    }

    /// An agent was not covered from `from` until now.
    fn gap(&mut self, id: u64, reason: &'static str, from: u64, out: &mut Vec<Event>) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let to = boot_time();
        if watched.decision == Decision::Yes {
            self.pipeline.gap(id, reason.to_owned(), from, to, out);
        } else {
            watched.gaps.push((reason, from, to));
        }
    }

    /// An agent is chosen: tells of it, and of what it did unseen.
    fn appeared(&mut self, id: u64, out: &mut Vec<Event>) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        watched.decision = Decision::Yes;
        let agent = watched.agent.clone();
        let gaps = std::mem::take(&mut watched.gaps);
        if let Some(recording) = &mut self.recording
            && let Err(error) = recording.agent(&recorded(id, &agent))
        {
            tracing::error!("cannot write the recording: {error}");
        }
        let born = watched.born;
        self.pipeline
            .agent(id, agent, AgentState::Appeared, born, out);
        for (reason, from, to) in gaps {
            self.pipeline.gap(id, reason.to_owned(), from, to, out);
        }
    }

    /// A container's runtime has answered.
    fn answered(
        &mut self,
        container: &ContainerRef,
        answer: Answer,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let (info, unknown) = match answer {
            Answer::Found(info) => (Some(info), false),
            Answer::NotFound => (None, false),
            Answer::Unreachable(why) => {
                tracing::warn!(
                    container = container.id,
                    "a container's runtime did not answer, so it is watched under its id: {why}"
                );
                (None, true)
            }
        };
        // A container that was started again has the cgroup of before in its tomb.
        let mut same: Vec<&mut Watched> = self
            .watched
            .values_mut()
            .filter(|watched| watched.container.as_ref() == Some(container))
            .collect();
        same.sort_by_key(|watched| watched.gone.is_some());
        let Some(watched) = same.into_iter().next() else {
            return Ok(());
        };
        let id = watched.agent.cgroup_id;
        if let Some(info) = &info {
            watched.agent.name.clone_from(&info.name);
            if let Some(container) = &mut watched.agent.container {
                container.name = Some(info.name.clone());
                container.image.clone_from(&info.image);
            }
            watched.agent.pod = info.pod();
        }
        let agent = watched.agent.clone();
        if watched.decision == Decision::Yes {
            if info.is_some() {
                self.pipeline
                    .agent(id, agent, AgentState::Updated, boot_time(), out);
            }
            return Ok(());
        }
        let known = info
            .as_deref()
            .cloned()
            .unwrap_or_else(RuntimeInfo::default);
        let chosen = match unknown {
            // Rather one container too many than one that nobody watches.
            true => Decision::Yes,
            false => self
                .selectors
                .decide(&agent.cgroup, Some(container), Some(&known)),
        };
        let held = std::mem::take(&mut watched.held);
        self.held -= held.len();
        if chosen == Decision::Yes {
            let gone = watched.gone;
            self.appeared(id, out);
            for bytes in held {
                self.pass(id, bytes, out)?;
            }
            if let Some(time) = gone {
                self.pipeline.agent(id, agent, AgentState::Gone, time, out);
            }
        } else {
            self.watched.remove(&id);
            self.kernel.forget_agent(id);
            self.kernel.detach_cgroup(&agent.cgroup);
        }
        Ok(())
    }

    fn removed(&mut self, id: u64, time: u64, out: &mut Vec<Event>) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        watched.gone = Some(time);
        if let Some(container) = &watched.container {
            self.lookups.gone(container.clone());
        }
        let agent = watched.agent.clone();
        self.kernel.detach_cgroup(&agent.cgroup);
        if watched.decision == Decision::Yes {
            self.pipeline.agent(id, agent, AgentState::Gone, time, out);
        }
    }

    /// Forgets agents that have been gone for long enough.
    fn bury(&mut self, now: u64) {
        let dead: Vec<u64> = self
            .watched
            .iter()
            .filter(|(_, watched)| {
                watched
                    .gone
                    .is_some_and(|gone| now - gone.min(now) > TOMBSTONE)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            if let Some(watched) = self.watched.remove(&id) {
                self.held -= watched.held.len();
            }
            self.kernel.forget_agent(id);
            self.pipeline.forget(id);
        }
    }

    /// Mends what lost records of cgroups leave behind: an agent that the kernel
    /// watches and nobody here knows, one whose cgroup is gone.
    fn mend(&mut self, now: u64, out: &mut Vec<Event>) {
        let known: Vec<u64> = self
            .kernel
            .agent_states()
            .iter()
            .map(|(id, _)| *id)
            .collect();
        let strangers: HashSet<u64> = known
            .into_iter()
            .filter(|id| *id != NODE && !self.watched.contains_key(id))
            .collect();
        // A stranger may be new, its record still on the way: ask twice.
        for id in strangers.intersection(&self.strangers.clone()) {
            match self.cgroups.path_of(*id, MAX_SCAN) {
                Some(path) => {
                    self.born(*id, &path, now, out);
                    self.gap(*id, "the record of the agent's birth was lost", 0, out);
                }
                None => self.kernel.forget_agent(*id),
            }
        }
        self.strangers = strangers;
        let ended: Vec<u64> = self
            .watched
            .iter()
            .filter(|(id, watched)| {
                watched.gone.is_none() && self.cgroups.id(&watched.agent.cgroup).ok() != Some(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        let before = std::mem::take(&mut self.ended);
        for id in ended.iter().filter(|id| before.contains(*id)) {
            self.removed(*id, now, out);
        }
        self.ended = ended.into_iter().collect();
    }

    /// Turns what the kernel has counted since the last time into `loss` events.
    fn read_losses(&mut self, out: &mut Vec<Event>) {
        let mut lost = Vec::new();
        for (id, state) in self.kernel.agent_states() {
            let counted = match self.watched.get_mut(&id) {
                Some(watched) if watched.decision == Decision::Yes => &mut watched.counted,
                None if id == NODE => &mut self.node,
                _ => continue,
            };
            let before = std::mem::replace(counted, state);
            for (reason, stage) in LOSS_REASON_NAMES.iter().enumerate() {
                let mut kinds = BTreeMap::new();
                for (class, name) in CLASS_NAMES.iter().enumerate() {
                    let lost = state.lost[reason][class].saturating_sub(before.lost[reason][class]);
                    if lost > 0 {
                        kinds.insert(*name, lost);
                    }
                }
                if !kinds.is_empty() {
                    lost.push((
                        id,
                        Loss {
                            stage,
                            records: kinds.values().sum(),
                            kinds,
                        },
                    ));
                }
            }
        }
        // What this side lost belongs to no one agent.
        let here = [
            (
                "decode",
                "record",
                self.pipeline.stats().refused + self.rings.refused,
            ),
            ("flow", "flow", self.pipeline.flows().evicted),
            ("relay", "flow", self.pipeline.relays().evicted),
        ];
        for (stage, kind, records) in here {
            let before = self.losses.get(stage).copied().unwrap_or_default();
            if records > before {
                let records = records - before;
                lost.push((
                    0,
                    Loss {
                        stage,
                        records,
                        kinds: [(kind, records)].into(),
                    },
                ));
            }
        }
        for (id, loss) in lost {
            self.lost(id, loss, out);
        }
    }

    fn lost(&mut self, agent: u64, loss: Loss, out: &mut Vec<Event>) {
        *self.losses.entry(loss.stage).or_default() += loss.records;
        self.pipeline.loss(agent, loss, boot_time(), out);
    }
}

/// The container whose own cgroup this is.
fn own_container(path: &str) -> Option<ContainerRef> {
    agent_root(path)
        .filter(|(root, _)| *root == path)
        .map(|(_, container)| container)
}

/// What an agent is called until its runtime has been asked.
fn short_name(path: &str, container: Option<&ContainerRef>) -> String {
    match container {
        Some(container) => container.id.chars().take(12).collect(),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

fn recorded(id: u64, agent: &Agent) -> RecordedAgent {
    RecordedAgent {
        cgroup_id: id,
        id: agent.id.clone(),
        name: agent.name.clone(),
        cgroup: agent.cgroup.clone(),
    }
}
