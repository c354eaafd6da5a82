use bytes::Bytes;

use super::*;
use crate::event::Direction;

const MS: u64 = 1_000_000;

fn id(cookie: u64) -> FlowId {
    FlowId {
        cookie,
        generation: 0,
    }
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start: 1 }
}

fn address(ip: [u8; 4]) -> Address {
    Address {
        ip: ip.into(),
        port: 443,
    }
}

fn flow(cookie: u64, agent: u64, remote: [u8; 4], begun: u64) -> Flow {
    Flow {
        id: id(cookie),
        agent,
        owner: key(7),
        connector: Some(key(7)),
        cause: None,
        transport: Transport::Tcp,
        is_datagrams: false,
        direction: Some(Direction::Outbound),
        local: None,
        remote: Some(address(remote)),
        begun,
        established: Some(begun),
        is_found: false,
        protocol: None,
        server_name: None,
        leads_to: None,
        resolved_name: None,
        fingerprints: crate::flow::Fingerprints::default(),
        is_ambiguous: false,
        bytes: [0; 2],
        packets: [0; 2],
        peer: None,
        event: None,
        closed: None,
        result: None,
        retransmits: None,
        rtt_us: None,
    }
}

fn outside(cookie: u64, agent: u64) -> Flow {
    flow(cookie, agent, [203, 0, 113, 1], 0)
}

fn inside(cookie: u64, agent: u64, begun: u64) -> Flow {
    flow(cookie, agent, [127, 0, 0, 1], begun)
}

fn burst(way: Way, at: u64, bytes: u64) -> Burst {
    Burst {
        flow: FlowId::default(),
        way,
        first: at,
        last: at,
        bytes,
        offset: 0,
        packets: 1,
        data: Bytes::new(),
    }
}

fn told(relays: &mut Relays, flow: &Flow, way: Way, at: u64, bytes: u64) -> Vec<Risen> {
    relays.burst(flow, &burst(way, at, bytes), |_, _| true)
}

/// A request from outside, an inside connection for it, and its answer there.
fn request(relays: &mut Relays, outside: &Flow, inside: &Flow, at: u64) {
    told(relays, outside, Way::In, at, 540);
    relays.opened(inside, |_, _| true);
    told(relays, inside, Way::Out, at + 2 * MS, 500);
    told(relays, inside, Way::In, at + 4 * MS, 2_000);
}

#[test]
fn an_answer_told_of_after_the_inside_flow_closed_still_counts() {
    for told_at in [20 * MS, 30_000 * MS] {
        let mut relays = Relays::default();
        let outside = outside(1, 1);
        relays.opened(&outside, |_, _| true);
        let inside = inside(2, 1, 11 * MS);
        request(&mut relays, &outside, &inside, 10 * MS);
        relays.closed(&inside, 15 * MS);
        // What other agents do in the meantime lets the time pass.
        let mut other = self::outside(9, 9);
        other.begun = told_at;
        relays.opened(&other, |_, _| true);
        told(&mut relays, &other, Way::In, told_at, 1);
        let risen = told(&mut relays, &outside, Way::Out, 16 * MS, 2_040);
        assert_eq!(risen.len(), 1, "told at {told_at}");
        assert_eq!(risen[0].pair.score.exchanges(), 1);
        assert_eq!(risen[0].inside.remote, Some(address([127, 0, 0, 1])));
    }
}

/// As SSH has it: a channel is opened and confirmed before the visitor's request comes,
/// whose burst is told of only when something goes out again.
#[test]
fn a_request_whose_burst_is_told_of_late_counts_although_a_channel_was_opened_before() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    told(&mut relays, &outside, Way::In, 10 * MS, 92);
    let inside = inside(2, 1, 11 * MS);
    relays.opened(&inside, |_, _| true);
    told(&mut relays, &outside, Way::Out, 12 * MS, 44);
    told(&mut relays, &inside, Way::Out, 14 * MS, 500);
    told(&mut relays, &inside, Way::In, 15 * MS, 2_000);
    told(&mut relays, &outside, Way::In, 13 * MS, 540);
    let risen = told(&mut relays, &outside, Way::Out, 16 * MS, 2_040);
    assert_eq!(risen.len(), 1);
    assert_eq!(risen[0].pair.score.unmatched, 0);
}

/// One visitor through an SSH flow that compresses, as asyncssh does; gives the channels
/// that were told of.
fn compressed(relays: &mut Relays, outside: &Flow, n: u64) -> Vec<u32> {
    let at = n * 500 * MS;
    let inside = inside(10 + n, 1, at + 5 * MS);
    told(relays, outside, Way::In, at, 36);
    relays.opened(&inside, |_, _| true);
    told(relays, outside, Way::Out, at + 6 * MS, 80);
    told(relays, &inside, Way::Out, at + 8 * MS, 300);
    told(relays, outside, Way::In, at + 7 * MS, 60);
    told(relays, &inside, Way::In, at + 9 * MS, 3_000);
    let risen = told(relays, outside, Way::Out, at + 10 * MS, 100);
    assert!(risen.iter().all(|risen| risen.pair.score.exchanges() == 0));
    risen.iter().map(|risen| risen.channels).collect()
}

/// A program's own connection after its flow's data.
fn own(relays: &mut Relays, outside: &Flow, n: u64) {
    let at = n * 500 * MS;
    let inside = inside(10 + n, 1, at + 5 * MS);
    told(relays, outside, Way::In, at, 36);
    relays.opened(&inside, |_, _| true);
    told(relays, &inside, Way::Out, at + 6 * MS, 300);
    told(relays, &inside, Way::In, at + 9 * MS, 3_000);
    assert!(told(relays, outside, Way::Out, at + 10 * MS, 100).is_empty());
}

#[test]
fn channels_of_an_ssh_flow_count_although_no_size_matches() {
    let mut relays = Relays::default();
    let mut outside = outside(1, 1);
    outside.protocol = Some("ssh");
    relays.opened(&outside, |_, _| true);
    for n in 1..4u32 {
        assert_eq!(
            compressed(&mut relays, &outside, n.into()),
            [n],
            "visitor {n}"
        );
    }
}

#[test]
fn channels_do_not_count_among_many_connections_that_have_none() {
    let mut relays = Relays::default();
    let mut outside = outside(1, 1);
    outside.protocol = Some("ssh");
    relays.opened(&outside, |_, _| true);
    for n in 1..8 {
        own(&mut relays, &outside, n);
    }
    assert_eq!(compressed(&mut relays, &outside, 8), [0]);
    assert_eq!(compressed(&mut relays, &outside, 9), [0]);
    assert_eq!(compressed(&mut relays, &outside, 10), [3], "3 of 10");
}

#[test]
fn what_is_not_ssh_opens_no_channels() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    assert!(compressed(&mut relays, &outside, 1).is_empty());
}

/// What an agent's harness does that keeps both its connections and sends its model no
/// more than the tool's output: a reply in pieces, a call, and its result.
#[test]
fn calls_that_match_the_last_pieces_of_longer_replies_are_no_relay() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    let inside = inside(2, 1, 500 * MS);
    for call in 0..10u64 {
        let at = call * 2_000 * MS;
        for piece in 0..20 {
            let bytes = 230 + 7 * piece % 40;
            told(&mut relays, &outside, Way::In, at + piece * 30 * MS, bytes);
        }
        if call == 0 {
            relays.opened(&inside, |_, _| true);
        }
        told(&mut relays, &inside, Way::Out, at + 601 * MS, 450 + call);
        told(&mut relays, &inside, Way::In, at + 605 * MS, 9_000);
        told(&mut relays, &outside, Way::Out, at + 606 * MS, 9_100);
    }
    let pair = relays.pairs().next().expect("they are compared");
    assert!(pair.score.answers >= 5, "{:?}", pair.score);
    assert!(!pair.score.is_relay(), "{:?}", pair.score);
}

#[test]
fn a_relay_repeats_most_of_what_is_said_in_either_direction() {
    let score = |requests, unmatched_requests, answers, unmatched_answers| Score {
        requests,
        answers,
        unmatched: unmatched_requests + unmatched_answers,
        unmatched_requests,
        ..Score::default()
    };
    assert!(score(6, 0, 6, 0).is_relay() && score(6, 1, 4, 4).is_relay());
    // All answers match, since the agent passes results on, and two calls by chance.
    assert!(!score(2, 10, 12, 0).is_relay());
    assert!(!score(13, 0, 2, 5).is_relay());
    assert!(!score(0, 0, 6, 0).is_relay());
}

#[test]
fn the_last_burst_of_a_closed_outside_flow_still_counts() {
    let mut relays = Relays::default();
    let mut outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    request(&mut relays, &outside, &inside(2, 1, 11 * MS), 10 * MS);
    relays.closed(&outside, 17 * MS);
    outside.closed = Some(17 * MS);
    assert_eq!(
        told(&mut relays, &outside, Way::Out, 16 * MS, 2_040).len(),
        1
    );
}

#[test]
fn flows_that_ended_are_forgotten_once_nothing_can_match_them() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    for n in 0..50u64 {
        let at = n * 2_000 * MS;
        let inside = inside(10 + n, 1, at + MS);
        request(&mut relays, &outside, &inside, at);
        relays.closed(&inside, at + 5 * MS);
        told(&mut relays, &outside, Way::Out, at + 6 * MS, 2_040);
        assert!(relays.agents[&1].tracks.len() <= 3);
    }
    relays.closed(&outside, 100_000 * MS);
    let other = self::outside(9, 9);
    relays.opened(&other, |_, _| true);
    told(&mut relays, &other, Way::In, 100_006 * MS + ROUTE_NS, 1);
    assert_eq!((relays.agents.len(), relays.pairs().count()), (1, 0));
    relays.forget(&other);
    assert!(relays.agents.is_empty());
    assert_eq!(relays.evicted, 0);
}

#[test]
fn a_late_burst_of_a_forgotten_flow_is_not_watched() {
    let mut relays = Relays::default();
    let mut outside = outside(1, 1);
    outside.closed = Some(5);
    assert!(told(&mut relays, &outside, Way::Out, 4, 10).is_empty());
    assert!(relays.agents.is_empty());
}

#[test]
fn a_flow_that_was_open_before_is_watched_from_its_first_burst() {
    let mut relays = Relays::default();
    let mut outside = outside(1, 1);
    (outside.established, outside.connector) = (None, None);
    let inside = inside(2, 1, 11 * MS);
    request(&mut relays, &outside, &inside, 10 * MS);
    let risen = told(&mut relays, &outside, Way::Out, 6 * MS + 10 * MS, 2_040);
    assert_eq!(risen.len(), 1);
}

#[test]
fn an_inside_flow_that_was_open_before_is_not_caused_by_anything_seen() {
    let mut relays = Relays::default();
    let mut inside = inside(2, 1, 11 * MS);
    inside.connector = None;
    told(&mut relays, &outside(1, 1), Way::In, 10 * MS, 540);
    told(&mut relays, &inside, Way::Out, 12 * MS, 500);
    assert_eq!(relays.pairs().count(), 0);
}

#[test]
fn flows_of_two_agents_are_no_pair() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    request(&mut relays, &outside, &inside(2, 2, 11 * MS), 10 * MS);
    assert_eq!(relays.pairs().count(), 0);
}

#[test]
fn a_cause_told_of_after_the_connect_makes_a_pair() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    relays.opened(&inside(2, 1, 11 * MS), |_, _| true);
    relays.opened(&inside(3, 1, 11 * MS + CAUSE_NS), |_, _| true);
    relays.opened(&inside(4, 1, 9 * MS), |_, _| true);
    told(&mut relays, &outside, Way::In, 10 * MS, 540);
    let pairs: Vec<_> = relays.pairs().map(|pair| pair.inside).collect();
    assert_eq!(pairs, [id(2)]);
}

/// Outside connections and, `delay` after the last of them, as many inside ones.
fn made_at_once(relays: &mut Relays, connections: u64, delay: u64) {
    for n in 0..connections {
        relays.opened(&flow(10 + n, 1, [203, 0, 113, 1], n * MS), |_, _| true);
    }
    for n in 0..connections {
        let at = connections * MS + delay + n;
        relays.opened(&inside(50 + n, 1, at), |_, _| true);
    }
}

#[test]
fn a_connection_inside_that_follows_one_to_outside_is_its_pair_before_data_comes() {
    let mut relays = Relays::default();
    made_at_once(&mut relays, 1, MS);
    let (outside, inside) = (outside(10, 1), inside(50, 1, 2 * MS));
    let visit = 3_600_000 * MS;
    told(&mut relays, &outside, Way::In, visit, 500);
    told(&mut relays, &inside, Way::Out, visit + MS, 500);
    told(&mut relays, &inside, Way::In, visit + 2 * MS, 2_000);
    let risen = told(&mut relays, &outside, Way::Out, visit + 3 * MS, 2_000);
    assert_eq!(risen.len(), 1);
    assert!(matches!(risen[0].pair.cause, Cause::Connection(_)));
}

#[test]
fn connections_made_at_once_are_paired_in_their_turn_and_not_all_with_all() {
    let mut relays = Relays::default();
    made_at_once(&mut relays, 20, MS);
    assert!(relays.pairs().count() <= 20 * MAX_CONNECTIONS);
    for n in 0..20 {
        let own = |pair: &Pair| (pair.outside, pair.inside) == (id(10 + n), id(50 + n));
        assert!(relays.pairs().any(own), "{n}");
    }
}

#[test]
fn a_connection_inside_long_after_one_to_outside_is_not_caused_by_it() {
    let mut relays = Relays::default();
    made_at_once(&mut relays, 1, CAUSE_NS);
    assert_eq!(relays.pairs().count(), 0);
}

#[test]
fn a_flood_of_one_agent_drops_its_own_quietest_flows_and_is_counted() {
    let mut relays = Relays::default();
    relays.opened(&outside(1, 1), |_, _| true);
    for n in 0..2 * MAX_TRACKS as u64 {
        let mut flow = outside(10 + n, 2);
        flow.begun = n;
        relays.opened(&flow, |_, _| true);
    }
    assert_eq!(relays.evicted, MAX_TRACKS as u64);
    assert_eq!(relays.agents[&2].tracks.len(), MAX_TRACKS);
    assert!(!relays.agents[&2].tracks.contains_key(&id(10)));
    assert!(relays.agents[&1].tracks.contains_key(&id(1)));
}

#[test]
fn a_full_table_of_pairs_keeps_the_one_that_matches() {
    let mut relays = Relays::default();
    let outside = outside(1, 1);
    relays.opened(&outside, |_, _| true);
    request(&mut relays, &outside, &inside(2, 1, 11 * MS), 10 * MS);
    told(&mut relays, &outside, Way::Out, 16 * MS, 2_040);
    told(&mut relays, &outside, Way::In, 30 * MS, 99);
    for n in 0..=MAX_PAIRS as u64 {
        relays.opened(&inside(100 + n, 1, 31 * MS), |_, _| true);
    }
    assert_eq!((relays.pairs().count(), relays.evicted), (MAX_PAIRS, 2));
    assert!(relays.pairs().any(|pair| pair.inside == id(2)));
    let partners = &relays.agents[&1].tracks[&id(1)].partners;
    assert_eq!(partners.len(), MAX_PAIRS);
}

/// A visitor by connections of its own, `copied` or within TLS; what they raised.
fn visitor(relays: &mut Relays, n: u64, [request, answer]: [u64; 2], copied: bool) -> Vec<Risen> {
    let at = n * 1_000 * MS;
    let (outside, inside) = (
        flow(10 + n, 1, [203, 0, 113, 1], at),
        inside(50 + n, 1, at + MS),
    );
    relays.opened(&outside, |_, _| true);
    relays.opened(&inside, |_, _| true);
    let framing = if copied { 0 } else { 22 };
    let mut risen = Vec::new();
    for (flow, way, delay, bytes) in [
        (&outside, Way::In, 10, request + framing),
        (&inside, Way::Out, 11, request),
        (&inside, Way::In, 12, answer),
        (&outside, Way::Out, 13, answer + framing),
    ] {
        let begin = match (copied, delay) {
            (true, 10 | 11) => format!("GET /{n} HTTP/1.1\r\nHost: localhost"),
            (true, _) => format!("HTTP/1.1 200 OK\r\nDate: {n}"),
            (false, _) => String::new(),
        };
        let mut burst = burst(way, at + delay * MS, bytes);
        burst.data = Bytes::from(begin);
        risen.extend(relays.burst(flow, &burst, |_, _| true));
    }
    relays.closed(&inside, at + 20 * MS);
    relays.closed(&outside, at + 20 * MS);
    risen
}

#[test]
fn visitors_with_a_connection_each_add_up() {
    let mut relays = Relays::default();
    let on_route: Vec<u32> = (0..3)
        .flat_map(|n| visitor(&mut relays, n, [400 + 100 * n, 2_000 + n], false))
        .map(|risen| risen.on_route)
        .collect();
    assert_eq!(on_route, [1, 2, 3]);
}

#[test]
fn what_is_copied_byte_by_byte_is_told_from_what_has_its_size() {
    let mut relays = Relays::default();
    for (n, copied, copies) in [(0, true, 1), (1, false, 0)] {
        let risen = visitor(&mut relays, n, [400, 2_000], copied);
        assert_eq!(risen.len(), 1);
        assert_eq!(risen[0].pair.score.copies(), copies);
    }
}

#[test]
fn connections_that_were_not_relayed_count_against_their_route() {
    let mut relays = Relays::default();
    visitor(&mut relays, 0, [400, 2_000], false);
    for n in 1..4 {
        // As a program that acts on what it is told: more goes in than came.
        let at = n * 1_000 * MS;
        let (outside, inside) = (
            flow(10 + n, 1, [203, 0, 113, 1], at),
            inside(50 + n, 1, at + MS),
        );
        relays.opened(&outside, |_, _| true);
        relays.opened(&inside, |_, _| true);
        told(&mut relays, &outside, Way::In, at + 10 * MS, 60);
        told(&mut relays, &inside, Way::Out, at + 11 * MS, 900);
        told(&mut relays, &inside, Way::In, at + 12 * MS, 9_000);
        told(&mut relays, &outside, Way::Out, at + 13 * MS, 40);
        relays.closed(&inside, at + 20 * MS);
        relays.closed(&outside, at + 20 * MS);
    }
    let risen = visitor(&mut relays, 4, [500, 2_100], false);
    assert_eq!(risen[0].on_route, 0);
}

#[test]
fn routes_are_bounded_and_what_is_forgotten_is_counted() {
    let mut relays = Relays::default();
    relays.opened(&outside(1, 1), |_, _| true);
    let agent = relays.agents.get_mut(&1).expect("it has a flow");
    for n in 0..2 * MAX_ROUTES as u64 {
        let port = u16::try_from(n).expect("a port");
        let ends = (
            address([203, 0, 113, 1]),
            Address {
                port,
                ..address([127, 0, 0, 1])
            },
        );
        agent.route(ends, n);
    }
    assert_eq!(agent.routes.len(), MAX_ROUTES);
    assert_eq!(agent.evicted, MAX_ROUTES as u64);
    agent.forget_ended(MAX_ROUTES as u64 + ROUTE_NS);
    assert_eq!(
        agent.routes.len(),
        MAX_ROUTES,
        "an hour is not over for any"
    );
    agent.forget_ended(3 * MAX_ROUTES as u64 + ROUTE_NS);
    assert!(agent.routes.is_empty());
}
