//! The journey of a record, in one place:
//! decode → enrich → flow → protocol → detect → rules → events.
//!
//! One synchronous chain, the same for what the kernel sends and for a replay.

mod consequence;
mod now;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::decode::{self, Body, CgroupAction, ProcessKey, Record};
use crate::detect::blind::Hole;
use crate::detect::relay::Relays;
use crate::detect::{Finding, Subject, blind, ssh_command, tool, tunnel};
use crate::enrich::devices::Devices;
use crate::enrich::process::{Exec, Fork, Processes};
use crate::event::{self, Agent, AgentChange, AgentState, Event, Gap, Loss, Process, Timestamp};
use crate::flow::{Change, Flow, Steering, Table};
use crate::protocol::Fact;
use crate::rules::engine::{Engine, Found, Sighting};
use crate::rules::incidents::Incidents;
use crate::rules::set::RuleSet;
use crate::stats::Stats;
use consequence::{Around, Detectors, consequence};

/// Where records become events.
pub struct Pipeline {
    node: Arc<str>,
    /// Prefix of event ids: different for each run.
    run: String,
    /// Nanoseconds from the Unix epoch to boot.
    boot_epoch: u64,
    next_id: u64,
    agents: HashMap<u64, Arc<Agent>>,
    /// Records lost of each agent since it appeared.
    lost: HashMap<u64, u64>,
    /// Holes in the coverage of each agent since it appeared.
    holes: HashMap<u64, u64>,
    processes: Processes,
    devices: Devices,
    flows: Table,
    detectors: Detectors,
    engine: Engine,
    incidents: Incidents,
    stats: Stats,
}

impl Pipeline {
    /// An empty pipeline for the records of one boot of one node.
    pub fn new(
        node: &str,
        run: String,
        boot_epoch: u64,
        processes: Processes,
        devices: Devices,
        rules: Arc<RuleSet>,
    ) -> Self {
        let mut detectors = Detectors::default();
        detectors.configure(&rules);
        Self {
            node: node.into(),
            run,
            boot_epoch,
            next_id: 0,
            agents: HashMap::new(),
            lost: HashMap::new(),
            holes: HashMap::new(),
            processes,
            devices,
            flows: Table::default(),
            detectors,
            engine: Engine::new(rules),
            incidents: Incidents::default(),
            stats: Stats::default(),
        }
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Judges by other rules from now on.
    pub fn replace_rules(&mut self, rules: Arc<RuleSet>) {
        self.detectors.configure(&rules);
        self.engine.replace(rules);
    }

    /// The rules that judge.
    pub fn rules(&self) -> &Arc<RuleSet> {
        self.engine.rules()
    }

    /// Matches that correlations forgot because there were too many.
    pub fn correlations_forgotten(&self) -> u64 {
        self.engine.forgotten()
    }

    /// Flows that are followed.
    pub fn flows(&self) -> &Table {
        &self.flows
    }

    /// Pairs of flows that are compared.
    pub fn relays(&self) -> &Relays {
        &self.detectors.relays
    }

    /// Flows that were forgotten although they may have been shells.
    pub fn shells_forgotten(&self) -> u64 {
        self.detectors.shells.evicted
    }

    /// What the kernel should send more or less of, since the last call.
    pub fn steering(&mut self) -> Vec<Steering> {
        std::mem::take(&mut self.flows.steering)
    }

    /// Takes a record as the kernel sent it; `false` if it could not be read.
    pub fn bytes(&mut self, bytes: &Bytes, out: &mut Vec<Event>) -> bool {
        let record = decode::record(bytes);
        match &record {
            Ok(record) => self.record(record, out),
            Err(_) => {
                self.stats.records += 1;
                self.stats.refused += 1;
            }
        }
        record.is_ok()
    }

    /// Takes a record.
    pub fn record(&mut self, record: &Record, out: &mut Vec<Event>) {
        self.stats.records += 1;
        match &record.body {
            Body::Fork { child, uid, comm } => {
                self.processes.fork(
                    Fork {
                        parent: record.process,
                        child: *child,
                        uid: *uid,
                        comm: comm.clone(),
                    },
                    record.time,
                );
            }
            Body::Exec(exec) => self.exec(record, exec, out),
            Body::Exit { status } => self.exit(record, *status, out),
            Body::Cgroup { action, path, .. } => self.cgroup(record, *action, path, out),
            Body::Device(device) => self.device(record, device, out),
            Body::Sysctl(sysctl) => self.sysctl(record, sysctl, out),
            Body::Socket(it) => self.by_process(record, event::Body::Socket(it.into()), out),
            Body::Bind(bound) => self.by_process(record, event::Body::Bind(bound.into()), out),
            Body::Listen(bound) => self.by_process(record, event::Body::Listen(bound.into()), out),
            _ => self.network(record, out),
        }
    }

    /// An agent appeared, is known better, or is gone.
    pub fn agent(
        &mut self,
        id: u64,
        agent: Agent,
        state: AgentState,
        time: u64,
        out: &mut Vec<Event>,
    ) {
        self.agents.insert(id, Arc::new(agent));
        let body = event::Body::Agent(AgentChange { state });
        self.emit(id, time, None, body, out);
    }

    /// Forgets an agent that has been gone for long enough: no record of it will come.
    pub fn forget(&mut self, id: u64) {
        self.agents.remove(&id);
        self.lost.remove(&id);
        self.holes.remove(&id);
        self.incidents.forget(id);
        self.flows.names.forget(id);
        self.flows.traffic.forget(id);
        self.detectors.forget(id);
    }

    /// Processes that were forgotten because there were too many.
    pub fn processes_evicted(&self) -> u64 {
        self.processes.evicted()
    }

    /// Incidents that were not told since the last call, because there were too
    /// many of the agent and rule.
    pub fn take_withheld(&mut self) -> BTreeMap<(u64, Arc<str>), u64> {
        self.incidents.take_withheld()
    }

    /// Brings in a process that was there before.
    pub fn take_over(&mut self, pid: u32, time: u64) -> Option<Arc<Process>> {
        self.processes.take_over(pid, time)
    }

    /// Records of an agent (0: of no one agent) were lost.
    pub fn loss(&mut self, agent: u64, loss: Loss, time: u64, out: &mut Vec<Event>) {
        *self.lost.entry(agent).or_default() += loss.records;
        let finding = blind::loss(agent, &loss, time);
        let id = self.emit(agent, time, None, event::Body::Loss(loss), out);
        self.find(&finding, &[id], out);
    }

    /// An agent was not covered from `from` to `to`, nanoseconds since boot.
    pub fn gap(&mut self, agent: u64, reason: String, from: u64, to: u64, out: &mut Vec<Event>) {
        let gap = Gap {
            reason,
            from: self.at(from),
            to: self.at(to),
        };
        self.emit(agent, to, None, event::Body::Gap(gap), out);
    }

    /// Something an agent does could not be seen, and should have been.
    pub fn hole(&mut self, hole: &Hole, out: &mut Vec<Event>) {
        let process = self.process(hole.process, hole.to);
        let gap = Gap {
            reason: hole.reason.clone(),
            from: self.at(hole.from),
            to: self.at(hole.to),
        };
        let body = event::Body::Gap(gap);
        let id = self.emit(hole.agent, hole.to, process.clone(), body, out);
        if !hole.again {
            *self.holes.entry(hole.agent).or_default() += 1;
            self.find(&blind::hole(hole, process.as_ref()), &[id], out);
        }
    }

    fn exec(&mut self, record: &Record, exec: &decode::Exec, out: &mut Vec<Event>) {
        let details = exec.details.as_ref();
        let euid = details.map(|details| details.euid);
        let before = self.processes.effective_uid(record.process);
        let process = self.processes.exec(
            Exec {
                process: record.process,
                parent: exec.parent,
                uid: exec.uid,
                comm: exec.comm.clone(),
                exe: (!exec.exe.is_empty()).then(|| exec.exe.clone()),
                argv: exec.argv.clone(),
                euid,
            },
            record.time,
        );
        let body = event::Exec {
            filename: exec.filename.clone(),
            argv: exec.argv.clone(),
            argv_truncated: exec.argv_truncated,
            memfd: exec.links == 0,
            stdio_sockets: (0..3)
                .filter(|n| exec.stdio_sockets & (1 << n) != 0)
                .collect(),
            interpreter: details.and_then(|details| details.interpreter.clone()),
            gid: details.map(|details| details.gid),
            euid,
            euid_before: before.filter(|before| euid.is_some_and(|euid| euid != *before)),
            egid: details.map(|details| details.egid),
            setuid: details.is_some_and(|details| details.setuid),
            setgid: details.is_some_and(|details| details.setgid),
            namespaces: details.map(|details| details.namespaces),
        };
        let id = self.emit(
            record.agent,
            record.time,
            Some(process.clone()),
            event::Body::Exec(body),
            out,
        );
        let tool = tool::command_line(record.agent, &process, record.process, record.time);
        if let Some(finding) = tool {
            self.find(&finding, std::slice::from_ref(&id), out);
        }
        let by_key = |key| self.processes.get(key);
        let shells = &mut self.detectors.shells;
        let shell = shells.exec(record.agent, &process, record.process, record.time, by_key);
        if let Some(finding) = shell {
            self.find(&finding, std::slice::from_ref(&id), out);
        }
        let forward = ssh_command::remote_forward(&exec.argv)
            .or_else(|| ssh_command::remote_forward_of(&exec.exe, &exec.argv));
        if let Some(forward) = forward {
            let finding = tunnel::command_line(
                record.agent,
                &process,
                record.process,
                forward.program.name(),
                &forward.spec,
                record.time,
            );
            self.find(&finding, &[id], out);
        }
    }

    fn exit(&mut self, record: &Record, status: u32, out: &mut Vec<Event>) {
        let process = self.process(record.process, record.time);
        self.processes.exit(record.process, record.time);
        self.detectors.holders.ended(record.process);
        let signal = i32::try_from(status & 0x7f).unwrap_or_default();
        let code = i32::try_from(status >> 8 & 0xff).unwrap_or_default();
        let body = event::Exit {
            code: (signal == 0).then_some(code),
            signal: (signal != 0).then_some(signal),
            runtime_ns: (record.process.start != 0)
                .then(|| record.time.saturating_sub(record.process.start_ns())),
        };
        self.emit(
            record.agent,
            record.time,
            process,
            event::Body::Exit(body),
            out,
        );
    }

    fn cgroup(&mut self, record: &Record, action: CgroupAction, path: &str, out: &mut Vec<Event>) {
        let (action, process) = match action {
            CgroupAction::Created => ("created", None),
            CgroupAction::Removed => ("removed", None),
            CgroupAction::Entered => ("entered", self.process(record.process, record.time)),
        };
        let body = event::Cgroup {
            action,
            path: path.to_owned(),
        };
        self.emit(
            record.agent,
            record.time,
            process,
            event::Body::Cgroup(body),
            out,
        );
    }

    /// What a process did, of which nothing follows.
    fn by_process(&mut self, record: &Record, body: event::Body, out: &mut Vec<Event>) {
        let process = self.process(record.process, record.time);
        self.emit(record.agent, record.time, process, body, out);
    }

    fn network(&mut self, record: &Record, out: &mut Vec<Event>) {
        let mut consequences = Vec::new();
        let mut learnt = Vec::new();
        let Self {
            flows,
            detectors,
            processes,
            engine,
            agents,
            ..
        } = self;
        let mut around = Around {
            processes,
            engine,
            agent: agents.get(&record.agent).map(|agent| &**agent),
        };
        flows.apply(record, |flow, change| {
            if let Change::Fact(Fact::Dns(fact)) = &change
                && flow.is_outbound()
            {
                learnt.push(fact.message.clone());
            }
            consequences.push(consequence(record, flow, &change, detectors, &mut around));
        });
        for message in learnt {
            for (ip, name, ttl) in message.addresses() {
                flows.names.learn(record.agent, ip, name, ttl, record.time);
            }
        }
        for mut consequence in consequences {
            for finding in &mut consequence.findings {
                self.name(finding);
            }
            let id = consequence
                .event
                .map(|(process, body)| self.emit(record.agent, record.time, process, body, out));
            if let Some(id) = &id {
                self.flows.told(consequence.flow, id);
            }
            for finding in &consequence.findings {
                self.find(finding, id.as_slice(), out);
            }
            for risen in &consequence.risen {
                let process = self.processes.get(risen.inside.connector);
                let finding =
                    tunnel::relayed(risen, process.as_ref(), self.detectors.tunnels, record.time);
                if let Some(mut finding) = finding {
                    self.name(&mut finding);
                    let told = [&risen.outside.event, &risen.inside.event];
                    let told: Vec<Arc<str>> = told.into_iter().flatten().cloned().collect();
                    self.find(&finding, &told, out);
                }
            }
        }
    }

    /// Adds to a finding's evidence what the other ends of its flows are called.
    fn name(&self, finding: &mut Finding) {
        for subject in &finding.subjects {
            let Subject::Flow(id) = subject else {
                continue;
            };
            let flow = self.flows.get(*id);
            let remote = flow.and_then(|flow| Some((flow.resolved_name.as_ref()?, flow.remote?)));
            if let Some((name, remote)) = remote {
                finding
                    .evidence
                    .push(format!("{} is {name}, as the agent was told", remote.ip));
            }
        }
    }

    fn find(&mut self, finding: &Finding, events: &[Arc<str>], out: &mut Vec<Event>) {
        let mut finding = finding.clone();
        let flow = finding.subjects.iter().find_map(|subject| match subject {
            Subject::Flow(flow) => self.flows.get(*flow),
            _ => None,
        });
        finding.evidence.extend(flow.map(Flow::in_words));
        let found = Found {
            time: self.at(finding.time),
            node: &self.node,
            agent: self.agents.get(&finding.agent),
            name: flow.and_then(|flow| flow.server_name.as_deref()),
            events,
        };
        let mut sightings = Vec::new();
        self.engine.finding(&finding, &found, &mut sightings);
        let process = finding.process.as_ref();
        for sighting in &sightings {
            self.sight(sighting, finding.agent, finding.time, process, out);
        }
    }

    /// Folds what a rule saw into its incident.
    fn sight(
        &mut self,
        sighting: &Sighting,
        agent: u64,
        time: u64,
        process: Option<&Arc<Process>>,
        out: &mut Vec<Event>,
    ) {
        // Agent 0 stands for what was lost of no one agent: it may have been this one's.
        let of = |counts: &HashMap<u64, u64>| -> u64 {
            let agents = [agent, 0];
            agents.iter().filter_map(|agent| counts.get(agent)).sum()
        };
        let coverage = coverage(of(&self.lost), of(&self.holes));
        let at = self.at(time);
        if let Some(alert) = self.incidents.take(sighting, agent, at, &coverage) {
            self.stats.alerts += 1;
            let body = event::Body::Alert(Arc::new(alert));
            self.emit(agent, time, process.cloned(), body, out);
        }
    }

    fn process(&mut self, key: ProcessKey, time: u64) -> Option<Arc<Process>> {
        known(&mut self.processes, key, time)
    }

    fn at(&self, boot_time: u64) -> Timestamp {
        Timestamp(self.boot_epoch.saturating_add(boot_time))
    }

    fn emit(
        &mut self,
        agent: u64,
        time: u64,
        process: Option<Arc<Process>>,
        body: event::Body,
        out: &mut Vec<Event>,
    ) -> Arc<str> {
        let id: Arc<str> = format!("{}-{}", self.run, self.next_id).into();
        self.next_id += 1;
        self.stats.events += 1;
        let event = Event {
            id: id.clone(),
            time: self.at(time),
            node: self.node.clone(),
            agent: self.agents.get(&agent).cloned(),
            process,
            body,
        };
        let mut sightings = Vec::new();
        self.engine.event(&event, &mut sightings);
        let process = event.process.clone();
        out.push(event);
        for sighting in &sightings {
            self.sight(sighting, agent, time, process.as_ref(), out);
        }
        id
    }
}

/// `complete`, or what was lost of an agent and how often it could act unseen.
fn coverage(lost: u64, holes: u64) -> String {
    let mut parts = Vec::new();
    if lost > 0 {
        parts.push(format!("{lost} records that may be this agent's were lost"));
    }
    match holes {
        0 => {}
        1 => parts.push("something could be done unseen, see the gap event".to_owned()),
        holes => parts.push(format!(
            "{holes} things could be done unseen, see the gap events"
        )),
    }
    match parts.is_empty() {
        true => "complete".to_owned(),
        false => parts.join("; "),
    }
}

/// What is known of a process: no more than its id and start if it came from
/// outside and ended before it could be looked at.
fn known(processes: &mut Processes, key: ProcessKey, time: u64) -> Option<Arc<Process>> {
    if key.pid == 0 {
        return None;
    }
    let bare = || Process {
        pid: key.pid,
        start: key.start,
        ..Process::default()
    };
    let found = processes.get_or_take_over(key, time);
    Some(found.unwrap_or_else(|| bare().into()))
}

/// Whether two processes are the same, one is above the other, or one process
/// made both: a pipe between two programs relays too. Who is not known may be
/// anyone.
fn is_related(processes: &Processes, one: ProcessKey, other: ProcessKey) -> bool {
    if one == other || one.pid == 0 || other.pid == 0 {
        return true;
    }
    let lineage = |key: ProcessKey| -> Vec<u32> {
        let process = processes.get(key);
        let ancestors = process.iter().flat_map(|process| process.ancestors.iter());
        ancestors.map(|ancestor| ancestor.pid).collect()
    };
    let (above_one, above_other) = (lineage(one), lineage(other));
    above_one.contains(&other.pid)
        || above_other.contains(&one.pid)
        || above_one
            .first()
            .is_some_and(|parent| above_other.first() == Some(parent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::procfs::Procfs;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start: 1 }
    }

    #[test]
    fn lineage_and_one_maker_relate_processes_either_way_round() {
        let nothing = tempfile::tempdir().expect("a directory");
        let mut processes = Processes::new(Procfs::at(nothing.path()), 100);
        // 1 made 2 and 3, 3 made 4. Who made 1 is not known.
        for (parent, child) in [(100, 1), (1, 2), (1, 3), (3, 4)] {
            let fork = Fork {
                parent: key(parent),
                child: key(child),
                uid: 0,
                comm: "x".into(),
            };
            processes.fork(fork, 0);
        }
        let cases = [
            (2, 2, true),
            (1, 2, true),
            (3, 4, true),
            (2, 3, true),
            (2, 4, false),
            (0, 4, true),
            (8, 9, false),
        ];
        for (one, other, expected) in cases {
            for (one, other) in [(one, other), (other, one)] {
                let related = is_related(&processes, key(one), key(other));
                assert_eq!(related, expected, "{one} and {other}");
            }
        }
    }
}
