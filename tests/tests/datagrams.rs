//! UDP, names, and packets of other protocols on the running kernel. Needs root.

use agent_monitor_tests::monitor::SOON;
use agent_monitor_tests::paths;
use agent_monitor_tests::process::{Process, tool};
use agent_monitor_tests::services;
use agent_monitor_tests::watched::{Watched, address};
use agent_monitor_tests::world::{GATEWAY, OTHER_SERVER, SERVER};
use serde_json::Value;

/// A server on the internet that sends each datagram back, twice.
fn echo(watched: &Watched, at: &str, port: u16) -> Process {
    let script = "
import socket, sys
at = (sys.argv[1], int(sys.argv[2]))
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind(at)
ready = socket.create_server(at)
while True:
    data, peer = s.recvfrom(65535)
    for _ in range(2):
        s.sendto(data, peer)
";
    let number = port.to_string();
    let argv = ["/usr/bin/python3", "-c", script, at, &number];
    let server = watched.world.spawn(&argv).unwrap();
    watched.world.net().wait_for_listener(port).unwrap();
    server
}

/// A name server on the internet for which every name is at [`SERVER`].
fn name_server(watched: &Watched, at: &str) -> Process {
    let server = services::python(&watched.world, "name_server.py", &[at, "53", SERVER]).unwrap();
    watched.world.net().wait_for_listener(53).unwrap();
    server
}

/// Makes a question for an A record of `name`.
const QUESTION: &str = "
import socket, struct, sys
def question(number, name, kind=1):
    labels = b''.join(bytes([len(it)]) + it.encode() for it in name.split('.'))
    return struct.pack('!6H', number, 0x100, 1, 0, 0, 0) + labels + struct.pack('!B2H', 0, kind, 1)
";

/// Ends of the flows with `remote`, in order.
fn ends(events: &[&Value], remote: &str) -> Vec<Value> {
    let ends = events.iter().map(|it| &it["flow"]);
    let ends = ends.filter(|it| it["state"] == "closed" && address(&it["remote"]) == remote);
    ends.cloned().collect()
}

/// Packets and bytes, out and in.
fn counts(flow: &Value) -> [u64; 4] {
    ["packets_out", "packets_in", "bytes_out", "bytes_in"]
        .map(|member| flow[member].as_u64().unwrap_or(u64::MAX))
}

#[test]
fn each_peer_of_a_socket_is_a_flow_with_its_own_counts() {
    let watched = Watched::cgroup("peers").unwrap();
    let _servers = [
        echo(&watched, SERVER, 7101),
        echo(&watched, OTHER_SERVER, 7102),
    ];
    let script = format!(
        "
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(5)
for size in (10, 20, 30):
    for peer in (('{SERVER}', 7101), ('{OTHER_SERVER}', 7102)):
        s.sendto(b'x' * (size + peer[1] - 7101), peer)
        s.recv(100), s.recv(100)
s.sendto(b'silence', ('{SERVER}', 7199))
"
    );
    watched.python(&script, &[]).unwrap();
    let events = watched.events().unwrap();
    let flows = events.of_kind("flow");
    let one = ends(&flows, &format!("{SERVER}:7101"));
    let other = ends(&flows, &format!("{OTHER_SERVER}:7102"));
    let silence = ends(&flows, &format!("{SERVER}:7199"));
    assert_eq!((one.len(), other.len(), silence.len()), (1, 1, 1));
    assert_eq!(counts(&one[0]), [3, 6, 60, 120]);
    assert_eq!(counts(&other[0]), [3, 6, 63, 126]);
    assert_eq!(counts(&silence[0]), [1, 0, 7, 0]);
    assert_eq!(one[0]["result"], "established");
    assert_eq!(silence[0]["result"], "attempted");
    let cookie = |flow: &Value| {
        let id = flow["flow"].as_str().unwrap_or_default();
        id.split_once("-p").map(|(cookie, _)| cookie.to_owned())
    };
    assert!(cookie(&one[0]).is_some());
    assert_eq!(cookie(&one[0]), cookie(&other[0]));
    assert_ne!(one[0]["flow"], other[0]["flow"]);
    assert_eq!(events.of_kind("send").len(), 3, "a peer is told of once");
    for send in events.of_kind("send") {
        let told = [&one[0], &other[0], &silence[0]];
        assert!(told.iter().any(|it| it["flow"] == send["send"]["flow"]));
    }
}

#[test]
fn a_connect_that_sends_nothing_is_no_contact() {
    let watched = Watched::cgroup("nothing").unwrap();
    let script = format!(
        "
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
s.connect(('{SERVER}', 7103))
s.connect(('{OTHER_SERVER}', 7104))
s.connect(('{SERVER}', 7105))
s.send(b'something')
"
    );
    watched.python(&script, &[]).unwrap();
    let events = watched.events().unwrap();
    let flows = events.of_kind("flow");
    for remote in [format!("{SERVER}:7103"), format!("{OTHER_SERVER}:7104")] {
        let [end] = &ends(&flows, &remote)[..] else {
            panic!("one end of {remote} among {flows:?}")
        };
        assert_eq!(counts(end), [0; 4]);
        assert_eq!(end["result"], "abandoned");
    }
    let end = &ends(&flows, &format!("{SERVER}:7105"))[0];
    assert_eq!(counts(end), [1, 0, 9, 0]);
    assert_eq!(end["result"], "attempted");
    let connects = events.of_kind("connect");
    let ids: Vec<_> = connects.iter().map(|it| &it["connect"]["flow"]).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[2], &end["flow"]);
}

#[test]
fn every_question_of_one_socket_is_told_with_its_answer() {
    const QUESTIONS: usize = 400;
    let watched = Watched::cgroup("questions").unwrap();
    let _server = name_server(&watched, OTHER_SERVER);
    let script = format!(
        "{QUESTION}
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(('{OTHER_SERVER}', 53))
for number in range({QUESTIONS}):
    s.send(question(number, 'n%d.tunnel.example' % number))
    s.recv(500)
"
    );
    watched.python(&script, &[]).unwrap();
    let events = watched.events().unwrap();
    let dns = events.of_kind("dns");
    for number in 0..QUESTIONS {
        let name = format!("n{number}.tunnel.example");
        let told: Vec<_> = dns
            .iter()
            .filter(|it| it["dns"]["question"] == *name)
            .collect();
        let [question, answer] = told[..] else {
            panic!("{} of {name}", told.len())
        };
        assert_eq!(question["dns"]["type"], "A");
        assert_eq!(question["dns"].get("answers"), None);
        assert_eq!(question["process"]["comm"], "python3");
        assert_eq!(answer["dns"]["rcode"], "NOERROR");
        let edge = format!("edge.{name}");
        assert_eq!(answer["dns"]["answers"], serde_json::json!([edge, SERVER]));
    }
    assert_eq!(dns.len(), 2 * QUESTIONS);
    let flows = events.of_kind("flow");
    let end = &ends(&flows, &format!("{OTHER_SERVER}:53"))[0];
    assert_eq!(end["protocol"], "dns");
    assert_eq!(counts(end)[..2], [QUESTIONS as u64; 2]);
}

#[test]
fn dns_on_another_port_and_over_tcp_is_told_beyond_the_head() {
    const QUESTIONS: usize = 400;
    let watched = Watched::cgroup("dns-tcp").unwrap();
    let at = [OTHER_SERVER, "5399", SERVER];
    let _server = services::python(&watched.world, "name_server.py", &at).unwrap();
    watched.world.net().wait_for_listener(5399).unwrap();
    let shared = paths::INSIDE_SHARED;
    let script = format!(
        "{QUESTION}
import os, time
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.connect(('{OTHER_SERVER}', 5399))
tcp = socket.create_connection(('{OTHER_SERVER}', 5399))
for s in (udp, tcp):
    s.settimeout(5)
for number in range({QUESTIONS}):
    while number == 9 and not os.path.exists('{shared}/go'):
        time.sleep(0.01)
    udp.send(question(number, 'u%d.example' % number))
    udp.recv(500)
    asked = question(number, 't%d.example' % number)
    tcp.sendall(struct.pack('!H', len(asked)) + asked)
    length, = struct.unpack('!H', tcp.recv(2, socket.MSG_WAITALL))
    tcp.recv(length, socket.MSG_WAITALL)
"
    );
    let mut client = watched.agent.spawn(&["python3", "-c", &script]).unwrap();
    // The kernel sends the first 8 KiB of each direction until it is told that this is DNS.
    let last =
        |it: &Value| it["dns"]["question"] == "t8.example" && it["dns"].get("rcode").is_some();
    watched
        .monitor()
        .wait_for("the first answers", SOON, last)
        .unwrap();
    std::fs::write(watched.agent.shared().join("go"), "").unwrap();
    client.finish(SOON).unwrap();
    let events = watched.events().unwrap();
    for (letter, transport) in [('u', "udp"), ('t', "tcp")] {
        let mut names: Vec<_> = events.of_kind("dns");
        names.retain(|it| it["dns"]["transport"] == transport);
        let asked = names.iter().filter(|it| it["dns"].get("rcode").is_none());
        let asked: Vec<_> = asked.map(|it| it["dns"]["question"].clone()).collect();
        let expected: Vec<_> = (0..QUESTIONS)
            .map(|n| format!("{letter}{n}.example"))
            .collect();
        assert_eq!(asked, expected, "{transport}");
        assert_eq!(names.len(), 2 * QUESTIONS, "{transport}");
    }
}

#[test]
fn what_the_resolver_answered_names_later_connections() {
    let watched = Watched::cgroup("names").unwrap();
    let _server = name_server(&watched, GATEWAY);
    // glibc's own resolver, whose name server is the gateway.
    let script = "
import socket
address = socket.getaddrinfo('hidden.pool.test', 7106, type=socket.SOCK_STREAM)[0][4]
s = socket.socket()
assert s.connect_ex(address) == 111
";
    let resolv = "nameserver 203.0.113.1\noptions timeout:2\n";
    std::fs::write(watched.agent.shared().join("resolv.conf"), resolv).unwrap();
    let shared = paths::INSIDE_SHARED;
    let mount = format!("mount --bind {shared}/resolv.conf /etc/resolv.conf && exec \"$@\"");
    let argv = [
        "unshare", "--mount", "sh", "-c", &mount, "sh", "python3", "-c", script,
    ];
    watched.agent.run(&argv).unwrap();
    let end = watched.end_of_flow(&format!("{SERVER}:7106")).unwrap();
    assert_eq!(end["flow"]["server_name"], "hidden.pool.test");
    let events = watched.events().unwrap();
    let connect = events.only("connect", |it| {
        it["connect"]["transport"] == "tcp" && it["connect"]["remote"]["port"] == 7106
    });
    assert_eq!(
        connect.unwrap()["connect"]["server_name"],
        "hidden.pool.test"
    );
    // To sort addresses the resolver connects to them without sending anything.
    for end in ends(&events.of_kind("flow"), &format!("{SERVER}:7106")) {
        if end["transport"] == "udp" {
            assert_eq!(end["result"], "abandoned");
        }
    }
}

#[test]
fn a_resolver_behind_a_translated_address_is_told_as_the_program_named_it() {
    let watched = Watched::cgroup("embedded").unwrap();
    // As Docker's embedded resolver: 127.0.0.11, whose port 53 leads to another one.
    let netns = watched.agent.netns();
    let enter = ["ip", "netns", "exec", netns.name()];
    let rule = [
        "iptables",
        "-t",
        "nat",
        "-A",
        "OUTPUT",
        "-d",
        "127.0.0.11",
        "-p",
        "udp",
        "--dport",
        "53",
        "-j",
        "DNAT",
        "--to-destination",
        "127.0.0.11:5353",
    ];
    let rule = [&enter[..], &rule[..]].concat();
    tool(rule[0], &rule[1..]).unwrap();
    let script = paths::scenarios()
        .join("name_server.py")
        .display()
        .to_string();
    let server = [
        "/usr/bin/python3",
        "-B",
        &script,
        "127.0.0.11",
        "5353",
        SERVER,
    ];
    let _server = watched
        .world
        .spawn(&[&enter[..], &server[..]].concat())
        .unwrap();
    netns.wait_for_listener(5353).unwrap();
    let client = format!(
        "{QUESTION}
for connected in (True, False):
    s = socket.socket(type=socket.SOCK_DGRAM)
    s.settimeout(5)
    name = 'connected.example' if connected else 'free.example'
    if connected:
        s.connect(('127.0.0.11', 53))
        s.send(question(1, name))
    else:
        s.sendto(question(2, name), ('127.0.0.11', 53))
    s.recv(500)
"
    );
    watched.python(&client, &[]).unwrap();
    let events = watched.events().unwrap();
    let dns = events.of_kind("dns");
    for name in ["connected.example", "free.example"] {
        let mut told: Vec<_> = dns.iter().map(|it| &it["dns"]).collect();
        told.retain(|it| it["question"] == name);
        let [question, answer] = told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(address(&question["remote"]), "127.0.0.11:53");
        assert_eq!(question["flow"], answer["flow"]);
        assert_eq!(answer["rcode"], "NOERROR");
    }
    let ends = ends(&events.of_kind("flow"), "127.0.0.11:53");
    let counted: Vec<_> = ends.iter().map(|end| counts(end)[..2].to_vec()).collect();
    assert_eq!(counted, [[1, 1], [1, 1]]);
}

#[test]
fn datagrams_sent_at_once_are_counted_and_read_apart() {
    let watched = Watched::cgroup("gso").unwrap();
    let script = format!(
        "{QUESTION}
s = socket.socket(type=socket.SOCK_DGRAM)
s.connect(('{SERVER}', 53))
one = question(1, 'aa.example')
s.setsockopt(socket.IPPROTO_UDP, 103, len(one))  # UDP_SEGMENT, linux/udp.h
s.send(b''.join(question(number, '%02d.example' % number) for number in range(10)))
"
    );
    watched.python(&script, &[]).unwrap();
    let events = watched.events().unwrap();
    let asked: Vec<_> = events.of_kind("dns");
    let asked: Vec<_> = asked
        .iter()
        .map(|it| it["dns"]["question"].clone())
        .collect();
    let expected: Vec<_> = (0..10)
        .map(|number| format!("{number:02}.example"))
        .collect();
    assert_eq!(asked, expected);
    let end = &ends(&events.of_kind("flow"), &format!("{SERVER}:53"))[0];
    assert_eq!(counts(end)[0], 10);
}

#[test]
fn packets_of_raw_sockets_are_flows_of_their_protocol() {
    let watched = Watched::cgroup("raw").unwrap();
    let script = format!(
        "
import os, socket, struct
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return 0xffff - (total + (total >> 16)) & 0xffff
echo = lambda sum: struct.pack('!BBHHH', 8, 0, sum, 7, 1) + b'E\\0' + bytes(98)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.settimeout(5)
raw.sendto(echo(checksum(echo(0))), ('{SERVER}', 0))
raw.recv(1000)
raw.close()
gre = socket.socket(socket.AF_INET, socket.SOCK_RAW, 47)
gre.sendto(bytes(40), ('{SERVER}', 0))
syn = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
for port in (7107, 7108):
    syn.sendto(struct.pack('!HHIIBBHHH', 4000, port, 1, 0, 0x50, 2, 1000, 0, 0), ('{SERVER}', 0))
"
    );
    watched.python(&script, &[]).unwrap();
    let events = watched.events().unwrap();
    let flows = events.of_kind("flow");
    let end = |transport: &str, port: u16| {
        let all = ends(&flows, &format!("{SERVER}:{port}"));
        let mut all = all.into_iter().filter(|it| it["transport"] == transport);
        let end = all.next();
        end.unwrap_or_else(|| panic!("no {transport} with port {port} in {flows:?}"))
    };
    assert_eq!(counts(&end("icmp", 0)), [1, 1, 100, 100]);
    assert_eq!(counts(&end("47", 0))[..3], [1, 0, 40]);
    for port in [7107, 7108] {
        assert_eq!(counts(&end("tcp", port))[0], 1);
    }
}

#[test]
fn each_of_thousands_of_peers_is_told_of_once_and_ends_with_the_socket() {
    const PEERS: usize = 400;
    let watched = Watched::cgroup("thousands").unwrap();
    let script = format!(
        "
import socket
s = socket.socket(type=socket.SOCK_DGRAM)
for round in range(2):
    for n in range({PEERS}):
        s.sendto(b'x', ('198.51.100.1', 10_000 + n))
assert socket.socket().connect_ex(('{SERVER}', 7109)) == 111
"
    );
    watched.python(&script, &[]).unwrap();
    watched.end_of_flow(&format!("{SERVER}:7109")).unwrap();
    let events = watched.events().unwrap();
    assert_eq!(events.of_kind("loss"), Vec::<&Value>::new());
    assert_eq!(events.of_kind("send").len(), PEERS);
    let mut ends: Vec<_> = events
        .of_kind("flow")
        .iter()
        .map(|it| it["flow"].clone())
        .collect();
    ends.retain(|it| it["transport"] == "udp" && it["state"] == "closed");
    assert_eq!(ends.len(), PEERS);
    assert!(
        ends.iter().all(|end| counts(end) == [2, 0, 2, 0]),
        "{:?}",
        ends[0]
    );
}
