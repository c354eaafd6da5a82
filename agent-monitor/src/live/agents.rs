//! Agents' lives: those that were there, births, names, ends, and what is done
//! when a record of them was lost.

use super::sockets::Holder;
use super::*;

impl Live {
    /// Finds the agents that were there before the watch began.
    ///
    /// # Errors
    /// A recording cannot be written.
    pub(super) fn adopt(&mut self, out: &mut Vec<Event>) -> Result<()> {
        let scan = self.cgroups.scan(MAX_SCAN);
        if scan.omitted > 0 {
            tracing::warn!(
                omitted = scan.omitted,
                "too many cgroups: some were not looked at"
            );
        }
        // Parents come before children: what lies below an agent is its own.
        let mut owners: HashMap<String, u64> = HashMap::new();
        let mut processes: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
        let mut cgroups: HashMap<u64, u64> = HashMap::new();
        for group in scan.groups {
            if let Some(agent) = owners.get(parent(&group.path)).copied() {
                let count = cgroups.entry(agent).or_default();
                *count += 1;
                if *count > MAX_AGENT_CGROUPS {
                    self.no_room(agent);
                    continue;
                }
                let holders = self.watch_too(&group.path, group.id, agent);
                processes.entry(agent).or_default().extend(holders);
                owners.insert(group.path, agent);
                continue;
            }
            if let Some(depth) = self.selectors.nursery_depth(&group.path)
                && let Err(error) = self.kernel.nursery(group.id, depth)
            {
                tracing::warn!(cgroup = group.path, "{error:#}");
                self.no_room(NODE);
            }
            let container = own_container(&group.path);
            if self.selectors.decide(&group.path, container.as_ref(), None) == Decision::No {
                continue;
            }
            let now = boot_time();
            let before = self.kernel.watched(group.id).is_some();
            if let Err(error) = self.kernel.watch(group.id, group.id, now) {
                tracing::error!(cgroup = group.path, "cannot watch an agent: {error:#}");
                self.no_room(NODE);
                continue;
            }
            self.born(group.id, &group.path, now, out);
            let holders = self.take_over_processes(&group.path, group.id, group.id);
            processes.insert(group.id, holders);
            if !before {
                let reason = "the agent was there before the watch began";
                self.gap(group.id, reason, 0, out);
            }
            owners.insert(group.path, group.id);
        }
        // Cgroups that were made below an agent between the scan and its watch.
        for group in self.cgroups.scan(MAX_SCAN).groups {
            if let Some(agent) = owners.get(parent(&group.path)).copied()
                && self.kernel.watched(group.id).is_none()
            {
                let holders = self.watch_too(&group.path, group.id, agent);
                processes.entry(agent).or_default().extend(holders);
                owners.insert(group.path, agent);
            }
        }
        for (agent, holders) in processes {
            self.take_over_sockets(agent, holders, out)?;
        }
        Ok(())
    }

    /// A cgroup below an agent's, from before the watch.
    fn watch_too(&mut self, path: &str, cgroup: u64, agent: u64) -> Vec<Holder> {
        if let Err(error) = self.kernel.watch(cgroup, agent, boot_time()) {
            tracing::error!(cgroup = path, "cannot watch a part of an agent: {error:#}");
            self.no_room(agent);
        }
        self.take_over_processes(path, cgroup, agent)
    }

    /// Brings in the processes that are in a cgroup already, here and in the kernel.
    fn take_over_processes(&mut self, path: &str, cgroup: u64, agent: u64) -> Vec<Holder> {
        let mut holders = Vec::new();
        let list = std::fs::read_to_string(self.cgroups.dir(path).join("cgroup.procs"));
        for pid in list
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
        {
            let Some(process) = self.pipeline.take_over(pid, boot_time()) else {
                continue;
            };
            let key = ProcessKey {
                pid,
                start: process.start,
            };
            holders.push(Holder {
                process: key,
                cgroup,
            });
            if let Err(error) = self.kernel.remember(pid, agent, cgroup, key.start_ns()) {
                tracing::error!(pid, "cannot follow a process of an agent: {error:#}");
                self.no_room(agent);
            }
        }
        holders
    }

    /// A cgroup that may be an agent exists and is watched.
    pub(super) fn born(&mut self, id: u64, path: &str, time: u64, out: &mut Vec<Event>) {
        if self.watched.contains_key(&id) {
            return;
        }
        let container = own_container(path);
        let decision = self.selectors.decide(path, container.as_ref(), None);
        match self.selectors.nursery_depth(path) {
            Some(depth) => {
                if let Err(error) = self.kernel.nursery(id, depth) {
                    tracing::error!(cgroup = path, "{error:#}");
                    self.no_room(NODE);
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
                self.no_room(NODE);
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
                labels: BTreeMap::new(),
            }),
            pod: None,
        };
        let watched = Watched {
            agent,
            container: container.clone(),
            decision: Decision::Undecided,
            held: VecDeque::new(),
            gaps: Vec::new(),
            holes: Vec::new(),
            counted: KernelState::default(),
            word: takeover::Word::default(),
            unseen: false,
            born: time,
            gone: None,
        };
        self.watched.insert(id, watched);
        if self.kernel.watched(id).is_none() {
            // The kernel found no room at its birth, or its record was lost.
            if let Err(error) = self.kernel.watch(id, id, boot_time()) {
                tracing::error!(cgroup = path, "an agent is not watched: {error:#}");
                self.no_room(NODE);
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
            Ok(attached) => {
                if let Some(watched) = self.watched.get_mut(&id) {
                    watched.unseen = false;
                }
                let reason = "network programs were attached after the agent's birth";
                let born = self.watched.get(&id).map_or(0, |watched| watched.born);
                if attached.anew {
                    self.gap(id, reason, born, out);
                }
                for program in attached.missing {
                    let reason = format!(
                        "the kernel refuses {}: {} are not seen from here on",
                        program.place, program.gives
                    );
                    self.gap(id, reason, born, out);
                }
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
    pub(super) fn cover_the_unseen(&mut self, out: &mut Vec<Event>) {
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
    pub(super) fn gap(
        &mut self,
        id: u64,
        reason: impl Into<String>,
        from: u64,
        out: &mut Vec<Event>,
    ) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let to = boot_time();
        if watched.decision == Decision::Yes {
            self.pipeline.gap(id, reason.into(), from, to, out);
        } else {
            watched.gaps.push((reason.into(), from, to));
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
        let holes = std::mem::take(&mut watched.holes);
        record_agent(&mut self.recording, id, &agent);
        let born = watched.born;
        self.pipeline
            .agent(id, agent, AgentState::Appeared, born, out);
        for (reason, from, to) in gaps {
            self.pipeline.gap(id, reason, from, to, out);
        }
        for hole in holes {
            self.pipeline.hole(&hole, out);
        }
    }

    /// A container's runtime has answered.
    pub(super) fn answered(
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
            let name = Some(&info.name).filter(|name| !name.is_empty());
            if let Some(name) = name {
                watched.agent.name.clone_from(name);
            }
            if let Some(container) = &mut watched.agent.container {
                container.name = name.cloned();
                container.image.clone_from(&info.image);
                container.labels.clone_from(&info.labels);
            }
            watched.agent.pod = info.pod();
        }
        let agent = watched.agent.clone();
        if watched.decision == Decision::Yes {
            if info.is_some() {
                record_agent(&mut self.recording, id, &agent);
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
            self.losses.forget(id);
            self.kernel.forget_agent(id);
            self.kernel.detach_cgroup(&agent.cgroup);
        }
        Ok(())
    }

    pub(super) fn removed(&mut self, id: u64, time: u64, out: &mut Vec<Event>) {
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
    pub(super) fn bury(&mut self, now: u64) {
        let dead: Vec<u64> = self
            .watched
            .iter()
            .filter(|(id, watched)| {
                // Who has left it is still watched, as a process of this agent.
                watched
                    .gone
                    .is_some_and(|gone| now - gone.min(now) > TOMBSTONE)
                    && !self.coverage.has_escaped(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            if let Some(watched) = self.watched.remove(&id) {
                self.held -= watched.held.len();
            }
            self.kernel.forget_agent(id);
            self.losses.forget(id);
            self.pipeline.forget(id);
        }
    }

    /// Mends what lost records of cgroups leave behind: an agent that the kernel
    /// watches and nobody here knows, one whose cgroup is gone.
    pub(super) fn mend(&mut self, now: u64, out: &mut Vec<Event>) {
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

/// Writes what is known of an agent by now to the recording, if there is one.
fn record_agent(recording: &mut Option<Writer<BufWriter<File>>>, id: u64, agent: &Agent) {
    if let Some(recording) = recording
        && let Err(error) = recording.agent(&RecordedAgent::new(id, agent))
    {
        tracing::error!("cannot write the recording: {error}");
    }
}
