use proptest::prelude::*;

use super::super::captured::{Sent, session};
use super::super::datagram::DatagramParser;
use super::super::{Answer as Verdict, Fact as AnyFact, Input, Parser};
use super::*;

/// A capture of `tests/data/dns`.
fn capture(name: &str) -> Vec<Sent> {
    session(&format!("dns/{name}"))
}

const DATAGRAMS: [&str; 7] = [
    "dig-cname-udp",
    "dig-odd-udp",
    "dig-retry-udp",
    "dig-truncated-udp",
    "dig-types-udp",
    "glibc-getaddrinfo-udp",
    "glibc-nxdomain-udp",
];
const STREAMS: [&str; 3] = ["dig-retry-tcp", "dig-tcp-tcp", "transfer-refused-tcp"];

fn messages(facts: Vec<AnyFact>) -> Vec<Message> {
    let message = |fact| match fact {
        AnyFact::Dns(fact) => fact.message,
        other => panic!("no fact of DNS: {other:?}"),
    };
    facts.into_iter().map(message).collect()
}

/// Messages of datagrams, all of which must be taken.
fn of_datagrams(sent: &[Sent]) -> Vec<Message> {
    let mut parser = OverDatagrams::default();
    let mut facts = Vec::new();
    for (side, bytes) in sent {
        let answer = parser.datagram(*side, bytes, bytes.len() as u32, &mut facts);
        assert_eq!(answer, Verdict::Found);
    }
    messages(facts)
}

/// Messages of a stream, and the last answer.
fn of_stream(sent: &[Sent]) -> (Vec<Message>, Verdict) {
    let mut parser = OverTcp::default();
    let mut facts = Vec::new();
    let mut answer = Verdict::NeedMore;
    for (side, bytes) in sent {
        answer = parser.feed(*side, Input::Bytes(bytes), &mut facts);
        if answer == Verdict::NotThis {
            break;
        }
    }
    (messages(facts), answer)
}

/// `name TYPE → data, data`, or `name TYPE ?` for a question.
fn in_words(message: &Message) -> String {
    let question = message.question.as_ref().expect("a question");
    let asked = format!("{} {}", question.name, question.kind.name());
    if !message.is_response {
        return asked + " ?";
    }
    let answers = message.answers.iter();
    let answers: Vec<_> = answers.map(|answer| answer.data.as_str()).collect();
    match message.code {
        Code::NOERROR => format!("{asked} → {}", answers.join(", ")),
        code => format!("{asked} → {}", code.name()),
    }
}

fn all_in_words(messages: &[Message]) -> Vec<String> {
    messages.iter().map(in_words).collect()
}

#[test]
fn reads_every_question_and_answer_of_a_resolver_that_reuses_its_socket() {
    let messages = of_datagrams(&capture("glibc-getaddrinfo-udp"));
    assert_eq!(
        all_in_words(&messages),
        [
            "pool.example A ?",
            "pool.example AAAA ?",
            "pool.example A → 198.51.100.7",
            "pool.example AAAA → 2001:db8::7",
        ]
    );
    assert_eq!(messages[0].id, messages[2].id);
    assert_eq!(messages[2].answers[0].ttl, 300);
}

#[test]
fn reads_the_types_that_have_a_text_form() {
    let messages = of_datagrams(&capture("dig-types-udp"));
    let answers: Vec<_> = messages.into_iter().filter(|it| it.is_response).collect();
    assert_eq!(
        all_in_words(&answers),
        [
            "example MX → 10 mail.example",
            "example TXT → \"v=spf1 -all\" \"a \\\"quoted\\\" text\"",
            "_sip._tcp.example SRV → 5 10 5060 sip.example",
            "example NS → ns1.example, ns2.example",
            "example SOA → ns1.example",
            "example CAA → \\# 17 0005697373756563612e6578616d706c65",
        ]
    );
    let messages = of_datagrams(&capture("dig-odd-udp"));
    let answers: Vec<_> = messages.into_iter().filter(|it| it.is_response).collect();
    assert_eq!(
        all_in_words(&answers),
        [
            "h.example HTTPS → \\# 10 00010000010003026832",
            "odd\\.dot.example A → 192.0.2.77",
            "x.other A → REFUSED",
        ]
    );
}

#[test]
fn addresses_belong_to_the_name_that_was_asked_for() {
    let messages = of_datagrams(&capture("dig-cname-udp"));
    let learnt: Vec<_> = messages.iter().flat_map(Message::addresses).collect();
    let name = "www.example";
    assert_eq!(
        learnt,
        [
            ("198.51.100.10".parse().expect("an address"), name, 300),
            ("198.51.100.11".parse().expect("an address"), name, 300),
        ]
    );
    assert_eq!(messages[1].answers[0].data, "cdn.edge.example");
}

#[test]
fn a_name_that_is_not_there_has_a_code_and_no_answers() {
    let messages = of_datagrams(&capture("glibc-nxdomain-udp"));
    let last = messages.last().expect("an answer");
    assert_eq!(last.code.name(), "NXDOMAIN");
    assert_eq!(last.answers, []);
    assert_eq!(last.addresses().count(), 0);
}

#[test]
fn an_answer_too_long_for_a_datagram_says_so_and_comes_over_tcp() {
    let cut = of_datagrams(&capture("dig-truncated-udp"));
    assert!(cut[1].is_truncated);
    assert_eq!(cut[1].answers, []);
    let (whole, answer) = of_stream(&capture("dig-retry-tcp"));
    assert_eq!(answer, Verdict::Found);
    assert!(!whole[1].is_truncated);
    assert!(whole[1].answers[0].data.starts_with("\"aaaa"));
    assert!(whole[1].answers[0].data.ends_with("cccc\""));
}

#[test]
fn reads_several_messages_of_a_stream_however_it_is_cut() {
    let sent = capture("dig-tcp-tcp");
    let (whole, _) = of_stream(&sent);
    assert_eq!(
        all_in_words(&whole),
        [
            "www.example A ?",
            "www.example A → cdn.edge.example, host.cdn.edge.example, 198.51.100.10, 198.51.100.11",
            "pool.example AAAA ?",
            "pool.example AAAA → 2001:db8::7",
        ]
    );
    for size in 1..40 {
        let cut = sent.iter().flat_map(|(side, bytes)| {
            let parts = bytes.chunks(size);
            parts.map(|part| (*side, part.to_vec()))
        });
        assert_eq!(
            of_stream(&cut.collect::<Vec<_>>()),
            (whole.clone(), Verdict::Found)
        );
    }
}

#[test]
fn no_prefix_of_a_message_is_another_message() {
    for name in DATAGRAMS {
        for (side, bytes) in capture(name) {
            for cut in 0..bytes.len() {
                let mut facts = Vec::new();
                let mut parser = OverDatagrams::default();
                parser.datagram(side, &bytes[..cut], cut as u32, &mut facts);
                let truncated = bytes[2] & 2 != 0;
                assert!(facts.is_empty() || truncated, "{name} cut at {cut}");
            }
        }
    }
}

#[test]
fn what_was_captured_of_a_message_is_read_as_far_as_it_goes() {
    for name in DATAGRAMS {
        for (side, bytes) in capture(name) {
            let whole = of_datagrams(&[(side, bytes.clone())]).remove(0);
            for cut in 0..bytes.len() {
                let mut facts = Vec::new();
                let mut parser = OverDatagrams::default();
                parser.datagram(side, &bytes[..cut], bytes.len() as u32, &mut facts);
                for part in messages(facts) {
                    assert!(part.is_truncated);
                    assert_eq!(part.question, whole.question);
                    assert_eq!(part.answers, whole.answers[..part.answers.len()]);
                }
            }
        }
    }
}

#[test]
fn every_prefix_of_a_stream_needs_more_or_is_found() {
    for name in STREAMS {
        let sent = capture(name);
        let (whole, _) = of_stream(&sent);
        let (side, first) = &sent[0];
        for cut in 0..first.len() {
            let (none, answer) = of_stream(&[(*side, first[..cut].to_vec())]);
            assert_eq!(
                (none, answer),
                (vec![], Verdict::NeedMore),
                "{name} at {cut}"
            );
        }
        for cut in 0..sent.len() {
            let (part, _) = of_stream(&sent[..cut]);
            assert_eq!(part, whole[..part.len()]);
        }
    }
}

#[test]
fn a_message_with_a_hole_is_read_up_to_it_and_the_next_one_whole() {
    let sent = capture("dig-tcp-tcp");
    let mut parser = OverTcp::default();
    let mut facts = Vec::new();
    let (_, question) = &sent[0];
    let (_, answer) = &sent[1];
    assert_eq!(
        parser.feed(Side::Initiator, Input::Bytes(question), &mut facts),
        Verdict::Found
    );
    let cut = answer.len() - 20;
    parser.feed(Side::Responder, Input::Bytes(&answer[..cut]), &mut facts);
    parser.feed(Side::Responder, Input::Skipped(20), &mut facts);
    parser.feed(Side::Responder, Input::Bytes(answer), &mut facts);
    let messages = messages(facts);
    assert!(messages[1].is_truncated);
    assert_eq!(messages[1].question, messages[2].question);
    assert!(!messages[2].is_truncated);
    let lost = parser.feed(Side::Responder, Input::Skipped(1), &mut Vec::new());
    assert_eq!(lost, Verdict::NotThis, "a length that is missing");
}

#[test]
fn other_protocols_are_not_dns() {
    let ntp = [&[0x23, 0, 6, 0xec][..], &[0; 44]].concat();
    let stun = b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl";
    let wireguard = [&[1, 0, 0, 0][..], &[0x5a; 144]].concat();
    let quic = [&[0xc3, 0, 0, 0, 1, 8][..], &[0x77; 1194]].concat();
    for other in [
        &ntp[..],
        stun,
        &wireguard,
        &quic,
        &[0; 12],
        &[0; 64],
        &[0xff; 64],
        b"",
    ] {
        let mut parser = OverDatagrams::default();
        let mut facts = Vec::new();
        for _ in 0..=MAX_OTHERS {
            parser.datagram(Side::Initiator, other, other.len() as u32, &mut facts);
        }
        let answer = parser.datagram(Side::Initiator, other, other.len() as u32, &mut facts);
        assert_eq!((answer, facts), (Verdict::NotThis, vec![]), "{other:?}");
    }
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh";
    for other in [
        &hello[..],
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0",
    ] {
        let (_, answer) = of_stream(&[(Side::Initiator, other.to_vec())]);
        assert_eq!(answer, Verdict::NotThis, "{other:?}");
    }
}

#[test]
fn multicast_dns_may_ask_several_questions_and_answer_without_one() {
    let question = b"\x05_http\x04_tcp\x05local\x00\x00\x0c\x80\x01";
    let ask = [&b"\0\0\0\0\0\x02\0\0\0\0\0\0"[..], question, question].concat();
    let messages = of_datagrams(&[(Side::Initiator, ask)]);
    assert_eq!(messages.len(), 2);
    assert_eq!(in_words(&messages[0]), "_http._tcp.local PTR ?");
    let record = b"\x03box\x05local\x00\x00\x01\x80\x01\0\0\0\x78\0\x04\xc0\0\x02\x09";
    let tell = [&b"\0\0\x84\0\0\0\0\x01\0\0\0\0"[..], record].concat();
    let messages = of_datagrams(&[(Side::Responder, tell.clone())]);
    assert_eq!(messages[0].answers[0].data, "192.0.2.9");
    assert_eq!(messages[0].addresses().count(), 0, "nobody asked");
    let mut facts = Vec::new();
    let more = [&tell[..], b"x"].concat();
    OverDatagrams::default().datagram(Side::Responder, &more, more.len() as u32, &mut facts);
    assert_eq!(facts, []);
}

#[test]
fn a_message_full_of_pointers_is_read_in_bounded_time() {
    // Each answer's name is a pointer to a chain of pointers.
    let mut message = b"\0\x01\x81\x80\0\x01\x02\0\0\0\0\0\x01a\0\0\x01\0\x01".to_vec();
    let mut last = 12u16;
    for _ in 0..512 {
        let at = message.len() as u16;
        message.extend((0xc000 | last).to_be_bytes());
        message.extend(b"\0\x05\0\x01\0\0\0\0\0\x02");
        message.extend((0xc000 | at).to_be_bytes());
        last = at + 12;
    }
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        let mut facts = Vec::new();
        OverDatagrams::default().datagram(
            Side::Responder,
            &message,
            message.len() as u32,
            &mut facts,
        );
    }
    // A hundred such datagrams; a parser that followed each chain to its end, at
    // each record, would need minutes.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

/// Bytes that begin as messages do, so that more than the header is reached.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let captured: Vec<Vec<u8>> = DATAGRAMS
        .iter()
        .flat_map(|name| capture(name))
        .map(|(_, bytes)| bytes)
        .collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (prop::sample::select(captured), changes, 0..600usize).prop_map(|(mut bytes, changes, len)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(len);
        bytes
    })
}

proptest! {
    #[test]
    fn any_datagram_is_taken_and_gives_printable_text(
        bytes in prop_oneof![nearly_a_message(), prop::collection::vec(any::<u8>(), 0..600)],
        more in 0..3u32,
    ) {
        let mut facts = Vec::new();
        let len = bytes.len() as u32 + more;
        OverDatagrams::default().datagram(Side::Responder, &bytes, len, &mut facts);
        for message in messages(facts) {
            prop_assert!(message.answers.len() <= 32);
            let names = message.question.iter().map(|it| &it.name);
            let answers = message.answers.iter().flat_map(|it| [&it.name, &it.data]);
            for text in names.chain(answers) {
                prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || text.contains('…'));
                prop_assert!(text.len() < 4 * 65_536);
            }
        }
    }

    #[test]
    fn any_stream_is_taken(
        pieces in prop::collection::vec((any::<bool>(), nearly_a_message(), any::<bool>()), 0..8),
    ) {
        let mut parser = OverTcp::default();
        let mut facts = Vec::new();
        for (initiator, bytes, framed) in pieces {
            let side = if initiator { Side::Initiator } else { Side::Responder };
            let length = (bytes.len() as u16).to_be_bytes();
            if framed {
                parser.feed(side, Input::Bytes(&length), &mut facts);
            }
            parser.feed(side, Input::Bytes(&bytes), &mut facts);
            parser.feed(side, Input::Skipped(u32::from(length[1]) % 5), &mut facts);
        }
    }
}
