use proptest::prelude::*;
use rustls::quic::Version;

use super::super::captured::{Sent, session};
use super::*;
use Side::{Initiator, Responder};

/// Real clients, each with the name and the protocol it asks for first.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("aioquic-v1", "web.example", "h3"),
    ("aioquic-v2", "web.example", "h3"),
    ("aioquic-retry", "web.example", "h3"),
    ("aioquic-long", "quic.cftunnel.com", "argotunnel"),
];

fn capture(name: &str) -> Vec<Sent> {
    session(&format!("quic/{name}"))
}

fn run(sent: &[Sent]) -> (Vec<Fact>, Answer) {
    let mut quic = Quic::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in sent {
        answer = quic.datagram(*side, bytes, bytes.len() as u32, &mut facts);
        if answer == Answer::NotThis {
            break;
        }
    }
    (facts, answer)
}

fn hellos(facts: &[Fact]) -> Vec<&tls::Fact> {
    let hellos = facts.iter().filter_map(|fact| match fact {
        Fact::Tls(fact) => Some(fact),
        _ => None,
    });
    hellos.collect()
}

#[test]
fn name_and_protocol_of_real_clients_are_told() {
    for (capture_name, name, protocol) in CLIENTS {
        let (facts, answer) = run(&capture(capture_name));
        assert_eq!(answer, Answer::Found, "{capture_name}");
        let hellos = hellos(&facts);
        let [hello] = hellos.as_slice() else {
            panic!("{capture_name}: {facts:?}");
        };
        assert_eq!(hello.sni.as_deref(), Some(*name), "{capture_name}");
        assert_eq!(hello.alpn[0], *protocol, "{capture_name}");
        assert!(hello.ja4.starts_with("q13d"), "{}", hello.ja4);
        assert_eq!(hello.side, Initiator);
    }
}

#[test]
fn cloudflared_is_told_by_its_protocol() {
    let (facts, _) = run(&capture("aioquic-long"));
    assert!(matches!(&facts[0], Fact::Tool(fact) if fact.tool == "cloudflared"));
}

#[test]
fn one_datagram_of_two_needs_the_other_in_any_order() {
    let sent = capture("aioquic-long");
    let [first, second] = [sent[0].clone(), sent[1].clone()];
    for one in [&first, &second] {
        let (facts, answer) = run(std::slice::from_ref(one));
        assert_eq!((facts.len(), answer), (0, Answer::Found));
    }
    let (facts, _) = run(&[first.clone(), second.clone()]);
    // The second alone tells its keys as well as the first does.
    for order in [
        vec![second.clone(), first.clone()],
        vec![first.clone(), first.clone(), second.clone()],
        vec![second.clone(), second, first],
    ] {
        assert_eq!(run(&order).0, facts);
    }
}

#[test]
fn packets_that_share_a_datagram_are_all_read() {
    let sent = capture("aioquic-long");
    // The server's keys are other ones; its packet is passed over.
    let server = sent
        .iter()
        .find(|(side, bytes)| *side == Responder && bytes.len() > 1000);
    let server = &server.expect("the server answered").1;
    let (packet, _) = Packet::read(server).expect("it begins with a packet");
    assert_eq!(packet.version as u8, Version::V1 as u8);
    let together = [&sent[0].1[..], &sent[1].1].concat();
    assert_eq!(run(&[(Initiator, together)]).0, run(&sent).0);
}

#[test]
fn every_prefix_of_a_datagram_tells_nothing_or_the_same() {
    for (name, ..) in CLIENTS {
        let sent = capture(name);
        let (all, _) = run(&sent);
        for at in 0..2 {
            for cut in (0..sent[at].1.len()).step_by(7) {
                let mut prefix = sent[..=at].to_vec();
                prefix[at].1.truncate(cut);
                let (facts, _) = run(&prefix);
                assert_eq!(facts, all[..facts.len()], "{name} {at} {cut}");
            }
        }
    }
}

#[test]
fn a_changed_packet_is_not_believed() {
    let mut sent = capture("aioquic-v1");
    sent.truncate(1);
    // What follows the packet is padding.
    let (_, after) = Packet::read(&sent[0].1).expect("it is a packet");
    let end = sent[0].1.len() - after.len();
    for at in [0, 1, 7, 30, 100, end - 17, end - 1] {
        let mut changed = sent.clone();
        changed[0].1[at] ^= 1;
        assert_eq!(run(&changed), (Vec::new(), Answer::NeedMore), "{at}");
    }
    for at in 0..end {
        let cut = (Initiator, sent[0].1[..at].to_vec());
        assert_eq!(run(&[cut]), (Vec::new(), Answer::NeedMore), "{at}");
    }
}

#[test]
fn what_is_not_quic_is_let_go_after_a_few_datagrams() {
    let other = (Initiator, b"\x01\x00\x00\x00something else".to_vec());
    assert_eq!(run(&vec![other.clone(); 15]).1, Answer::NeedMore);
    assert_eq!(run(&vec![other; 16]).1, Answer::NotThis);
    // A version that nobody can read yet.
    let mut unknown = capture("aioquic-v1")[0].clone();
    unknown.1[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
    assert_eq!(run(&[unknown]).1, Answer::NeedMore);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_input_panics(
        which in 0..CLIENTS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..60usize, any::<u8>()), 0..6),
    ) {
        let mut sent = capture(CLIENTS[which].0);
        for (datagram, at, byte) in changes {
            let bytes = &mut datagram.get_mut(&mut sent).1;
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        run(&sent);
    }
}
