//! What must have been seen of what `init.sh` does.

use serde_json::{Value, json};

use super::console::Console;

/// The port the agent listens on, and the bytes it sends each way: `init.sh`.
const PORT: u16 = 2222;
const REQUEST: u64 = 200_019;
const ANSWER: u64 = 50_019;
/// The port where nobody listens.
const CLOSED_PORT: u16 = 9;
/// Where datagrams go: traceroute counts its base port up for each.
const DATAGRAM_PORT: u16 = 33_435;

type Outcome = Result<(), String>;

/// Every check with its outcome. When the machine has not come to its end, all
/// of them fail: what was not seen cannot be told from what did not happen.
pub fn all(release: &str, console: &Console) -> Vec<(&'static str, Outcome)> {
    let mut outcomes = vec![("boots this kernel, and ends", ends(release, console))];
    for (name, check) in CHECKS {
        let outcome = if console.ended {
            check(console)
        } else {
            Err("not run to its end".into())
        };
        outcomes.push((name, outcome));
    }
    outcomes
}

fn ends(release: &str, console: &Console) -> Outcome {
    if console.kernel.as_deref() != Some(release) {
        return Err(format!(
            "uname -r is {:?}; {}",
            console.kernel,
            trouble(console)
        ));
    }
    if !console.ended || !console.failures.is_empty() || !console.trouble.is_empty() {
        return Err(trouble(console));
    }
    Ok(())
}

fn trouble(console: &Console) -> String {
    let mut all = console.failures.clone();
    all.extend(console.trouble.iter().cloned());
    if all.is_empty() {
        all.push("ended too early".to_owned());
    }
    all.join("; ")
}

/// A check's name, and whether what was seen passes it.
type Check = (&'static str, fn(&Console) -> Outcome);

const CHECKS: [Check; 21] = [
    ("doctor: everything that is needed is there", |seen| {
        let missing = seen.doctor.iter().find(|check| check["state"] == "missing");
        match missing {
            _ if seen.doctor.is_empty() => Err("doctor says nothing".into()),
            Some(check) => Err(format!("missing: {check}")),
            None => Ok(()),
        }
    }),
    ("every program is loaded and attached", |seen| {
        let attached = seen.status["programs"].as_object().map_or(0, |programs| {
            programs
                .values()
                .filter(|places| places.as_u64().is_some_and(|n| n > 0))
                .count()
        });
        if attached == 0 || attached != seen.instructions.len() {
            return Err(format!(
                "{} loaded, {attached} attached",
                seen.instructions.len()
            ));
        }
        Ok(())
    }),
    ("agent appeared", |seen| {
        let wanted =
            json!({"agent": {"name": "one", "cgroup": "/agents/one", "state": "appeared"}});
        once(seen, "agent", &wanted).map(drop)
    }),
    ("cgroup created", |seen| {
        let wanted = json!({"cgroup": {"action": "created", "path": "/agents/one"}});
        once(seen, "cgroup", &wanted).map(drop)
    }),
    ("process entered the cgroup", |seen| {
        let wanted = json!({"cgroup": {"action": "entered", "path": "/agents/one"}});
        once(seen, "cgroup", &wanted).map(drop)
    }),
    ("exec argv", |seen| {
        let wanted = json!({
            "exec": {"filename": "/bin/echo", "argv": ["/bin/echo", "two words", "", "--flag"]},
            "process": {"comm": "echo", "exe": "/bin/busybox", "uid": 0},
        });
        once(seen, "exec", &wanted).map(drop)
    }),
    ("exec with a socket as standard input", |seen| {
        let wanted = json!({"exec": {"argv": ["/bin/sh", "/init", "server"]}});
        let event = once(seen, "exec", &wanted)?;
        let sockets = &event["exec"]["stdio_sockets"];
        if sockets
            .as_array()
            .is_some_and(|sockets| sockets.contains(&json!(0)))
        {
            return Ok(());
        }
        Err(format!("stdio_sockets is {sockets}"))
    }),
    ("exit code", |seen| {
        let wanted =
            json!({"process": {"argv": ["/bin/sh", "-c", "exit 42"]}, "exit": {"code": 42}});
        once(seen, "exit", &wanted).map(drop)
    }),
    ("exit by signal", |seen| {
        let wanted =
            json!({"process": {"argv": ["/bin/sh", "-c", "kill -9 $$"]}, "exit": {"signal": 9}});
        once(seen, "exit", &wanted).map(drop)
    }),
    ("connect, IPv4", |seen| {
        let wanted = json!({
            "process": {"comm": "nc"},
            "connect": {"transport": "tcp", "remote": {"ip": "127.0.0.1", "port": PORT}},
        });
        once(seen, "connect", &wanted).map(drop)
    }),
    ("accept", |seen| {
        let wanted =
            json!({"accept": {"transport": "tcp", "local": {"ip": "127.0.0.1", "port": PORT}}});
        once(seen, "accept", &wanted).map(drop)
    }),
    ("flow opened", |seen| {
        let wanted =
            json!({"flow": {"state": "open", "remote": {"ip": "127.0.0.1", "port": PORT}}});
        once(seen, "flow", &wanted).map(drop)
    }),
    ("flow is SSH by its first bytes", |seen| {
        let wanted = json!({"flow": {"state": "identified", "protocol": "ssh"}});
        once(seen, "flow", &wanted).map(drop)
    }),
    ("flow closed, the client's bytes", |seen| {
        both_ends_received_all(seen)?;
        let wanted = json!({"flow": {"state": "closed", "remote": {"port": PORT}}});
        let event = once(seen, "flow", &wanted)?;
        bytes(event, REQUEST, ANSWER)
    }),
    ("flow closed, the server's bytes", |seen| {
        both_ends_received_all(seen)?;
        let wanted = json!({"flow": {"state": "closed", "local": {"port": PORT}}});
        let event = once(seen, "flow", &wanted)?;
        bytes(event, ANSWER, REQUEST)
    }),
    ("connect, IPv6, to a closed port", |seen| {
        let remote = json!({"ip": "::1", "port": CLOSED_PORT});
        once(
            seen,
            "connect",
            &json!({"connect": {"transport": "tcp", "remote": remote}}),
        )?;
        once(
            seen,
            "flow",
            &json!({"flow": {"state": "failed", "result": "refused", "remote": remote}}),
        )
        .map(drop)
    }),
    ("device", |seen| {
        let wanted = json!({
            "process": {"argv": ["cat", "/tmp/gpu"]},
            "device": {"major": 195, "minor": 0, "access": "r", "name": "nvidia0"},
        });
        once(seen, "device", &wanted).map(drop)
    }),
    ("sysctl", |seen| {
        let wanted = json!({
            "process": {"comm": "sh"},
            "sysctl": {"name": "vm.nr_hugepages", "value": "0"},
        });
        once(seen, "sysctl", &wanted).map(drop)
    }),
    ("datagram, IPv4", |seen| {
        let remote = json!({"ip": "127.0.0.1", "port": DATAGRAM_PORT});
        once(
            seen,
            "send",
            &json!({"send": {"transport": "udp", "remote": remote}}),
        )
        .map(drop)
    }),
    ("datagram, IPv6", |seen| {
        let remote = json!({"ip": "::1", "port": DATAGRAM_PORT});
        once(
            seen,
            "send",
            &json!({"send": {"transport": "udp", "remote": remote}}),
        )
        .map(drop)
    }),
    ("nothing lost, a clean end", |seen| {
        if let Some(event) = seen.events.iter().find(|event| event["kind"] == "loss") {
            return Err(event.to_string());
        }
        let losses = seen.status["counters"]["losses"].as_object();
        if losses.is_none_or(|losses| losses.values().any(|lost| lost.as_u64() != Some(0))) {
            return Err(format!(
                "the daemon's counters: {}",
                seen.status["counters"]
            ));
        }
        match seen.daemon.as_deref() {
            Some("ended with 0") => Ok(()),
            other => Err(format!("the daemon {}", other.unwrap_or("did not end"))),
        }
    }),
];

/// The one event of the agent that has everything `wanted` has. None is too
/// few, and two are one told twice.
fn once<'a>(seen: &'a Console, kind: &str, wanted: &Value) -> Result<&'a Value, String> {
    let mut of_kind = seen.events.iter().filter(|event| event["kind"] == kind);
    let found: Vec<&Value> = of_kind
        .clone()
        .filter(|event| includes(event, wanted))
        .collect();
    match found[..] {
        [event] if event["agent"]["cgroup"] == "/agents/one" => Ok(event),
        [event] => Err(format!("of the wrong agent: {event}")),
        [] => {
            let nearest = of_kind
                .next_back()
                .map_or("none of that kind".into(), Value::to_string);
            Err(format!(
                "no {kind} event with {wanted}; the last: {nearest}"
            ))
        }
        _ => Err(format!("{} {kind} events with {wanted}", found.len())),
    }
}

/// Whether `value` has every member of `wanted`, at any depth; arrays are compared whole.
fn includes(value: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Object(members) => members
            .iter()
            .all(|(name, wanted)| includes(&value[name.as_str()], wanted)),
        _ => value == wanted,
    }
}

fn bytes(event: &Value, out: u64, into: u64) -> Outcome {
    let flow = &event["flow"];
    if flow["bytes_out"] == out && flow["bytes_in"] == into {
        return Ok(());
    }
    let (saw_out, saw_in) = (&flow["bytes_out"], &flow["bytes_in"]);
    Err(format!(
        "{saw_out} bytes out and {saw_in} in, not {out} and {into}"
    ))
}

/// The programs' own count: what they did must be right before what was seen of it can be.
fn both_ends_received_all(seen: &Console) -> Outcome {
    match seen.received.as_deref() {
        Some(counts) if counts == format!("{REQUEST} {ANSWER}") => Ok(()),
        other => Err(format!("the ends themselves received {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC: &str = r#"{"kind":"exec","agent":{"cgroup":"/agents/one"},"exec":{"argv":["a","b"],"filename":"/a"}}"#;

    fn console(events: &[&str]) -> Console {
        let events = events
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect();
        Console {
            events,
            ended: true,
            ..Console::default()
        }
    }

    #[test]
    fn an_event_must_be_there_exactly_once_and_of_the_agent() {
        let wanted = json!({"exec": {"argv": ["a", "b"]}});
        assert!(once(&console(&[EXEC]), "exec", &wanted).is_ok());
        assert!(once(&console(&[EXEC]), "exit", &wanted).is_err());
        assert!(once(&console(&[EXEC, EXEC]), "exec", &wanted).is_err());
        assert!(once(&console(&[&EXEC.replace("one", "two")]), "exec", &wanted).is_err());
        for other in [
            json!({"exec": {"argv": ["a"]}}),
            json!({"exec": {"argv": ["a", "b"], "x": 1}}),
        ] {
            assert!(once(&console(&[EXEC]), "exec", &other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_machine_that_has_seen_nothing_fails_every_check() {
        for ended in [true, false] {
            let nothing = Console {
                ended,
                ..Console::default()
            };
            for (name, outcome) in all("6.1", &nothing) {
                assert!(outcome.is_err(), "{name}");
            }
        }
    }

    #[test]
    fn a_wrong_byte_count_says_what_was_seen() {
        let event = json!({"flow": {"bytes_out": 1, "bytes_in": 2}});
        assert!(bytes(&event, 1, 2).is_ok());
        assert_eq!(
            bytes(&event, 2, 1).unwrap_err(),
            "1 bytes out and 2 in, not 2 and 1"
        );
    }
}
