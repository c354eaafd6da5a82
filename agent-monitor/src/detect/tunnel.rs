//! Reverse tunnels: by command line, by wire sizes, and by a relay that works.

use std::sync::Arc;

use agent_monitor_common::event::FlowId;

use super::relay::{Cause, End, Risen};
use super::{Detector, Finding, Setting, Settings, Subject, who};
use crate::decode::{ProcessKey, Way};
use crate::event::Process;
use crate::flow::Flow;
use crate::protocol::{Side, ssh};

/// Tunnels on SSH flows.
pub static SSH_DETECTOR: Detector = Detector {
    name: "reverse-ssh-tunnel",
    stages: &["command-line", "wire-sizes", "relayed"],
    settings: &[&MATCHED],
};
/// Tunnels on any other flow.
pub static RELAY_DETECTOR: Detector = Detector {
    name: "reverse-tunnel-relay",
    stages: &["matched", "sustained"],
    settings: &[&MATCHED, &SUSTAINED],
};

static MATCHED: Setting = Setting {
    name: "matched",
    default: 2,
    about: "exchanges whose sizes match both ways before a relay is believed; one can be chance, as recordings \
            of honest agents show. Between ssh and what it connects to itself, one is enough. Or channels that SSH \
            opened for visitors: two at least",
};
/// Exchanges before a relay is called sustained.
pub static SUSTAINED: Setting = Setting {
    name: "sustained",
    default: 4,
    about: "exchanges whose sizes match both ways before a relay is sustained: no recording of an honest \
            agent has more than one",
};

/// How many exchanges have to match.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    matched: u64,
    sustained: u64,
    ssh: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&Settings::default(), &Settings::default())
    }
}

impl Limits {
    /// As the settings of [`RELAY_DETECTOR`] and of [`SSH_DETECTOR`] have it.
    pub fn new(relay: &Settings, ssh: &Settings) -> Self {
        Self {
            matched: relay.get(&MATCHED),
            sustained: relay.get(&SUSTAINED),
            ssh: ssh.get(&MATCHED),
        }
    }
}

/// Bytes of a forward's text that a summary shows.
const MAX_SPEC: usize = 100;
/// Stages of [`SSH_DETECTOR`].
const COMMAND_LINE: usize = 0;
const WIRE_SIZES: usize = 1;
const RELAYED: usize = 2;
/// Stages of [`RELAY_DETECTOR`].
const BOTH_WAYS: usize = 0;
const STEADY: usize = 1;

/// A command line asks for a remote forward.
pub fn command_line(
    agent: u64,
    process: &Arc<Process>,
    key: ProcessKey,
    program: &str,
    forward: &str,
    time: u64,
) -> Finding {
    let forward = &forward[..forward.floor_char_boundary(MAX_SPEC)];
    Finding {
        detector: &SSH_DETECTOR,
        stage: COMMAND_LINE,
        agent,
        process: Some(process.clone()),
        subjects: subjects(key, Some(process), None),
        remote: None,
        summary: format!(
            "{}[{}] was started with a reverse forward ({forward})",
            process.comm, process.pid
        ),
        evidence: vec![format!(
            "{program} command line: {}",
            process.argv.join(" ")
        )],
        time,
        tells_more: false,
    }
}

/// What is seen of an SSH flow says that somebody outside is let in: record sizes
/// tell of a forward that was asked for, or the agent connected to be the server.
pub fn on_wire(
    flow: &Flow,
    fact: &ssh::Fact,
    process: Option<&Arc<Process>>,
    time: u64,
) -> Option<Finding> {
    let remote = flow.remote?;
    let (summary, evidence) = match fact {
        ssh::Fact::ForwardRequested { shown_by, .. } => (
            format!(
                "{} asked {remote} for a reverse forward over SSH",
                who(process)
            ),
            format!("SSH record sizes to {remote}: {shown_by}"),
        ),
        ssh::Fact::ForwardedOpen { shown_by, .. } => (
            format!(
                "{} let a connection in from {remote} through a reverse forward over SSH",
                who(process)
            ),
            format!("SSH record sizes to {remote}: {shown_by}"),
        ),
        // Whoever is at the other end gets a session inside, or forwards. That it
        // is the agent that connected is what a reverse tunnel is for.
        ssh::Fact::Kex {
            client: Side::Responder,
            ..
        } if flow.is_outbound() => (
            format!(
                "{} connected to {remote} to be an SSH server for it",
                who(process)
            ),
            format!(
                "the roles of SSH are reversed: {remote}, which was connected to, sent the key-exchange messages \
                 of a client, and the agent those of a server"
            ),
        ),
        _ => return None,
    };
    Some(Finding {
        detector: &SSH_DETECTOR,
        stage: WIRE_SIZES,
        agent: flow.agent,
        process: process.cloned(),
        subjects: subjects(flow.owner, process, Some(flow.id)),
        remote: Some(remote),
        summary,
        evidence: vec![evidence],
        time,
        tells_more: false,
    })
}

/// An inside connection answers outside data. `process` made that connection.
pub fn relayed(
    risen: &Risen,
    process: Option<&Arc<Process>>,
    limits: Limits,
    time: u64,
) -> Option<Finding> {
    let Risen {
        pair,
        on_route,
        channels,
        outside,
        inside,
    } = risen;
    // In SSH's turns once is enough for nothing: somebody's own connection may
    // fall between two messages.
    let channel = pair
        .channel
        .filter(|_| u64::from(*channels) >= limits.ssh.max(2));
    if cfg!(mutate = "reverse-tunnel-relay") || !(pair.score.is_relay() || channel.is_some()) {
        return None;
    }
    let (from, to) = (outside.remote?, inside.remote?);
    let ssh = outside.protocol == Some("ssh");
    // What was copied counts twice: equal bytes are no chance.
    let own = pair.score.exchanges() + pair.score.copies();
    let exchanges = u64::from(own.max(*on_route));
    // One match may be chance, except between ssh and what it did itself.
    let least = if ssh { limits.ssh } else { limits.matched };
    let enough =
        exchanges >= least || channel.is_some() || (ssh && is_own(outside, inside, process));
    let (detector, stage) = match exchanges {
        _ if !enough => return None,
        _ if ssh => (&SSH_DETECTOR, RELAYED),
        _ if exchanges >= limits.sustained => (&RELAY_DETECTOR, STEADY),
        _ => (&RELAY_DETECTOR, BOTH_WAYS),
    };
    let (delay, cause) = match pair.cause {
        Cause::Data(delay) => (delay, "data came in from"),
        Cause::Connection(delay) => (delay, "it was connected to"),
    };
    let delay = delay as f64 / 1e6;
    let mut evidence = vec![format!(
        "connected to {to} {delay:.1} ms after {cause} {from}"
    )];
    evidence.extend(pair.shown.iter().map(|exchange| {
        let same = if exchange.copied {
            ", which begin with the same bytes"
        } else {
            ""
        };
        match exchange.way {
            Way::In => format!(
                "{} bytes in from {from}, then {} bytes out to {to}{same}",
                exchange.outside, exchange.inside
            ),
            Way::Out => format!(
                "{} bytes in from {to}, then {} bytes out to {from}{same}",
                exchange.inside, exchange.outside
            ),
        }
    }));
    evidence.extend(channel.map(|channel| {
        format!(
            "{} bytes in from {from}, then {} bytes out before anything was sent to {to}, as SSH opens a channel for \
             a visitor; {channels} so far",
            channel.open, channel.confirmation
        )
    }));
    if *on_route > own {
        evidence.push(format!(
            "other connections from {from} to {to} were relayed in the same manner"
        ));
    }
    Some(Finding {
        detector,
        stage,
        agent: outside.agent,
        process: process.cloned(),
        subjects: subjects(outside.owner, process, Some(outside.flow)),
        remote: Some(from),
        summary: format!(
            "{} lets {from} reach {to} inside through {}",
            who(process),
            if ssh {
                "a reverse SSH tunnel"
            } else {
                "a connection that relays"
            }
        ),
        evidence,
        time,
        tells_more: false,
    })
}

/// Whether the inside connection was made by who has the outside one, or by a
/// process below it.
fn is_own(outside: &End, inside: &End, process: Option<&Arc<Process>>) -> bool {
    [outside.owner, outside.connector].iter().any(|holder| {
        holder.pid != 0
            && (inside.connector == *holder
                || process.is_some_and(|process| {
                    let mut above = process.ancestors.iter();
                    above.any(|ancestor| ancestor.pid == holder.pid)
                }))
    })
}

/// The flow, the process, and the processes above it: autossh asks for what its
/// child ssh does.
fn subjects(key: ProcessKey, process: Option<&Arc<Process>>, flow: Option<FlowId>) -> Vec<Subject> {
    let mut subjects = Vec::new();
    if key.pid != 0 {
        subjects.push(Subject::Process(key));
    }
    subjects.extend(flow.map(Subject::Flow));
    if let Some(process) = process {
        let above = process.ancestors.iter();
        subjects.extend(above.map(|a| {
            Subject::Process(ProcessKey {
                pid: a.pid,
                start: 0,
            })
        }));
    }
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::relay::{Channel, Pair, Score};
    use crate::event::{Address, Ancestor};

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start: 1 }
    }

    fn end(ip: [u8; 4], connector: u32, protocol: Option<&'static str>) -> End {
        End {
            flow: FlowId::default(),
            agent: 1,
            owner: key(connector),
            connector: key(connector),
            remote: Some(Address {
                ip: ip.into(),
                port: 22,
            }),
            protocol,
            event: None,
        }
    }

    /// The rule and stage for a relay whose outside flow is process 5's and whose
    /// inside one is process `connector`'s, a child of `parent`.
    fn found(
        protocol: Option<&'static str>,
        (connector, parent): (u32, u32),
        exchanges: u32,
    ) -> Option<(&'static str, usize)> {
        found_of(protocol, (connector, parent), exchanges, 0)
    }

    /// The same of a relay that is the newest of so many channels.
    fn found_of(
        protocol: Option<&'static str>,
        (connector, parent): (u32, u32),
        exchanges: u32,
        channels: u32,
    ) -> Option<(&'static str, usize)> {
        let process = Process {
            pid: connector,
            ancestors: [Ancestor {
                pid: parent,
                comm: "sh".into(),
                exe: None,
            }]
            .into(),
            ..Process::default()
        };
        let mut pair = Pair::new(FlowId::default(), FlowId::default(), Cause::Data(0), 0);
        pair.score = Score {
            requests: exchanges,
            answers: exchanges,
            ..Score::default()
        };
        pair.channel = (channels > 0).then_some(Channel {
            open: 36,
            confirmation: 80,
        });
        let risen = Risen {
            pair,
            on_route: 0,
            channels,
            outside: end([203, 0, 113, 1], 5, protocol),
            inside: end([127, 0, 0, 1], connector, None),
        };
        relayed(&risen, Some(&process.into()), Limits::default(), 0)
            .map(|finding| (finding.detector.name, finding.stage))
    }

    #[test]
    fn an_ssh_server_that_connects_out_lets_others_in() {
        let kex = |client| ssh::Fact::Kex {
            client,
            algorithms: Box::default(),
            hassh: "aa".to_owned(),
            hassh_server: "bb".to_owned(),
        };
        let mut flow = Flow::unknown(7);
        flow.remote = end([203, 0, 113, 1], 5, None).remote;
        let found = on_wire(&flow, &kex(Side::Responder), None, 0).expect("it is found");
        assert_eq!(
            (found.detector.name, found.stage),
            (SSH_DETECTOR.name, WIRE_SIZES)
        );
        assert!(found.evidence[0].contains("reversed"));
        assert!(on_wire(&flow, &kex(Side::Initiator), None, 0).is_none());
        // Somebody outside connects to be a server for the agent.
        flow.direction = Some(crate::event::Direction::Inbound);
        assert!(on_wire(&flow, &kex(Side::Responder), None, 0).is_none());
    }

    #[test]
    fn one_match_proves_a_tunnel_only_when_ssh_made_the_inside_connection_itself() {
        let ssh = Some("ssh");
        let (own, child, sibling) = ((5, 1), (6, 5), (6, 1));
        assert_eq!(found(ssh, own, 1), Some((SSH_DETECTOR.name, RELAYED)));
        assert_eq!(found(ssh, child, 1), Some((SSH_DETECTOR.name, RELAYED)));
        assert_eq!(found(ssh, sibling, 1), None);
        assert_eq!(
            found(ssh, sibling, MATCHED.default as u32),
            Some((SSH_DETECTOR.name, RELAYED))
        );
        assert_eq!(found(ssh, (0, 0), 1), None, "unknown");
    }

    #[test]
    fn two_channels_of_an_ssh_flow_prove_a_tunnel_whatever_the_sizes() {
        let ssh = Some("ssh");
        assert_eq!(found_of(ssh, (6, 1), 0, 1), None);
        assert_eq!(
            found_of(ssh, (6, 1), 0, 2),
            Some((SSH_DETECTOR.name, RELAYED))
        );
    }

    #[test]
    fn a_relay_of_unknown_protocol_needs_several_matches() {
        assert_eq!(found(None, (5, 1), 1), None);
        assert_eq!(
            found(None, (5, 1), MATCHED.default as u32),
            Some((RELAY_DETECTOR.name, BOTH_WAYS))
        );
        assert_eq!(
            found(None, (6, 1), SUSTAINED.default as u32),
            Some((RELAY_DETECTOR.name, STEADY))
        );
    }
}
