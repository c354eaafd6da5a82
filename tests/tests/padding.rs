//! Every byte of a record was written by the kernel side: nothing that lay in the ring
//! before goes up with it. Needs root.

use std::collections::BTreeMap;
use std::mem::offset_of;

use agent_monitor_common::event::*;
use agent_monitor_common::limits::{EVENTS_RING_BYTES, PAYLOAD_RING_BYTES};
use agent_monitor_tests::agent::Agent;
use agent_monitor_tests::paths::INSIDE_BIN;
use agent_monitor_tests::recorder::Recorder;
use agent_monitor_tests::world::World;
use bytes::Bytes;

/// A bit of everything that gives a record.
const WORK: &str = "
import os, socket, subprocess
subprocess.run(['true'])
os.close(os.open('/dev/kmsg', os.O_RDONLY))
with open('/proc/sys/net/ipv4/ip_default_ttl', 'w') as ttl:
    ttl.write('61')
listener = socket.socket()
listener.bind(('127.0.0.1', 7401))
listener.listen()
client = socket.create_connection(('127.0.0.1', 7401))
server, _ = listener.accept()
for turn in range(400):
    for one, other in (client, server), (server, client):
        one.sendall(b'x' * 64)
        other.recv(64)
client.close()
server.close()
with socket.socket() as refused:
    refused.connect_ex(('127.0.0.1', 7402))
one, other = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
one.bind(('127.0.0.1', 7403))
for turn in range(3):
    other.sendto(b'to', ('127.0.0.1', 7403))
    one.sendto(b'fro', one.recvfrom(9)[1])
    other.recv(9)
";

/// Where records of a kind have padding: words that mean nothing.
fn padding(kind: u32) -> Option<Vec<usize>> {
    macro_rules! of {
        ($record:ident: $($($pad:ident).+),*) => { vec![$(offset_of!($record, $($pad).+)),*] };
    }
    Some(match kind {
        kind::EXIT => of!(Exit: pad),
        kind::CONNECT | kind::SEND => of!(Connect: remote.pad, pad),
        kind::ESTABLISHED => of!(Established: local.pad, remote.pad, pad),
        kind::CLOSED => of!(Closed: local.pad, remote.pad, pad),
        kind::SOCKET => of!(Socket: pad),
        kind::BIND | kind::LISTEN => of!(Bound: local.pad, pad),
        kind::UNSTARTED => of!(Unstarted: pad),
        kind::HEAD => of!(Head: local.pad, remote.pad),
        kind::BURST => of!(Burst: spell.pad),
        kind::BURSTS => of!(Bursts: pad),
        kind::SEGMENT => of!(Segment: pad),
        kind::DEVICE => of!(Device: pad),
        kind::DATAGRAM => of!(Datagram: local.pad, remote.pad, pad),
        kind::DATAGRAM_BURST => of!(DatagramBurst: burst.spell.pad, remote.pad, pad),
        kind::UNCOVERED => of!(Uncovered: remote.pad, pad),
        kind::FORK | kind::EXEC | kind::CGROUP | kind::RELEASED | kind::SYSCTL => Vec::new(),
        _ => return None,
    })
}

/// All padding of a record.
fn padding_of(kind: u32, record: &[u8]) -> Vec<usize> {
    let mut all = padding(kind).unwrap_or_else(|| panic!("say where kind {kind} has padding"));
    if kind == kind::BURSTS {
        let spells = (size_of::<Bursts>()..record.len()).step_by(size_of::<Spell>());
        all.extend(spells.map(|spell| spell + offset_of!(Spell, pad)));
    }
    if kind == kind::SYSCTL {
        // After the name with its NUL, and after what `WORK` writes.
        let (name, value) = (offset_of!(Sysctl, name), offset_of!(Sysctl, value));
        let name = name + "net/ipv4/ip_default_ttl\0".len();
        all.extend((name..value).step_by(size_of::<u32>()));
        all.extend((value + 4..record.len()).step_by(size_of::<u32>()));
    }
    all
}

fn kind_of(record: &Bytes) -> u32 {
    u32::from_ne_bytes(record[..4].try_into().unwrap())
}

#[test]
fn what_lay_in_the_ring_before_does_not_go_up_with_a_record() {
    let world = World::new("padding").unwrap();
    let agent = Agent::cgroup(&world, "agent").unwrap();
    let recorder = Recorder::of(&agent).unwrap();
    // More than the rings hold, so that what comes then is written over it.
    let load = format!("{INSIDE_BIN}/load");
    let load = |kind: &str, count: &str, rate: &str| {
        let args = ["--to", "127.0.0.1:9", "--count", count, "--rate", rate];
        agent
            .run(&[&[load.as_str(), kind], &args[..]].concat())
            .unwrap()
    };
    // Below an agent's quotas.
    load("events", "50000", "25000");
    load("payload", "1500", "3000");
    agent.run(&["python3", "-c", WORK]).unwrap();
    let recording = recorder.finish().unwrap();

    let (mut events, mut payload) = (0, 0);
    let mut seen = BTreeMap::new();
    for record in &recording.raw {
        let kind = kind_of(record);
        let (ring, size) = match kind {
            kind::HEAD | kind::BURST | kind::BURSTS | kind::SEGMENT => {
                (&mut payload, PAYLOAD_RING_BYTES)
            }
            kind::DATAGRAM | kind::DATAGRAM_BURST => (&mut payload, PAYLOAD_RING_BYTES),
            _ => (&mut events, EVENTS_RING_BYTES),
        };
        *ring += record.len();
        if *ring < size as usize {
            continue;
        }
        *seen.entry(kind::name(kind)).or_insert(0) += 1;
        for place in padding_of(kind, record) {
            let bytes = &record[place..place + size_of::<u32>()];
            assert_eq!(
                bytes,
                [0; 4],
                "{} at {place}: {record:02x?}",
                kind::name(kind)
            );
        }
    }
    let expected = [
        "bind",
        "burst",
        "bursts",
        "closed",
        "connect",
        "datagram",
        "datagram_burst",
        "device",
        "established",
        "exec",
        "exit",
        "fork",
        "head",
        "listen",
        "released",
        "send",
        "socket",
        "sysctl",
    ];
    for kind in expected {
        assert!(
            seen.contains_key(kind),
            "no {kind} once its ring was full: {seen:?}"
        );
    }
}
