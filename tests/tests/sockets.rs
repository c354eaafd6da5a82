//! What is told of sockets before they have a peer. Needs root.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use agent_monitor_tests::monitor::SOON;
use agent_monitor_tests::watched::{Watched, address};
use agent_monitor_tests::world::SERVER;
use serde_json::{Value, json};

/// A body without what the kernel chooses.
fn body(event: &Value) -> Value {
    let kind = event["kind"].as_str().unwrap();
    let mut body = event[kind].clone();
    body.as_object_mut().unwrap().remove("flow");
    body
}

fn bodies(events: &[&Value]) -> Vec<Value> {
    events.iter().map(|event| body(event)).collect()
}

#[test]
fn every_inet_socket_is_told_of_with_what_it_is() {
    let watched = Watched::cgroup("socket").unwrap();
    // Not inet: a local one, a packet socket and a netlink one.
    let script = "
import socket, struct
def cookie(s):
    return '%x-0' % struct.unpack('Q', s.getsockopt(socket.SOL_SOCKET, 57, 8))[0]
made = [
    socket.socket(),
    socket.socket(socket.AF_INET6),
    socket.socket(type=socket.SOCK_DGRAM),
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    socket.socket(type=socket.SOCK_RAW, proto=1),
    socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58),
    socket.socket(type=socket.SOCK_RAW, proto=6),
    socket.socket(type=socket.SOCK_RAW, proto=253),
    socket.socket(socket.AF_UNIX),
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
]
print(*[cookie(s) for s in made[:8]])
";
    let cookies = watched.python(script, &[]).unwrap();
    let events = watched.events().unwrap();
    let told = events.of_kind("socket");
    assert_eq!(
        bodies(&told),
        [
            json!({"family": "inet", "type": "stream", "protocol": "tcp", "transport": "tcp"}),
            json!({"family": "inet6", "type": "stream", "protocol": "tcp", "transport": "tcp"}),
            json!({"family": "inet", "type": "dgram", "protocol": "udp", "transport": "udp"}),
            json!({"family": "inet6", "type": "dgram", "protocol": "udp", "transport": "udp"}),
            json!({"family": "inet", "type": "raw", "protocol": "icmp", "raw": true}),
            json!({"family": "inet6", "type": "raw", "protocol": "icmpv6", "raw": true}),
            json!({"family": "inet", "type": "raw", "protocol": "tcp", "raw": true}),
            json!({"family": "inet", "type": "raw", "protocol": "253", "raw": true}),
        ]
    );
    let ids: Vec<_> = told.iter().map(|it| &it["socket"]["flow"]).collect();
    assert_eq!(ids, cookies.split_whitespace().collect::<Vec<_>>());
    assert!(told.iter().all(|it| it["process"]["comm"] == "python3"));
}

#[test]
fn a_bind_is_told_of_with_the_address_it_got_and_who_called_it() {
    let watched = Watched::cgroup("bind").unwrap();
    let script = "
import os, socket
def bound(family, kind, to):
    s = socket.socket(family, kind)
    s.bind(to)
    return s
v4, v6, stream, dgram = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
kept = [
    bound(v4, stream, ('127.0.0.1', 7201)),
    bound(v6, stream, ('::1', 7202)),
    bound(v6, stream, ('::ffff:127.0.0.1', 7203)),
    bound(v4, dgram, ('0.0.0.0', 7204)),
    bound(v6, dgram, ('::', 7205)),
    bound(v4, stream, ('127.0.0.1', 0)),
]
try:
    bound(v4, stream, ('127.0.0.1', 7201))
    raise SystemExit('twice')
except OSError:
    pass
shared = socket.socket()
child = os.fork()
if child == 0:
    shared.bind(('127.0.0.1', 7206))
    os._exit(0)
os.waitpid(child, 0)
print(kept[-1].getsockname()[1], child)
";
    let output = watched.python(script, &[]).unwrap();
    let (chosen, child) = output.trim().split_once(' ').unwrap();
    let events = watched.events().unwrap();
    let told: Vec<_> = events
        .of_kind("bind")
        .iter()
        .map(|it| {
            let body = &it["bind"];
            format!(
                "{} {}",
                body["transport"].as_str().unwrap(),
                address(&body["local"])
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "tcp 127.0.0.1:7201",
            "tcp ::1:7202",
            "tcp 127.0.0.1:7203",
            "udp 0.0.0.0:7204",
            "udp :::7205",
            &format!("tcp 127.0.0.1:{chosen}"),
            "tcp 127.0.0.1:7206",
        ]
    );
    let last = events
        .only("bind", |it| it["bind"]["local"]["port"] == 7206)
        .unwrap();
    let made = events
        .only("socket", |it| it["socket"]["flow"] == last["bind"]["flow"])
        .unwrap();
    assert_eq!(last["process"]["pid"].to_string(), child);
    assert_eq!(last["process"]["ppid"], made["process"]["pid"]);
}

#[test]
fn a_listener_and_what_it_accepts_belong_to_who_made_it() {
    let watched = Watched::cgroup("listen").unwrap();
    // The parent makes the listener, its child accepts, another process connects.
    let script = "
import os, socket
listener = socket.create_server(('127.0.0.1', 7207))
listener.listen(9)
six = socket.socket(socket.AF_INET6)
six.listen()
print(os.getpid(), six.getsockname()[1])
child = os.fork()
if child == 0:
    s, _ = listener.accept()
    s.recv(1)
    os._exit(0)
client = socket.create_connection(('127.0.0.1', 7207))
client.close()
os.waitpid(child, 0)
";
    let output = watched.python(script, &[]).unwrap();
    let (maker, chosen) = output.trim().split_once(' ').unwrap();
    let events = watched.events().unwrap();
    let told = events.of_kind("listen");
    assert_eq!(
        bodies(&told),
        [
            json!({"transport": "tcp", "local": {"ip": "127.0.0.1", "port": 7207}}),
            json!({"transport": "tcp", "local": {"ip": "::", "port": chosen.parse::<u16>().unwrap()}}),
        ],
        "once each, however often listen() is called"
    );
    let accept = events.only("accept", |_| true).unwrap();
    let end = events
        .only("flow", |it| {
            it["flow"]["direction"] == "inbound" && it["flow"]["state"] == "closed"
        })
        .unwrap();
    assert_eq!(end["flow"]["owner"], "listener");
    assert_ne!(end["flow"]["flow"], told[0]["listen"]["flow"]);
    for event in [told[0], accept, end] {
        assert_eq!(event["process"]["pid"].to_string(), maker, "{event}");
    }
}

#[test]
fn a_subflow_of_mptcp_is_a_flow_and_belongs_to_who_connected() {
    let watched = Watched::cgroup("mptcp").unwrap();
    let listener = watched
        .world
        .net()
        .run(|| Ok(TcpListener::bind((SERVER, 7209))?))
        .unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"hi").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    let script = format!(
        "
import socket
s = socket.socket(proto=262)
s.connect(('{SERVER}', 7209))
s.sendall(b'hello')
assert s.recv(2) == b'hi'
s.close()
"
    );
    watched.python(&script, &[]).unwrap();
    server.join().unwrap();
    let end = watched.end_of_flow(&format!("{SERVER}:7209")).unwrap();
    let events = watched.events().unwrap();
    let made = events.only("socket", |_| true).unwrap();
    let connect = events.only("connect", |_| true).unwrap();
    assert_eq!(
        body(made),
        json!({"family": "inet", "type": "stream", "protocol": "mptcp"})
    );
    assert_eq!(connect["connect"]["flow"], end["flow"]["flow"]);
    assert_eq!(end["flow"]["bytes_out"], 5);
    assert_eq!(end["flow"]["bytes_in"], 2);
    assert_eq!(end["flow"]["result"], "established");
    for event in [made, connect, &end] {
        assert_eq!(event["process"]["comm"], "python3", "{event}");
    }
}

#[test]
fn people_are_not_told_of_each_socket_unless_they_ask() {
    let watched = Watched::cgroup("quiet").unwrap();
    let site = watched.monitor().site();
    // They end with the daemon.
    let [json, people, asked] = [
        ["--output", "json", "-n", "100"].as_slice(),
        &["--output", "pretty", "-n", "100"],
        &["--output", "pretty", "-n", "100", "--kind", "socket"],
    ]
    .map(|args| {
        let mut tail = site.command(&[&["tail"], args].concat()).unwrap();
        tail.stdout(Stdio::piped()).stderr(Stdio::null());
        tail.spawn().unwrap()
    });
    let script = "import socket; socket.create_server(('127.0.0.1', 7208))";
    watched.python(script, &[]).unwrap();
    watched.events().unwrap();
    let [json, people, asked] = [json, people, asked].map(|tail| {
        let output = tail.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert!(json.contains("\"kind\":\"socket\""), "{json}");
    assert!(people.contains("127.0.0.1:7208 tcp"), "{people}");
    assert!(!people.contains("inet stream tcp"), "{people}");
    assert!(asked.contains("inet stream tcp"), "{asked}");
}
