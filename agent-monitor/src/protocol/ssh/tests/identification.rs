//! The first line of each side, by which SSH is known.

use super::*;

fn first(side: Side, bytes: &[u8]) -> (Answer, Vec<AnyFact>) {
    let mut facts = Vec::new();
    let answer = Ssh::default().feed(side, Input::Bytes(bytes), &mut facts);
    (answer, facts)
}

#[test]
fn a_server_may_say_other_lines_first() {
    let (answer, facts) = first(Side::Responder, b"welcome\r\nto this host\nSSH-2.0-x y\r\n");
    assert_eq!(answer, Answer::Found);
    let text = "SSH-2.0-x y".to_owned();
    assert_eq!(
        facts,
        [AnyFact::Ssh(Fact::Banner {
            side: Side::Responder,
            text
        })]
    );
}

#[test]
fn an_identification_string_is_at_most_255_bytes() {
    let line = |length: usize| {
        let mut line = b"SSH-2.0-".to_vec();
        line.resize(length - 2, b'x');
        line.extend_from_slice(b"\r\n");
        line
    };
    assert_eq!(first(Side::Initiator, &line(255)).0, Answer::Found);
    assert_eq!(first(Side::Initiator, &line(256)).0, Answer::NotThis);
}

#[test]
fn is_not_ssh_when_neither_side_begins_as_such() {
    let mut ssh = Ssh::default();
    let mut facts = Vec::new();
    let request = Input::Bytes(b"GET / HTTP/1.1\r\n");
    assert_eq!(
        ssh.feed(Side::Initiator, request, &mut facts),
        Answer::NeedMore
    );
    let response = Input::Bytes(b"HTTP/1.1 200 OK\r\n");
    assert_eq!(
        ssh.feed(Side::Responder, response, &mut facts),
        Answer::NotThis
    );
    assert_eq!(
        first(Side::Initiator, b"\x16\x03\x01\x00\x05").0,
        Answer::NotThis
    );
    assert_eq!(first(Side::Responder, &[b'x'; 9000]).0, Answer::NotThis);
    assert_eq!(
        first(Side::Initiator, b"see SSH-2.0-x\r\n").0,
        Answer::NeedMore
    );
    assert_eq!(first(Side::Initiator, b"SS").0, Answer::NeedMore);
}
