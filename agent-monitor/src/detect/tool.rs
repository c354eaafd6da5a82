//! Tunnel programs, by what they say and whom they ask for.

use std::sync::Arc;

use super::{Detector, Finding, Subject, bytes, who};
use crate::decode::ProcessKey;
use crate::event::{Process, Transport};
use crate::flow::Flow;
use crate::protocol::proxy::Granted;
use crate::protocol::tool::names;
use crate::protocol::{Fact, Side, ssh};

/// A tunnel program is at work on a flow.
pub static DETECTOR: Detector = Detector {
    name: "tunnel-tool",
    stages: &["recognised"],
    settings: &[],
};

/// What a fact says of a tunnel program, if the agent began the flow.
pub fn recognised(
    flow: &Flow,
    fact: &Fact,
    process: Option<&Arc<Process>>,
    time: u64,
) -> Option<Finding> {
    // An echo's answer is as good as its question: the agent may be the tunnel's server.
    let is_echo = matches!(flow.transport, Transport::Icmp | Transport::Icmp6);
    if !flow.is_outbound() && !is_echo {
        return None;
    }
    let (tool, evidence) = match fact {
        Fact::Tool(fact) if fact.bytes.is_empty() => (fact.tool, vec![fact.in_words()]),
        Fact::Tool(fact) => (fact.tool, {
            let mut words = fact.in_words();
            // Of binary messages text shows nothing.
            let shown = fact.bytes.iter().filter(|byte| byte.is_ascii_graphic());
            if shown.count() * 2 > fact.bytes.len() {
                words += &format!(": {}", bytes::text(&fact.bytes));
            }
            vec![words, bytes::hex(&fact.bytes)]
        }),
        // SSH asks for no name: what the agent's resolver was asked has to do.
        Fact::Ssh(ssh::Fact::Banner {
            side: Side::Responder,
            ..
        }) => {
            let name = flow.resolved_name.as_deref()?;
            (
                names::tool(name)?,
                vec![format!("SSH with {name}, as its address is called")],
            )
        }
        other => {
            let name = other.server_name()?;
            (names::tool(name)?, vec![format!("server name {name}")])
        }
    };
    let remote = flow.remote?;
    let who = who(process);
    Some(Finding {
        detector: &DETECTOR,
        stage: 0,
        agent: flow.agent,
        process: process.cloned(),
        subjects: vec![Subject::Flow(flow.id)],
        remote: Some(remote),
        summary: format!("{who} uses the tunnel program {tool} with {remote}"),
        evidence,
        time,
        tells_more: false,
    })
}

/// The agent is a proxy, and somebody outside was let through it. Whoever has a way in
/// has no need of a tunnel out: it is one, the other way round.
pub fn proxy(
    flow: &Flow,
    granted: &Granted,
    process: Option<&Arc<Process>>,
    time: u64,
) -> Option<Finding> {
    if flow.is_outbound() || flow.is_inside() {
        return None;
    }
    let remote = flow.remote?;
    let Granted {
        by,
        target,
        request,
        reply,
    } = granted;
    let shown = |bytes: &[u8]| match bytes.first() {
        Some(first) if first.is_ascii_graphic() => bytes::line(bytes),
        _ => bytes::hex(bytes),
    };
    let mut subjects = vec![Subject::Flow(flow.id)];
    // Each visitor has a flow of their own; it is one proxy.
    subjects.extend((flow.owner.pid != 0).then_some(Subject::Process(flow.owner)));
    Some(Finding {
        detector: &DETECTOR,
        stage: 0,
        agent: flow.agent,
        process: process.cloned(),
        subjects,
        remote: Some(remote),
        summary: format!(
            "{} is a proxy that let {remote} connect to {target}",
            who(process)
        ),
        evidence: vec![
            format!("{remote} asked for {target} by {by}: {}", shown(request)),
            format!("and was told that it is connected: {}", shown(reply)),
        ],
        time,
        tells_more: false,
    })
}

/// A program was started as tunnel programs start it.
pub fn command_line(
    agent: u64,
    process: &Arc<Process>,
    key: ProcessKey,
    time: u64,
) -> Option<Finding> {
    let argument = process.argv.iter().find(|argument| is_sshuttle(argument))?;
    let who = who(Some(process));
    Some(Finding {
        detector: &DETECTOR,
        stage: 0,
        agent,
        process: Some(process.clone()),
        subjects: vec![Subject::Process(key)],
        remote: None,
        summary: format!("{who} was started by the tunnel program sshuttle"),
        evidence: vec![format!(
            "command line: {}",
            bytes::text(argument.as_bytes())
        )],
        time,
        tells_more: false,
    })
}

/// sshuttle has Python at the far end read its own server from standard input, to
/// ssh as one argument (`connect`, sshuttle/ssh.py).
fn is_sshuttle(argument: &str) -> bool {
    argument.contains("exec(compile(") && argument.contains("assembler.py")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Address;
    use crate::protocol::tls;

    fn flow(name: Option<&str>) -> Flow {
        let mut flow = Flow::unknown(7);
        flow.resolved_name = name.map(Into::into);
        flow.remote = Some(Address {
            ip: [203, 0, 113, 1].into(),
            port: 22,
        });
        flow
    }

    fn banner(side: Side) -> Fact {
        let text = "SSH-2.0-Go".to_owned();
        Fact::Ssh(ssh::Fact::Banner { side, text })
    }

    #[test]
    fn services_over_ssh_are_told_by_what_their_address_is_called() {
        let found = |name, side| recognised(&flow(name), &banner(side), None, 0);
        let tmate = found(Some("ssh.tmate.io"), Side::Responder).expect("it is tmate");
        assert!(tmate.summary.contains("tunnel program tmate"), "{tmate:?}");
        assert!(
            found(Some("ssh.tmate.io"), Side::Initiator).is_none(),
            "once is enough"
        );
        assert!(found(Some("git.example"), Side::Responder).is_none());
        assert!(found(None, Side::Responder).is_none());
    }

    #[test]
    fn servers_are_told_by_the_name_in_a_hello() {
        let hello = Fact::Tls(tls::Fact {
            side: Side::Initiator,
            sni: Some("connect.ngrok-agent.com".to_owned()),
            alpn: Vec::new(),
            ja4: String::new(),
        });
        let mut flow = flow(None);
        assert!(recognised(&flow, &hello, None, 0).is_some());
        flow.direction = Some(crate::event::Direction::Inbound);
        assert!(
            recognised(&flow, &hello, None, 0).is_none(),
            "it is a server's"
        );
    }

    #[test]
    fn a_proxy_is_told_when_somebody_outside_was_let_through_it() {
        use crate::event::Direction::{Inbound, Outbound};
        let granted = Granted {
            by: "SOCKS5".to_owned(),
            target: "127.0.0.1:8000".to_owned(),
            request: b"\x05\x01\x00\x01\x7f\x00\x00\x01\x1f\x40".to_vec(),
            reply: b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec(),
        };
        let found = |from: [u8; 4], direction| {
            let mut flow = flow(None);
            flow.direction = Some(direction);
            flow.remote = Some(Address {
                ip: from.into(),
                port: 40_000,
            });
            proxy(&flow, &granted, None, 0)
        };
        let finding = found([203, 0, 113, 1], Inbound).expect("it is found");
        assert_eq!(
            finding.summary,
            "A process of the agent is a proxy that let 203.0.113.1:40000 connect to 127.0.0.1:8000"
        );
        assert_eq!(
            finding.evidence,
            [
                "203.0.113.1:40000 asked for 127.0.0.1:8000 by SOCKS5: in hexadecimal: 050100017f0000011f40",
                "and was told that it is connected: in hexadecimal: 05000001000000000000",
            ]
        );
        let long = Granted {
            by: "HTTP CONNECT".to_owned(),
            request: vec![b'a'; 510],
            reply: vec![b'b'; 510],
            ..granted.clone()
        };
        let mut outside = flow(None);
        outside.direction = Some(Inbound);
        outside.remote = Some(Address {
            ip: [203, 0, 113, 1].into(),
            port: 40_000,
        });
        let evidence = proxy(&outside, &long, None, 0).expect("found").evidence;
        let payload = |letter| evidence.concat().matches(letter).count();
        assert!((200..=256).contains(&(payload("aa") * 2 + payload("bb") * 2)));
        assert!(found([10, 0, 0, 7], Inbound).is_none(), "a peer inside");
        assert!(found([127, 0, 0, 1], Inbound).is_none(), "the agent itself");
        assert!(found([203, 0, 113, 1], Outbound).is_none(), "its client");
    }

    #[test]
    fn sshuttle_is_told_by_what_it_has_ssh_start() {
        let started = |argv: &[&str]| {
            let process = Process {
                argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
                ..Process::default()
            };
            command_line(7, &process.into(), ProcessKey::default(), 0)
        };
        // As sshuttle 2.0.0 quotes it.
        let server = r#"/bin/sh -c 'P=python3; $P -V 2>/dev/null || P=python; exec "$P" -c '"'"'import sys, os; verbosity=0; stdin = os.fdopen(0, '"'"'"'"'"'"'"'"'rb'"'"'"'"'"'"'"'"'); exec(compile(stdin.read(1785), '"'"'"'"'"'"'"'"'assembler.py'"'"'"'"'"'"'"'"', '"'"'"'"'"'"'"'"'exec'"'"'"'"'"'"'"'"')); sys.exit(98);'"'"'; exit 97'"#;
        assert!(started(&["ssh", "user@host.example", "--", server]).is_some());
        assert!(
            started(&[
                "python3",
                "-c",
                "exec(compile(open(\"x\").read(), \"x\", \"exec\"))"
            ])
            .is_none()
        );
    }
}
