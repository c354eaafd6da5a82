use proptest::prelude::*;

use super::super::Fact as AnyFact;
use super::*;
use Side::{Initiator, Responder};

/// What real clients sent, with the name they ask for and the fingerprint they have.
const CLIENTS: &[(&str, Option<&str>, &str)] = &[
    (
        "openssl-without-name",
        None,
        "t13i310900_e8f1e7e78f70_1f22a2ca17c4",
    ),
    (
        "openssl-tls12",
        Some("pool.example"),
        "t12d280700_d943125447b4_e7e480e5a997",
    ),
    (
        "curl",
        Some("web.example"),
        "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6",
    ),
    (
        "python",
        Some("api.example"),
        "t13d181100_85036bcba153_d41ae481755e",
    ),
    (
        "node",
        Some("node.example"),
        "t13d5911h2_a33745022dd6_1f22a2ca17c4",
    ),
];

fn client(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/../tests/data/tls/{name}.hex",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = text.trim();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn run(said: &[(Side, &[u8])]) -> (Vec<Fact>, Answer) {
    let mut tls = Tls::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in said {
        answer = tls.feed(*side, Input::Bytes(bytes), &mut facts);
        if answer == Answer::NotThis {
            break;
        }
    }
    let facts = facts.into_iter().map(|fact| match fact {
        AnyFact::Tls(fact) => fact,
        other => panic!("{other:?}"),
    });
    (facts.collect(), answer)
}

#[test]
fn names_and_fingerprints_of_real_clients_are_told() {
    for (name, sni, ja4) in CLIENTS {
        let (facts, answer) = run(&[(Initiator, &client(name))]);
        assert_eq!(answer, Answer::Found, "{name}");
        assert_eq!(
            (facts[0].sni.as_deref(), facts[0].ja4.as_str()),
            (*sni, *ja4),
            "{name}"
        );
    }
}

#[test]
fn every_prefix_needs_more_and_any_cut_tells_the_same() {
    for (name, ..) in CLIENTS {
        let hello = client(name);
        let whole = run(&[(Initiator, &hello)]);
        for cut in 0..hello.len() {
            let (a, b) = hello.split_at(cut);
            assert_eq!(
                run(&[(Initiator, a)]),
                (Vec::new(), Answer::NeedMore),
                "{name} {cut}"
            );
            assert_eq!(
                run(&[(Initiator, a), (Initiator, b)]),
                whole,
                "{name} {cut}"
            );
        }
        let bytes: Vec<_> = hello.chunks(1).map(|byte| (Initiator, byte)).collect();
        assert_eq!(run(&bytes), whole, "{name}");
    }
}

#[test]
fn a_hello_cut_into_many_records_is_read_whole() {
    let hello = client("curl");
    let records: Vec<u8> = hello[HEADER..]
        .chunks(7)
        .flat_map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat())
        .collect();
    assert_eq!(run(&[(Initiator, &records)]), run(&[(Initiator, &hello)]));
}

#[test]
fn a_client_that_accepted_the_connection_is_told_too() {
    let (facts, answer) = run(&[(Responder, &client("curl"))]);
    assert_eq!((facts[0].side, answer), (Responder, Answer::Found));
}

#[test]
fn a_server_hello_alone_is_tls() {
    let server = [22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, 7];
    assert_eq!(run(&[(Responder, &server)]), (Vec::new(), Answer::Found));
}

#[test]
fn other_protocols_are_not_it() {
    for bytes in [
        &b"SSH-2.0-x\r\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"\x16\x04\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x17\x03\x03\x00\x10",
        b"\x16\x03\x01\x00\x10\x09\x00\x00",
    ] {
        assert_eq!(run(&[(Initiator, bytes)]).1, Answer::NotThis, "{bytes:?}");
    }
    assert_eq!(
        run(&[(Initiator, &[22, 3, 1, 0, 4, 1, 0, 0, 0])]).1,
        Answer::NotThis
    );
}

#[test]
fn a_name_s_length_is_bounded_and_a_hello_that_contradicts_itself_is_refused() {
    let mut hello = client("curl");
    let at = hello
        .windows(11)
        .position(|part| part == b"web.example")
        .unwrap();
    hello[at - 1] = 200;
    assert_eq!(run(&[(Initiator, &hello)]).1, Answer::NotThis);
}

#[test]
fn facts_read_as_plain_words() {
    let (facts, _) = run(&[(Initiator, &client("curl"))]);
    assert_eq!(
        facts[0].in_words(),
        "TLS to web.example for h2, http/1.1 (JA4 t13d3112h2_e8f1e7e78f70_b26ce05bbdd6)"
    );
}

#[test]
fn fingerprints_leave_out_what_only_tests_servers_and_bear_empty_lists() {
    let hello = Hello {
        version: 0x0303,
        versions: vec![0x2a2a, 0x0304],
        ciphers: vec![0x0a0a],
        extensions: vec![0x1a1a],
        first_alpn: vec![0xab, b'x', 0xcd],
        ..Hello::default()
    };
    assert_eq!(
        ja4::ja4('q', &hello),
        "q13i0000ad_000000000000_000000000000"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_input_panics(
        name in 0..CLIENTS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in any::<prop::sample::Index>(),
        hole in any::<u32>(),
    ) {
        let mut hello = client(CLIENTS[name].0);
        for (at, byte) in changes {
            *at.get_mut(&mut hello) = byte;
        }
        let (a, b) = hello.split_at(cut.index(hello.len()));
        let mut tls = Tls::default();
        let mut facts = Vec::new();
        for side in [Initiator, Responder] {
            tls.feed(side, Input::Bytes(a), &mut facts);
            tls.feed(side, Input::Skipped(hole % 3), &mut facts);
            tls.feed(side, Input::Bytes(b), &mut facts);
        }
    }
}
