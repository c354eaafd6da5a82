//! What follows from a change of a flow: its event, and what detectors find.

use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use super::{is_related, known};
use crate::decode::{self, ProcessKey, Record};
use crate::detect::dns_tunnel::{self, DnsTunnels};
use crate::detect::huge_pages::Holders;
use crate::detect::mining::{self, Mining};
use crate::detect::pool_shape::{self, PoolShapes};
use crate::detect::probe::Probes;
use crate::detect::relay::{Relays, Risen};
use crate::detect::shell::Shells;
use crate::detect::{Finding, probe, tool, tunnel};
use crate::enrich::process::Processes;
use crate::event::{self, Agent, Direction, FlowState, Outcome, Process};
use crate::flow::{self, Change, Flow};
use crate::protocol::{Fact, dns};
use crate::rules::engine::Engine;
use crate::rules::exceptions::Deed;
use crate::rules::set::RuleSet;

/// Detectors that remember.
#[derive(Default)]
pub(super) struct Detectors {
    pub relays: Relays,
    pub mining: Mining,
    pub probes: Probes,
    pub tunnels: tunnel::Limits,
    pub dns: DnsTunnels,
    pub pools: PoolShapes,
    pub holders: Holders,
    pub shells: Shells,
}

impl Detectors {
    /// Forgets an agent.
    pub fn forget(&mut self, agent: u64) {
        self.relays.forget_agent(agent);
        self.probes.forget(agent);
        self.dns.forget(agent);
        self.pools.forget_agent(agent);
        self.holders.forget_agent(agent);
        self.shells.forget_agent(agent);
    }

    /// Judges by the numbers that these rules set from now on.
    pub fn configure(&mut self, rules: &RuleSet) {
        self.probes.configure(&rules.settings(&probe::DETECTOR));
        self.dns.configure(&rules.settings(&dns_tunnel::DETECTOR));
        self.pools.configure(
            &rules.settings(&mining::DETECTOR),
            &rules.settings(&pool_shape::AT_WORK),
        );
        self.holders
            .configure(&rules.settings(&pool_shape::AT_WORK));
        self.tunnels = tunnel::Limits::new(
            &rules.settings(&tunnel::RELAY_DETECTOR),
            &rules.settings(&tunnel::SSH_DETECTOR),
        );
    }
}

/// What is asked to know who did something, and whether rules let it pass.
pub(super) struct Around<'a> {
    pub processes: &'a mut Processes,
    pub engine: &'a Engine,
    pub agent: Option<&'a Agent>,
}

/// What a change of a flow leads to, until the flow table is free again.
pub(super) struct Consequence {
    pub flow: FlowId,
    pub event: Option<(Option<Arc<Process>>, event::Body)>,
    pub findings: Vec<Finding>,
    /// Relays that were seen to work.
    pub risen: Vec<Risen>,
}

/// What follows from one change of one flow.
pub(super) fn consequence(
    record: &Record,
    flow: &Flow,
    change: &Change,
    detectors: &mut Detectors,
    around: &mut Around<'_>,
) -> Consequence {
    let Detectors {
        relays,
        mining,
        probes,
        dns,
        pools,
        shells,
        ..
    } = detectors;
    let Around {
        processes,
        engine,
        agent,
    } = around;
    let mut result = Consequence {
        flow: flow.id,
        event: None,
        findings: Vec::new(),
        risen: Vec::new(),
    };
    let process = match change {
        Change::Attempted | Change::Sent => known(processes, record.process, record.time),
        Change::Evicted => None,
        _ => {
            let actor = flow.connector.unwrap_or(flow.owner);
            known(processes, actor, record.time)
        }
    };
    let deed = Deed {
        agent: *agent,
        process: process.as_deref(),
        remote: flow.remote,
        name: flow.name().map(|name| &**name),
    };
    let lets_pass = || engine.lets_pass(&probe::DETECTOR, &deed);
    let probed = probes.change(flow, change, process.as_ref(), record.time, lets_pass);
    result.findings.extend(probed);
    let related = |one: ProcessKey, other: ProcessKey| is_related(processes, one, other);
    let body = match change {
        Change::Attempted => network_body(flow, Outcome::Attempted).map(event::Body::Connect),
        Change::Sent => network_body(flow, Outcome::Attempted).map(event::Body::Send),
        Change::Opened if flow.is_datagrams => {
            flow_body(flow, FlowState::Open, Vec::new(), record.time)
        }
        Change::Opened if flow.direction == Some(Direction::Inbound) => {
            network_body(flow, Outcome::Established).map(event::Body::Accept)
        }
        Change::Opened => {
            relays.opened(flow, related);
            flow_body(flow, FlowState::Open, Vec::new(), record.time)
        }
        Change::Found => {
            let guessed = if flow.is_outbound() {
                "direction guessed: this end does not look like the server"
            } else {
                "direction guessed: this end looks like the server"
            };
            let facts = ["open before the watch began", guessed].map(str::to_owned);
            flow_body(flow, FlowState::Open, facts.into(), record.time)
        }
        Change::Identified => flow_body(flow, FlowState::Identified, Vec::new(), record.time),
        Change::Fact(Fact::Dns(fact)) => {
            let lets_pass = |name: &str| {
                let deed = Deed {
                    name: Some(name),
                    ..deed
                };
                engine.lets_pass(&dns_tunnel::DETECTOR, &deed)
            };
            let found = dns.message(flow, fact, process.as_ref(), record.time, lets_pass);
            result.findings.extend(found);
            dns_body(flow, fact)
        }
        Change::Fact(fact) => {
            result.findings.extend(match fact {
                Fact::Dns(_) => None,
                Fact::Mining(fact) => mining.message(flow, fact, process.clone(), record.time),
                Fact::Ssh(fact) => tunnel::on_wire(flow, fact, process.as_ref(), record.time),
                Fact::Shell(fact) => shells.fact(flow, fact, process.as_ref(), record.time),
                Fact::Proxy(granted) => tool::proxy(flow, granted, process.as_ref(), record.time),
                Fact::Http(_) | Fact::Socks(_) | Fact::Tls(_) | Fact::Tool(_) => None,
            });
            let tool = tool::recognised(flow, fact, process.as_ref(), record.time);
            result.findings.extend(tool);
            // What a flow of another protocol merely contains is no news of it.
            let news = flow.protocol.and_then(|_| fact.in_words());
            news.and_then(|words| flow_body(flow, FlowState::Update, vec![words], record.time))
        }
        Change::Ambiguous => {
            let words = "bytes came again that differ: both readings are looked into";
            flow_body(flow, FlowState::Update, vec![words.to_owned()], record.time)
        }
        Change::Burst(burst) => {
            result.risen = relays.burst(flow, burst, related);
            result
                .findings
                .extend(pools.burst(flow, burst, process.as_ref()));
            None
        }
        Change::Failed | Change::Closed => {
            relays.closed(flow, record.time);
            mining.closed(flow.id);
            pools.forget(flow);
            shells.closed(flow.agent, flow.id);
            let failed = matches!(change, Change::Failed);
            let state = if failed {
                FlowState::Failed
            } else {
                FlowState::Closed
            };
            flow_body(flow, state, Vec::new(), record.time)
        }
        Change::Evicted => {
            relays.forget(flow);
            mining.closed(flow.id);
            pools.forget(flow);
            shells.closed(flow.agent, flow.id);
            None
        }
    };
    result.event = body.map(|body| (process, body));
    result
}

impl From<&decode::Socket> for event::Socket {
    fn from(socket: &decode::Socket) -> Self {
        Self {
            flow: flow::id_text(socket.flow),
            family: socket.family(),
            kind: socket.kind(),
            protocol: socket.protocol(),
            transport: socket.transport(),
            raw: socket.is_raw(),
        }
    }
}

impl From<&decode::Bound> for event::Bound {
    fn from(bound: &decode::Bound) -> Self {
        Self {
            flow: flow::id_text(bound.flow),
            transport: bound.transport,
            local: bound.local,
        }
    }
}

fn network_body(flow: &Flow, result: Outcome) -> Option<event::Network> {
    Some(event::Network {
        flow: flow::id_text(flow.id),
        transport: flow.transport,
        local: flow.local,
        remote: flow.remote?,
        server_name: flow.name().cloned(),
        result,
    })
}

fn dns_body(flow: &Flow, fact: &dns::Fact) -> Option<event::Body> {
    let message = &fact.message;
    let question = message.question.as_ref();
    let answers = message.answers.iter();
    Some(event::Body::Dns(Box::new(event::Dns {
        flow: flow::id_text(flow.id),
        transport: flow.transport,
        local: flow.local,
        remote: flow.remote?,
        question: question.map(|question| question.name.clone()),
        kind: question.map(|question| question.kind.name().into_owned()),
        rcode: message
            .is_response
            .then(|| message.code.name().into_owned()),
        answers: message
            .is_response
            .then(|| answers.map(|answer| answer.data.clone()).collect()),
        truncated: message.is_truncated,
    })))
}

fn flow_body(flow: &Flow, state: FlowState, facts: Vec<String>, now: u64) -> Option<event::Body> {
    let flow = flow_event(flow, state, facts, now)?;
    Some(event::Body::Flow(Box::new(flow)))
}

/// What is known of a flow that has not ended, to who asks.
pub(super) fn flow_now(flow: &Flow, now: u64) -> Option<event::Flow> {
    flow_event(flow, FlowState::Open, Vec::new(), now)
}

fn flow_event(flow: &Flow, state: FlowState, facts: Vec<String>, now: u64) -> Option<event::Flow> {
    let outbound = flow.is_outbound();
    Some(event::Flow {
        flow: flow::id_text(flow.id),
        peer_flow: flow.peer.map(flow::id_text),
        owner: if outbound { "creator" } else { "listener" },
        state,
        direction: if outbound {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        transport: flow.transport,
        local: flow.local,
        remote: flow.remote?,
        protocol: flow.protocol,
        server_name: flow.name().cloned(),
        hassh: flow.fingerprints.hassh.clone(),
        hassh_server: flow.fingerprints.hassh_server.clone(),
        ja4: flow.fingerprints.ja4.clone(),
        result: match (flow.result, flow.established) {
            (Some(result), _) => result,
            (None, Some(_)) => Outcome::Established,
            (None, None) => Outcome::Attempted,
        },
        bytes_out: flow.bytes[0],
        bytes_in: flow.bytes[1],
        packets_out: flow.packets[0],
        packets_in: flow.packets[1],
        duration_ns: match state {
            FlowState::Closed if !flow.is_found => {
                flow.established.map(|from| now.saturating_sub(from))
            }
            FlowState::Failed => Some(now.saturating_sub(flow.begun)),
            _ => None,
        },
        retransmits: flow.retransmits,
        rtt_us: flow.rtt_us,
        facts,
    })
}
