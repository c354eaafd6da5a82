use super::*;
use crate::event::Direction;
use crate::protocol::Side;
use crate::protocol::dns::{Code, Message};

const SECOND: u64 = 1_000_000_000;

/// Asks for names, one each `every` nanoseconds; gives the summaries of what was found.
fn ask(names: impl IntoIterator<Item = (String, Type)>, every: u64) -> Vec<String> {
    let mut tunnels = DnsTunnels::default();
    let names = names.into_iter().zip(1..);
    let found = names.filter_map(|((name, kind), number)| {
        message(&mut tunnels, name, kind, false, number * every)
    });
    found.map(|finding| finding.summary).collect()
}

fn message(
    tunnels: &mut DnsTunnels,
    name: String,
    kind: Type,
    is_response: bool,
    now: u64,
) -> Option<Finding> {
    let flow = Flow {
        direction: Some(Direction::Outbound),
        ..Flow::unknown(7)
    };
    let fact = Fact {
        side: Side::Initiator,
        bytes: 100,
        message: Message {
            id: 1,
            is_response,
            code: Code::NOERROR,
            is_truncated: false,
            question: Some(Question { name, kind }),
            answers: Vec::new(),
        },
    };
    tunnels.message(&flow, &fact, None, now, |name| {
        name.ends_with("allowed.example")
    })
}

/// Distinct text of letters and digits.
fn code(number: u64, length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(number);
    (0..length)
        .map(|_| random.alphanumeric().to_ascii_lowercase())
        .collect()
}

#[test]
fn many_long_names_of_one_domain_are_a_tunnel_told_of_once() {
    let names = (0..500).map(|it| (format!("{}.t.example.com", code(it, 40)), Type::A));
    let found = ask(names, SECOND / 10);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("below example.com: many long ones"),
        "{found:?}"
    );
}

#[test]
fn dns2tcp_with_constant_data_is_a_tunnel() {
    let data = "4eHh".repeat(40);
    let names = (0..50).map(|it| (format!("vdwaaaa{it:03}cg{data}.t1.example.com"), Type::TXT));
    assert_eq!(ask(names, 1000).len(), 1);
}

#[test]
fn short_names_with_a_type_that_carries_data_are_a_download() {
    let names = |kind| (0..60).map(move |it| (format!("{it:04}-x7.t.example.com"), kind));
    assert_eq!(ask(names(Type::TXT), SECOND).len(), 1);
    assert_eq!(ask(names(Type::A), SECOND).len(), 0, "hosts with numbers");
}

#[test]
fn a_few_names_of_type_null_are_enough() {
    let names = |count| (0..count).map(|it| (format!("p{it}.example.com"), Type::NULL));
    assert_eq!(ask(names(4), SECOND).len(), 0);
    let found = ask(names(5), SECOND);
    assert!(found[0].contains("NULL"), "{found:?}");
}

#[test]
fn a_tunnel_that_waits_between_questions_is_found_within_the_hour() {
    let names = || (0..400).map(|it| (format!("{}.example.com", code(it, 30)), Type::CNAME));
    assert_eq!(ask(names(), 8 * SECOND).len(), 1);
    assert_eq!(
        ask(names(), 60 * SECOND).len(),
        0,
        "a question a minute is below it"
    );
}

#[test]
fn names_of_other_programs_are_let_be() {
    type Names = Vec<(String, Type)>;
    let many = |make: &dyn Fn(u64) -> String, kind| -> Names {
        (0..2_000).map(|it| (make(it), kind)).collect()
    };
    let cases: [(&str, Names); 8] = [
        // Each customer's is a registered domain of its own.
        (
            "cloudfront",
            many(&|it| format!("d{}.cloudfront.net", code(it, 13)), Type::A),
        ),
        (
            "hashes of a content network",
            many(&|it| format!("{}.cdn.example.com", code(it, 16)), Type::A),
        ),
        (
            "a block list",
            many(
                &|it| format!("{}.{}.0.10.zen.example.org", it % 250, it / 250),
                Type::A,
            ),
        ),
        (
            "reversed addresses",
            many(
                &|it| format!("{}.{}.0.10.in-addr.arpa", it % 250, it / 250),
                Type(12),
            ),
        ),
        (
            "reversed addresses of version 6",
            many(
                &|it| {
                    let digits: Vec<_> = format!("{it:032x}")
                        .chars()
                        .rev()
                        .map(String::from)
                        .collect();
                    format!("{}.ip6.arpa", digits.join("."))
                },
                Type(12),
            ),
        ),
        (
            "keys of mail, each of another domain",
            many(
                &|it| format!("selector{it}._domainkey.mail{it}.com"),
                Type::TXT,
            ),
        ),
        (
            "the same long name again and again",
            many(&|_| format!("{}.example.com", code(1, 60)), Type::TXT),
        ),
        (
            "what an exception names",
            many(&|it| format!("{}.allowed.example", code(it, 60)), Type::A),
        ),
    ];
    for (what, names) in cases {
        assert_eq!(ask(names, SECOND / 20), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn answers_and_other_cases_of_a_name_do_not_count() {
    let mut tunnels = DnsTunnels::default();
    for number in 0..200 {
        let name = format!("{}.example.com", code(number, 60));
        assert!(message(&mut tunnels, name, Type::A, true, number).is_none());
        let mut name = "abcdefghijklmnopqrstuvwxyz0123456789.example.com".to_owned();
        let upper = name[..26]
            .chars()
            .enumerate()
            .map(|(at, it)| match number >> (at % 8) & 1 {
                1 => it.to_ascii_uppercase(),
                _ => it,
            });
        let upper: String = upper.collect();
        name.replace_range(..26, &upper);
        assert!(message(&mut tunnels, name, Type::A, false, number).is_none());
    }
}

#[test]
fn characters_count_as_on_the_wire() {
    let label = Label::new(r"\001\255\..ab");
    assert_eq!(label.length, 5);
    assert!((label.entropy - 5f64.log2()).abs() < 1e-9);
    assert_eq!(Label::new("aaaa").entropy, 0.0);
    assert_eq!(Label::new("\\").length, 1, "cut off");
}

#[test]
fn tables_are_bounded() {
    let mut tunnels = DnsTunnels::default();
    for number in 0..2_000 {
        let name = format!("x.domain{number}.com");
        message(&mut tunnels, name, Type::A, false, number);
        let name = format!("{}.example.com", code(number, 9));
        message(&mut tunnels, name, Type::A, false, number);
    }
    let domains = &tunnels.agents[&7];
    assert!(domains.len() <= MAX_DOMAINS);
    assert!(
        domains
            .values()
            .all(|domain| domain.names.len() <= MAX_NAMES)
    );
}

/// A resolver in Kubernetes tries every name below `svc.cluster.local` first (ndots:5).
#[test]
fn names_that_only_the_network_itself_has_are_no_tunnel_when_asked_inside() {
    let asked = |resolver: [u8; 4], top: &str| {
        let mut tunnels = DnsTunnels::default();
        let flow = Flow {
            direction: Some(Direction::Outbound),
            remote: Some(crate::event::Address {
                ip: resolver.into(),
                port: 53,
            }),
            ..Flow::unknown(7)
        };
        let found = (0..100).filter_map(|it| {
            let name = format!("{}.example.com.training.svc.{top}", code(it, 20));
            let fact = Fact {
                side: Side::Initiator,
                bytes: 100,
                message: Message {
                    id: 1,
                    is_response: false,
                    code: Code::NOERROR,
                    is_truncated: false,
                    question: Some(Question {
                        name,
                        kind: Type::A,
                    }),
                    answers: Vec::new(),
                },
            };
            tunnels.message(&flow, &fact, None, it * SECOND / 10, |_| false)
        });
        found.count()
    };
    assert_eq!(asked([10, 96, 0, 10], "cluster.local"), 0);
    assert_eq!(asked([10, 96, 0, 10], "cluster.example.com"), 1);
    assert_eq!(asked([203, 0, 113, 9], "cluster.local"), 1, "of whom?");
}
