use super::super::Fact as AnyFact;
use super::*;
use Side::{Initiator, Responder};

fn run(said: &[(Side, &[u8])]) -> (Vec<AnyFact>, Answer) {
    let mut socks = Socks::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in said {
        answer = socks.feed(*side, Input::Bytes(bytes), &mut facts);
        if answer == Answer::NotThis {
            break;
        }
    }
    (facts, answer)
}

#[test]
fn addresses_of_each_kind_are_told() {
    for (request, host) in [
        (
            &b"\x05\x01\x00\x01\xcb\x00\x71\x07\x00\x50"[..],
            "203.0.113.7",
        ),
        (b"\x05\x01\x00\x03\x03a.b\x00\x50", "a.b"),
        (
            b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
            "2001:db8::1",
        ),
    ] {
        let said = [
            (Initiator, &b"\x05\x01\x00"[..]),
            (Responder, b"\x05\x00"),
            (Initiator, request),
        ];
        let (facts, answer) = run(&said);
        assert_eq!(answer, Answer::Found);
        let [AnyFact::Socks(fact)] = facts.as_slice() else {
            panic!("{facts:?}");
        };
        assert_eq!((fact.host.as_str(), fact.port), (host, 80));
    }
    let (facts, _) = run(&[(Initiator, b"\x04\x01\x00\x50\xcb\x00\x71\x07\x00")]);
    assert_eq!(facts[0].server_name(), Some("203.0.113.7"));
}

/// What a server says with which it gives the client what it asked for, and each part
/// of a handshake that ends otherwise.
#[test]
fn a_grant_is_told_when_the_server_has_said_so() {
    const REQUEST: &[u8] = b"\x05\x01\x00\x03\x03a.b\x00\x50";
    const REPLY: &[u8] = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00";
    let granted = |said: &[(Side, &[u8])]| {
        let facts = run(said).0.into_iter();
        let granted = facts.filter_map(|fact| match fact {
            AnyFact::Proxy(granted) => Some(granted),
            _ => None,
        });
        granted.collect::<Vec<_>>()
    };
    let five: &[(Side, &[u8])] = &[
        (Initiator, b"\x05\x02\x00\x02"),
        (Responder, b"\x05\x02"),
        (Initiator, b"\x01\x04user\x06secret"),
        (Responder, b"\x01\x00"),
        (Initiator, REQUEST),
        (Responder, REPLY),
    ];
    let expected = proxy::Granted {
        by: "SOCKS5".to_owned(),
        target: "a.b:80".to_owned(),
        request: REQUEST.to_vec(),
        reply: REPLY.to_vec(),
    };
    assert_eq!(granted(five), [expected]);
    let four: &[(Side, &[u8])] = &[
        (Initiator, b"\x04\x01\x00\x50\x00\x00\x00\x01u\x00a.b\x00"),
        (Responder, b"\x00\x5a\x00\x50\x00\x00\x00\x00"),
    ];
    let [told] = granted(four).try_into().expect("one");
    assert_eq!((&*told.by, &*told.target), ("SOCKS4a", "a.b:80"));

    for whole in [five, four] {
        let bytes: Vec<(Side, u8)> = (whole.iter())
            .flat_map(|(side, bytes)| bytes.iter().map(|byte| (*side, *byte)))
            .collect();
        let single: Vec<(Side, &[u8])> = (bytes.iter())
            .map(|(side, byte)| (*side, std::slice::from_ref(byte)))
            .collect();
        assert_eq!(granted(&single), granted(whole));
        for end in 0..single.len() {
            assert_eq!(granted(&single[..end]), [], "{end}");
        }
    }
    for refusal in [
        (five, &b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"[..]),
        (five, b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"),
        (four, b"\x00\x5b\x00\x50\x00\x00\x00\x00"),
    ] {
        let mut said = refusal.0.to_vec();
        said.pop();
        said.push((Responder, refusal.1));
        assert_eq!(granted(&said), [], "{refusal:?}");
    }
}

#[test]
fn other_protocols_are_not_it() {
    for said in [
        &[(Initiator, &b"GET / HTTP/1.1\r\n"[..])][..],
        &[(Initiator, b"\x16\x03\x01")],
        &[(Initiator, b"\x05\x00")],
        &[(Initiator, b"\x04\x02\x00\x50\xcb\x00\x71\x07\x00")],
        &[(Initiator, b"\x05\x01\x00"), (Responder, b"HTTP")],
        &[
            (Initiator, b"\x05\x01\x00"),
            (Responder, b"\x05\x00"),
            (Initiator, b"\x05\x02"),
        ],
        &[(Responder, b"220 mail.example\r\n")],
    ] {
        assert_eq!(run(said).1, Answer::NotThis, "{said:?}");
    }
}

#[test]
fn a_handshake_without_end_is_given_up() {
    let endless = [b'u'; 4096];
    let said = [
        (Initiator, &b"\x04\x01\x00\x50\xcb\x00\x71\x07"[..]),
        (Initiator, &endless),
    ];
    assert_eq!(run(&said).1, Answer::NotThis);
}

#[test]
fn the_first_bytes_of_a_client_are_told_only_as_a_whole() {
    assert!(begins(b"\x05\x01\x00") && begins(b"\x05\x02\x00\x02"));
    assert!(begins(b"\x04\x01\x0d\x05\xcb\x00\x71\x01\x00"));
    assert!(!begins(b"\x05\x01\x00\x00") && !begins(b"\x05") && !begins(b"\x04\x01"));
}
