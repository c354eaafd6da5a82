//! What the parsers are fed, and what the kernel is asked for, seen through the table.

use agent_monitor_common::limits::CHUNK_LARGE;

use super::super::Table;
use super::*;
use crate::decode::{Body, Closed, Head, ProcessKey};
use crate::event::{Address, Outcome};
use crate::protocol::captured::session;

const FLOW: FlowId = FlowId {
    cookie: 1,
    generation: 0,
};
const SUBSCRIBE: &[u8] = b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n";
const NOTIFY: &[u8] = b"{\"id\":null,\"method\":\"mining.notify\",\"params\":[]}\n";
const MS: u64 = 1_000_000;
/// Bytes of a segment on Ethernet.
const MSS: usize = 1448;

/// A flow of an agent that connected, and what became of it.
#[derive(Default)]
struct Rig {
    table: Table,
    now: u64,
    changes: Vec<String>,
    sent: [u32; 2],
    /// What the kernel was told of the flow.
    control: Option<FlowControl>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self::default();
        rig.take(Body::Established {
            flow: FLOW,
            local: address(9),
            remote: address(443),
            outbound: true,
        });
        rig
    }

    fn take(&mut self, body: Body) {
        let record = Record {
            time: self.now,
            agent: 1,
            cgroup: 1,
            process: ProcessKey { pid: 7, start: 7 },
            body,
        };
        let changes = &mut self.changes;
        self.table.apply(&record, |_, change| {
            changes.push(match change {
                Change::Fact(fact) => fact.in_words().unwrap_or_default(),
                other => format!("{other:?}"),
            });
        });
    }

    /// Bytes of a head, at any place.
    fn at(&mut self, way: Way, offset: u32, data: &[u8]) {
        self.take(Body::Head(Head {
            flow: FLOW,
            local: address(9),
            remote: address(443),
            way,
            protocol: 6,
            offset,
            segment_left: data.len() as u32,
            flags: 0,
            data: Bytes::copy_from_slice(data),
        }));
    }

    /// The next bytes of a head.
    fn say(&mut self, way: Way, data: &[u8]) {
        self.at(way, self.sent[index(way)], data);
        self.sent[index(way)] += data.len() as u32;
    }

    /// A burst that was not captured, but for its first bytes.
    fn burst(&mut self, way: Way, data: &[u8]) {
        let offset = self.sent[index(way)];
        self.take(Body::Burst(Burst {
            flow: FLOW,
            way,
            first: self.now,
            last: self.now,
            bytes: data.len() as u64,
            offset: u64::from(offset),
            packets: 1,
            data: Bytes::copy_from_slice(&data[..data.len().min(64)]),
        }));
        self.sent[index(way)] += data.len() as u32;
    }

    /// What one side sent at once, as the kernel cuts and captures it: as many bytes
    /// as it was told to, and beyond them sizes if they are asked for.
    fn send(&mut self, way: Way, data: &[u8]) {
        for segment in data.chunks(MSS) {
            for wish in std::mem::take(&mut self.table.steering) {
                self.control = wish.control.or(self.control);
            }
            let control = self.control.unwrap_or(FlowControl {
                head_cap: HEAD_CAP,
                flags: 0,
            });
            let (offset, bytes) = (self.sent[index(way)], segment.len() as u32);
            let room = control.head_cap.saturating_sub(offset).min(bytes) as usize;
            if room > 0 {
                self.take(Body::Head(Head {
                    flow: FLOW,
                    local: address(9),
                    remote: address(443),
                    way,
                    protocol: 6,
                    offset,
                    segment_left: bytes,
                    flags: 0,
                    data: Bytes::copy_from_slice(&segment[..room]),
                }));
            } else if control.flags & FLOW_SEGMENTS != 0 {
                self.take(Body::Segment {
                    flow: FLOW,
                    way,
                    offset,
                    bytes,
                });
            }
            self.sent[index(way)] += bytes;
        }
    }

    fn cap(&mut self) -> Option<u32> {
        let wishes = std::mem::take(&mut self.table.steering);
        wishes.last()?.control.map(|control| control.head_cap)
    }

    fn protocol(&self) -> Option<&'static str> {
        self.table.get(FLOW).and_then(|flow| flow.protocol)
    }

    fn has(&self, words: &str) -> bool {
        self.changes.iter().any(|change| change.contains(words))
    }
}

fn address(port: u16) -> Address {
    Address {
        ip: [203, 0, 113, 1].into(),
        port,
    }
}

#[test]
fn a_reverse_tunnel_behind_a_proxy_is_told_with_what_the_kernel_sends() {
    for name in ["carried/ssh-connect", "carried/ssh-websocket"] {
        let mut rig = Rig::new();
        for (side, bytes) in session(name) {
            let way = match side {
                Side::Initiator => Way::Out,
                Side::Responder => Way::In,
            };
            rig.now += MS;
            rig.send(way, &bytes);
        }
        assert_eq!(rig.protocol(), Some("ssh"), "{name}");
        assert!(rig.has("asked for a reverse forward"), "{name}");
        assert!(rig.has("came in through the forward"), "{name}");
        let fingerprints = rig.table.get(FLOW).map(|flow| flow.fingerprints.clone());
        let hassh = fingerprints.and_then(|it| it.hassh);
        let default = "472b5de333ad665af5cbf10ff892c4df";
        assert_eq!(hassh.as_deref(), Some(default), "{name}");
    }
}

#[test]
fn a_flow_that_no_parser_knows_falls_to_bursts() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.say(Way::Out, &[0x80; CHUNK_LARGE]);
        rig.say(Way::In, &[0x80; CHUNK_LARGE]);
    }
    assert_eq!(rig.cap(), Some(0));
}

#[test]
fn more_is_asked_for_while_a_parser_needs_more_and_never_without_end() {
    let mut rig = Rig::new();
    let line = [
        &b"{\"jsonrpc\":\"2.0\",\"x\":\""[..],
        &[b'x'; 1500],
        b"\"}\n",
    ]
    .concat();
    let mut most = 0;
    for _ in 0..60 {
        rig.say(Way::Out, &line);
        rig.now += MS;
        most = most.max(rig.cap().unwrap_or(0));
    }
    assert_eq!(most, PARSED_MAX);
    assert_eq!(rig.table.get(FLOW).and_then(|flow| flow.protocol), None);
    rig.say(Way::Out, &line);
    assert_eq!(rig.cap(), None, "told once");
}

#[test]
fn a_pool_that_has_proved_itself_lowers_the_cap() {
    let mut rig = Rig::new();
    rig.say(Way::Out, SUBSCRIBE);
    assert_eq!(rig.cap(), None);
    rig.say(Way::In, NOTIFY);
    assert_eq!((rig.cap(), rig.protocol()), (Some(0), Some("stratum")));
}

#[test]
fn a_session_after_a_long_other_one_is_found_by_its_bursts() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.say(Way::Out, &[0x80; CHUNK_LARGE]);
        rig.say(Way::In, &[0x80; CHUNK_LARGE]);
    }
    assert_eq!(rig.cap(), Some(0));
    rig.now += 100 * MS;
    rig.burst(Way::Out, SUBSCRIBE);
    assert!(rig.cap().is_some_and(|cap| cap > rig.sent[0]));
    assert_eq!(rig.protocol(), None, "one side alone may be a document");
    rig.say(Way::In, NOTIFY);
    assert_eq!(rig.protocol(), Some("stratum"), "{:?}", rig.changes);
    assert_eq!(rig.cap(), Some(0));
}

#[test]
fn bursts_of_which_only_the_first_bytes_came_are_enough_for_their_methods() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.say(Way::Out, &[0x80; CHUNK_LARGE]);
        rig.say(Way::In, &[0x80; CHUNK_LARGE]);
    }
    let submit = [
        &b"{\"method\":\"mining.submit\",\"params\":[\""[..],
        &[b'7'; 200],
        b"\"]}\n",
    ]
    .concat();
    let notify = [
        &b"{\"method\":\"mining.notify\",\"params\":[\""[..],
        &[b'7'; 200],
        b"\"]}\n",
    ]
    .concat();
    rig.burst(Way::Out, &submit);
    rig.burst(Way::In, &notify);
    assert_eq!(rig.protocol(), Some("stratum"), "{:?}", rig.changes);
}

#[test]
fn new_beginnings_are_looked_into_a_few_times_at_once_and_then_at_intervals() {
    let mut rig = Rig::new();
    for _ in 0..5 {
        rig.say(Way::Out, &[0x80; CHUNK_LARGE]);
        rig.say(Way::In, &[0x80; CHUNK_LARGE]);
    }
    let mut raised = 0;
    for _ in 0..100 {
        rig.now += 30 * MS;
        rig.cap();
        // It is given up after more of the kind that is no beginning.
        rig.burst(Way::Out, b"{\"jsonrpc\"");
        raised += u32::from(rig.cap().is_some_and(|cap| cap > 0));
        for _ in 0..5 {
            rig.say(Way::In, &[b'x'; CHUNK_LARGE]);
        }
    }
    assert_eq!(raised, AGAIN_AT_ONCE);
    rig.now += AGAIN_EVERY_NS;
    rig.burst(Way::Out, b"{\"jsonrpc\"");
    assert!(rig.cap().is_some_and(|cap| cap > 0));
}

#[test]
fn both_readings_of_a_stream_that_was_sent_twice_are_parsed() {
    for first in [false, true] {
        let mut rig = Rig::new();
        let dull = vec![b'.'; SUBSCRIBE.len()];
        let versions = match first {
            true => [SUBSCRIBE, &dull],
            false => [&dull, SUBSCRIBE],
        };
        rig.at(Way::Out, 0, versions[0]);
        rig.at(Way::Out, 0, versions[1]);
        rig.sent[0] = SUBSCRIBE.len() as u32;
        rig.say(Way::In, NOTIFY);
        assert!(rig.has("Ambiguous"));
        assert!(
            rig.has("mining.subscribe") && rig.has("mining.notify"),
            "{:?}",
            rig.changes
        );
        let told = rig.changes.iter().filter(|it| it.contains("mining.notify"));
        assert_eq!(told.count(), 1);
        assert!(rig.table.get(FLOW).is_some_and(|flow| flow.is_ambiguous));
    }
}

#[test]
fn both_versions_of_what_waits_are_parsed() {
    let mut rig = Rig::new();
    let dull = vec![b'.'; SUBSCRIBE.len() - 1];
    rig.at(Way::Out, 1, &dull);
    rig.at(Way::Out, 1, &SUBSCRIBE[1..]);
    rig.at(Way::Out, 0, &SUBSCRIBE[..1]);
    assert!(
        rig.has("Ambiguous") && rig.has("mining.subscribe"),
        "{:?}",
        rig.changes
    );
}

#[test]
fn what_is_sent_over_in_small_pieces_is_put_together() {
    for size in [3, 8, 20, 60] {
        let mut rig = Rig::new();
        for at in (0..SUBSCRIBE.len()).step_by(size) {
            let piece = &SUBSCRIBE[at..SUBSCRIBE.len().min(at + size + 2)];
            rig.at(Way::Out, at as u32, &vec![b'.'; piece.len()]);
            rig.at(Way::Out, at as u32, piece);
        }
        rig.take(Body::Closed(Closed {
            flow: FLOW,
            local: address(9),
            remote: address(443),
            bytes: [0; 2],
            packets: [0; 2],
            unfinished: false,
            result: Outcome::Established,
            retransmits: None,
            rtt_us: None,
        }));
        assert!(rig.has("mining.subscribe"), "{size}: {:?}", rig.changes);
    }
}

#[test]
fn every_version_of_what_waits_is_parsed() {
    let mut rig = Rig::new();
    let dull = vec![b'.'; SUBSCRIBE.len() - 1];
    let noise = vec![b','; SUBSCRIBE.len() - 1];
    for version in [&dull[..], &SUBSCRIBE[1..], &noise] {
        rig.at(Way::Out, 1, version);
    }
    rig.at(Way::Out, 0, &SUBSCRIBE[..1]);
    assert!(rig.has("mining.subscribe"), "{:?}", rig.changes);
}

#[test]
fn readings_are_bounded() {
    let mut rig = Rig::new();
    for byte in 0..100 {
        rig.at(Way::Out, 0, &[byte; 20]);
    }
    let told = rig.changes.iter().filter(|it| *it == "Ambiguous");
    assert_eq!(told.count(), 1);
}

#[test]
fn what_waits_at_the_end_is_parsed() {
    let mut rig = Rig::new();
    rig.at(Way::Out, 10, b"\n");
    rig.at(Way::Out, 11, SUBSCRIBE);
    rig.at(Way::In, 5, b"\n");
    rig.at(Way::In, 6, NOTIFY);
    assert!(!rig.has("mining"));
    rig.take(Body::Closed(Closed {
        flow: FLOW,
        local: address(9),
        remote: address(443),
        bytes: [0; 2],
        packets: [0; 2],
        unfinished: false,
        result: Outcome::Established,
        retransmits: None,
        rtt_us: None,
    }));
    assert!(
        rig.has("mining.subscribe") && rig.has("mining.notify"),
        "{:?}",
        rig.changes
    );
    assert_eq!(rig.changes.last().map(String::as_str), Some("Closed"));
}

#[test]
fn after_a_hole_lines_are_read_on() {
    let mut rig = Rig::new();
    rig.at(Way::Out, 0, &SUBSCRIBE[..20]);
    rig.at(Way::Out, 1000, b"rest of a line\n");
    rig.at(Way::Out, 1015, SUBSCRIBE);
    assert!(!rig.has("mining"));
    rig.now += 600 * MS;
    rig.at(Way::Out, 1015 + SUBSCRIBE.len() as u32, SUBSCRIBE);
    assert!(rig.has("mining.subscribe"), "{:?}", rig.changes);
}

#[test]
fn what_follows_a_hole_at_once_may_be_a_message() {
    let mut rig = Rig::new();
    rig.at(Way::Out, 0, &SUBSCRIBE[..20]);
    rig.at(Way::Out, 1000, SUBSCRIBE);
    rig.now += 600 * MS;
    rig.at(Way::Out, 1000 + SUBSCRIBE.len() as u32, b"\n");
    assert!(rig.has("mining.subscribe"), "{:?}", rig.changes);
}

#[test]
fn a_name_that_is_asked_for_through_a_proxys_proxy_is_kept_beside_the_first() {
    let mut rig = Rig::new();
    rig.say(Way::Out, b"CONNECT proxy.example:1080 HTTP/1.1\r\n\r\n");
    rig.say(Way::In, b"HTTP/1.1 200 OK\r\n\r\n");
    rig.say(Way::Out, b"\x05\x01\x00");
    rig.say(Way::In, b"\x05\x00");
    rig.say(Way::Out, b"\x05\x01\x00\x03\x0cpool.example\x0d\x05");
    let words = rig.table.get(FLOW).map(|flow| flow.in_words());
    let words = words.expect("it is followed");
    let end = ", asked for as proxy.example, and through it pool.example";
    assert!(words.ends_with(end), "{words}");
}

#[test]
fn bytes_are_wanted_after_a_proxys_handshake_until_something_is_carried() {
    for handshake in [
        &[
            (Way::Out, &b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"[..]),
            (Way::In, b"HTTP/1.1 200 OK\r\n\r\n"),
        ][..],
        &[
            (Way::Out, b"\x05\x01\x00"),
            (Way::In, b"\x05\x00"),
            (Way::Out, b"\x05\x01\x00\x03\x0cpool.example\x0d\x05"),
            (Way::In, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"),
        ],
    ] {
        let mut rig = Rig::new();
        for (way, bytes) in handshake {
            rig.say(*way, bytes);
        }
        let stopped = (rig.table.steering.iter())
            .any(|wish| wish.control.is_some_and(|control| control.head_cap == 0));
        assert!(!stopped, "{:?}", rig.table.steering);
    }
}

#[test]
fn the_name_of_the_server_is_kept_with_the_flow() {
    let mut rig = Rig::new();
    rig.say(Way::Out, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n");
    rig.say(Way::In, b"HTTP/1.1 200 OK\r\n\r\n");
    rig.say(Way::Out, b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    let name = rig
        .table
        .get(FLOW)
        .and_then(|flow| flow.server_name.clone());
    assert_eq!(name.as_deref(), Some("pool.example"));
}
