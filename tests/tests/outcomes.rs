//! What became of connections, as the running kernel has it. Needs root.

use std::io::{Read, Write};
use std::net::TcpListener;

use agent_monitor_tests::monitor::SOON;
use agent_monitor_tests::watched::Watched;
use agent_monitor_tests::world::{OTHER_SERVER, SERVER};
use serde_json::{Value, json};

/// An address to which every packet is dropped, and one that the network says it
/// cannot get to: the internet of `watched` is a router for this.
const SILENT: &str = "192.0.2.99";
const CUT_OFF: &str = "192.0.2.98";

/// Checks that all that was told of the only attempt at `remote` is that it was
/// made, and that it failed with `result`. Gives the failure's flow.
fn failed(watched: Watched, remote: &str, result: &str) -> Value {
    let end = watched.end_of_flow(remote).unwrap()["flow"].clone();
    let events = watched.events().unwrap();
    let flow = events.only("flow", |_| true).unwrap();
    assert_eq!(flow["flow"], end, "{flow}");
    assert_eq!(flow["process"]["comm"], "python3");
    let connect = events.only("connect", |_| true).unwrap();
    assert_eq!(connect["connect"]["flow"], end["flow"]);
    assert_eq!(connect["connect"]["result"], "attempted");
    assert_eq!(end["state"], "failed");
    assert_eq!(end["result"], result, "{end}");
    assert_eq!(
        (&end["bytes_out"], &end["bytes_in"]),
        (&json!(0), &json!(0))
    );
    assert!(end["duration_ns"].as_u64().unwrap() > 0, "{end}");
    end
}

#[test]
fn a_closed_port_refuses() {
    let watched = Watched::cgroup("refused").unwrap();
    let address = watched.agent.address().to_owned();
    let script =
        format!("import socket; assert socket.socket().connect_ex(('{SERVER}', 7101)) == 111");
    watched.python(&script, &[]).unwrap();
    let end = failed(watched, &format!("{SERVER}:7101"), "refused");
    assert_eq!(end["local"]["ip"], address);
    assert_eq!(end["retransmits"], 0);
}

#[test]
fn a_router_s_answer_makes_an_address_unreachable() {
    let watched = Watched::cgroup("unreachable").unwrap();
    let net = watched.world.net();
    net.run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))
        .unwrap();
    net.ip(&["route", "add", "unreachable", CUT_OFF]).unwrap();
    let script = format!(
        "
import errno, socket
assert socket.socket().connect_ex(('{CUT_OFF}', 7102)) == errno.EHOSTUNREACH
"
    );
    watched.python(&script, &[]).unwrap();
    let end = failed(watched, &format!("{CUT_OFF}:7102"), "unreachable");
    assert!(end["local"]["port"].is_u64(), "a SYN was sent: {end}");
}

#[test]
fn silence_times_out() {
    let watched = Watched::cgroup("silence").unwrap();
    watched
        .world
        .net()
        .ip(&["route", "add", "blackhole", SILENT])
        .unwrap();
    let script = format!(
        "
import errno, socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
assert s.connect_ex(('{SILENT}', 7103)) == errno.ETIMEDOUT
"
    );
    watched.python(&script, &[]).unwrap();
    let end = failed(watched, &format!("{SILENT}:7103"), "timed_out");
    assert!(end["retransmits"].as_u64().unwrap() >= 1, "{end}");
}

#[test]
fn who_gives_up_before_the_answer_abandons() {
    let watched = Watched::cgroup("abandoned").unwrap();
    watched
        .world
        .net()
        .ip(&["route", "add", "blackhole", SILENT])
        .unwrap();
    let script = format!(
        "
import errno, socket
s = socket.socket()
s.setblocking(False)
assert s.connect_ex(('{SILENT}', 7104)) == errno.EINPROGRESS
s.close()
"
    );
    watched.python(&script, &[]).unwrap();
    failed(watched, &format!("{SILENT}:7104"), "abandoned");
}

#[test]
fn an_attempt_that_waits_for_data_to_send_is_abandoned_at_its_close() {
    let watched = Watched::cgroup("waiting").unwrap();
    let listener = watched
        .world
        .net()
        .run(|| Ok(TcpListener::bind((SERVER, 7105))?))
        .unwrap();
    // With a cookie of before, TCP_FASTOPEN_CONNECT (30) sends nothing until there
    // is data; without one needed (client flag 4 of the sysctl), at once so.
    watched
        .agent
        .netns()
        .run(|| Ok(std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "5")?))
        .unwrap();
    let script = format!(
        "
import socket
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, 30, 1)
s.connect(('{SERVER}', 7105))
s.close()
"
    );
    watched.python(&script, &[]).unwrap();
    let end = failed(watched, &format!("{SERVER}:7105"), "abandoned");
    assert!(end.get("local").is_none(), "a SYN was sent: {end}");
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap_err();
}

#[test]
fn without_a_route_it_fails_before_a_packet_and_is_told_of_at_the_close() {
    for (name, cut, remote) in [
        (
            "no_route",
            ["route", "add", "unreachable", CUT_OFF],
            CUT_OFF,
        ),
        (
            "no_route6",
            ["route", "add", "prohibit", "2001:db8::98"],
            "2001:db8::98",
        ),
    ] {
        let watched = Watched::cgroup(name).unwrap();
        let netns = watched.agent.netns();
        let version = if remote.contains(':') { "-6" } else { "-4" };
        netns.ip(&[&[version], &cut[..]].concat()).unwrap();
        let script = "
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family)
try:
    s.connect((sys.argv[1], 7106))
    raise SystemExit('it can be reached')
except OSError:
    pass
";
        watched.python(script, &[remote]).unwrap();
        let end = failed(watched, &format!("{remote}:7106"), "failed_locally");
        assert!(end.get("local").is_none(), "{end}");
    }
}

#[test]
fn a_socket_that_is_tried_again_has_an_outcome_for_each_attempt() {
    let watched = Watched::cgroup("again").unwrap();
    watched
        .agent
        .netns()
        .ip(&["route", "add", "unreachable", CUT_OFF])
        .unwrap();
    let listener = watched
        .world
        .net()
        .run(|| Ok(TcpListener::bind((SERVER, 7107))?))
        .unwrap();
    let script = format!(
        "
import errno, socket, struct
s = socket.socket()
cookie, = struct.unpack('Q', s.getsockopt(socket.SOL_SOCKET, 57, 8))
assert s.connect_ex(('{CUT_OFF}', 7107)) == errno.EHOSTUNREACH
assert s.connect_ex(('{CUT_OFF}', 7108)) == errno.EHOSTUNREACH
assert s.connect_ex(('{SERVER}', 7109)) == errno.ECONNREFUSED
s.connect(('{SERVER}', 7107))
s.close()
print('%x' % cookie)
"
    );
    let cookie = watched.python(&script, &[]).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    drop(accepted);
    watched.end_of_flow(&format!("{SERVER}:7107")).unwrap();
    let events = watched.events().unwrap();
    let ends: Vec<_> = events
        .of_kind("flow")
        .iter()
        .map(|it| &it["flow"])
        .filter(|flow| flow["state"] != "open")
        .map(|flow| {
            let port = flow["remote"]["port"].as_u64().unwrap();
            let text = |name: &str| flow[name].as_str().unwrap().to_owned();
            (text("flow"), port, text("state"), text("result"))
        })
        .collect();
    let end = |generation: u32, port: u64, state: &str, result: &str| {
        let id = format!("{}-{generation}", cookie.trim());
        (id, port, state.to_owned(), result.to_owned())
    };
    assert_eq!(
        ends,
        [
            end(0, 7107, "failed", "failed_locally"),
            end(1, 7108, "failed", "failed_locally"),
            end(2, 7109, "failed", "refused"),
            end(3, 7107, "closed", "established"),
        ]
    );
}

#[test]
fn a_connection_that_the_other_end_resets_says_so() {
    let watched = Watched::cgroup("reset").unwrap();
    let listener = watched
        .world
        .net()
        .run(|| Ok(TcpListener::bind((SERVER, 7110))?))
        .unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        // Closed with data that was not read, it sends a reset.
        while stream.peek(&mut [0; 5]).unwrap() == 0 {}
    });
    let script = format!(
        "
import socket
s = socket.create_connection(('{SERVER}', 7110), 10)
s.sendall(b'hello')
s.sendall(b'world')
try:
    s.recv(1)
    raise SystemExit('no reset')
except ConnectionResetError:
    pass
"
    );
    watched.python(&script, &[]).unwrap();
    server.join().unwrap();
    let end = watched.end_of_flow(&format!("{SERVER}:7110")).unwrap();
    assert_eq!(end["flow"]["state"], "closed");
    assert_eq!(end["flow"]["result"], "reset");
    assert_eq!(end["flow"]["bytes_out"], 10);
}

#[test]
fn segments_that_were_lost_are_counted_at_the_end() {
    let watched = Watched::cgroup("lossy").unwrap();
    let net = watched.world.net();
    let listen = |at| net.run(|| Ok(TcpListener::bind(at)?)).unwrap();
    let (listener, signals) = (listen((SERVER, 7111)), listen((OTHER_SERVER, 7112)));
    // What is sent while the server's address is gone is lost, and sent again after.
    let script = format!(
        "
import socket, struct, time
def sent_again(s):
    # tcpi_total_retrans of struct tcp_info
    return struct.unpack_from('I', s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 100)[0]
s = socket.create_connection(('{SERVER}', 7111), 10)
signals = socket.create_connection(('{OTHER_SERVER}', 7112), 10)
assert signals.recv(1) == b'-'
s.send(b'x' * 100)
for _ in range(500):
    if sent_again(s):
        break
    time.sleep(0.01)
signals.send(b'+')
s.close()
signals.recv(1)
"
    );
    let mut client = watched.agent.spawn(&["python3", "-c", &script]).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let (mut signal, _) = signals.accept().unwrap();
    for stream in [&stream, &signal] {
        stream.set_read_timeout(Some(SOON)).unwrap();
    }
    let address = format!("{SERVER}/32");
    net.ip(&["addr", "del", &address, "dev", "br0"]).unwrap();
    signal.write_all(b"-").unwrap();
    signal.read_exact(&mut [0]).unwrap();
    net.ip(&["addr", "add", &address, "dev", "br0"]).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 100);
    drop((stream, signal));
    client.finish(SOON).unwrap();
    let end = watched.end_of_flow(&format!("{SERVER}:7111")).unwrap();
    assert_eq!(end["flow"]["result"], "established");
    assert_eq!(end["flow"]["bytes_out"], 100, "sent twice, one time new");
    assert!(end["flow"]["retransmits"].as_u64().unwrap() >= 1, "{end}");
}
