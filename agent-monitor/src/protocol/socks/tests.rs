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
