//! The table of fields against the JSON of events.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value as Json;

use crate::event::*;
use crate::loss::Stage;
use crate::rules::fields::{find, kinds, of_kind};
use crate::rules::value::{Type, Value};

/// Members of the JSON that rules cannot name, and why.
const NO_FIELDS: &[(&str, &str)] = &[
    ("schema", "it is always the same"),
    ("time", "correlations compare it"),
    ("kind", "a rule's `event` names it"),
    ("loss.kinds", "its members are as many as there are kinds"),
    ("gap.from", "a time"),
    ("gap.to", "a time"),
];

fn address(port: u16) -> Address {
    Address {
        ip: IpAddr::from([192, 0, 2, 1]),
        port,
    }
}

fn network() -> Network {
    Network {
        flow: "f".into(),
        transport: Transport::Udp,
        local: Some(address(1)),
        remote: address(2),
        server_name: Some("x.example".into()),
        result: Outcome::Established,
    }
}

fn bound() -> Bound {
    Bound {
        flow: "f".into(),
        transport: Transport::Tcp,
        local: address(1),
    }
}

/// A body of each kind with every member there. Struct literals without `..`:
/// a new member does not compile until it is here, and then needs its field.
fn bodies() -> Vec<Body> {
    vec![
        Body::Exec(Exec {
            filename: "/bin/x".into(),
            argv: ["x", "-y", "z"].map(str::to_owned).into(),
            argv_truncated: true,
            memfd: true,
            stdio_sockets: vec![0, 2],
            interpreter: Some("/bin/sh".to_owned()),
            gid: Some(1),
            euid: Some(2),
            euid_before: Some(3),
            egid: Some(4),
            setuid: true,
            setgid: true,
            namespaces: Some(Namespaces {
                cgroup: 1,
                ipc: 2,
                mnt: 3,
                net: 4,
                pid: 5,
                user: 6,
                uts: 7,
            }),
        }),
        Body::Exit(Exit {
            code: Some(1),
            signal: Some(9),
            runtime_ns: Some(5),
        }),
        Body::Connect(network()),
        Body::Accept(network()),
        Body::Send(network()),
        Body::Socket(Socket {
            flow: "f".into(),
            family: "inet".into(),
            kind: "raw".into(),
            protocol: "tcp".into(),
            transport: Some(Transport::Tcp),
            raw: true,
        }),
        Body::Bind(bound()),
        Body::Listen(bound()),
        Body::Dns(Box::new(Dns {
            flow: "f".into(),
            transport: Transport::Tcp,
            local: Some(address(1)),
            remote: address(53),
            question: Some("x.example".into()),
            kind: Some("A".into()),
            rcode: Some("NOERROR".into()),
            answers: Some(vec!["192.0.2.1".into()]),
            truncated: true,
        })),
        Body::Flow(Box::new(Flow {
            flow: "f".into(),
            peer_flow: Some("g".into()),
            owner: "creator",
            state: FlowState::Closed,
            direction: Direction::Inbound,
            transport: Transport::Tcp,
            local: Some(address(1)),
            remote: address(2),
            protocol: Some("ssh"),
            server_name: Some("x.example".into()),
            hassh: Some("aa".into()),
            hassh_server: Some("bb".into()),
            ja4: Some("t13d".into()),
            result: Outcome::Abandoned,
            bytes_out: 1,
            bytes_in: 2,
            packets_out: 3,
            packets_in: 4,
            duration_ns: Some(5),
            retransmits: Some(6),
            rtt_us: Some(7),
            facts: vec!["a fact".into()],
        })),
        Body::Device(Device {
            class: "character",
            major: 195,
            minor: 1,
            access: "rw".into(),
            name: Some("nvidia1".into()),
            result: "refused",
        }),
        Body::Sysctl(Sysctl {
            name: "vm.nr_hugepages".into(),
            value: "1280".into(),
            value_truncated: true,
        }),
        Body::Cgroup(Cgroup {
            action: "entered",
            path: "/x".into(),
        }),
        Body::Agent(AgentChange {
            state: AgentState::Gone,
        }),
        Body::Loss(Loss {
            stage: Stage::Quota,
            records: 1,
            kinds: [("exec".into(), 1)].into(),
        }),
        Body::Gap(Gap {
            reason: "r".into(),
            from: Timestamp(1),
            to: Timestamp(2),
        }),
    ]
}

fn event(body: Body) -> Event {
    let ancestor = |pid| Ancestor {
        pid,
        comm: "parent".into(),
        exe: Some("/bin/parent".into()),
    };
    Event {
        id: "id".into(),
        time: Timestamp(7),
        node: "node".into(),
        agent: Some(
            Agent {
                id: "agent".into(),
                name: "name".into(),
                cgroup: "/a".into(),
                cgroup_id: u64::MAX,
                container: Some(Container {
                    id: "c".into(),
                    name: Some("cn".into()),
                    image: Some("image".into()),
                    runtime: "docker".into(),
                    labels: BTreeMap::new(),
                }),
                pod: Some(Pod {
                    namespace: "ns".into(),
                    name: "pod".into(),
                }),
            }
            .into(),
        ),
        process: Some(
            Process {
                pid: 1,
                start: 2,
                ppid: Some(3),
                uid: Some(4),
                comm: "comm".into(),
                exe: Some("/exe".into()),
                argv: vec!["argv".to_owned()].into(),
                ancestors: vec![ancestor(8), ancestor(9)].into(),
            }
            .into(),
        ),
        body,
    }
}

/// Paths of a JSON value's leaves; the items of a list share one.
fn leaves(path: &str, value: &Json, into: &mut BTreeMap<String, Vec<Json>>) {
    match value {
        Json::Object(members) => {
            for (name, value) in members {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                match NO_FIELDS.iter().any(|(left_out, _)| *left_out == path) {
                    true => continue,
                    false => leaves(&path, value, into),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| leaves(path, item, into)),
        leaf => into.entry(path.to_owned()).or_default().push(leaf.clone()),
    }
}

fn seen(kind: &str, path: &str, event: &Event) -> Vec<Json> {
    let field = find(kind, path).unwrap_or_else(|(message, _)| {
        panic!("{message}: give it a line in rules/fields.rs");
    });
    let mut values = Vec::new();
    field.see(event, &mut |value| {
        let fits = match value {
            Value::Text(_) => matches!(field.ty, Type::Text | Type::Texts | Type::Word(_)),
            Value::Number(_) => matches!(field.ty, Type::Number),
            Value::Bool(_) => matches!(field.ty, Type::Bool),
            Value::Ip(_) => matches!(field.ty, Type::Ip),
        };
        assert!(fits, "{path} is {}, not {value:?}", field.ty.name());
        if let (Type::Word(words), Value::Text(word)) = (field.ty, value) {
            assert!(words().contains(&word), "{path} has no word {word}");
        }
        values.push(match value {
            Value::Number(number) => number.into(),
            Value::Bool(yes) => yes.into(),
            other => other.to_string().into(),
        });
        false
    });
    values
}

#[test]
fn every_member_of_the_json_is_a_field_with_the_same_values_and_no_field_is_missing_there() {
    let events: Vec<Event> = bodies().into_iter().map(event).collect();
    let mut there: Vec<&str> = events.iter().map(|event| event.body.kind()).collect();
    there.sort_unstable();
    assert_eq!(
        there,
        kinds().collect::<Vec<_>>(),
        "a kind has no sample here"
    );
    for event in &events {
        let kind = event.body.kind();
        let json = serde_json::to_value(event).expect("JSON");
        let mut wanted = BTreeMap::new();
        leaves("", &json, &mut wanted);
        for (path, values) in &wanted {
            assert_eq!(&seen(kind, path, event), values, "{kind}: {path}");
        }
        for field in of_kind(kind) {
            // An item of a list has a path of its own, as jq writes it.
            let mut parts = field.path.split('.');
            let listed = parts.any(|part| part.parse::<u8>().is_ok());
            assert!(
                listed || wanted.contains_key(field.path),
                "{kind} events have no {}",
                field.path
            );
        }
    }
}

#[test]
fn tests_of_rules_can_write_every_kind_of_event() {
    for body in bodies() {
        let event = event(body);
        let mut json = serde_json::to_value(&event).expect("JSON");
        let members = json.as_object_mut().expect("an object");
        members.remove("schema");
        members.remove("kind");
        let text = json.to_string();
        // JSON is YAML.
        let node = crate::rules::yaml::documents(&text)
            .expect("YAML")
            .remove(0);
        let read = crate::rules::sample::event(&node, 0).expect(&text);
        assert_eq!(
            serde_json::to_value(&read).expect("JSON"),
            serde_json::to_value(&event).expect("JSON")
        );
    }
}
