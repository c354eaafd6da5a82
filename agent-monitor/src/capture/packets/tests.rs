//! Packets written by hand, and the records that follow from them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::decode::Way;

const RAW: u32 = 101;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const FIN: u8 = 1;
const AGENT_IP: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [198, 51, 100, 2];

fn ip(source: [u8; 4], destination: [u8; 4], protocol: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + rest.len()).expect("it is short");
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend(destination);
    bytes.extend(rest);
    bytes
}

/// A segment from port 1000 of the agent to port 80 of the server, or back.
fn segment(out: bool, flags: u8, sequence: u32, acknowledged: u32, data: &[u8]) -> Vec<u8> {
    let (from, to, ports) = match out {
        true => (AGENT_IP, SERVER, [1000u16, 80]),
        false => (SERVER, AGENT_IP, [80, 1000]),
    };
    let mut bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(acknowledged.to_be_bytes());
    bytes.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(data);
    ip(from, to, TCP, &bytes)
}

fn datagram(out: bool, port: u16, data: &[u8]) -> Vec<u8> {
    let (from, to, ports) = match out {
        true => (AGENT_IP, SERVER, [2000u16, port]),
        false => (SERVER, AGENT_IP, [port, 2000]),
    };
    let length = u16::try_from(8 + data.len()).expect("it is short");
    let mut bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    ip(from, to, UDP, &bytes)
}

/// A handshake and a request of which the first byte is 101 of the agent's.
fn opening() -> Vec<Vec<u8>> {
    vec![
        segment(true, SYN, 100, 0, b""),
        segment(false, SYN | ACK, 700, 101, b""),
        segment(true, ACK, 101, 701, b""),
        segment(true, ACK, 101, 701, b"request"),
    ]
}

fn records_of(packets: &mut Packets, frames: &[Vec<u8>]) -> Vec<Record> {
    let mut out = Vec::new();
    for (number, data) in frames.iter().enumerate() {
        let number = number as u64;
        let frame = Frame {
            time: Some(number * 1_000_000),
            link: RAW,
            data,
        };
        packets.take(number, frame, &mut out).expect("it is IP");
    }
    out
}

/// What is told, in words: enough to compare.
fn told(nets: &[&str], frames: &[Vec<u8>]) -> Vec<String> {
    let nets = nets.iter().map(|net| net.parse().expect("a network"));
    let mut packets = Packets::new(nets.collect());
    let mut out = records_of(&mut packets, frames);
    packets.end(&mut out);
    out.iter().map(|record| in_words(&record.body)).collect()
}

fn in_words(body: &Body) -> String {
    let way = |way: Way| format!("{way:?}").to_lowercase();
    match body {
        Body::Connect(it) => format!("connect {}", it.remote.port),
        Body::Send(it) => format!("send {}", it.remote.port),
        Body::Established { outbound: true, .. } => "established".into(),
        Body::Established { .. } => "accepted".into(),
        Body::Found { outbound, .. } => format!("found outbound={outbound}"),
        Body::Head(it) => {
            let data = String::from_utf8_lossy(&it.data);
            format!("{} {}:{data}", way(it.way), it.offset)
        }
        Body::Burst(it) => format!("burst {} {}", way(it.way), it.bytes),
        Body::DatagramBurst { burst, .. } => {
            format!(
                "datagrams {} {} {}",
                way(burst.way),
                burst.packets,
                burst.bytes
            )
        }
        Body::Datagram(it) => {
            format!("{} {}", way(it.way), String::from_utf8_lossy(&it.data))
        }
        Body::Segment { offset, bytes, .. } => format!("size {offset} {bytes}"),
        Body::Closed(it) => format!("closed {:?} {:?}", it.result, it.bytes),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_connection_is_told_of_from_its_attempt_to_its_end() {
    let mut frames = opening();
    frames.push(segment(false, ACK, 701, 108, b"answer"));
    frames.push(segment(true, FIN | ACK, 108, 707, b""));
    frames.push(segment(false, FIN | ACK, 707, 109, b""));
    frames.push(segment(true, ACK, 109, 708, b""));
    assert_eq!(
        told(&[], &frames),
        [
            "connect 80",
            "established",
            "out 0:request",
            "burst out 7",
            "in 0:answer",
            "burst in 6",
            "closed Established [7, 6]",
        ]
    );
}

#[test]
fn with_networks_given_only_their_ends_are_agents() {
    let accepted = ["accepted", "in 0:request", "burst in 7"];
    assert_eq!(told(&["198.51.100.0/24"], &opening()), accepted);
    assert_eq!(told(&["203.0.113.0/24"], &opening()), [""; 0]);
    let both = told(&["198.51.100.0/24", "192.0.2.1/32"], &opening());
    assert_eq!(both[..2], ["connect 80", "established"]);
}

#[test]
fn attempts_that_come_to_nothing_say_why() {
    let syn = || segment(true, SYN, 100, 0, b"");
    let unreachable = |code| {
        let quote = [&[3, code, 0, 0, 0, 0, 0, 0], &syn()[..28]].concat();
        ip([192, 0, 2, 254], AGENT_IP, ICMP, &quote)
    };
    let refused = segment(false, RST | ACK, 0, 101, b"");
    let given_up = segment(true, RST, 101, 0, b"");
    for (answer, result) in [
        (Some(refused), "Refused"),
        (Some(given_up), "Abandoned"),
        (Some(unreachable(1)), "Unreachable"),
        (Some(unreachable(3)), "Refused"),
        (None, "Abandoned"),
    ] {
        let frames: Vec<_> = [Some(syn()), answer].into_iter().flatten().collect();
        let closed = format!("closed {result} [0, 0]");
        assert_eq!(told(&[], &frames), ["connect 80".to_owned(), closed]);
    }
}

#[test]
fn an_attempt_that_nothing_answers_times_out_as_soon_as_the_capture_shows_it() {
    let mut packets = Packets::default();
    let mut out = Vec::new();
    let syn = segment(true, SYN, 100, 0, b"");
    let later = datagram(true, 9, b"x");
    for (second, data) in [
        (0, &syn),
        (1, &syn),
        (64, &syn),
        (138, &later),
        (140, &later),
    ] {
        let frame = Frame {
            time: Some(second * 1_000_000_000),
            link: RAW,
            data,
        };
        packets.take(1, frame, &mut out).expect("it is IP");
        let timed_out = out.iter().any(
            |record| matches!(&record.body, Body::Closed(it) if it.result == Outcome::TimedOut),
        );
        assert_eq!(timed_out, second == 140, "after {second} s");
    }
}

#[test]
fn a_reset_that_the_other_end_would_not_believe_ends_nothing() {
    let mut frames = opening();
    frames.push(segment(false, RST, 600, 0, b""));
    // Ahead of what was sent, though in the window.
    frames.push(segment(false, RST, 900, 0, b""));
    frames.push(segment(true, RST, 120, 0, b""));
    frames.push(segment(false, ACK, 701, 108, b"answer"));
    let forged = told(&[], &frames);
    assert!(forged.contains(&"in 0:answer".to_owned()), "{forged:?}");
    frames.push(segment(false, RST, 707, 0, b""));
    let real = told(&[], &frames);
    let end = "closed Reset [7, 6]".to_owned();
    assert_eq!(real.last(), Some(&end));
    frames.push(segment(true, ACK, 108, 707, b"late"));
    assert_eq!(
        told(&[], &frames),
        real,
        "what comes after the end tells nothing"
    );
}

#[test]
fn the_next_connection_between_the_same_ports_is_another_flow() {
    let mut frames = opening();
    // The end of the first is missing.
    frames.push(segment(true, SYN, 9_000, 0, b""));
    frames.push(segment(false, SYN | ACK, 8_000, 9_001, b""));
    frames.push(segment(true, ACK, 9_001, 8_001, b"again"));
    let words = told(&[], &frames);
    let tail = [
        "burst out 7",
        "closed Established [7, 0]",
        "connect 80",
        "established",
        "out 0:again",
        "burst out 5",
    ];
    assert_eq!(words[3..], tail);
}

#[test]
fn a_stray_syn_does_not_end_a_connection() {
    let mut frames = opening();
    frames.push(segment(true, SYN, 9_000, 0, b""));
    frames.push(segment(true, ACK, 108, 701, b"more"));
    assert!(told(&[], &frames).contains(&"out 7:more".to_owned()));
}

#[test]
fn what_was_open_before_the_capture_is_found_and_who_began_it_is_guessed() {
    let frames = [
        segment(false, ACK, 5_000, 300, b""),
        segment(false, ACK, 5_000, 300, b"push"),
        segment(true, ACK, 300, 5_004, b"got"),
    ];
    assert_eq!(
        told(&[], &frames),
        [
            "found outbound=true",
            "in 0:push",
            "burst in 4",
            "out 0:got",
            "burst out 3"
        ]
    );
}

#[test]
fn sequence_numbers_may_wrap_and_segments_come_twice_or_early() {
    let first = u32::MAX - 2;
    let frames = [
        segment(true, SYN, first.wrapping_sub(1), 0, b""),
        segment(false, SYN | ACK, 700, first, b""),
        segment(true, ACK, first.wrapping_add(4), 701, b"ef"),
        segment(true, ACK, first, 701, b"abcd"),
        segment(true, ACK, first, 701, b"abcd"),
    ];
    let tail = ["out 4:ef", "out 0:abcd", "out 0:abcd", "burst out 6"];
    assert_eq!(told(&[], &frames)[2..], tail);
}

#[test]
fn a_cut_packet_counts_with_the_bytes_that_were_sent() {
    let mut frames = opening();
    let mut cut = segment(true, ACK, 108, 701, &[b'x'; 500]);
    cut.truncate(44);
    frames.push(cut);
    assert_eq!(told(&[], &frames)[3..], ["out 7:xxxx", "burst out 507"]);
}

#[test]
fn as_much_of_a_flow_is_told_as_is_asked_for() {
    let mut packets = Packets::default();
    let flow = FlowId {
        cookie: 1,
        generation: 0,
    };
    records_of(&mut packets, &opening());
    let control = FlowControl {
        head_cap: 9,
        flags: agent_monitor_common::policy::FLOW_SEGMENTS,
    };
    packets.steer(flow, control);
    let more = [
        segment(true, ACK, 108, 701, b"more"),
        segment(true, ACK, 112, 701, b"and more"),
    ];
    let words: Vec<_> = records_of(&mut packets, &more)
        .iter()
        .map(|record| in_words(&record.body))
        .collect();
    assert_eq!(words, ["out 7:mo", "size 11 8"]);
}

#[test]
fn datagrams_are_a_flow_until_they_are_quiet_for_long() {
    let frames = [datagram(true, 9, b"one"), datagram(false, 9, b"two!")];
    assert_eq!(
        told(&[], &frames),
        [
            "send 9",
            "out one",
            "datagrams out 1 3",
            "in two!",
            "datagrams in 1 4"
        ]
    );
    let answer_first = [datagram(false, 53, b"answer")];
    assert_eq!(
        told(&[], &answer_first)[0],
        "in answer",
        "its question is missing"
    );
    assert_eq!(told(&["198.51.100.2/32"], &frames)[0], "in one");
}

#[test]
fn echoes_are_a_flow_and_other_icmp_is_none() {
    let echo = |out: bool, kind| {
        let body = [&[kind, 0, 0, 0, 0, 1, 0, 1][..], b"payload"].concat();
        let (from, to) = if out {
            (AGENT_IP, SERVER)
        } else {
            (SERVER, AGENT_IP)
        };
        ip(from, to, ICMP, &body)
    };
    let words = told(&[], &[echo(true, 8), echo(false, 0), echo(false, 11)]);
    assert_eq!(words[..2], ["send 0", "out payload"]);
    assert_eq!(words.len(), 5);
}

#[test]
fn fragments_are_put_together_and_what_lacks_one_is_counted() {
    let whole = datagram(true, 9, &[b'x'; 40]);
    let fragment = |offset: usize, end: usize, more: bool| {
        let mut bytes = ip(AGENT_IP, SERVER, UDP, &whole[20 + offset..20 + end]);
        let place = u16::try_from(offset / 8).expect("it is small") | u16::from(more) << 13;
        bytes[6..8].copy_from_slice(&place.to_be_bytes());
        bytes
    };
    let frames = [fragment(16, 48, false), fragment(0, 16, true)];
    assert_eq!(told(&[], &frames)[1], format!("out {}", "x".repeat(40)));
    let mut packets = Packets::default();
    let mut out = records_of(&mut packets, &frames[..1]);
    let lost = packets.end(&mut out);
    let expected = Lost {
        fragmented: 1,
        ..Lost::default()
    };
    assert_eq!((lost, out.len()), (expected, 0));
}

#[test]
fn packets_of_which_less_was_kept_than_is_looked_at_are_counted() {
    let snapped = |mut frame: Vec<u8>| {
        frame.truncate(42);
        frame
    };
    let request = snapped(segment(true, ACK, 101, 701, b"request"));
    let question = snapped(datagram(true, 53, &[b'x'; 60]));
    let mut frames = opening();
    frames[3] = request;
    frames.push(question);
    let mut packets = Packets::default();
    let mut out = records_of(&mut packets, &frames);
    assert_eq!(packets.end(&mut out).cut, 2);
    let mut packets = Packets::default();
    let mut out = records_of(&mut packets, &opening());
    assert_eq!(packets.end(&mut out).cut, 0);
}

#[test]
fn a_flood_of_connections_is_bounded_and_counted() {
    let mut packets = Packets::default();
    let mut out = Vec::new();
    let flood = MAX_FLOWS + 100;
    for number in 0..flood {
        let octets = u32::try_from(number).expect("it is small").to_be_bytes();
        let from = [10, octets[1], octets[2], octets[3]];
        let mut syn = segment(true, SYN, 100, 0, b"");
        syn[12..16].copy_from_slice(&from);
        let frame = Frame {
            time: Some(number as u64),
            link: RAW,
            data: &syn,
        };
        packets.take(1, frame, &mut out).expect("it is IP");
        out.clear();
    }
    let lost = packets.end(&mut out);
    assert_eq!(lost.flows, EVICT as u64);
    let told = out
        .iter()
        .filter(|record| matches!(record.body, Body::Closed(_)));
    assert_eq!(told.count(), flood - EVICT);
}

#[test]
fn a_link_that_is_not_read_is_named_with_the_packet() {
    let frame = Frame {
        time: None,
        link: 147,
        data: b"?",
    };
    let error = Packets::default()
        .take(7, frame, &mut Vec::new())
        .expect_err("it is not read");
    assert!(error.to_string().starts_with("packet 7 has link type 147"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_packet_panics(
        frames in vec((0..3u8, any::<bool>(), any::<u8>(), any::<u32>(), any::<u32>(),
            vec(any::<u8>(), 0..40), 0..80usize), 0..40),
    ) {
        let frames: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|(kind, out, flags, sequence, acknowledged, data, cut)| {
                let mut bytes = match kind {
                    0 => segment(out, flags, sequence % 64, acknowledged % 64, &data),
                    1 => segment(out, flags, sequence, acknowledged, &data),
                    _ => ip(AGENT_IP, SERVER, flags, &data),
                };
                bytes.truncate(bytes.len().saturating_sub(cut % 30));
                bytes
            })
            .collect();
        let mut packets = Packets::default();
        let mut out = records_of(&mut packets, &frames);
        packets.end(&mut out);
    }
}
