//! The first bytes of flows, however the network stack carries them: what
//! `record` keeps of them, and what follows from it. Needs root.

use std::fs;
use std::net::UdpSocket;

use agent_monitor::decode::{Body, Way};
use agent_monitor::event::{self, FlowState};
use agent_monitor_common::event::HEAD_OF_LISTENER;
use agent_monitor_common::limits::HEAD_CAP;
use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::monitor::SOON;
use agent_monitor_tests::netns::Netns;
use agent_monitor_tests::recorder::{Recorder, Recording};
use agent_monitor_tests::world::{SERVER, World};

/// What is sent: no two places within a head look alike. Scripts have it as
/// `pattern`.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + (n >> 8)) as u8).collect()
}

const PATTERN: &str = "
def pattern(n):
    return bytes((i * 31 + (i >> 8)) & 255 for i in range(n))
";

/// Takes one connection at `argv[1]:argv[2]`, reads `argv[3]` bytes, answers
/// with `argv[4]`, and reads to the end.
const SERVICE: &str = "
import socket, sys
host, port, expect, answer = sys.argv[1], *map(int, sys.argv[2:5])
family = socket.AF_INET6 if ':' in host else socket.AF_INET
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
prepare(listener)
listener.bind((host, port))
listener.listen()
s, _ = listener.accept()
while expect:
    expect -= len(s.recv(min(expect, 65536)))
s.sendall(pattern(answer))
s.recv(1)
s.close()
";

const NO_PREPARATION: &str = "
def prepare(s):
    pass
";

/// Runs `client` in a new agent against [`SERVICE`] on the internet; gives the
/// recording.
fn record(
    name: &str,
    prepare: &str,
    set_up: impl FnOnce(&World, &Agent),
    service: &[&str],
    client: &str,
) -> Recording {
    let world = World::new(name).unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    set_up(&world, &agent);
    let recorder = Recorder::of(&agent).unwrap();
    let script = [PATTERN, prepare, SERVICE].concat();
    let argv = [&["/usr/bin/python3", "-c", &script], service].concat();
    let mut server = world.spawn(&argv).unwrap();
    world
        .net()
        .wait_for_listener(service[1].parse().unwrap())
        .unwrap();
    let client = [PATTERN, prepare, client].concat();
    agent.run(&["python3", "-c", &client]).unwrap();
    server.finish(SOON).unwrap();
    recorder.finish().unwrap()
}

/// Checks a head of a stream of this length: all of it or as much as is kept at
/// least, which may be more when a parser has asked for it.
fn assert_head(recording: &Recording, port: u16, way: Way, len: usize) {
    let head = recording.head(port, way).unwrap();
    let kept = head.len();
    let least = len.min(HEAD_CAP as usize);
    assert!((least..=len).contains(&kept), "{kept} bytes {way:?}");
    assert!(head == pattern(kept), "the bytes {way:?} differ");
}

/// Payload bytes out and in, as told at the end of the only connection.
fn counted(recording: &Recording) -> [u64; 2] {
    let ends: Vec<_> = recording
        .records
        .iter()
        .filter_map(|record| match &record.body {
            Body::Closed(closed) => Some(closed.bytes),
            _ => None,
        })
        .collect();
    let [end] = ends[..] else {
        panic!("{} connections ended", ends.len());
    };
    end
}

/// Whether the only flow was found to be SSH, and which way it went.
fn ssh_direction(recording: &Recording) -> event::Direction {
    let mut found = recording
        .events
        .iter()
        .filter_map(|event| match &event.body {
            event::Body::Flow(flow) if flow.state == FlowState::Identified => Some(flow),
            _ => None,
        });
    let flow = found.next().expect("its protocol was found");
    assert_eq!(flow.protocol, Some("ssh"));
    assert!(found.next().is_none());
    flow.direction
}

#[test]
fn of_super_segments_both_ways_also_over_a_mapped_address() {
    for (name, host) in [
        ("super", SERVER.to_owned()),
        ("super6", format!("::ffff:{SERVER}")),
    ] {
        let client = format!(
            "
import socket
s = socket.create_connection(('{host}', 7301), 10)
s.sendall(pattern(300_000))
left = 200_000
while left:
    left -= len(s.recv(left))
s.close()
"
        );
        let service = [SERVER, "7301", "300000", "200000"];
        let recording = record(name, NO_PREPARATION, |_, _| (), &service, &client);
        for (way, len) in [(Way::Out, 300_000), (Way::In, 200_000)] {
            let heads = recording.heads(7301, way);
            assert_head(&recording, 7301, way, len);
            let longest = heads.iter().map(|head| head.segment_left).max();
            assert!(longest > Some(1500), "no super-segment {way:?}");
            assert!(heads.iter().all(|it| it.remote.ip.to_string() == SERVER));
        }
        assert_eq!(counted(&recording), [300_000, 200_000]);
    }
}

#[test]
fn of_a_file_s_pages_that_are_sent_without_a_copy() {
    let client = format!(
        "
import os, socket, tempfile
s = socket.create_connection(('{SERVER}', 7302), 10)
with tempfile.TemporaryFile() as file:
    file.write(pattern(100_000))
    file.flush()
    sent = 0
    while sent < 100_000:
        sent += os.sendfile(s.fileno(), file.fileno(), sent, 100_000 - sent)
s.recv(1)
s.close()
"
    );
    let service = [SERVER, "7302", "100000", "1"];
    let recording = record("sendfile", NO_PREPARATION, |_, _| (), &service, &client);
    assert_head(&recording, 7302, Way::Out, 100_000);
    assert_eq!(counted(&recording), [100_000, 1]);
}

#[test]
fn behind_extension_headers_of_ipv6() {
    // Hop-by-hop options (54) and destination options (59), each 8 bytes of
    // padding: next header, length, PadN of 4 (RFC 8200, 4.2).
    let prepare = "
import socket
def prepare(s):
    for option in (54, 59):
        s.setsockopt(socket.IPPROTO_IPV6, option, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
";
    let client = "
s = socket.socket(socket.AF_INET6)
prepare(s)
s.connect(('2001:db8::1', 7303))
s.sendall(pattern(20_000))
left = 10_000
while left:
    left -= len(s.recv(left))
s.close()
";
    let set_up = |world: &World, agent: &Agent| {
        for (netns, address, device) in [
            (world.net(), "2001:db8::1/64", "br0"),
            (agent.netns(), "2001:db8::2/64", "eth0"),
        ] {
            netns
                .ip(&["addr", "add", address, "dev", device, "nodad"])
                .unwrap();
        }
    };
    let service = ["2001:db8::1", "7303", "20000", "10000"];
    let recording = record("extensions", prepare, set_up, &service, client);
    assert_head(&recording, 7303, Way::Out, 20_000);
    assert_head(&recording, 7303, Way::In, 10_000);
    assert_eq!(counted(&recording), [20_000, 10_000]);
}

#[test]
fn of_datagrams_in_fragments() {
    const LEN: usize = 6_000;
    for (name, host, own) in [
        ("fragments", SERVER, None),
        ("fragments6", "2001:db8::1", Some("2001:db8::2/64")),
    ] {
        let world = World::new(name).unwrap();
        let agent = Agent::cgroup(&world, "agent").unwrap();
        if let Some(own) = own {
            let at = ["addr", "add", "2001:db8::1/64", "dev", "br0", "nodad"];
            world.net().ip(&at).unwrap();
            let at = ["addr", "add", own, "dev", "eth0", "nodad"];
            agent.netns().ip(&at).unwrap();
        }
        let recorder = Recorder::of(&agent).unwrap();
        let socket = world
            .net()
            .run(|| Ok(UdpSocket::bind((host, 7304))?))
            .unwrap();
        let server = std::thread::spawn(move || {
            socket.set_read_timeout(Some(SOON)).unwrap();
            let mut datagram = vec![0; LEN];
            let (len, from) = socket.recv_from(&mut datagram).unwrap();
            assert_eq!(len, LEN);
            socket.send_to(&datagram, from).unwrap();
        });
        let client = format!(
            "{PATTERN}
import socket
s = socket.socket(socket.AF_INET6 if ':' in '{host}' else socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('{host}', 7304))
s.send(pattern({LEN}))
assert s.recv(65536) == pattern({LEN})
"
        );
        agent.run(&["python3", "-c", &client]).unwrap();
        server.join().unwrap();
        let fragments = fragments_of(agent.netns()) + fragments_of(world.net());
        assert!(fragments >= 8, "{fragments} fragments: it was whole");
        let recording = recorder.finish().unwrap();
        for way in [Way::Out, Way::In] {
            assert!(
                recording.datagram(7304, way).unwrap() == pattern(LEN),
                "{way:?}"
            );
        }
    }
}

#[test]
fn of_tcp_segments_in_fragments() {
    const HOST: &str = "192.0.2.10";
    let world = World::new("tcp-fragments").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    // A host behind the internet, which has a narrow way to the agent: what comes
    // from there and may be fragmented is.
    let far = Netns::create(&format!("{}-far", world.net().name())).unwrap();
    let pair = ["link", "add", "far", "type", "veth", "peer", "name", "eth0"];
    let pair = [&pair[..], &["netns", far.name()]].concat();
    let here = [
        &pair[..],
        &["addr", "add", "192.0.2.9/30", "dev", "far"],
        &["link", "set", "far", "up"],
        &["link", "set", "br0", "mtu", "600"],
    ];
    let there = [
        &["addr", "add", "192.0.2.10/30", "dev", "eth0"][..],
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", "192.0.2.9"],
    ];
    here.iter()
        .for_each(|args| drop(world.net().ip(args).unwrap()));
    there.iter().for_each(|args| drop(far.ip(args).unwrap()));
    let forward = || Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?);
    world.net().run(forward).unwrap();

    let recorder = Recorder::of(&agent).unwrap();
    // IP_MTU_DISCOVER = IP_PMTUDISC_DONT.
    let prepare = "
def prepare(s):
    s.setsockopt(socket.IPPROTO_IP, 10, 0)
";
    let script = [PATTERN, prepare, SERVICE].concat();
    let argv = ["ip", "netns", "exec", far.name(), "/usr/bin/python3", "-c"];
    let argv = [&argv[..], &[&script, HOST, "7305", "3000", "20000"]].concat();
    let mut server = world.spawn(&argv).unwrap();
    far.wait_for_listener(7305).unwrap();
    let client = format!(
        "{PATTERN}
import socket
s = socket.create_connection(('{HOST}', 7305), 10)
s.sendall(pattern(3_000))
left = 20_000
while left:
    left -= len(s.recv(left))
s.close()
"
    );
    agent.run(&["python3", "-c", &client]).unwrap();
    server.finish(SOON).unwrap();
    let fragments = fragments_of(world.net());
    assert!(fragments >= 26, "{fragments} fragments: it was whole");
    let recording = recorder.finish().unwrap();
    assert_head(&recording, 7305, Way::Out, 3_000);
    assert_head(&recording, 7305, Way::In, 20_000);
    assert_eq!(counted(&recording), [3_000, 20_000]);
}

/// Fragments that a namespace has made, of both versions of IP (proc_pid_net(5)).
fn fragments_of(netns: &Netns) -> u64 {
    let read = || {
        let four = fs::read_to_string("/proc/thread-self/net/snmp")?;
        Ok((four, fs::read_to_string("/proc/thread-self/net/snmp6")?))
    };
    let (four, six) = netns.run(read).unwrap();
    let mut lines = four.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|it| it == "FragCreates").unwrap();
    let four: u64 = values.split(' ').nth(place).unwrap().parse().unwrap();
    let six = six.lines().find_map(|it| it.strip_prefix("Ip6FragCreates"));
    four + six.unwrap().trim().parse::<u64>().unwrap()
}

const BANNER: &str = "SSH-2.0-InTheFirstSegment\\r\\n";

/// Data in the SYN, of clients and to every listener, without cookies (bits of
/// net.ipv4.tcp_fastopen, Documentation/networking/ip-sysctl.rst).
fn with_fast_open(world: &World, agent: &Agent) {
    for netns in [world.net(), agent.netns()] {
        netns
            .run(|| Ok(fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543")?))
            .unwrap();
    }
}

/// Sends [`BANNER`] with the SYN (MSG_FASTOPEN) and makes sure that it was taken
/// (TCPI_OPT_SYN_DATA of struct tcp_info).
fn fast_client(host: &str, port: u16) -> String {
    format!(
        "
import socket
s = socket.socket()
s.settimeout(10)
s.sendto(b'{BANNER}', 0x20000000, ('{host}', {port}))
s.sendall(b'more')
assert s.recv(2) == pattern(2)
assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)[5] & 32, 'the SYN carried no data'
s.close()
"
    )
}

#[test]
fn that_came_with_the_syn_to_a_server() {
    let sent = BANNER.replace("\\r\\n", "\r\n") + "more";
    let client = fast_client(SERVER, 7305);
    let service = [SERVER, "7305", &sent.len().to_string(), "2"];
    let recording = record("fast", NO_PREPARATION, with_fast_open, &service, &client);
    assert_eq!(recording.head(7305, Way::Out).unwrap(), sent.as_bytes());
    assert_eq!(recording.head(7305, Way::In).unwrap(), pattern(2));
    assert_eq!(counted(&recording), [sent.len() as u64, 2]);
    assert_eq!(ssh_direction(&recording), event::Direction::Outbound);
}

#[test]
fn that_came_with_the_syn_to_an_agent() {
    let sent = BANNER.replace("\\r\\n", "\r\n") + "more";
    let world = World::new("fast_in").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    with_fast_open(&world, &agent);
    let recorder = Recorder::of(&agent).unwrap();
    let script = [PATTERN, NO_PREPARATION, SERVICE].concat();
    let (host, len) = ("0.0.0.0", sent.len().to_string());
    let argv = ["python3", "-c", &script, host, "7306", &len, "2"];
    let mut service = agent.spawn(&argv).unwrap();
    agent.netns().wait_for_listener(7306).unwrap();
    let client = [PATTERN, &fast_client(agent.address(), 7306)].concat();
    let mut client = world.spawn(&["/usr/bin/python3", "-c", &client]).unwrap();
    client.finish(SOON).unwrap();
    service.finish(SOON).unwrap();
    let recording = recorder.finish().unwrap();
    assert_eq!(recording.head(7306, Way::In).unwrap(), sent.as_bytes());
    let heads = recording.heads(7306, Way::In);
    assert_ne!(
        heads[0].flags & HEAD_OF_LISTENER,
        0,
        "it came to the listener"
    );
    assert_eq!(recording.head(7306, Way::Out).unwrap(), pattern(2));
    assert_eq!(counted(&recording), [2, sent.len() as u64]);
    assert_eq!(ssh_direction(&recording), event::Direction::Inbound);
}

#[test]
fn of_a_connection_that_nobody_has_accepted() {
    let world = World::new("backlog").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let recorder = Recorder::of(&agent).unwrap();
    let script = "
import signal, socket
listener = socket.create_server(('0.0.0.0', 7307))
signal.pause()
";
    let mut service = agent.spawn(&["python3", "-c", script]).unwrap();
    agent.netns().wait_for_listener(7307).unwrap();
    let client = format!(
        "
import fcntl, socket, struct, time
s = socket.create_connection(('{}', 7307), 10)
s.sendall(b'{BANNER}')
for _ in range(1000):
    # SIOCOUTQ: what was not acknowledged yet
    if not struct.unpack('i', fcntl.ioctl(s, 0x5411, bytes(4)))[0]:
        break
    time.sleep(0.005)
s.close()
",
        agent.address()
    );
    let mut client = world.spawn(&["/usr/bin/python3", "-c", &client]).unwrap();
    client.finish(SOON).unwrap();
    service.stop().unwrap();
    let recording = recorder.finish().unwrap();
    let sent = BANNER.replace("\\r\\n", "\r\n");
    assert_eq!(recording.head(7307, Way::In).unwrap(), sent.as_bytes());
    assert_eq!(counted(&recording), [0, sent.len() as u64]);
    assert_eq!(ssh_direction(&recording), event::Direction::Inbound);
}
