//! Flows as the running kernel has them: who, where to, how much, and what became
//! of it. Needs root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use agent_monitor_tests::monitor::SOON;
use agent_monitor_tests::watched::{Watched, address};
use agent_monitor_tests::world::{OTHER_SERVER, SERVER};
use serde_json::{Value, json};

/// Starts a server on the internet that reads `expect` bytes of one connection,
/// answers with `answer` bytes, and reads on until the end.
fn server(watched: &Watched, at: &str, expect: usize, answer: usize) -> JoinHandle<SocketAddr> {
    let listener = watched
        .world
        .net()
        .run(|| Ok(TcpListener::bind(at)?))
        .unwrap();
    std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_exact(&mut vec![0; expect]).unwrap();
        stream.write_all(&vec![1; answer]).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        from
    })
}

/// Connects to `argv[1]:argv[2]`, sends `argv[3]` bytes, reads `argv[4]` bytes.
const CLIENT: &str = "
import socket, sys
host, port, send, expect = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
s = socket.create_connection((host, port), 5)
s.sendall(b'x' * send)
while expect:
    expect -= len(s.recv(min(expect, 65536)))
s.close()
";

/// The part of a `flow` event that does not depend on the kernel's choices.
fn summary(event: &Value) -> Value {
    let flow = &event["flow"];
    let mut kept = flow.clone();
    let members = kept.as_object_mut().unwrap();
    for member in [
        "flow",
        "packets_out",
        "packets_in",
        "duration_ns",
        "rtt_us",
        "protocol",
    ] {
        members.remove(member);
    }
    kept
}

#[test]
fn an_outbound_flow_has_its_ends_and_its_exact_bytes() {
    const SENT: usize = 300_001;
    const ANSWERED: usize = 1_234_567;
    let watched = Watched::cgroup("outbound").unwrap();
    let server = server(&watched, &format!("{SERVER}:7001"), SENT, ANSWERED);
    watched
        .python(
            CLIENT,
            &[SERVER, "7001", &SENT.to_string(), &ANSWERED.to_string()],
        )
        .unwrap();
    let from = server.join().unwrap();
    let end = watched.end_of_flow(&format!("{SERVER}:7001")).unwrap();
    let local = json!({"ip": watched.agent.address(), "port": from.port()});
    let remote = json!({"ip": SERVER, "port": 7001});
    let expected = json!({
        "owner": "creator", "state": "closed", "direction": "outbound", "transport": "tcp",
        "local": local, "remote": remote, "result": "established",
        "bytes_out": SENT, "bytes_in": ANSWERED, "retransmits": 0,
    });
    assert_eq!(summary(&end), expected);
    assert!(end["flow"]["packets_out"].as_u64().unwrap() > 1);
    assert!(end["flow"]["duration_ns"].as_u64().unwrap() > 0);
    // On one machine, and yet not in no time.
    let rtt = end["flow"]["rtt_us"].as_u64().unwrap();
    assert!((1..1_000_000).contains(&rtt), "{rtt} µs");
    assert_eq!(end["process"]["comm"], "python3");

    let id = end["flow"]["flow"].clone();
    let events = watched.events().unwrap();
    let connect = events
        .only("connect", |it| it["connect"]["flow"] == id)
        .unwrap();
    assert_eq!(
        connect["connect"],
        json!({"flow": id, "transport": "tcp", "remote": remote, "result": "attempted"})
    );
    assert_eq!(connect["process"]["pid"], end["process"]["pid"]);
    let open = events.only("flow", |it| {
        it["flow"]["flow"] == id && it["flow"]["state"] == "open"
    });
    assert_eq!(open.unwrap()["flow"]["local"], local);
}

#[test]
fn an_inbound_flow_belongs_to_its_listener_and_has_its_exact_bytes() {
    let watched = Watched::cgroup("inbound").unwrap();
    let service = "
import socket
listener = socket.create_server(('0.0.0.0', 7002))
s, _ = listener.accept()
left = 50_000
while left:
    left -= len(s.recv(left))
s.sendall(b'y' * 7)
s.recv(1)
";
    let mut service = watched.agent.spawn(&["python3", "-c", service]).unwrap();
    watched.agent.netns().wait_for_listener(7002).unwrap();
    let to = (watched.agent.address(), 7002);
    let from = watched
        .world
        .net()
        .run(|| {
            let mut stream = TcpStream::connect(to)?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(&[0; 50_000])?;
            stream.read_exact(&mut [0; 7])?;
            Ok(stream.local_addr()?)
        })
        .unwrap();
    let pid = service.pid().unwrap();
    service.finish(SOON).unwrap();
    let end = watched.end_of_flow(&from.to_string()).unwrap();
    let local = json!({"ip": watched.agent.address(), "port": 7002});
    let remote = json!({"ip": from.ip().to_string(), "port": from.port()});
    assert_eq!(
        summary(&end),
        json!({
            "owner": "listener", "state": "closed", "direction": "inbound", "transport": "tcp",
            "local": local, "remote": remote, "result": "established",
            "bytes_out": 7, "bytes_in": 50_000, "retransmits": 0,
        })
    );
    assert_eq!(end["process"]["pid"], pid);
    let id = end["flow"]["flow"].clone();
    let events = watched.events().unwrap();
    let accept = events
        .only("accept", |it| it["accept"]["flow"] == id)
        .unwrap();
    assert_eq!(
        accept["accept"],
        json!({"flow": id, "transport": "tcp", "local": local, "remote": remote, "result": "established"})
    );
}

#[test]
fn ipv6_flows_are_seen_and_mapped_addresses_are_shown_as_ipv4() {
    let watched = Watched::cgroup("ipv6").unwrap();
    let net = watched.world.net();
    net.ip(&["addr", "add", "2001:db8::1/64", "dev", "br0", "nodad"])
        .unwrap();
    watched
        .agent
        .netns()
        .ip(&["addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad"])
        .unwrap();
    let six = server(&watched, "[2001:db8::1]:7003", 3, 4);
    let mapped = server(&watched, &format!("{SERVER}:7004"), 5, 6);
    watched
        .python(CLIENT, &["2001:db8::1", "7003", "3", "4"])
        .unwrap();
    watched
        .python(CLIENT, &[&format!("::ffff:{SERVER}"), "7004", "5", "6"])
        .unwrap();
    six.join().unwrap();
    mapped.join().unwrap();

    let end = watched.end_of_flow("2001:db8::1:7003").unwrap();
    assert_eq!(end["flow"]["local"]["ip"], "2001:db8::2");
    assert_eq!(
        (&end["flow"]["bytes_out"], &end["flow"]["bytes_in"]),
        (&json!(3), &json!(4))
    );
    let end = watched.end_of_flow(&format!("{SERVER}:7004")).unwrap();
    assert_eq!(end["flow"]["local"]["ip"], watched.agent.address());
    assert_eq!(
        (&end["flow"]["bytes_out"], &end["flow"]["bytes_in"]),
        (&json!(5), &json!(6))
    );

    // A listener for both versions.
    let service = "
import socket
listener = socket.create_server(('::', 7005), family=socket.AF_INET6, dualstack_ipv6=True)
s, _ = listener.accept()
s.recv(1)
s.recv(1)
";
    let mut service = watched.agent.spawn(&["python3", "-c", service]).unwrap();
    watched.agent.netns().wait_for_listener(7005).unwrap();
    let to = (watched.agent.address(), 7005);
    let connect = || {
        let mut stream = TcpStream::connect(to)?;
        stream.write_all(b"!")?;
        Ok(stream.local_addr()?)
    };
    let from = net.run(connect).unwrap();
    service.finish(SOON).unwrap();
    let end = watched.end_of_flow(&from.to_string()).unwrap();
    assert_eq!(end["flow"]["direction"], "inbound");
    assert_eq!(address(&end["flow"]["local"]), format!("{}:7005", to.0));
    let events = watched.events().unwrap();
    for kind in ["connect", "flow", "accept"] {
        for event in events.of_kind(kind) {
            for end in ["local", "remote"] {
                let ip = event[kind][end]["ip"].as_str().unwrap_or_default();
                assert!(!ip.starts_with("::ffff:"), "{event}");
            }
        }
    }
}

#[test]
fn a_socket_that_connects_again_is_another_flow_with_the_same_cookie() {
    let watched = Watched::cgroup("unspec").unwrap();
    let one = server(&watched, &format!("{SERVER}:7006"), 1, 1);
    let other = server(&watched, &format!("{OTHER_SERVER}:7007"), 2, 2);
    let script = format!(
        "
import ctypes, socket, struct
s = socket.socket()
cookie, = struct.unpack('Q', s.getsockopt(socket.SOL_SOCKET, 57, 8))
s.connect(('{SERVER}', 7006))
s.sendall(b'a')
s.recv(1)
unspec = struct.pack('HHI8x', socket.AF_UNSPEC, 0, 0)
assert ctypes.CDLL(None).connect(s.fileno(), unspec, len(unspec)) == 0
s.connect(('{OTHER_SERVER}', 7007))
s.sendall(b'bb')
s.recv(2)
print('%x' % cookie)
"
    );
    // AF_UNSPEC resets the connection: the first server's last read fails.
    let cookie = watched.python(&script, &[]).unwrap();
    let cookie = cookie.trim();
    let _ = one.join();
    other.join().unwrap();
    for (generation, remote, bytes) in [
        (0, format!("{SERVER}:7006"), 1),
        (1, format!("{OTHER_SERVER}:7007"), 2),
    ] {
        let end = watched.end_of_flow(&remote).unwrap();
        assert_eq!(end["flow"]["flow"], format!("{cookie}-{generation}"));
        assert_eq!(end["flow"]["state"], "closed");
        assert_eq!(end["flow"]["bytes_out"], bytes, "{end}");
        assert_eq!(end["flow"]["bytes_in"], bytes, "{end}");
    }
}

#[test]
fn data_on_the_last_segment_of_the_handshake_is_read() {
    const BANNER: &str = "SSH-2.0-InTheHandshake\\r\\n";
    let watched = Watched::cgroup("handshake").unwrap();
    let service = "
import socket
listener = socket.create_server(('0.0.0.0', 7008))
s, _ = listener.accept()
assert s.recv(100).startswith(b'SSH-2.0-')
s.sendall(b'ok')
assert s.recv(4) == b'more'
s.recv(1)
";
    let mut service = watched.agent.spawn(&["python3", "-c", service]).unwrap();
    watched.agent.netns().wait_for_listener(7008).unwrap();
    // Without quick acknowledgements the client's last one of the handshake waits
    // for data to go with (tcp_rcv_synsent_state_process, net/ipv4/tcp_input.c).
    // Segments sent are tcpi_segs_out of struct tcp_info: the SYN, and this one.
    let client = format!(
        "
import socket, struct
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
s.connect(('{}', 7008))
s.sendall(b'{BANNER}')
sent, = struct.unpack_from('I', s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 136)
assert s.recv(2) == b'ok'
s.sendall(b'more')
s.close()
print('segments', sent)
",
        watched.agent.address()
    );
    let mut client = watched
        .world
        .spawn(&["/usr/bin/python3", "-c", &client])
        .unwrap();
    let output = client.finish(SOON).unwrap();
    assert_eq!(output.trim(), "segments 2", "the handshake carried no data");
    service.finish(SOON).unwrap();
    let identified = watched
        .monitor()
        .wait_for("its protocol", SOON, |it| {
            it["flow"]["state"] == "identified"
        })
        .unwrap();
    assert_eq!(identified["flow"]["protocol"], "ssh");
    assert_eq!(identified["flow"]["direction"], "inbound");
    assert_eq!(identified["flow"]["local"]["port"], 7008);
    let id = &identified["flow"]["flow"];
    let end = watched
        .monitor()
        .wait_for("its end", SOON, |it| {
            it["flow"]["flow"] == *id && it["flow"]["state"] == "closed"
        })
        .unwrap();
    let sent = BANNER.replace("\\r\\n", "\r\n") + "more";
    assert_eq!(end["flow"]["bytes_in"], sent.len());
    assert_eq!(end["flow"]["bytes_out"], 2);
    let events = watched.events().unwrap();
    // The listener's own socket is no flow.
    let ids: Vec<_> = events
        .of_kind("flow")
        .iter()
        .map(|it| it["flow"]["flow"].clone())
        .collect();
    assert!(ids.iter().all(|it| it == id), "{ids:?}");
}

#[test]
fn the_two_flows_of_a_loopback_connection_name_each_other() {
    let watched = Watched::cgroup("loopback").unwrap();
    let script = "
import socket, threading
listener = socket.create_server(('127.0.0.1', 7009))
client = socket.create_connection(('127.0.0.1', 7009))
accepted, _ = listener.accept()
client.sendall(b'12345')
assert accepted.recv(5) == b'12345'
client.close()
accepted.recv(1)
accepted.close()
";
    watched.python(script, &[]).unwrap();
    let events = watched.events().unwrap();
    let end = |direction: &str| {
        let is_it =
            |it: &Value| it["flow"]["state"] == "closed" && it["flow"]["direction"] == direction;
        events.only("flow", is_it).unwrap()["flow"].clone()
    };
    let (outbound, inbound) = (end("outbound"), end("inbound"));
    assert_eq!(outbound["peer_flow"], inbound["flow"]);
    assert_eq!(inbound["peer_flow"], outbound["flow"]);
    assert_eq!(outbound["local"], inbound["remote"]);
    assert_eq!(outbound["remote"], inbound["local"]);
    assert_eq!(outbound["bytes_out"], 5);
    assert_eq!(inbound["bytes_in"], 5);
    assert_eq!(inbound["bytes_out"], 0);
}

#[test]
fn datagrams_are_told_by_peer() {
    let watched = Watched::cgroup("udp").unwrap();
    let script = format!(
        "
import socket
connected = socket.socket(type=socket.SOCK_DGRAM)
connected.connect(('{SERVER}', 7011))
connected.send(b'x')
free = socket.socket(type=socket.SOCK_DGRAM)
for peer in ('{SERVER}', '{SERVER}', '{OTHER_SERVER}'):
    free.sendto(b'y', (peer, 7012))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.sendto(b'z', ('::ffff:{SERVER}', 7013))
"
    );
    watched.python(&script, &[]).unwrap();
    let events = watched.events().unwrap();
    let peers = |kind: &str| -> Vec<_> {
        let found = events
            .of_kind(kind)
            .into_iter()
            .filter(|it| it[kind]["transport"] == "udp");
        found.map(|it| address(&it[kind]["remote"])).collect()
    };
    assert_eq!(peers("connect"), [format!("{SERVER}:7011")]);
    assert_eq!(
        peers("send"),
        [
            format!("{SERVER}:7012"),
            format!("{OTHER_SERVER}:7012"),
            format!("{SERVER}:7013")
        ]
    );
    for event in events.of_kind("send") {
        assert_eq!(event["process"]["comm"], "python3");
    }
}
