//! What each kind of event looks like.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::Pretty;
use crate::event::*;
use crate::loss::Stage;

/// 2026-01-31T10:04:05.123Z.
const TIME: Timestamp = Timestamp(1_769_853_845_123_456_789);

fn event(body: Body) -> Event {
    Event {
        id: "1".into(),
        time: TIME,
        node: "node-1".into(),
        agent: Some(Arc::new(Agent {
            id: "3f2a9c".into(),
            name: "research-bot".into(),
            cgroup: "/agents/research-bot".into(),
            cgroup_id: 77,
            container: Some(Container {
                id: "3f2a9c".into(),
                image: Some("bot:1".into()),
                runtime: "docker".into(),
                ..Container::default()
            }),
            pod: None,
        })),
        process: Some(Arc::new(Process {
            pid: 4242,
            uid: Some(1000),
            comm: "ssh".into(),
            argv: ["ssh", "-R", "0:localhost:22", "it's"]
                .map(String::from)
                .into(),
            ancestors: [
                Ancestor {
                    pid: 4000,
                    comm: "bash".into(),
                    exe: None,
                },
                Ancestor {
                    pid: 3999,
                    comm: "python3".into(),
                    exe: None,
                },
            ]
            .into(),
            ..Process::default()
        })),
        body,
    }
}

fn network(result: Outcome) -> Network {
    Network {
        flow: "9".into(),
        transport: Transport::Tcp,
        local: None,
        remote: Address {
            ip: [203, 0, 113, 5].into(),
            port: 22,
        },
        server_name: None,
        result,
    }
}

fn alert(severity: Severity) -> Alert {
    Alert {
        incident: "inc-7f3a".into(),
        revision: 2,
        rule: "reverse-ssh-tunnel".into(),
        title: "Reverse SSH tunnel".into(),
        severity,
        confidence: Confidence::High,
        attack: ["T1572".into()].into(),
        summary: "ssh to 203.0.113.5:22 lets the other end into this network".into(),
        evidence: vec![
            "a forward was requested".into(),
            "evil \x1b[2J bytes".into(),
        ],
        events: Vec::new(),
        count: 4,
        first_seen: TIME,
        last_seen: Timestamp(TIME.0 + 3_200_000_000),
        coverage: "complete".into(),
    }
}

fn show(event: &Event, width: fn() -> Option<usize>) -> String {
    let pretty = Pretty {
        zone: TimeZone::UTC,
        width,
    };
    pretty.show(&serde_json::to_value(event).expect("events are JSON"))
}

/// Without colours, as in a file.
fn plain(body: Body) -> String {
    anstream::adapter::strip_str(&show(&event(body), || None)).to_string()
}

/// What follows time, kind, agent and process.
fn essential(body: Body) -> String {
    let kind = body.kind();
    let line = plain(body);
    let head = format!("10:04:05.123  {kind:<7}  research-bot      ssh[4242]               ");
    line.strip_prefix(&head)
        .unwrap_or_else(|| panic!("{line:?}"))
        .trim_end()
        .to_owned()
}

fn exec(filename: &str, argv: &[&str]) -> Exec {
    let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
    Exec {
        filename: filename.into(),
        argv,
        ..Exec::default()
    }
}

#[test]
fn exec_shows_the_command_as_typed() {
    let body = exec("/usr/bin/ssh", &["ssh", "-R", "0:localhost:22", "a b"]);
    assert_eq!(essential(Body::Exec(body)), "ssh -R 0:localhost:22 'a b'");
    assert_eq!(essential(Body::Exec(exec("/bin/true", &[]))), "/bin/true");
}

#[test]
fn exec_shows_what_is_odd_about_a_program() {
    let body = Exec {
        argv_truncated: true,
        memfd: true,
        stdio_sockets: vec![0, 1],
        ..exec("/tmp/xmrig", &["[kworker/0:1]"])
    };
    assert_eq!(
        essential(Body::Exec(body)),
        "'[kworker/0:1]' …  runs /tmp/xmrig  from memory or a deleted file  socket as fd 0, 1"
    );
}

#[test]
fn exec_shows_a_script_once_and_whose_rights_a_program_takes() {
    let script = Exec {
        interpreter: Some("/bin/sh".into()),
        ..exec("./tool", &["/bin/sh", "./tool", "-v"])
    };
    assert_eq!(essential(Body::Exec(script)), "/bin/sh ./tool -v");
    let setuid = Exec {
        euid: Some(0),
        euid_before: Some(1000),
        ..exec("/usr/bin/su", &["su"])
    };
    assert_eq!(essential(Body::Exec(setuid)), "su  as user 0, was 1000");
}

#[test]
fn exit_shows_how_it_ended() {
    let runtime_ns = Some(1_234_000_000);
    let exited = Exit {
        code: Some(1),
        signal: None,
        runtime_ns,
    };
    assert_eq!(essential(Body::Exit(exited)), "code 1 after 1.2s");
    let killed = Exit {
        code: None,
        signal: Some(9),
        runtime_ns: None,
    };
    assert_eq!(essential(Body::Exit(killed)), "killed by signal 9");
}

#[test]
fn network_events_show_whom_over_what_with_which_result() {
    let peer = "203.0.113.5:22 tcp";
    assert_eq!(
        essential(Body::Connect(network(Outcome::Established))),
        format!("→ {peer} established")
    );
    assert_eq!(
        essential(Body::Accept(network(Outcome::Established))),
        format!("← {peer} established")
    );
    let ip = "2001:db8::5".parse().expect("an address");
    let body = Network {
        transport: Transport::Udp,
        remote: Address { ip, port: 53 },
        ..network(Outcome::Attempted)
    };
    assert_eq!(
        essential(Body::Send(body)),
        "→ [2001:db8::5]:53 udp attempted"
    );
}

#[test]
fn the_other_end_s_name_is_shown_beside_its_address() {
    let body = Network {
        server_name: Some("pool.example".into()),
        ..network(Outcome::Attempted)
    };
    assert_eq!(
        essential(Body::Connect(body)),
        "→ 203.0.113.5:22 pool.example tcp attempted"
    );
}

#[test]
fn dns_shows_who_is_asked_and_what_is_answered() {
    let question = Dns {
        remote: network(Outcome::Attempted).remote,
        question: Some("pool.example".to_owned()),
        kind: Some("A".to_owned()),
        ..Dns::default()
    };
    let answer = |rcode: &str, answers: &[&str]| Dns {
        rcode: Some(rcode.to_owned()),
        answers: Some(answers.iter().map(|it| (*it).to_owned()).collect()),
        ..question.clone()
    };
    let shown = |body: &Dns| essential(Body::Dns(Box::new(body.clone())));
    assert_eq!(shown(&question), "pool.example A  asked of 203.0.113.5:22");
    assert_eq!(
        shown(&answer("NOERROR", &["a.example", "192.0.2.1"])),
        "pool.example A = a.example, 192.0.2.1"
    );
    assert_eq!(shown(&answer("NXDOMAIN", &[])), "pool.example A = NXDOMAIN");
    assert_eq!(shown(&answer("NOERROR", &[])), "pool.example A = nothing");
}

fn flow(state: FlowState) -> Flow {
    Flow {
        flow: "9".into(),
        peer_flow: None,
        owner: "creator",
        state,
        direction: Direction::Outbound,
        transport: Transport::Tcp,
        local: None,
        remote: network(Outcome::Established).remote,
        protocol: Some("ssh"),
        server_name: None,
        hassh: None,
        hassh_server: None,
        ja4: None,
        result: Outcome::Established,
        bytes_out: 1234,
        bytes_in: 56,
        packets_out: 3,
        packets_in: 2,
        duration_ns: None,
        retransmits: None,
        rtt_us: None,
        facts: Vec::new(),
    }
}

#[test]
fn flow_shows_protocol_and_bytes() {
    let body = Flow {
        duration_ns: Some(3_723_000_000_000),
        ..flow(FlowState::Closed)
    };
    assert_eq!(
        essential(Body::Flow(Box::new(body))),
        "→ 203.0.113.5:22 tcp ssh closed  sent 1.2 kB, received 56 B in 1h 2m 3s"
    );
}

#[test]
fn flow_that_did_not_end_well_shows_how() {
    let body = Flow {
        protocol: None,
        result: Outcome::TimedOut,
        bytes_out: 0,
        bytes_in: 0,
        duration_ns: Some(3_200_000_000),
        ..flow(FlowState::Failed)
    };
    assert_eq!(
        essential(Body::Flow(Box::new(body))),
        "→ 203.0.113.5:22 tcp failed: timed out in 3.2s"
    );
}

#[test]
fn what_happens_to_a_socket_before_any_peer_is_shown() {
    let raw = Socket {
        family: "inet".into(),
        kind: "raw".into(),
        protocol: "icmp".into(),
        raw: true,
        ..Socket::default()
    };
    assert_eq!(essential(Body::Socket(raw)), "inet raw icmp");
    let bound = Bound {
        local: network(Outcome::Attempted).remote,
        ..Bound::default()
    };
    assert_eq!(essential(Body::Listen(bound)), "203.0.113.5:22 tcp");
}

#[test]
fn flow_without_bytes_yet_does_not_count_them() {
    let body = Flow {
        protocol: None,
        bytes_out: 0,
        bytes_in: 0,
        ..flow(FlowState::Open)
    };
    assert_eq!(
        essential(Body::Flow(Box::new(body))),
        "→ 203.0.113.5:22 tcp open"
    );
}

#[test]
fn flow_update_shows_what_was_noticed() {
    let body = Flow {
        facts: vec!["authenticated".into(), "asked for a forward".into()],
        ..flow(FlowState::Update)
    };
    assert_eq!(
        essential(Body::Flow(Box::new(body))),
        "→ 203.0.113.5:22 tcp ssh  authenticated; asked for a forward"
    );
}

#[test]
fn sysctl_shows_what_is_set_to_what_and_obeys_nothing_in_it() {
    let body = |value: &str, value_truncated| {
        Body::Sysctl(Sysctl {
            name: "kernel.core_pattern".into(),
            value: value.into(),
            value_truncated,
        })
    };
    assert_eq!(
        essential(body("|/tmp/x %P", false)),
        "kernel.core_pattern = |/tmp/x %P"
    );
    assert_eq!(
        essential(body("a\nb\u{1b}[2J", true)),
        r"kernel.core_pattern = a\u{a}b\u{1b}[2J…"
    );
}

#[test]
fn cgroup_and_agent_show_what_changed() {
    let body = Cgroup {
        action: "moved",
        path: "/escape".into(),
    };
    assert_eq!(essential(Body::Cgroup(body)), "moved /escape");
    assert_eq!(
        essential(Body::Agent(AgentChange {
            state: AgentState::Appeared
        })),
        "appeared /agents/research-bot  docker  bot:1"
    );
}

#[test]
fn loss_and_gap_show_what_is_missing() {
    let kinds = [("connect".into(), 4), ("exec".into(), 1230)].into();
    let body = Loss {
        stage: Stage::Quota,
        records: 1234,
        kinds,
    };
    assert_eq!(
        essential(Body::Loss(body)),
        "1,234 records lost at quota  connect 4, exec 1,230"
    );
    let body = Gap {
        reason: "restarted".into(),
        from: Timestamp(0),
        to: Timestamp(3_200_000_000),
    };
    assert_eq!(
        essential(Body::Gap(body)),
        "not covered for 3.2s: restarted"
    );
}

#[test]
fn alert_shows_the_claim_then_what_shows_it() {
    assert_eq!(
        plain(Body::Alert(alert(Severity::Critical).into())),
        r"10:04:05.123  ALERT critical/high reverse-ssh-tunnel  ssh to 203.0.113.5:22 lets the other end into this network
              incident inc-7f3a revision 2, seen 4 times in 3.2s  T1572
              agent    research-bot  /agents/research-bot
              process  ssh[4242] uid 1000 ← bash[4000] ← python3[3999]
              command  ssh -R 0:localhost:22 'it'\''s'
              evidence - a forward was requested
                       - evil \u{1b}[2J bytes
"
    );
}

#[test]
fn details_of_an_alert_are_wrapped_to_the_terminal() {
    let body = Alert {
        evidence: vec!["the client's first 68 bytes are a request to forward".into()],
        ..alert(Severity::High)
    };
    let shown = show(&event(Body::Alert(body.into())), || Some(60));
    let shown = anstream::adapter::strip_str(&shown).to_string();
    let claim = "
              ssh to 203.0.113.5:22 lets the other end into
                this network
";
    assert!(shown.contains(claim), "{shown}");
    let expected = "
              evidence - the client's first 68 bytes are a
                         request to forward
";
    assert!(shown.ends_with(expected), "{shown}");
}

#[test]
fn alert_says_when_coverage_was_not_complete() {
    let body = Alert {
        coverage: "7 records lost at quota".into(),
        ..alert(Severity::Low)
    };
    assert!(plain(Body::Alert(body.into())).contains("coverage 7 records lost at quota"));
}

#[test]
fn alerts_stand_out_by_severity() {
    let colored = |severity| show(&event(Body::Alert(alert(severity).into())), || None);
    assert!(colored(Severity::Critical).contains("\x1b[1m\x1b[37m\x1b[41mALERT critical/high"));
    assert!(colored(Severity::High).contains("\x1b[1m\x1b[31mALERT high/high"));
}

#[test]
fn lines_are_cut_to_the_terminal_but_alerts_are_not() {
    let short = event(Body::Exec(exec("/bin/true", &[])));
    let fits = show(&short, || Some(74));
    assert!(fits.ends_with("/bin/true\n"), "{fits:?}");
    let cut = show(&short, || Some(73));
    assert!(cut.ends_with("/bin/tr…\n"), "{cut:?}");
    let long = exec(
        "/bin/echo",
        &["echo", "0123456789012345678901234567890123456789"],
    );
    let line = show(&event(Body::Exec(long)), || Some(80));
    let line = anstream::adapter::strip_str(&line).to_string();
    assert_eq!(line.trim_end().chars().count(), 80);
    assert!(line.ends_with("…\n"), "{line:?}");
    let uncut = show(&event(Body::Alert(alert(Severity::Info).into())), || {
        Some(20)
    });
    assert!(uncut.contains("into this network"));
}

#[test]
fn nothing_an_agent_writes_reaches_the_terminal_as_it_is() {
    let evil = "a\x1b]0;pwned\x07\u{202e}\r\n";
    let mut event = event(Body::Exec(exec(evil, &[evil])));
    event.agent = Some(Arc::new(Agent {
        name: evil.into(),
        ..Agent::default()
    }));
    event.process = Some(Arc::new(Process {
        comm: evil.into(),
        ..Process::default()
    }));
    let shown = show(&event, || None);
    let line = shown.strip_suffix('\n').expect("a line ends");
    // Of what a terminal obeys, only our own colours may be there.
    for sequence in line.split('\x1b').skip(1) {
        let style = sequence
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'));
        let is_color = |style: &str| style.chars().all(|c| c.is_ascii_digit() || c == ';');
        assert!(style.is_some_and(|(style, _)| is_color(style)), "{line:?}");
    }
    let other = |c: char| (c.is_control() && c != '\x1b') || c == '\u{202e}';
    assert!(!line.contains(other), "{line:?}");
    assert!(
        line.contains(r"a\u{1b}]0;pwned\u{7}\u{202e}\u{d}\u{a}"),
        "{line:?}"
    );
}

#[test]
fn a_line_without_agent_or_process_keeps_its_columns() {
    let body = Body::Loss(Loss {
        stage: Stage::Tail,
        records: 1,
        kinds: Default::default(),
    });
    let event = Event {
        agent: None,
        process: None,
        ..event(body)
    };
    let shown = anstream::adapter::strip_str(&show(&event, || None)).to_string();
    assert_eq!(
        shown,
        format!(
            "10:04:05.123  loss{:47}1 record lost at tail, which was read too slowly\n",
            ""
        )
    );
}

#[test]
fn what_is_not_known_is_shown_as_it_came() {
    let pretty = Pretty {
        zone: TimeZone::UTC,
        width: || None,
    };
    let event = serde_json::json!({"kind": "novel", "time": "?", "novel": {"a": "\u{1b}"}});
    let shown = anstream::adapter::strip_str(&pretty.show(&event)).to_string();
    assert!(shown.starts_with("?             novel "), "{shown:?}");
    assert!(shown.ends_with("{\"a\":\"\\u001b\"}\n"), "{shown:?}");
    for odd in [
        serde_json::json!(7),
        serde_json::json!({"kind": "alert", "alert": []}),
    ] {
        assert!(pretty.show(&odd).ends_with('\n'));
    }
}
