//! Hosts and ports that an agent tried, and what came of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Transport;
use crate::event::{Address, Outcome};

/// Hosts that are kept; the one that was tried longest ago goes first.
pub const MAX_HOSTS: usize = 1_024;
/// Ports that are kept of a host, likewise.
pub const MAX_PORTS: usize = 256;
/// Ports that are kept of all hosts together; hosts go likewise.
const MAX_TARGETS: usize = 2_048;
/// So few are counted whenever an attempt fails.
const FEW: usize = 64;

/// A port, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub port: u16,
    pub transport: Transport,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Ok,
    Failed(Outcome),
}

/// Whether a host, and a port of it, were not tried before.
pub struct Seen {
    pub host: bool,
    pub port: bool,
}

/// Hosts or ports that were tried, and those of them that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub all: usize,
    pub failed: usize,
}

/// A host's ports.
#[derive(Default)]
pub struct Host {
    last: u64,
    ports: BTreeMap<Target, Port>,
}

struct Port {
    last: u64,
    /// When attempts that are over were made, by how they ended.
    ok: Option<u64>,
    failed: Option<(u64, Outcome)>,
}

/// Hosts by their address.
#[derive(Default)]
pub struct Targets {
    hosts: BTreeMap<IpAddr, Host>,
    /// Ports of all of them.
    count: usize,
    swept: u64,
}

impl Port {
    /// It failed since then, and never succeeded.
    fn failed(&self, since: u64) -> Option<Outcome> {
        let (time, outcome) = self.failed?;
        (time >= since && self.ok.is_none_or(|ok| ok < since)).then_some(outcome)
    }
}

impl Host {
    fn tried(&self, since: u64) -> impl Iterator<Item = (&Target, &Port)> {
        self.ports
            .iter()
            .filter(move |(_, port)| port.last >= since)
    }

    /// No port of it let the agent in, and one has failed.
    fn failed(&self, since: u64) -> bool {
        let ok = |port: &Port| port.ok.is_some_and(|ok| ok >= since);
        !self.tried(since).any(|(_, port)| ok(port))
            && self
                .tried(since)
                .any(|(_, port)| port.failed(since).is_some())
    }
}

impl Targets {
    /// Notes an attempt.
    pub fn attempted(&mut self, ip: IpAddr, target: Target, now: u64) -> Seen {
        let new_host = !self.hosts.contains_key(&ip);
        if self.count >= MAX_TARGETS || (new_host && self.hosts.len() >= MAX_HOSTS) {
            let others = self.hosts.iter().filter(|(other, _)| **other != ip);
            let oldest = others.min_by_key(|(_, host)| host.last);
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                let ports = self.hosts.remove(&oldest).map(|host| host.ports.len());
                self.count -= ports.unwrap_or_default();
            }
        }
        let host = self.hosts.entry(ip).or_default();
        host.last = host.last.max(now);
        let new_port = !host.ports.contains_key(&target);
        if new_port && host.ports.len() >= MAX_PORTS {
            let oldest = host.ports.iter().min_by_key(|(_, port)| port.last);
            if let Some(oldest) = oldest.map(|(target, _)| *target) {
                host.ports.remove(&oldest);
                self.count -= 1;
            }
        }
        self.count += usize::from(new_port);
        let port = host.ports.entry(target).or_insert(Port {
            last: now,
            ok: None,
            failed: None,
        });
        port.last = port.last.max(now);
        Seen {
            host: new_host,
            port: new_port,
        }
    }

    /// Notes what became of the attempt that was made at `time`.
    pub fn ended(&mut self, ip: IpAddr, target: Target, ended: Ended, time: u64) {
        let host = self.hosts.get_mut(&ip);
        let Some(port) = host.and_then(|host| host.ports.get_mut(&target)) else {
            return;
        };
        match ended {
            Ended::Ok => port.ok = port.ok.max(Some(time)),
            Ended::Failed(outcome) => port.failed = Some((time, outcome)),
        }
    }

    /// Forgets a port, and the host if it was the only one.
    pub fn forget(&mut self, ip: IpAddr, target: Target) {
        if let Some(host) = self.hosts.get_mut(&ip) {
            self.count -= usize::from(host.ports.remove(&target).is_some());
            if host.ports.is_empty() {
                self.hosts.remove(&ip);
            }
        }
    }

    /// Forgets what was last tried before then. Looks only now and then.
    pub fn forget_before(&mut self, since: u64) {
        const EVERY_NS: u64 = 10_000_000_000;
        if since < self.swept.saturating_add(EVERY_NS) {
            return;
        }
        self.swept = since;
        self.hosts.retain(|_, host| {
            host.ports.retain(|_, port| port.last >= since);
            host.last >= since
        });
        self.count = self.hosts.values().map(|host| host.ports.len()).sum();
    }

    /// Whether to count them takes long.
    pub fn are_many(&self) -> bool {
        self.count > FEW
    }

    /// Hosts that were tried since then.
    pub fn hosts(&self, since: u64) -> Count {
        let tried = self.hosts.values().filter(|host| host.last >= since);
        let mut count = Count { all: 0, failed: 0 };
        for host in tried {
            count.all += 1;
            count.failed += usize::from(host.failed(since));
        }
        count
    }

    /// Ports of a host that were tried since then.
    pub fn ports(&self, ip: IpAddr, since: u64) -> Count {
        let mut count = Count { all: 0, failed: 0 };
        for (_, port) in self
            .hosts
            .get(&ip)
            .iter()
            .flat_map(|host| host.tried(since))
        {
            count.all += 1;
            count.failed += usize::from(port.failed(since).is_some());
        }
        count
    }

    /// When the first of them was tried last.
    pub fn oldest(&self, since: u64) -> Option<u64> {
        let ports = self.hosts.values().flat_map(|host| host.tried(since));
        ports.map(|(_, port)| port.last).min()
    }

    /// Some of those that failed, in words.
    pub fn shown(&self, since: u64, max: usize) -> Vec<String> {
        let ports = self.hosts.iter().flat_map(|(ip, host)| {
            let tried = host.tried(since);
            tried.map(move |(target, port)| (*ip, *target, port))
        });
        let failed = ports.filter_map(|(ip, target, port)| {
            let outcome = port.failed(since)?;
            let port = target.port;
            let (address, transport) = (Address { ip, port }, target.transport);
            Some(format!("{address} ({transport}): {}", words(outcome)))
        });
        failed.take(max).collect()
    }
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Refused => "refused",
        Outcome::Unreachable => "unreachable",
        Outcome::Reset => "reset",
        Outcome::Abandoned => "given up without an answer",
        _ => "no answer",
    }
}
