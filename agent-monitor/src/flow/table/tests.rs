use agent_monitor_common::event::{FlowId, HEAD_OF_LISTENER};
use agent_monitor_common::policy::FLOW_SEGMENTS;
use bytes::Bytes;

use super::*;
use crate::decode::{Closed, ProcessKey};

const SECOND: u64 = 1_000_000_000;

fn id(cookie: u64) -> FlowId {
    FlowId {
        cookie,
        generation: 0,
    }
}

fn address(ip: [u8; 4], port: u16) -> Address {
    Address {
        ip: ip.into(),
        port,
    }
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];
const OUTSIDE: [u8; 4] = [203, 0, 113, 1];

fn record(time: u64, agent: u64, body: Body) -> Record {
    Record {
        time,
        agent,
        cgroup: agent,
        process: ProcessKey { pid: 7, start: 7 },
        body,
    }
}

fn connect(flow: u64, protocol: u32) -> Body {
    Body::Connect(Connect {
        flow: id(flow),
        remote: address(OUTSIDE, 443),
        protocol,
        last_rx: None,
    })
}

fn established(flow: u64, local: Address, remote: Address, outbound: bool) -> Body {
    Body::Established {
        flow: id(flow),
        local,
        remote,
        outbound,
    }
}

fn opened(flow: u64) -> Body {
    established(flow, address(LOCAL, 9), address(OUTSIDE, 443), true)
}

fn head(flow: u64, way: Way, offset: u32, data: &'static [u8]) -> Head {
    Head {
        flow: id(flow),
        local: address(LOCAL, 80),
        remote: address(LOCAL, 9),
        way,
        protocol: 6,
        offset,
        segment_left: u32::try_from(data.len()).expect("a short text"),
        flags: 0,
        data: Bytes::from_static(data),
    }
}

fn burst(flow: u64) -> Body {
    Body::Burst(Burst {
        flow: id(flow),
        way: Way::Out,
        first: 0,
        last: 0,
        bytes: 10,
        offset: 0,
        packets: 1,
        data: Bytes::new(),
    })
}

fn closed(flow: u64) -> Body {
    Body::Closed(Closed {
        flow: id(flow),
        local: address(LOCAL, 9),
        remote: address(OUTSIDE, 443),
        bytes: [20, 0],
        packets: [2, 0],
        unfinished: false,
        result: Outcome::Established,
        retransmits: Some(0),
        rtt_us: Some(100),
    })
}

/// What a record changed, in short.
fn apply(table: &mut Table, record: &Record) -> Vec<(u64, String)> {
    let mut changes = Vec::new();
    table.apply(record, |flow, change| {
        let name = format!("{change:?}");
        let end = name.find(['(', ' ']).unwrap_or(name.len());
        changes.push((flow.id.cookie, name[..end].to_owned()));
    });
    changes
}

fn change(flow: u64, name: &str) -> (u64, String) {
    (flow, name.to_owned())
}

#[test]
fn a_burst_told_of_after_the_end_belongs_to_the_closed_flow() {
    let mut table = Table::default();
    apply(&mut table, &record(1, 1, opened(1)));
    apply(&mut table, &record(2, 1, closed(1)));
    assert!(table.is_empty());
    assert_eq!(
        apply(&mut table, &record(2, 1, burst(1))),
        [change(1, "Burst")]
    );
    assert!(table.is_empty());
    let flow = table.get(id(1)).expect("still known");
    assert_eq!(
        (flow.bytes, flow.closed),
        ([20, 0], Some(2)),
        "the end's sums stay"
    );
}

#[test]
fn a_connection_from_before_the_watch_ends_with_its_socket() {
    let mut table = Table::default();
    let found = Body::Found {
        flow: id(1),
        local: address(LOCAL, 9),
        remote: address(OUTSIDE, 443),
        protocol: 6,
        outbound: true,
    };
    apply(&mut table, &record(1, 1, found));
    let released = |cookie| record(2, 1, Body::Released { flow: id(cookie) });
    assert_eq!(apply(&mut table, &released(1)), [change(1, "Closed")]);
    assert_eq!(apply(&mut table, &released(1)), []);
    assert_eq!(apply(&mut table, &released(2)), []);
    assert!(table.is_empty());
}

#[test]
fn what_is_told_late_makes_no_flow_of_a_closed_one() {
    let mut table = Table::default();
    apply(&mut table, &record(1, 1, opened(1)));
    apply(&mut table, &record(2, 1, closed(1)));
    let late = [
        Body::Segment {
            flow: id(1),
            way: Way::Out,
            offset: 0,
            bytes: 5,
        },
        Body::Head(head(1, Way::Out, 0, b"SSH-2.0-x\r\n")),
        closed(1),
    ];
    for body in late {
        assert_eq!(apply(&mut table, &record(3, 1, body)), []);
    }
    assert!(table.is_empty());
}

#[test]
fn a_burst_may_be_the_first_that_is_told_of_a_flow() {
    let mut table = Table::default();
    assert_eq!(
        apply(&mut table, &record(1, 1, burst(5))),
        [change(5, "Burst")]
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn closed_flows_are_kept_in_a_bounded_number() {
    let mut table = Table::default();
    for flow in 0..3 * MAX_CLOSED as u64 {
        apply(&mut table, &record(flow, 1, opened(flow)));
        apply(&mut table, &record(flow, 1, closed(flow)));
    }
    assert_eq!(
        (table.len(), table.flows.len(), table.ends.len()),
        (0, MAX_CLOSED, 0)
    );
    assert_eq!(table.evicted, 0);
}

#[test]
fn a_flood_of_one_agent_evicts_its_own_flows_and_detectors_hear_of_each() {
    let mut table = Table::default();
    for flow in 0..10 {
        apply(&mut table, &record(0, 1, opened(flow)));
    }
    let mut evicted = Vec::new();
    for flow in 10..10 + MAX_FLOWS as u64 {
        evicted.extend(apply(&mut table, &record(flow, 2, opened(flow))));
    }
    evicted.retain(|(_, name)| name == "Evicted");
    assert_eq!(evicted.len(), EVICT);
    assert_eq!(evicted[0], change(10, "Evicted"), "the quietest go");
    assert_eq!(table.evicted, EVICT as u64);
    assert_eq!(
        table.evictions().collect::<Vec<_>>(),
        [(2, EVICT as u64)],
        "the other agent lost none"
    );
    assert!((0..10).all(|flow| table.get(id(flow)).is_some()));
    assert_eq!(table.len(), MAX_FLOWS + 10 - EVICT);
}

#[test]
fn many_small_agents_lose_alike() {
    let mut table = Table::default();
    for flow in 0..=MAX_FLOWS as u64 {
        apply(&mut table, &record(flow, flow % 64, opened(flow)));
    }
    let evictions: Vec<_> = table.evictions().collect();
    assert_eq!(evictions.len(), 64);
    let each = (EVICT / 64) as u64;
    assert!(evictions.iter().all(|(_, flows)| *flows == each));
}

#[test]
fn unfinished_messages_of_all_flows_are_bounded_and_the_oldest_go_first() {
    let mut table = Table::default();
    // A hello of which the last byte does not come, in pieces of a segment each.
    let mut hello = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xf0\x03\x03".to_vec();
    hello.resize(6000, 0x55);
    let flows = MAX_HELD as u64 / 6000 * 2;
    let hello = Bytes::from(hello);
    for flow in 1..=flows {
        let head = Head {
            segment_left: 6000,
            data: hello.clone(),
            ..head(flow, Way::Out, 0, b"")
        };
        apply(&mut table, &record(0, 1, opened(flow)));
        apply(&mut table, &record(0, 1, Body::Head(head)));
    }
    let held = |it: &Followed| it.held();
    let all: usize = table.flows.values().map(|it| held(it)).sum();
    assert!(all <= MAX_HELD, "{all}");
    assert_eq!(all, table.held);
    assert_eq!(table.flows.get(&id(1)).map(|it| held(it)), Some(0));
    assert!(table.evicted >= flows / 2, "what is let go is counted");
}

#[test]
fn quiet_attempts_are_forgotten_without_being_counted() {
    let mut table = Table::default();
    apply(&mut table, &record(0, 1, connect(2, 6)));
    apply(&mut table, &record(0, 1, opened(3)));
    apply(&mut table, &record(0, 1, burst(4)));
    let after = |table: &mut Table, seconds: u64| {
        let mut changes = apply(table, &record(seconds * SECOND, 1, burst(9)));
        changes.retain(|(_, name)| name == "Evicted");
        changes
    };
    assert_eq!(
        after(&mut table, 140),
        [],
        "a SYN may still be answered after two minutes"
    );
    assert_eq!(after(&mut table, 160), [change(2, "Evicted")]);
    assert_eq!(after(&mut table, 100_000), [], "TCP may be quiet for long");
    assert_eq!((table.evicted, table.len()), (0, 3));
}

#[test]
fn segment_sizes_are_asked_for_while_needed_and_then_no_longer() {
    let mut table = Table::default();
    apply(&mut table, &record(0, 1, opened(1)));
    let banner = |way| Body::Head(head(1, way, 0, b"SSH-2.0-x\r\n"));
    apply(&mut table, &record(1, 1, banner(Way::Out)));
    apply(&mut table, &record(1, 1, banner(Way::In)));
    let flags = |table: &mut Table| -> Vec<Option<u32>> {
        let wishes = std::mem::take(&mut table.steering);
        wishes
            .iter()
            .map(|wish| wish.control.map(|control| control.flags))
            .collect()
    };
    assert_eq!(flags(&mut table), [Some(FLOW_SEGMENTS)]);
    // The key exchange in clear is not captured: its sizes lead nowhere.
    for offset in [11, 1511] {
        let segment = Body::Segment {
            flow: id(1),
            way: Way::Out,
            offset,
            bytes: 1500,
        };
        apply(&mut table, &record(2, 1, segment));
    }
    assert_eq!(flags(&mut table), [Some(0)], "once");
    apply(&mut table, &record(3, 1, closed(1)));
    assert_eq!(flags(&mut table), [None]);
}

#[test]
fn the_ends_of_a_loopback_pair_name_each_other_within_one_agent_only() {
    let mut table = Table::default();
    let (client, server) = (address(LOCAL, 9), address(LOCAL, 80));
    apply(
        &mut table,
        &record(0, 1, established(1, client, server, true)),
    );
    apply(
        &mut table,
        &record(0, 2, established(2, server, client, false)),
    );
    assert_eq!(table.get(id(2)).and_then(|flow| flow.peer), None);
    apply(
        &mut table,
        &record(0, 1, established(3, server, client, false)),
    );
    assert_eq!(table.get(id(3)).and_then(|flow| flow.peer), Some(id(1)));
    assert_eq!(table.get(id(1)).and_then(|flow| flow.peer), Some(id(3)));
}

#[test]
fn data_of_the_handshake_is_the_begin_of_the_accepted_flow() {
    let mut table = Table::default();
    for (offset, data) in [(4, &b"2.0-x\r\n"[..]), (0, b"SSH-")] {
        let mut chunk = head(50, Way::In, offset, data);
        chunk.flags = HEAD_OF_LISTENER;
        assert_eq!(apply(&mut table, &record(0, 1, Body::Head(chunk))), []);
    }
    let accepted = established(1, address(LOCAL, 80), address(LOCAL, 9), false);
    let changes = apply(&mut table, &record(1, 1, accepted));
    assert_eq!(
        changes,
        [
            change(1, "Opened"),
            change(1, "Identified"),
            change(1, "Fact")
        ]
    );
    assert_eq!(table.len(), 1, "the listener is no flow");
}

#[test]
fn what_agents_move_is_counted_once_with_flows_that_have_ended() {
    let mut table = Table::default();
    let bytes = |way, offset, bytes| {
        Body::Burst(Burst {
            flow: id(1),
            way,
            first: 0,
            last: 0,
            bytes,
            offset,
            packets: 1,
            data: Bytes::new(),
        })
    };
    for body in [
        opened(1),
        bytes(Way::Out, 0, 10),
        bytes(Way::In, 0, 3),
        // Between the two one was lost: the place tells.
        bytes(Way::Out, 15, 2),
    ] {
        apply(&mut table, &record(0, 7, body));
    }
    assert_eq!(table.traffic.of(7), [17, 3]);
    apply(&mut table, &record(1, 7, closed(1)));
    assert_eq!(table.traffic.of(7), [20, 3]);
    // The last burst, told of after the end.
    apply(&mut table, &record(2, 7, bytes(Way::Out, 17, 3)));
    assert_eq!(table.traffic.of(7), [20, 3]);
    assert_eq!(table.traffic.of(8), [0, 0]);
    table.traffic.forget(7);
    assert_eq!(table.traffic.of(7), [0, 0]);
}

#[test]
fn what_a_flow_had_moved_before_it_was_seen_is_no_traffic_of_now() {
    let mut table = Table::default();
    let bytes = |offset| {
        Body::Burst(Burst {
            flow: id(1),
            way: Way::Out,
            first: 0,
            last: 0,
            bytes: 10,
            offset,
            packets: 1,
            data: Bytes::new(),
        })
    };
    apply(&mut table, &record(0, 7, bytes(1_000_000)));
    assert_eq!(table.traffic.of(7), [0, 0]);
    apply(&mut table, &record(0, 7, bytes(1_000_010)));
    assert_eq!(table.traffic.of(7), [10, 0]);
}

#[test]
fn the_flows_of_which_something_was_told_last_are_given_where_all_are_too_many() {
    let mut table = Table::default();
    for flow in 1..=5 {
        apply(&mut table, &record(flow, 7, opened(flow)));
    }
    apply(&mut table, &record(6, 7, burst(2)));
    apply(&mut table, &record(6, 8, opened(9)));
    apply(&mut table, &record(7, 7, closed(5)));
    let ids = |most| {
        let mut ids: Vec<u64> = table.open_of(7, most).map(|flow| flow.id.cookie).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(usize::MAX), [1, 2, 3, 4]);
    assert_eq!(ids(2), [2, 4]);
    assert_eq!(ids(0), [0; 0]);
    assert_eq!(table.open(), HashMap::from_iter([(7, 4), (8, 1)]));
}
