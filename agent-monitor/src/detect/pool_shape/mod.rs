//! Mining whose words cannot be read, by the shape of what a flow carries.
//!
//! A pool pushes jobs of nearly one size, whenever it likes. The miner does not
//! answer them: it submits what it has found, whenever that is, also nearly the
//! same in size, and each time the pool answers with less. Nobody else does all of
//! that at once for long: chats differ in size, tickers are sent nothing, brokers'
//! messages are acknowledged, workers answer each job in turn. Where an agent's
//! processor or GPU is busy besides, that is a miner at work.
//!
//! Only times and sizes of bursts are looked at, so any encryption will do.

#[cfg(test)]
mod tests;
mod track;

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_monitor_common::event::FlowId;
use foldhash::{HashMap, HashMapExt as _};

use super::{Detector, Finding, Setting, Settings, Subject, huge_pages, mining, who};
use crate::decode::{Burst, ProcessKey};
use crate::event::{Address, Process};
use crate::flow::Flow;
use track::{Shape, Track};

/// A miner at work: the shape of a pool's flow with a busy processor or GPU, registers of
/// the processor that miners tune, or huge pages ([`super::huge_pages`]).
pub static AT_WORK: Detector = Detector {
    name: "miner-process",
    stages: &["at-work"],
    settings: &[&BUSY, &BUSY_S, &huge_pages::HUGE],
};

pub(super) static PUSHES: Setting = Setting {
    name: "pushes",
    default: 20,
    about: "unasked messages of the server: pools push a job every 10 to 60 s, so within 4 to 20 minutes",
};
pub(super) static SUBMITS: Setting = Setting {
    name: "submits",
    default: 10,
    about: "unasked messages of the agent that were answered: pools set their difficulty for one share in 10 to 60 s",
};
pub(super) static AGE: Setting = Setting {
    name: "age_s",
    default: 1800,
    about: "seconds that the flow is old; a miner stays for as long as it may",
};
pub(super) static SPREAD: Setting = Setting {
    name: "spread_percent",
    default: 15,
    about: "how far from the median four of five messages may be: jobs differ in numbers' digits, Bitcoin's also in \
            how many hashes they need",
};
pub(super) static QUIET: Setting = Setting {
    name: "quiet_ms",
    default: 1000,
    about: "milliseconds of quiet after which a message was not asked for: longer than round trips and a pool's thinking",
};
pub(super) static VOLUME: Setting = Setting {
    name: "bytes_per_s",
    default: 1024,
    about: "bytes a second at most, on average, of both directions: a pool's flow has below 100",
};
pub(super) static BUSY: Setting = Setting {
    name: "busy_percent",
    default: 80,
    about: "of one processor that the agent's cgroup uses while it has such a flow, or a process while it holds so many \
            huge pages: a miner takes what it gets, programs that wait for messages next to nothing",
};
pub(super) static BUSY_S: Setting = Setting {
    name: "busy_s",
    default: 60,
    about: "seconds over which that is measured",
};

#[derive(Clone, Copy)]
struct Limits {
    pushes: u64,
    submits: u64,
    age: u64,
    spread: u64,
    quiet: u64,
    volume: u64,
    busy: u64,
    busy_time: u64,
}

impl Limits {
    fn new(shape: &Settings, work: &Settings) -> Self {
        Self {
            pushes: shape.get(&PUSHES),
            submits: shape.get(&SUBMITS),
            age: shape.get(&AGE).saturating_mul(1_000_000_000),
            spread: shape.get(&SPREAD),
            quiet: shape.get(&QUIET).saturating_mul(1_000_000),
            volume: shape.get(&VOLUME),
            busy: work.get(&BUSY),
            busy_time: work.get(&BUSY_S).saturating_mul(1_000_000_000),
        }
    }
}

/// Watches the flows of all agents. There is at most one entry for each live flow.
pub struct PoolShapes {
    limits: Limits,
    flows: HashMap<FlowId, Track>,
    /// What agents with such a flow work with.
    agents: BTreeMap<u64, Work>,
}

impl Default for PoolShapes {
    fn default() -> Self {
        Self {
            limits: Limits::new(&Settings::default(), &Settings::default()),
            flows: HashMap::new(),
            agents: BTreeMap::new(),
        }
    }
}

/// What an agent works with, and its flow of that shape.
#[derive(Default)]
struct Work {
    /// The last GPU that it opened.
    gpu: Option<String>,
    /// Processor time used, nanoseconds, and when that was read.
    used: Option<(u64, u64)>,
    suspect: Option<Suspect>,
}

struct Suspect {
    flow: FlowId,
    owner: ProcessKey,
    process: Option<Arc<Process>>,
    remote: Address,
    evidence: String,
    told: bool,
}

impl PoolShapes {
    /// Goes by these numbers from now on.
    pub fn configure(&mut self, shape: &Settings, work: &Settings) {
        self.limits = Limits::new(shape, work);
    }

    /// Forgets an agent.
    pub fn forget_agent(&mut self, agent: u64) {
        self.agents.remove(&agent);
    }

    /// A flow is over.
    pub fn forget(&mut self, flow: &Flow) {
        self.flows.remove(&flow.id);
        let work = self.agents.get_mut(&flow.agent);
        if let Some(work) =
            work.filter(|it| it.suspect.as_ref().is_some_and(|it| it.flow == flow.id))
        {
            work.suspect = None;
            work.used = None;
        }
    }

    /// A burst on a flow ended.
    pub fn burst(
        &mut self,
        flow: &Flow,
        burst: &Burst,
        process: Option<&Arc<Process>>,
    ) -> Vec<Finding> {
        // What can be read is read.
        let is_closed_book = matches!(flow.protocol, None | Some("tls"));
        if !is_closed_book || flow.is_datagrams || !flow.is_outbound() || flow.is_inside() {
            return Vec::new();
        }
        let Some(remote) = flow.remote else {
            return Vec::new();
        };
        let track = self
            .flows
            .entry(flow.id)
            .or_insert_with(|| Track::new(burst.first));
        let Some(shape) = track.burst(burst, &self.limits) else {
            return Vec::new();
        };
        let evidence = in_words(&shape);
        let found = Finding {
            detector: &mining::DETECTOR,
            stage: mining::WEAK,
            agent: flow.agent,
            process: process.cloned(),
            subjects: vec![Subject::Flow(flow.id)],
            remote: Some(remote),
            summary: format!(
                "{} has a connection to {remote} that has the shape of a miner's to its pool",
                who(process)
            ),
            evidence: vec![evidence.clone()],
            time: burst.last,
            tells_more: false,
        };
        let work = self.agents.entry(flow.agent).or_default();
        work.suspect = Some(Suspect {
            flow: flow.id,
            owner: flow.connector.unwrap_or(flow.owner),
            process: process.cloned(),
            remote,
            evidence,
            told: false,
        });
        work.used = None;
        let with_gpu = work.gpu.clone().and_then(|gpu| {
            work.at_work(
                flow.agent,
                format!("the agent has opened the GPU {gpu}"),
                burst.last,
            )
        });
        [Some(found), with_gpu].into_iter().flatten().collect()
    }

    /// Agents whose processor time is wanted.
    pub fn suspects(&self) -> impl Iterator<Item = u64> {
        let is_open = |work: &Work| work.suspect.as_ref().is_some_and(|it| !it.told);
        let suspects = self.agents.iter().filter(move |(_, work)| is_open(work));
        suspects.map(|(agent, _)| *agent)
    }

    /// An agent's cgroup has used this much processor time since it was made.
    pub fn used(&mut self, agent: u64, used: u64, now: u64) -> Option<Finding> {
        let limits = self.limits;
        let work = self.agents.get_mut(&agent)?;
        let (before, since) = *work.used.get_or_insert((used, now));
        let time = now.saturating_sub(since);
        if time < limits.busy_time || time == 0 {
            return None;
        }
        work.used = Some((used, now));
        let percent = used.saturating_sub(before).saturating_mul(100) / time;
        let seconds = time as f64 / 1e9;
        let words =
            format!("the agent used {percent} % of one processor over {seconds:.0} s meanwhile");
        (percent >= limits.busy)
            .then(|| work.at_work(agent, words, now))
            .flatten()
    }

    /// An agent opened a device: a GPU is remembered.
    pub fn device(&mut self, agent: u64, name: &str, now: u64) -> Option<Finding> {
        if !is_gpu(name) {
            return None;
        }
        let work = self.agents.entry(agent).or_default();
        work.gpu = Some(name.to_owned());
        work.at_work(agent, format!("the agent opened the GPU {name}"), now)
    }
}

impl Work {
    /// Tells of the flow, if there is one and it was not told of.
    fn at_work(&mut self, agent: u64, why: String, now: u64) -> Option<Finding> {
        let suspect = self.suspect.as_mut().filter(|it| !it.told)?;
        suspect.told = true;
        Some(Finding {
            detector: &AT_WORK,
            stage: 0,
            agent,
            process: suspect.process.clone(),
            subjects: vec![Subject::Process(suspect.owner), Subject::Flow(suspect.flow)],
            remote: Some(suspect.remote),
            summary: format!(
                "{} seems to mine for {}: the shape of the connection, and {why}",
                who(suspect.process.as_ref()),
                suspect.remote
            ),
            evidence: vec![suspect.evidence.clone(), why],
            time: now,
            tells_more: false,
        })
    }
}

/// A process opened the model-specific registers of a processor for writing.
pub fn registers(
    agent: u64,
    process: Option<&Arc<Process>>,
    key: ProcessKey,
    name: &str,
    access: &str,
    now: u64,
) -> Option<Finding> {
    let is_register = name.starts_with("cpu/") && name.ends_with("/msr");
    let writes = is_register && access.contains('w');
    writes.then(|| Finding {
        detector: &AT_WORK,
        stage: 0,
        agent,
        process: process.cloned(),
        subjects: vec![Subject::Process(key)],
        remote: None,
        summary: format!(
            "{} sets registers of the processor, as miners do to hash faster",
            who(process)
        ),
        evidence: vec![format!(
            "opened /dev/{name}, a processor's registers, for writing"
        )],
        time: now,
        tells_more: false,
    })
}

/// Names as `enrich/devices.rs` and drivers have them.
fn is_gpu(name: &str) -> bool {
    name.starts_with("nvidia") || name == "kfd" || name.starts_with("dri/renderD")
}

fn in_words(shape: &Shape) -> String {
    format!(
        "over {} s: {} unasked messages of the server of about {} bytes, {} of the agent of about {} bytes, each \
         answered with about {}; {} of the server's were answered at once",
        shape.age / 1_000_000_000,
        shape.pushes,
        shape.push,
        shape.submits,
        shape.submit,
        shape.answer,
        shape.replies,
    )
}
