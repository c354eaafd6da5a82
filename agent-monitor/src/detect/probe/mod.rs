//! Probing of internal networks: connections to many private hosts or ports, of
//! which most fail.
//!
//! What counts is what became of an attempt, not that it was made: a cluster's
//! members connect to hundreds of peers and get through. An attempt that is not
//! answered within `SILENT_NS` has failed, too. `targets` keeps who was tried
//! and what came of it, `walk` is the sequential test for scanners that take
//! their time.

mod targets;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use super::{Detector, Finding, Setting, Settings, Subject, who};
use crate::decode::ProcessKey;
use crate::event::{Address, Outcome, Process, Transport};
use crate::flow::{Change, Flow, address};
use targets::{Ended, MAX_HOSTS, MAX_PORTS, Seen, Target, Targets};
use walk::Walk;

/// What rules see of this.
pub static DETECTOR: Detector = Detector {
    name: "internal-network-probe",
    stages: &["slow", "fast"],
    settings: &[&HOSTS, &PORTS, &FAILED, &WINDOW, &SLOW, &SLOW_WINDOW, &WALK],
};
/// Stages of evidence.
const SLOW_STAGE: usize = 0;
const FAST_STAGE: usize = 1;

static HOSTS: Setting = Setting {
    name: "hosts",
    default: 8,
    about: "private hosts tried within window_s; Snort's port scan detector takes 5 of one network \
            for a sign, Zeek's scan policy 25 in 5 minutes",
};
static PORTS: Setting = Setting {
    name: "ports",
    default: 10,
    about: "ports of one private host tried within window_s; Zeek's scan policy takes 15 in 5 minutes",
};
static FAILED: Setting = Setting {
    name: "failed_percent",
    default: 50,
    about: "share of them that has to have failed: whoever knows the network fails seldom",
};
static WINDOW: Setting = Setting {
    name: "window_s",
    default: 60,
    about: "seconds; a scanner that is not slowed down tries a /24 in less",
};
static SLOW: Setting = Setting {
    name: "slow_targets",
    default: 20,
    about: "hosts, or ports of one host, tried within slow_window_s",
};
static SLOW_WINDOW: Setting = Setting {
    name: "slow_window_s",
    default: 3600,
    about: "seconds; scanners that wait minutes between attempts stay below the short window",
};
static WALK: Setting = Setting {
    name: "walk",
    default: 5,
    about: "by how many the first contacts with hosts that fail exceed those that succeed, before they \
            are a scanner's: threshold random walk (Jung et al. 2004) with success rates of 0.8 and 0.2 \
            and one false alarm in 1,000",
};

/// An attempt that nobody answers counts as failed after this long: TCP has sent
/// its SYN three times by then (RFC 6298, 2: 1 s, then 2 s).
const SILENT_NS: u64 = 3_000_000_000;
/// Two attempts of one program to one port in both address families, of which one
/// succeeds, are one (RFC 8305, "Happy Eyeballs"; 2 s is its longest delay).
const EYEBALLS_NS: u64 = 2_000_000_000;
/// Attempts that are awaited, and those kept to find the other family's.
const MAX_PENDING: usize = 1_024;
const MAX_RECENT: usize = 64;
/// How often many targets are counted at most: a flood of attempts must not keep
/// the processor busy.
const JUDGE_NS: u64 = 100_000_000;
/// Targets that evidence names.
const MAX_SHOWN: usize = 8;
/// Ports at which whoever gets in rules the machine or the cluster: the kubelet,
/// etcd, and Docker without TLS and with it (their documentation's defaults).
const CONTROL_PORTS: [(u16, &str); 6] = [
    (2375, "the Docker API"),
    (2376, "the Docker API"),
    (2379, "etcd"),
    (2380, "etcd"),
    (10250, "the kubelet"),
    (10255, "the kubelet"),
];

#[derive(Clone, Copy)]
struct Limits {
    hosts: usize,
    ports: usize,
    failed_percent: usize,
    window: u64,
    slow: usize,
    slow_window: u64,
    walk: i32,
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        let number = |setting| usize::try_from(settings.get(setting)).unwrap_or(usize::MAX);
        let time = |setting| settings.get(setting).saturating_mul(1_000_000_000);
        Self {
            // More than are kept could never be counted.
            hosts: number(&HOSTS).min(MAX_HOSTS),
            ports: number(&PORTS).min(MAX_PORTS),
            failed_percent: number(&FAILED),
            window: time(&WINDOW),
            slow: number(&SLOW).min(MAX_PORTS),
            slow_window: time(&SLOW_WINDOW),
            walk: i32::try_from(settings.get(&WALK)).unwrap_or(i32::MAX),
        }
    }
}

/// Watches whom agents try to reach.
pub struct Probes {
    limits: Limits,
    agents: BTreeMap<u64, AgentProbes>,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            limits: Limits::new(&Settings::default()),
            agents: BTreeMap::new(),
        }
    }
}

/// Whom one agent tries to reach.
#[derive(Default)]
struct AgentProbes {
    targets: Targets,
    /// Attempts of which nothing is known yet, oldest first.
    pending: VecDeque<Attempt>,
    /// What happened to the last ones, for happy eyeballs.
    recent: VecDeque<(Attempt, Ended)>,
    walk: Walk,
    /// The last finding of each stage: when, and how many targets it had.
    told: [Option<(u64, usize)>; 2],
    /// When all targets were last counted.
    judged: u64,
}

#[derive(Clone, Copy)]
struct Attempt {
    flow: FlowId,
    process: ProcessKey,
    target: Target,
    ip: IpAddr,
    time: u64,
    /// The first with this host, which went by its address and not by a name.
    is_first: bool,
}

impl Probes {
    /// Goes by these numbers from now on.
    pub fn configure(&mut self, settings: &Settings) {
        self.limits = Limits::new(settings);
    }

    /// Forgets an agent.
    pub fn forget(&mut self, agent: u64) {
        self.agents.remove(&agent);
    }

    /// Takes a change of a flow. `lets_pass` says whether this attempt need not
    /// be counted.
    pub fn change(
        &mut self,
        flow: &Flow,
        change: &Change,
        process: Option<&Arc<Process>>,
        now: u64,
        lets_pass: impl FnOnce() -> bool,
    ) -> Option<Finding> {
        if !is_internal(flow) {
            return None;
        }
        let remote = flow.remote?;
        let limits = self.limits;
        let target = Target {
            port: remote.port,
            transport: flow.transport,
        };
        let attempt = |time| Attempt {
            flow: flow.id,
            process: flow.connector.unwrap_or(flow.owner),
            target,
            ip: remote.ip,
            time,
            is_first: false,
        };
        let failed = match change {
            // connect() of a datagram socket sends nothing: getaddrinfo() does it
            // to learn which source address would be used.
            Change::Attempted if flow.is_datagrams => return None,
            Change::Attempted => {
                if lets_pass() {
                    return None;
                }
                let agent = self.agents.entry(flow.agent).or_default();
                let is_new = agent.attempted(attempt(now), flow.resolved_name.is_some(), limits);
                let silent = agent.silent(now, limits);
                let control = is_new.then(|| control_port(flow)).flatten();
                if let Some(what) = control {
                    return Some(asked(flow, remote, what, process, now));
                }
                silent
            }
            Change::Opened if !flow.is_datagrams => {
                let agent = self.agents.get_mut(&flow.agent)?;
                agent.ended(flow.id, Ended::Ok, now, limits);
                // It may have been slow and counted as failed.
                agent
                    .targets
                    .ended(remote.ip, target, Ended::Ok, flow.begun);
                None
            }
            Change::Failed | Change::Closed if !flow.is_datagrams => {
                let agent = self.agents.get_mut(&flow.agent)?;
                let ended = match (change, flow.result?) {
                    (Change::Closed, _) => Ended::Ok,
                    // Nothing left this machine.
                    (_, Outcome::FailedLocally) => return agent.drop_pending(flow.id),
                    (_, outcome) => Ended::Failed(outcome),
                };
                let failed = agent.ended(flow.id, ended, now, limits);
                agent.silent(now, limits).or(failed)
            }
            // A flow of datagrams is judged by whether anything came back.
            Change::Closed if flow.packets[0] > 0 => {
                if lets_pass() {
                    return None;
                }
                let agent = self.agents.entry(flow.agent).or_default();
                agent.attempted(attempt(flow.begun), true, limits);
                let ended = match flow.established {
                    Some(_) => Ended::Ok,
                    None => Ended::Failed(Outcome::TimedOut),
                };
                agent.ended(flow.id, ended, now, limits)
            }
            _ => None,
        }?;
        let agent = self.agents.get_mut(&flow.agent)?;
        agent.judge(failed, flow.agent, process, now, limits)
    }
}

/// Whether an agent tries to reach somebody on a private network.
fn is_internal(flow: &Flow) -> bool {
    let Some(remote) = flow.remote else {
        return false;
    };
    let own = flow.local.is_some_and(|local| local.ip == remote.ip);
    flow.is_outbound()
        && !own
        && address::is_inside(remote.ip)
        && !remote.ip.is_loopback()
        && !remote.ip.is_unspecified()
}

fn control_port(flow: &Flow) -> Option<&'static str> {
    let port = flow.remote?.port;
    let known = CONTROL_PORTS.iter().find(|(known, _)| *known == port);
    known.map(|(_, what)| *what)
}

impl AgentProbes {
    /// Notes an attempt; whether nobody tried this port of this host before.
    fn attempted(&mut self, mut attempt: Attempt, is_named: bool, limits: Limits) -> bool {
        let since = attempt.time.saturating_sub(limits.slow_window);
        self.targets.forget_before(since);
        let Seen { host, port } = self
            .targets
            .attempted(attempt.ip, attempt.target, attempt.time);
        attempt.is_first = host && !is_named;
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(attempt);
        port
    }

    fn drop_pending<T>(&mut self, flow: FlowId) -> Option<T> {
        self.pending.retain(|attempt| attempt.flow != flow);
        None
    }

    /// Attempts that have waited for too long have failed. Gives the last of them.
    fn silent(&mut self, now: u64, limits: Limits) -> Option<IpAddr> {
        let mut failed = None;
        while let Some(attempt) = self.pending.front()
            && attempt.time.saturating_add(SILENT_NS) <= now
        {
            let attempt = *attempt;
            failed = self
                .ended(attempt.flow, Ended::Failed(Outcome::TimedOut), now, limits)
                .or(failed);
        }
        failed
    }

    /// Notes what became of an attempt. Gives the host when it failed.
    fn ended(&mut self, flow: FlowId, ended: Ended, now: u64, limits: Limits) -> Option<IpAddr> {
        let place = self.pending.iter().position(|it| it.flow == flow);
        let attempt = self.pending.remove(place?)?;
        let since = now.saturating_sub(limits.slow_window);
        let other = self.other_family(&attempt, ended, now);
        match (ended, other) {
            // The other family's attempt got through, or will not count any more.
            (Ended::Failed(_), Some(_)) => {
                self.targets.forget(attempt.ip, attempt.target);
                return None;
            }
            (Ended::Ok, Some(failed)) => {
                self.targets.forget(failed.ip, failed.target);
                if failed.is_first {
                    self.walk.take_back();
                }
            }
            (_, None) => {}
        }
        self.targets
            .ended(attempt.ip, attempt.target, ended, attempt.time);
        if attempt.is_first {
            self.walk.step(ended != Ended::Ok, now, since);
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((attempt, ended));
        (ended != Ended::Ok).then_some(attempt.ip)
    }

    /// Takes out the attempt of the same program to the same port in the other
    /// address family that ended the other way.
    fn other_family(&mut self, attempt: &Attempt, ended: Ended, now: u64) -> Option<Attempt> {
        let place = self.recent.iter().position(|(other, how)| {
            other.process == attempt.process
                && other.target == attempt.target
                && other.ip.is_ipv4() != attempt.ip.is_ipv4()
                && (*how == Ended::Ok) != (ended == Ended::Ok)
                && now.saturating_sub(other.time) <= EYEBALLS_NS + SILENT_NS
                && attempt.time.abs_diff(other.time) <= EYEBALLS_NS
        });
        let (other, _) = self.recent.remove(place?)?;
        Some(other)
    }

    /// What it amounts to that an attempt with `ip` failed.
    fn judge(
        &mut self,
        ip: IpAddr,
        agent: u64,
        process: Option<&Arc<Process>>,
        now: u64,
        limits: Limits,
    ) -> Option<Finding> {
        if self.targets.are_many() && now.saturating_sub(self.judged) < JUDGE_NS {
            return None;
        }
        self.judged = now;
        let most =
            |counted: targets::Count| counted.failed * 100 >= counted.all * limits.failed_percent;
        let window = now.saturating_sub(limits.window);
        let slow_window = now.saturating_sub(limits.slow_window);
        let tiers = [
            (FAST_STAGE, window, limits.hosts, limits.ports),
            (SLOW_STAGE, slow_window, limits.slow, limits.slow),
        ];
        for (stage, since, hosts, ports) in tiers {
            let counted = self.targets.hosts(since);
            if counted.all >= hosts && most(counted) {
                let what = format!("{} hosts", counted.all);
                return self.tell(stage, counted, &what, since, agent, process, now, limits);
            }
            let counted = self.targets.ports(ip, since);
            if counted.all >= ports && most(counted) {
                let what = format!("{} ports of {ip}", counted.all);
                return self.tell(stage, counted, &what, since, agent, process, now, limits);
            }
        }
        let ahead = self.walk.ahead();
        if ahead < limits.walk {
            return None;
        }
        let counted = self.targets.hosts(slow_window);
        let what = format!("{} hosts, one after the other,", counted.all);
        self.tell(
            SLOW_STAGE,
            counted,
            &what,
            slow_window,
            agent,
            process,
            now,
            limits,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "each is said in the finding")]
    fn tell(
        &mut self,
        stage: usize,
        counted: targets::Count,
        what: &str,
        since: u64,
        agent: u64,
        process: Option<&Arc<Process>>,
        now: u64,
        limits: Limits,
    ) -> Option<Finding> {
        // Again only when it has become twice as many, or after a window of quiet.
        let quiet = match stage {
            FAST_STAGE => limits.window,
            _ => limits.slow_window,
        };
        if let Some((time, count)) = self.told[stage]
            && now.saturating_sub(time) < quiet
            && counted.all < 2 * count
        {
            return None;
        }
        self.told[stage] = Some((now, counted.all));
        let seconds = now.saturating_sub(self.targets.oldest(since).unwrap_or(now)) as f64 / 1e9;
        let mut evidence = vec![format!(
            "{} of {} tried within {seconds:.1} s failed",
            counted.failed, counted.all
        )];
        evidence.extend(self.targets.shown(since, MAX_SHOWN));
        Some(Finding {
            detector: &DETECTOR,
            stage,
            agent,
            process: process.cloned(),
            subjects: vec![Subject::Agent],
            remote: None,
            summary: format!(
                "{} tried {what} of its private network, and {} did not let it in",
                who(process),
                counted.failed
            ),
            evidence,
            time: now,
            tells_more: false,
        })
    }
}

/// A port at which no agent has business was tried.
fn asked(
    flow: &Flow,
    remote: Address,
    what: &str,
    process: Option<&Arc<Process>>,
    now: u64,
) -> Finding {
    Finding {
        detector: &DETECTOR,
        stage: SLOW_STAGE,
        agent: flow.agent,
        process: process.cloned(),
        subjects: vec![Subject::Agent],
        remote: Some(remote),
        summary: format!("{} tries the port of {what} at {remote}", who(process)),
        evidence: vec![format!("connect() to {remote}, the port of {what}")],
        time: now,
        tells_more: false,
    }
}
