use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::super::captured::session;
use super::super::{http, socks, ssh, stratum};
use super::*;
use Side::{Initiator, Responder};

const SUBSCRIBE: &[u8] =
    b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[\"cgminer/4.12.1\"]}\n";
const NOTIFY: &[u8] =
    b"{\"id\":null,\"method\":\"mining.notify\",\"params\":[\"bf\",\"4d16\",\"01\",\"07\",[],\"02\",\"1c\",\"50\",false]}\n";

type Said<'a> = (Side, &'a [u8]);
type Session = Vec<(Side, Vec<u8>)>;

fn run(said: &[Said<'_>]) -> (Layers, Vec<Fact>) {
    let mut layers = Layers::default();
    let mut facts = Vec::new();
    for (side, bytes) in said {
        layers.feed(*side, Input::Bytes(bytes), &mut facts);
    }
    (layers, facts)
}

fn mining(facts: &[Fact]) -> Vec<&stratum::Fact> {
    let mining = facts.iter().filter_map(|fact| match fact {
        Fact::Mining(fact) => Some(fact),
        _ => None,
    });
    mining.collect()
}

/// A frame of a client's text or bytes, masked.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend((payload.len() as u16).to_be_bytes());
        }
    }
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// A frame of a server's.
fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 126];
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend(payload);
    frame
}

const UPGRADE: &[u8] = b"GET /proxy?token=x HTTP/1.1\r\nHost: pool.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Ways of carrying what a miner and a pool say, with the name of the pool.
fn carriers() -> Vec<(&'static str, Session)> {
    let carrier = |before: &[Said<'_>]| -> Session {
        let mut said: Vec<_> = before.iter().map(|(s, b)| (*s, b.to_vec())).collect();
        said.push((Initiator, SUBSCRIBE.to_vec()));
        said.push((Responder, NOTIFY.to_vec()));
        said
    };
    let mut text = vec![
        (Initiator, UPGRADE.to_vec()),
        (Responder, UPGRADED.to_vec()),
    ];
    let mut bytes = text.clone();
    let short = &SUBSCRIBE[..SUBSCRIBE.len() - 1];
    text.push((Initiator, masked(1, short)));
    text.push((Responder, plain(9, b"ping")));
    text.push((Responder, plain(1, NOTIFY)));
    // A message of bytes in two frames, a control frame in between.
    let mut first = masked(2, &SUBSCRIBE[..20]);
    first[0] &= 0x7f;
    bytes.push((
        Initiator,
        [first, masked(10, b""), masked(0, &SUBSCRIBE[20..])].concat(),
    ));
    bytes.push((Responder, plain(2, NOTIFY)));
    // Compressed, the second with a reference to the first.
    let mut compressed = text[..2].to_vec();
    let mut compress = Compress::new(Compression::best(), false);
    let mut deflated = |text: &[u8]| {
        let mut out = Vec::with_capacity(text.len() + 100);
        let done = compress.compress_vec(text, &mut out, FlushCompress::Sync);
        done.expect("there is room");
        out.truncate(out.len() - 4);
        let mut frame = masked(1, &out);
        frame[0] |= 0x40;
        frame
    };
    compressed.push((
        Initiator,
        deflated(b"{\"type\":\"hello\",\"method\":\"mining\"}"),
    ));
    compressed.push((Initiator, deflated(short)));
    compressed.push((Responder, plain(1, NOTIFY)));
    vec![
        ("nothing", carrier(&[])),
        (
            "HTTP CONNECT",
            carrier(&[
                (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\nHost: pool.example:3333\r\n\r\n"),
                (Responder, b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n"),
            ]),
        ),
        (
            "HTTP CONNECT at the second attempt",
            carrier(&[
                (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"),
                (Responder, b"HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\nlogin"),
                (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\nProxy-Authorization: Basic eDp4\r\n\r\n"),
                (Responder, b"HTTP/1.1 200 OK\r\n\r\n"),
            ]),
        ),
        (
            "SOCKS5",
            carrier(&[
                (Initiator, b"\x05\x01\x00"),
                (Responder, b"\x05\x00"),
                (Initiator, b"\x05\x01\x00\x03\x0cpool.example\x0d\x05"),
                (Responder, b"\x05\x00\x00\x01\xcb\x00\x71\x01\x0d\x05"),
            ]),
        ),
        (
            "SOCKS5 with a password",
            carrier(&[
                (Initiator, b"\x05\x02\x00\x02"),
                (Responder, b"\x05\x02"),
                (Initiator, b"\x01\x04user\x04pass"),
                (Responder, b"\x01\x00"),
                (Initiator, b"\x05\x01\x00\x03\x0cpool.example\x0d\x05"),
                (Responder, b"\x05\x00\x00\x03\x01x\x0d\x05"),
            ]),
        ),
        (
            "SOCKS4, to an address",
            carrier(&[
                (Initiator, b"\x04\x01\x0d\x05\xcb\x00\x71\x01me\x00"),
                (Responder, b"\x00\x5a\x00\x00\x00\x00\x00\x00"),
            ]),
        ),
        (
            "SOCKS4a",
            carrier(&[
                (Initiator, b"\x04\x01\x0d\x05\x00\x00\x00\x01me\x00pool.example\x00"),
                (Responder, b"\x00\x5a\x00\x00\x00\x00\x00\x00"),
            ]),
        ),
        ("WebSocket, text", text),
        ("WebSocket, bytes", bytes),
        ("WebSocket, compressed", compressed),
        (
            "an HTTP request and its answer",
            carrier(&[
                (Initiator, b"GET / HTTP/1.1\r\nHost: pool.example\r\n\r\n"),
                (Responder, b"HTTP/1.1 200 OK\r\n\r\n"),
            ]),
        ),
        (
            "SOCKS5, in it HTTP CONNECT",
            carrier(&[
                (Initiator, b"\x05\x01\x00"),
                (Responder, b"\x05\x00"),
                (Initiator, b"\x05\x01\x00\x01\xc0\x00\x02\x01\x0c\x38"),
                (Responder, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"),
                (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"),
                (Responder, b"HTTP/1.1 200 OK\r\n\r\n"),
            ]),
        ),
    ]
}

fn borrowed(said: &[(Side, Vec<u8>)]) -> Vec<Said<'_>> {
    said.iter()
        .map(|(side, bytes)| (*side, bytes.as_slice()))
        .collect()
}

#[test]
fn a_pool_session_is_found_inside_every_carrier() {
    for (name, said) in carriers() {
        let (layers, facts) = run(&borrowed(&said));
        assert_eq!(layers.protocol(), Some("stratum"), "{name}");
        let mining = mining(&facts);
        let told: Vec<_> = mining
            .iter()
            .map(|fact| (fact.side, fact.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (Initiator, "mining.subscribe"),
                (Responder, "mining.notify")
            ],
            "{name}"
        );
        assert!(mining.iter().all(|fact| fact.plain), "{name}");
        let names: Vec<_> = facts.iter().filter_map(Fact::server_name).collect();
        let expected = match name {
            "nothing" => None,
            "SOCKS4, to an address" => Some("203.0.113.1"),
            _ => Some("pool.example"),
        };
        assert_eq!(names.last().copied(), expected, "{name}");
    }
}

#[test]
fn every_prefix_of_a_carried_session_tells_a_prefix_of_the_facts() {
    for (name, said) in carriers() {
        let (_, all) = run(&borrowed(&said));
        for at in 0..said.len() {
            for cut in 0..said[at].1.len() {
                let mut prefix = borrowed(&said[..at]);
                prefix.push((said[at].0, &said[at].1[..cut]));
                let (_, facts) = run(&prefix);
                assert_eq!(facts, all[..facts.len()], "{name} {at} {cut}");
            }
        }
    }
}

#[test]
fn one_byte_a_segment_tells_the_same() {
    for (name, said) in carriers() {
        let bytes: Vec<Said<'_>> = said
            .iter()
            .flat_map(|(side, bytes)| bytes.chunks(1).map(|byte| (*side, byte)))
            .collect();
        assert_eq!(run(&bytes).1, run(&borrowed(&said)).1, "{name}");
    }
}

/// SSH of real programs with a reverse forward and one request through it: through
/// tinyproxy, and in frames of websockets and websockify.
const CARRIED_SSH: [(&str, &str); 2] = [
    ("carried/ssh-connect", "127.0.0.1"),
    ("carried/ssh-websocket", "127.0.0.1"),
];

#[test]
fn a_reverse_tunnel_is_told_inside_of_real_carriers() {
    for (name, host) in CARRIED_SSH {
        let said = session(name);
        let (layers, facts) = run(&borrowed(&said));
        assert_eq!(layers.protocol(), Some("ssh"), "{name}");
        let ssh = facts.iter().filter_map(|fact| match fact {
            Fact::Ssh(fact) => Some(fact),
            _ => None,
        });
        let told: Vec<_> = ssh
            .map(|fact| match fact {
                ssh::Fact::Banner { .. } => "banner",
                ssh::Fact::Kex { .. } => "kex",
                ssh::Fact::Authenticated { .. } => "authenticated",
                ssh::Fact::ForwardRequested { .. } => "requested",
                ssh::Fact::ForwardedOpen { .. } => "open",
                ssh::Fact::Session { .. } => "session",
            })
            .collect();
        let expected = [
            "banner",
            "banner",
            "kex",
            "authenticated",
            "requested",
            "open",
        ];
        assert_eq!(told, expected, "{name}");
        assert_eq!(facts[0].server_name(), Some(host), "{name}");
    }
}

#[test]
fn every_prefix_of_carried_ssh_tells_a_prefix_of_the_facts() {
    for (name, _) in CARRIED_SSH {
        let said = session(name);
        let (_, all) = run(&borrowed(&said));
        for at in 0..said.len() {
            for cut in (0..said[at].1.len()).step_by(1 + said[at].1.len() / 16) {
                let mut prefix = borrowed(&said[..at]);
                prefix.push((said[at].0, &said[at].1[..cut]));
                // A record that is cut short is another size: what is told of sizes may end
                // with it, but what was in clear is told.
                let (_, facts) = run(&prefix);
                assert!(facts.len() <= all.len(), "{name} {at} {cut}");
                let clear = facts.len().min(4);
                assert_eq!(facts[..clear], all[..clear], "{name} {at} {cut}");
            }
        }
    }
}

#[test]
fn what_is_said_before_the_tunnel_is_granted_is_carried_too() {
    let connect = b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n";
    let said = [
        (Initiator, [connect, SUBSCRIBE].concat()),
        (Responder, [b"HTTP/1.1 200 OK\r\n\r\n", NOTIFY].concat()),
    ];
    assert_eq!(run(&borrowed(&said)).0.protocol(), Some("stratum"));
    let socks = [
        (
            Initiator,
            b"\x05\x01\x00\x05\x01\x00\x03\x01x\x0d\x05".to_vec(),
        ),
        (Initiator, SUBSCRIBE.to_vec()),
        (
            Responder,
            b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
    ];
    assert_eq!(run(&borrowed(&socks)).0.protocol(), Some("stratum"));
}

#[test]
fn a_refused_tunnel_carries_nothing() {
    let refused: [&[Said<'_>]; 3] = [
        &[
            (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"),
            (
                Responder,
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 200\r\n\r\n",
            ),
            (Responder, NOTIFY),
        ],
        &[
            (Initiator, b"\x05\x01\x00"),
            (Responder, b"\x05\xff"),
            (Responder, NOTIFY),
        ],
        &[
            (Initiator, b"\x04\x01\x0d\x05\xcb\x00\x71\x01\x00"),
            (Responder, b"\x00\x5b\x00\x00\x00\x00\x00\x00"),
            (Responder, NOTIFY),
        ],
    ];
    for said in refused {
        let (_, facts) = run(said);
        assert!(mining(&facts).iter().all(|fact| !fact.plain), "{said:?}");
    }
}

#[test]
fn documents_over_http_are_no_sessions() {
    let document = [SUBSCRIBE, NOTIFY].concat();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        document.len()
    );
    let get = b"GET /doc HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let chunked = [
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            document.len()
        )
        .as_bytes(),
        &document,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    for answer in [
        [head.as_bytes(), &document].concat(),
        [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &document].concat(),
        chunked,
    ] {
        let (layers, facts) = run(&[(Initiator, get), (Responder, &answer), (Initiator, get)]);
        assert_eq!(layers.protocol(), Some("http"));
        assert!(
            mining(&facts)
                .iter()
                .all(|fact| !fact.plain && fact.side == Responder)
        );
    }
}

#[test]
fn skipped_bytes_go_through_a_tunnel_as_they_are() {
    let mut layers = run(&[
        (Initiator, b"CONNECT host.example:22 HTTP/1.1\r\n\r\n"),
        (Responder, b"HTTP/1.1 200 OK\r\n\r\n"),
        (Initiator, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    ])
    .0;
    assert_eq!(layers.protocol(), Some("ssh"));
    let mut facts = Vec::new();
    layers.feed(Responder, Input::Skipped(5000), &mut facts);
    layers.feed(Responder, Input::Gap, &mut facts);
    assert_eq!(layers.wants(), Wants::Nothing, "{facts:?}");
}

#[test]
fn what_begins_later_is_tried_again_and_takes_both_sides() {
    let mut layers = Layers::default();
    let mut facts = Vec::new();
    let junk = [0x80u8; 9000];
    layers.feed(Initiator, Input::Bytes(&junk), &mut facts);
    layers.feed(Responder, Input::Bytes(&junk), &mut facts);
    assert_eq!(layers.wants(), Wants::Nothing);
    assert!(!layers.may_begin(b"\x17\x03\x03") && layers.may_begin(SUBSCRIBE));
    layers.begin_again(SUBSCRIBE);
    layers.feed(Initiator, Input::Bytes(SUBSCRIBE), &mut facts);
    assert_eq!(layers.protocol(), None, "may be a document");
    layers.feed(Responder, Input::Bytes(NOTIFY), &mut facts);
    assert_eq!(layers.protocol(), Some("stratum"));
    assert!(mining(&facts).iter().all(|fact| !fact.plain));
}

#[test]
fn names_of_protocols_are_unique() {
    let mut names: Vec<_> = PROTOCOLS.iter().map(|protocol| protocol.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PROTOCOLS.len());
}

#[test]
fn layers_are_bounded() {
    let mut said = Vec::new();
    for _ in 0..20 {
        said.push((Initiator, &b"CONNECT a.example:1 HTTP/1.1\r\n\r\n"[..]));
        said.push((Responder, b"HTTP/1.1 200 OK\r\n\r\n"));
    }
    assert_eq!(run(&said).0.layers.len(), LAYERS_MAX);
}

/// Between a proxy's answer and the first byte through it nothing is tried yet.
#[test]
fn what_a_proxy_is_about_to_carry_is_wanted() {
    let socks: &[(Side, &[u8])] = &[
        (Initiator, b"\x05\x01\x00"),
        (Responder, b"\x05\x00"),
        (Initiator, b"\x05\x01\x00\x01\xc0\x00\x02\x14\x0d\x05"),
        (Responder, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"),
    ];
    let connect: &[(Side, &[u8])] = &[
        (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"),
        (Responder, b"HTTP/1.1 200 Connection established\r\n\r\n"),
    ];
    for handshake in [socks, connect] {
        let (mut layers, _) = run(handshake);
        assert_eq!(layers.wants(), Wants::Bytes);
        let noise: Vec<u8> = (0..32 * 1024)
            .map(|n: u32| n.wrapping_mul(n) as u8 | 0x80)
            .collect();
        for side in [Initiator, Responder] {
            layers.feed(side, Input::Bytes(&noise), &mut Vec::new());
        }
        assert_eq!(layers.wants(), Wants::Nothing, "nobody follows it");
    }
}

#[test]
fn facts_of_carriers_read_as_plain_words() {
    let (_, facts) = run(&borrowed(&carriers()[1].1));
    let Fact::Http(http::Fact::Connect { host, target }) = &facts[0] else {
        panic!("{facts:?}");
    };
    assert_eq!(
        (host.as_str(), target.as_str()),
        ("pool.example", "pool.example:3333")
    );
    assert_eq!(
        facts[0].in_words().as_deref(),
        Some("HTTP CONNECT to pool.example:3333")
    );
    let (_, facts) = run(&borrowed(&carriers()[3].1));
    let socks = socks::Fact {
        version: "5",
        host: "pool.example".to_owned(),
        port: 3333,
    };
    assert_eq!(facts[0], Fact::Socks(socks));
    assert_eq!(
        facts[0].in_words().as_deref(),
        Some("SOCKS5 to pool.example:3333")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_input_panics(
        carrier in 0..11usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        holes in proptest::collection::vec((any::<prop::sample::Index>(), 0..200u32), 0..3),
    ) {
        let mut said = carriers().swap_remove(carrier).1;
        for (at, byte) in changes {
            let said = &mut at.get_mut(&mut said).1;
            if !said.is_empty() {
                let place = at.index(said.len());
                said[place] = byte;
            }
        }
        let mut layers = Layers::default();
        for (n, (side, bytes)) in said.iter().enumerate() {
            layers.feed(*side, Input::Bytes(bytes), &mut Vec::new());
            for (at, size) in &holes {
                if at.index(said.len()) == n {
                    let hole = if *size == 0 { Input::Gap } else { Input::Skipped(*size) };
                    layers.feed(*side, hole, &mut Vec::new());
                }
            }
        }
    }

    #[test]
    fn cutting_anywhere_changes_nothing(
        carrier in 0..11usize,
        cuts in proptest::collection::vec(1..90usize, 1..20),
    ) {
        let said = carriers().swap_remove(carrier).1;
        let mut cuts = cuts.iter().cycle();
        let mut split: Vec<Said<'_>> = Vec::new();
        for (side, bytes) in &said {
            let mut rest = bytes.as_slice();
            while let Some((head, tail)) = cuts.next().and_then(|&cut| rest.split_at_checked(cut)) {
                split.push((*side, head));
                rest = tail;
            }
            split.push((*side, rest));
        }
        prop_assert_eq!(run(&split).1, run(&borrowed(&said)).1);
    }
}
