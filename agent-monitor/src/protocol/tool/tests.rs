use proptest::prelude::*;

use super::super::Fact as AnyFact;
use super::super::captured::{Sent, hex, session};
use super::super::datagram::DatagramParser;
use super::*;
use Side::{Initiator, Responder};

type Said<'a> = (Side, &'a [u8]);
type Session = Vec<(Side, Vec<u8>)>;

fn run(said: &[Said<'_>]) -> (Option<&'static str>, Answer) {
    let mut tools = Tools::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in said {
        answer = tools.feed(*side, Input::Bytes(bytes), &mut facts);
        if answer == Answer::NotThis {
            break;
        }
    }
    let tool = facts.first().map(|fact| match fact {
        AnyFact::Tool(fact) => fact.tool,
        other => panic!("{other:?}"),
    });
    (tool, answer)
}

/// Thirty-two bytes as good as random.
fn digest() -> Vec<u8> {
    (0..32u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect()
}

fn frp_login() -> Vec<u8> {
    let json = br#"{"version":"0.51.3","os":"linux","arch":"amd64","privilege_key":"00","timestamp":1700000000}"#;
    [b"o", &(json.len() as u64).to_be_bytes()[..], json].concat()
}

/// By hand, after the programs' sources; what is said, by whom.
fn sessions() -> Vec<(&'static str, Session)> {
    let login = frp_login();
    let mut yamux = vec![0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
    yamux.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, login.len() as u8]);
    yamux.extend(&login);
    let control = [&[0, 0, 0, 0, 1][..], &digest()].concat();
    let data = [&[1, 0, 0, 0, 1][..], &digest()].concat();
    let uuid = "0a1b2c3d-0000-4000-8000-00112233aabb";
    vec![
        ("frp", vec![(Initiator, login)]),
        ("frp", vec![(Initiator, yamux)]),
        (
            "frp",
            vec![(Initiator, b"\x17\x16\x03\x01\x02\x00".to_vec())],
        ),
        (
            "frp",
            vec![(Initiator, b"FRP\x00\x02\x0d\x0a\x00".to_vec())],
        ),
        ("bore", vec![(Initiator, b"{\"Hello\":0}\0".to_vec())]),
        (
            "bore",
            vec![(
                Initiator,
                format!("{{\"Accept\":\"{uuid}\"}}\0").into_bytes(),
            )],
        ),
        (
            "bore",
            vec![(
                Responder,
                format!("{{\"Challenge\":\"{uuid}\"}}\0").into_bytes(),
            )],
        ),
        (
            "rathole",
            vec![(Initiator, control.clone()), (Responder, control)],
        ),
        (
            "rathole",
            vec![(Initiator, data), (Responder, vec![0, 0, 0, 0])],
        ),
    ]
}

fn borrowed(said: &[(Side, Vec<u8>)]) -> Vec<Said<'_>> {
    said.iter()
        .map(|(side, bytes)| (*side, bytes.as_slice()))
        .collect()
}

#[test]
fn each_tool_is_told_by_its_first_bytes_at_any_cut() {
    for (tool, said) in sessions() {
        assert_eq!(
            run(&borrowed(&said)),
            (Some(tool), Answer::Found),
            "{said:?}"
        );
        for at in 0..said.len() {
            for cut in 0..said[at].1.len() {
                let (a, b) = said[at].1.split_at(cut);
                let mut cut_said = borrowed(&said[..at]);
                cut_said.push((said[at].0, a));
                let (before, answer) = run(&cut_said);
                assert!(
                    before.is_some() || answer == Answer::NeedMore,
                    "{tool} {cut} {said:?}"
                );
                cut_said.push((said[at].0, b));
                cut_said.extend(borrowed(&said[at + 1..]));
                assert_eq!(run(&cut_said).0, Some(tool), "{cut} {said:?}");
            }
        }
    }
}

#[test]
fn what_only_looks_alike_is_not_it() {
    let zeroes = [&[0, 0, 0, 0, 1][..], &[0; 32]].concat();
    let control = [&[0, 0, 0, 0, 1][..], &digest()].concat();
    let longer = [&control[..], b"x"].concat();
    let hello = format!("{{\"Hello\":\"{}\"}}\0", "x".repeat(20));
    for said in [
        &[(Initiator, &b"\x16\x03\x01\x02\x00"[..])][..],
        &[(Initiator, b"ok\r\n")],
        &[(
            Initiator,
            b"o\x00\x00\x00\x00\x00\x00\x00\x10{\"name\":\"x\"}",
        )],
        &[(
            Initiator,
            b"o\xff\x00\x00\x00\x00\x00\x00\x10{\"version\":\"x\"}",
        )],
        &[
            (Initiator, b"{\"Hello\":\"world\"}\n"),
            (Initiator, &[b'x'; 64]),
        ],
        &[(Initiator, hello.as_bytes())],
        &[(Initiator, &zeroes)],
        &[(Initiator, &longer)],
        &[(Initiator, &control), (Responder, &longer)],
        &[(Initiator, b"GET / HTTP/1.1\r\n")],
        &[(Initiator, b"{\"method\":\"x\"}\n")],
    ] {
        assert_eq!(run(said), (None, Answer::NotThis), "{said:?}");
    }
}

#[test]
fn evidence_is_bounded() {
    let fact = Fact::new("frp", "x", &[b'x'; 500]);
    assert_eq!(fact.bytes.len(), BYTES_MAX);
}

#[test]
fn ssh_identifications_tell_chisel() {
    let tool = |banner| by_banner(banner).map(|fact| fact.tool);
    assert_eq!(tool("SSH-chisel-v3-client"), Some("chisel"));
    assert_eq!(tool("SSH-2.0-OpenSSH_9.2p1"), None);
}

/// The tools that datagrams tell, and the answer to the last of them.
fn run_datagrams(sent: &[Sent]) -> (Vec<&'static str>, Answer) {
    let mut parser = datagrams::OverDatagrams::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in sent {
        answer = parser.datagram(*side, bytes, bytes.len() as u32, &mut facts);
    }
    let tools = facts.iter().map(|fact| match fact {
        AnyFact::Tool(fact) => fact.tool,
        other => panic!("{other:?}"),
    });
    (tools.collect(), answer)
}

#[test]
fn wireguard_is_told_by_its_handshake() {
    let sent = session("wireguard/wireguard-go");
    assert_eq!(run_datagrams(&sent), (vec!["WireGuard"], Answer::Found));
    assert_eq!(
        run_datagrams(&sent[..2]),
        (vec!["WireGuard"], Answer::Found)
    );
    assert_eq!(run_datagrams(&sent[..1]), (vec![], Answer::NeedMore));
    assert_eq!(run_datagrams(&sent[1..]), (vec![], Answer::NeedMore));
    // Every prefix of either message.
    for at in 0..2 {
        for cut in 0..sent[at].1.len() {
            let mut prefix = sent[..=at].to_vec();
            prefix[at].1.truncate(cut);
            assert_eq!(
                run_datagrams(&prefix),
                (vec![], Answer::NeedMore),
                "{at} {cut}"
            );
        }
    }
}

#[test]
fn wireguard_that_nobody_answers_is_told_at_its_second_try() {
    let sent = session("wireguard/wireguard-go-unanswered");
    assert_eq!(run_datagrams(&sent), (vec!["WireGuard"], Answer::Found));
    let twice = [sent[0].clone(), sent[0].clone()];
    assert_eq!(
        run_datagrams(&twice),
        (vec![], Answer::NeedMore),
        "one that came twice"
    );
}

#[test]
fn what_only_has_wireguards_sizes_is_not_it() {
    let mut sent = session("wireguard/wireguard-go");
    sent.truncate(2);
    for (datagram, at) in [(0, 0), (0, 3), (0, 4), (1, 0), (1, 8)] {
        let mut other = sent.clone();
        other[datagram].1[at] ^= 1;
        assert_eq!(run_datagrams(&other).0, [""; 0], "{datagram} {at}");
    }
    let zeroes = [&[1, 0, 0, 0][..], &[0; 144]].concat();
    let other = (Initiator, zeroes);
    assert_eq!(run_datagrams(&vec![other.clone(); 15]).1, Answer::NeedMore);
    assert_eq!(run_datagrams(&vec![other; 16]).1, Answer::NotThis);
}

#[test]
fn tailscale_is_told_by_its_own_messages() {
    let mut ping = b"TS\xf0\x9f\x92\xac".to_vec();
    ping.extend([digest(), digest(), digest()].concat());
    let told = (vec!["Tailscale"], Answer::Found);
    assert_eq!(run_datagrams(&[(Initiator, ping.clone())]), told);
    assert_eq!(
        run_datagrams(&[(Initiator, ping[..77].to_vec())]).0,
        [""; 0]
    );
    let mut both = vec![(Responder, ping)];
    both.extend(session("wireguard/wireguard-go"));
    assert_eq!(run_datagrams(&both).0, ["Tailscale", "WireGuard"]);
}

#[test]
fn iodine_is_told_by_what_it_is_answered() {
    let mut dns = dns::OverDatagrams::default();
    let mut facts = Vec::new();
    for (side, bytes) in session("dns/iodine-udp") {
        dns.datagram(side, &bytes, bytes.len() as u32, &mut facts);
    }
    let tools: Vec<_> = (facts.iter())
        .filter_map(|fact| match fact {
            AnyFact::Tool(fact) => Some((fact.tool, fact.shown_by.as_str())),
            _ => None,
        })
        .collect();
    let words = "asked for NULL vaaaakaxkxi.t.example, answered VACK: \\# 9 5641434b3d8b457a00";
    assert_eq!(tools, [("iodine", words)]);
}

#[test]
fn tor_is_told_by_its_hello() {
    let text = include_str!("../../../../tests/data/tls/tor.hex");
    let mut parser = tls::Tls::default();
    let mut facts = Vec::new();
    parser.feed(Initiator, Input::Bytes(&hex(text.trim())), &mut facts);
    let [AnyFact::Tool(fact), AnyFact::Tls(hello)] = facts.as_slice() else {
        panic!("{facts:?}");
    };
    assert_eq!(fact.tool, "Tor");
    let other = |change: fn(&mut tls::Fact)| {
        let mut hello = hello.clone();
        change(&mut hello);
        by_hello(&hello)
    };
    assert_eq!(
        other(|hello| hello.sni = Some("www.web.example".to_owned())),
        None
    );
    assert_eq!(other(|hello| hello.sni = None), None);
    assert_eq!(other(|hello| hello.alpn = vec!["h2".to_owned()]), None);
    assert_eq!(
        other(|hello| hello.ja4 = hello.ja4.replace("796e", "0000")),
        None
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_input_panics(
        session in 0..9usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        noise in proptest::collection::vec(any::<u8>(), 0..700),
    ) {
        let mut said = sessions().swap_remove(session).1;
        for (at, byte) in changes {
            *at.get_mut(&mut said[0].1) = byte;
        }
        said.push((Responder, noise.clone()));
        said.push((Initiator, noise));
        let mut tools = Tools::default();
        for (side, bytes) in &said {
            tools.feed(*side, Input::Bytes(bytes), &mut Vec::new());
        }
    }
}
