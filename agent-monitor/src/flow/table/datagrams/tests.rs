use bytes::Bytes;

use super::*;
use crate::decode::{Body, Connect, ProcessKey};
use crate::flow::table::MAX_FLOWS;
use crate::protocol::Fact;

const UDP: u32 = 17;
const ASK: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x04pool\x07example\0\0\x01\0\x01";
const TELL: &[u8] = b"\0\x07\x81\x80\0\x01\0\x01\0\0\0\0\x04pool\x07example\0\0\x01\0\x01\
                      \xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc6\x33\x64\x07";

fn id(cookie: u64, generation: u64) -> FlowId {
    FlowId { cookie, generation }
}

fn address(last: u8, port: u16) -> Address {
    Address {
        ip: [203, 0, 113, last].into(),
        port,
    }
}

fn record(time: u64, body: Body) -> Record {
    Record {
        time,
        agent: 1,
        cgroup: 1,
        process: ProcessKey { pid: 7, start: 7 },
        body,
    }
}

fn connect(flow: FlowId) -> Body {
    Body::Connect(Connect {
        flow,
        remote: address(9, 53),
        protocol: UDP,
        last_rx: None,
    })
}

fn datagram(flow: FlowId, way: Way, data: &'static [u8]) -> Datagram {
    let len = u32::try_from(data.len()).expect("a short text");
    Datagram {
        flow,
        local: address(1, 4000),
        remote: address(9, 53),
        way,
        protocol: UDP,
        offset: 0,
        len,
        captured: len,
        segment: 0,
        data: Bytes::from_static(data),
    }
}

fn burst(flow: FlowId, way: Way, packets: u32, bytes: u64) -> Body {
    let burst = Burst {
        flow,
        way,
        first: 0,
        last: 0,
        bytes,
        offset: 0,
        packets,
        data: Bytes::new(),
    };
    Body::DatagramBurst {
        burst,
        remote: address(9, 53),
        protocol: UDP,
    }
}

/// What records change: the flow's generation, and the change in short.
fn run(table: &mut Table, records: Vec<Record>) -> Vec<(u64, String)> {
    let mut changes = Vec::new();
    for record in &records {
        table.apply(record, |flow, change| {
            let change = match change {
                Change::Fact(Fact::Dns(fact)) if fact.message.is_response => "answer".into(),
                Change::Fact(Fact::Dns(_)) => "question".into(),
                Change::Closed => format!("closed {:?} {:?}", flow.packets, flow.bytes),
                other => format!("{other:?}"),
            };
            if !change.starts_with("Burst") {
                changes.push((flow.id.generation, change));
            }
        });
    }
    changes
}

fn told(changes: &[(u64, &str)]) -> Vec<(u64, String)> {
    let own = changes
        .iter()
        .map(|(id, change)| (*id, (*change).to_owned()));
    own.collect()
}

#[test]
fn a_connected_socket_is_one_flow_until_it_is_connected_anew_or_gone() {
    let mut table = Table::default();
    let records = vec![
        record(1, connect(id(5, 0))),
        record(2, connect(id(5, 1))),
        record(3, Body::Datagram(datagram(id(5, 1), Way::Out, ASK))),
        record(4, Body::Datagram(datagram(id(5, 1), Way::In, TELL))),
        record(5, burst(id(5, 1), Way::Out, 1, ASK.len() as u64)),
        record(6, burst(id(5, 1), Way::In, 3, 99)),
        record(7, Body::Released { flow: id(5, 1) }),
    ];
    let changes = run(&mut table, records);
    let expected = [
        (0, "Attempted"),
        (0, "closed [0, 0] [0, 0]"),
        (1, "Attempted"),
        (1, "Identified"),
        (1, "question"),
        (1, "answer"),
        (1, "closed [1, 3] [30, 99]"),
    ];
    assert_eq!(changes, told(&expected));
    assert!(table.is_empty() && table.sockets.is_empty() && table.datagram_ends.is_empty());
    let last = table.steering.pop().expect("wishes");
    assert_eq!(last.control, None, "the kernel can forget the flow");
    assert_eq!(table.steering.pop().expect("a wish").control, Some(WHOLE));
}

#[test]
fn each_peer_of_a_socket_is_a_flow_told_of_once() {
    let mut table = Table::default();
    let send = |time, peer: u64| {
        let Body::Connect(connect) = connect(id(5, PEER_FLOW | peer)) else {
            unreachable!("it makes a connect")
        };
        record(time, Body::Send(connect))
    };
    let records = vec![send(1, 1), send(2, 2), send(3, 1), send(4, 2)];
    let changes = run(&mut table, records);
    let expected = [(PEER_FLOW | 1, "Sent"), (PEER_FLOW | 2, "Sent")];
    assert_eq!(changes, told(&expected));
    let released = vec![record(5, Body::Released { flow: id(5, 0) })];
    assert_eq!(run(&mut table, released).len(), 2);
}

#[test]
fn what_no_call_told_of_is_told_by_its_first_datagram() {
    let mut table = Table::default();
    let peer = id(5, PEER_FLOW | 1);
    let records = vec![record(1, Body::Datagram(datagram(peer, Way::In, b"x")))];
    assert_eq!(
        run(&mut table, records),
        told(&[(peer.generation, "Opened")])
    );
    let flow = table.get(peer).expect("a flow");
    assert_eq!(flow.direction, Some(Direction::Inbound));
    assert_eq!(flow.established, None);
    run(
        &mut table,
        vec![record(2, Body::Datagram(datagram(peer, Way::Out, b"y")))],
    );
    assert_eq!(table.get(peer).and_then(|flow| flow.established), Some(2));
}

#[test]
fn a_quiet_flow_is_over_and_one_that_goes_on_is_a_new_one() {
    const MINUTE: u64 = 60_000_000_000;
    let mut table = Table::default();
    let peer = id(5, PEER_FLOW | 1);
    let sent = |time| record(time, Body::Datagram(datagram(peer, Way::Out, b"x")));
    let changes = run(
        &mut table,
        vec![sent(1), sent(4 * MINUTE), sent(12 * MINUTE)],
    );
    let expected = [
        (peer.generation, "Opened"),
        (peer.generation, "closed [2, 0] [2, 0]"),
        (peer.generation, "Opened"),
    ];
    assert_eq!(changes, told(&expected));
}

#[test]
fn a_datagram_in_parts_is_one_message() {
    let mut table = Table::default();
    let flow = id(5, PEER_FLOW | 1);
    let parts = [(0, &ASK[..10]), (10, &ASK[10..20]), (20, &ASK[20..])];
    let records = parts.map(|(offset, data)| {
        let part = Datagram {
            offset,
            captured: ASK.len() as u32,
            len: ASK.len() as u32,
            ..datagram(flow, Way::Out, data)
        };
        record(1, Body::Datagram(part))
    });
    let changes = run(&mut table, records.to_vec());
    let last: Vec<_> = changes.iter().map(|(_, change)| change.as_str()).collect();
    assert_eq!(last, ["Opened", "Identified", "question"]);
    // A part is lost: what came before it is read as far as it goes.
    let more = [0, 2, 0].map(|number| records[number].clone());
    let changes = run(&mut table, more.to_vec());
    assert_eq!(
        changes.len(),
        0,
        "too little of it came to read the question"
    );
    assert_eq!(table.get(flow).map(|flow| flow.packets), Some([3, 0]));
}

#[test]
fn datagrams_sent_at_once_are_told_apart() {
    let mut table = Table::default();
    let flow = id(5, PEER_FLOW | 1);
    let twice: &'static [u8] = [ASK, ASK].concat().leak();
    let part = Datagram {
        segment: ASK.len() as u32,
        ..datagram(flow, Way::Out, twice)
    };
    let changes = run(&mut table, vec![record(1, Body::Datagram(part))]);
    let questions = changes.iter().filter(|(_, change)| change == "question");
    assert_eq!(questions.count(), 2);
    assert_eq!(table.get(flow).map(|flow| flow.packets), Some([2, 0]));
}

#[test]
fn a_million_peers_cost_their_agent_no_stream() {
    let mut table = Table::default();
    let stream = id(1, 0);
    let mut tunnel = connect(stream);
    if let Body::Connect(connect) = &mut tunnel {
        connect.protocol = 6;
    }
    run(&mut table, vec![record(1, tunnel)]);
    for peer in 0..2 * MAX_FLOWS as u64 {
        let sent = datagram(id(2, PEER_FLOW | peer), Way::Out, b"x");
        table.apply(&record(2 + peer, Body::Datagram(sent)), |_, _| {});
    }
    assert!(table.get(stream).is_some());
    assert!(table.len() <= MAX_FLOWS);
    assert_eq!(table.evictions().collect::<Vec<_>>(), [(1, table.evicted)]);
    assert!(table.evicted > MAX_FLOWS as u64 / 2);
}

#[test]
fn both_ends_on_loopback_name_each_other_and_are_read_once() {
    let mut table = Table::default();
    let (client, server) = (id(5, 0), id(6, PEER_FLOW | 1));
    let loopback = |port| Address {
        ip: [127, 0, 0, 1].into(),
        port,
    };
    let place = |part: Datagram, local, remote| Datagram {
        local: loopback(local),
        remote: loopback(remote),
        ..part
    };
    let mut called = connect(client);
    if let Body::Connect(connect) = &mut called {
        connect.remote = loopback(53);
    }
    let asked = place(datagram(client, Way::Out, ASK), 4000, 53);
    let heard = place(datagram(server, Way::In, ASK), 53, 4000);
    let records = vec![
        record(1, called),
        record(2, Body::Datagram(asked)),
        record(3, Body::Datagram(heard)),
    ];
    let changes = run(&mut table, records);
    let questions = changes.iter().filter(|(_, change)| change == "question");
    assert_eq!(questions.count(), 1);
    assert_eq!(table.get(client).and_then(|flow| flow.peer), Some(server));
    assert_eq!(table.get(server).and_then(|flow| flow.peer), Some(client));
}
