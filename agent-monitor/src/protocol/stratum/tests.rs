use proptest::prelude::*;

use super::super::Fact as AnyFact;
use super::*;
use Side::{Initiator, Responder};

fn run(inputs: &[(Side, &[u8])]) -> (Vec<Fact>, Answer) {
    let mut parser = Stratum::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in inputs {
        answer = parser.feed(*side, Input::Bytes(bytes), &mut facts);
    }
    (mining(facts), answer)
}

fn mining(facts: Vec<AnyFact>) -> Vec<Fact> {
    facts
        .into_iter()
        .map(|fact| match fact {
            AnyFact::Mining(fact) => fact,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// What a session's messages are taken for, in short.
fn said(inputs: &[(Side, &[u8])]) -> Vec<(bool, Weight, &'static str, String)> {
    run(inputs)
        .0
        .into_iter()
        .map(|f| (f.from_pool, f.weight, f.dialect, f.message))
        .collect()
}

fn miner(dialect: &'static str, message: &str) -> (bool, Weight, &'static str, String) {
    (false, Weight::Strong, dialect, message.to_owned())
}

fn pool(
    weight: Weight,
    dialect: &'static str,
    message: &str,
) -> (bool, Weight, &'static str, String) {
    (true, weight, dialect, message.to_owned())
}

/// A session file: lines of `> ` from the miner, `< ` from the pool.
fn session(name: &str) -> Vec<(Side, Vec<u8>)> {
    let path = format!(
        "{}/../tests/data/stratum/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (mark, text) = line.split_at(2);
            let side = if mark == "> " { Initiator } else { Responder };
            (side, format!("{text}\n").into_bytes())
        })
        .collect()
}

fn borrowed(session: &[(Side, Vec<u8>)]) -> Vec<(Side, &[u8])> {
    session
        .iter()
        .map(|(side, bytes)| (*side, bytes.as_slice()))
        .collect()
}

const SESSIONS: &[&str] = &[
    "stratum-v1",
    "npm-stratum",
    "equihash",
    "kawpow",
    "kaspa",
    "xmrig",
    "xmrig-6",
    "xmrig-old",
    "eth-proxy",
    "eth-stratum-1",
    "eth-stratum-2",
    "nicehash",
    "browser",
    "coinhive",
];

#[test]
fn every_session_tells_dialect_and_what_else_it_says_of_the_miner() {
    let monero = Some("Monero and its kin");
    let ethash = Some("Ethereum's kin (Ethash)");
    for (name, dialect, coin, agent) in [
        (
            "eth-stratum-1",
            "stratum-eth1",
            ethash,
            Some("lolMiner 1.88"),
        ),
        ("nicehash", "stratum-v1", None, Some("NiceHash/1.0.0")),
        ("browser", "browser", monero, None),
        ("coinhive", "browser", monero, None),
        (
            "xmrig-6",
            "xmrig",
            Some("Monero"),
            Some("XMRig/6.16.0 (Linux x86_64) libuv/1.42.0 gcc/5.4.0"),
        ),
    ] {
        let session = session(name);
        let (facts, _) = run(&borrowed(&session));
        let first = &facts[0];
        assert_eq!(
            (first.dialect, first.coin, first.agent.as_deref()),
            (dialect, coin, agent),
            "{name}"
        );
        let who = facts.iter().find_map(|fact| fact.identity.as_deref());
        assert!(
            who.is_some_and(|who| who.chars().count() <= 25),
            "{name}: {who:?}"
        );
    }
}

#[test]
fn every_session_has_the_miners_word_and_the_pools() {
    for name in SESSIONS {
        let session = session(name);
        let (facts, answer) = run(&borrowed(&session));
        assert_eq!(answer, Answer::Found, "{name}");
        assert!(
            facts
                .iter()
                .any(|f| !f.from_pool && f.weight == Weight::Strong),
            "{name}"
        );
        assert!(
            facts
                .iter()
                .any(|f| f.from_pool && f.weight >= Weight::Strong),
            "{name}"
        );
        assert!(
            facts.iter().all(|f| f.from_pool == (f.side == Responder)),
            "{name}"
        );
    }
}

#[test]
fn the_first_whole_message_is_enough_even_without_its_line_end() {
    for name in SESSIONS {
        let session = session(name);
        let first = session[0].1.strip_suffix(b"\n").unwrap();
        assert_eq!(run(&[(Initiator, first)]).1, Answer::Found, "{name}");
        assert_eq!(
            run(&[(Initiator, &first[..first.len() - 1])]).1,
            Answer::NeedMore,
            "{name}"
        );
    }
}

#[test]
fn a_pool_that_dials_out_is_told_by_its_words() {
    let notify = br#"{"id":null,"method":"mining.notify","params":[]}"#;
    let (facts, _) = run(&[(Initiator, notify)]);
    assert!(facts[0].from_pool && facts[0].side == Initiator);
}

#[test]
fn every_prefix_tells_a_prefix_of_the_facts() {
    for name in SESSIONS {
        let session = session(name);
        let (all, _) = run(&borrowed(&session));
        for at in 0..session.len() {
            // A share of Equihash is 3 KiB of hex, of which a few cuts are enough.
            for cut in (0..session[at].1.len()).step_by(1 + session[at].1.len() / 400) {
                let mut prefix = borrowed(&session[..at]);
                prefix.push((session[at].0, &session[at].1[..cut]));
                let (facts, _) = run(&prefix);
                assert_eq!(facts, all[..facts.len()], "{name} {at} {cut}");
            }
        }
    }
}

#[test]
fn one_byte_a_segment_tells_the_same() {
    for name in SESSIONS {
        let session = session(name);
        let bytes: Vec<(Side, &[u8])> = session
            .iter()
            .flat_map(|(side, line)| line.chunks(1).map(|c| (*side, c)))
            .collect();
        assert_eq!(run(&bytes).0, run(&borrowed(&session)).0, "{name}");
    }
}

#[test]
fn several_messages_in_a_segment_are_all_told() {
    let both = b"{\"method\":\"mining.subscribe\"}\n{\"method\":\"mining.authorize\",\"params\":[\"w.1\",\"x\"]}\n";
    let (facts, _) = run(&[(Initiator, both)]);
    assert_eq!(facts.len(), 2);
    assert_eq!(facts[1].identity.as_deref(), Some("w.1"));
}

#[test]
fn key_order_spacing_and_escapes_do_not_matter() {
    let odd = br#"  { "params" : [ "a}\"{" ] ,"x":{"y":"\\"}, "m\u0065thod":"\u006dining.subscr\u0069be", "id" : "q" }"#;
    assert_eq!(
        said(&[(Initiator, odd)]),
        [miner("stratum-v1", "mining.subscribe")]
    );
}

#[test]
fn a_share_counts_as_accepted_only_as_the_answer_to_a_share() {
    let submit = br#"{"id":4,"method":"mining.submit","params":["w","j","0","0","0"]}"#;
    let yes = br#"{"id":4,"result":true,"error":null}"#;
    assert_eq!(
        said(&[(Initiator, submit), (Responder, yes)]),
        [
            miner("stratum-v1", "mining.submit"),
            pool(Weight::Proof, "stratum-v1", "share accepted")
        ]
    );
    assert_eq!(said(&[(Responder, yes)]), []);
    let authorize = br#"{"id":4,"method":"mining.authorize","params":["w","x"]}"#;
    assert_eq!(said(&[(Initiator, authorize), (Responder, yes)]).len(), 1);
    let no = br#"{"id":4,"result":false,"error":[23,"low difficulty",null]}"#;
    assert_eq!(said(&[(Initiator, submit), (Responder, no)]).len(), 1);
}

#[test]
fn a_lone_get_work_is_weak() {
    let ask = br#"{"id":1,"jsonrpc":"2.0","method":"eth_getWork","params":[]}"#;
    let (facts, _) = run(&[(Initiator, ask)]);
    assert_eq!((facts.len(), facts[0].weight), (1, Weight::Weak));
}

#[test]
fn what_only_looks_alike_is_silent() {
    let blob = "0".repeat(152);
    for (line, why) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","clientInfo":{"name":"x"}}}"#,
            "MCP",
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"mining.subscribe","arguments":{"method":"mining.notify"}}}"#,
            "MCP naming a method",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"{\"method\":\"mining.notify\"}"}]}}"#,
            "MCP quoting one",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"text":"mining.submit"}}}"#,
            "LSP",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber","params":[]}"#,
            "Ethereum node",
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":"0x10d4f"}"#,
            "Ethereum node's answer",
        ),
        (
            r#"{"id":0,"method":"server.version","params":["4.5","1.4"]}"#,
            "Electrum",
        ),
        (
            r#"{"id":1,"method":"blockchain.headers.subscribe","params":[]}"#,
            "Electrum",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"call","params":{"service":"common","method":"login","args":["db","u","p"]}}"#,
            "Odoo",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"login","params":{"login":"admin","password":"x","db":"d"}}"#,
            "Odoo-like",
        ),
        (
            r#"{"method":"login","params":["admin","x"]}"#,
            "login by position",
        ),
        (
            r#"{"method":"submit","params":{"job_id":"7","result":"ok"}}"#,
            "job queue",
        ),
        (
            r#"{"method":"job","params":{"job_id":"7","target":"prod"}}"#,
            "job queue",
        ),
        (r#"{"id":1,"result":true,"error":null}"#, "any answer"),
        (r#"{"status":"OK"}"#, "any status"),
        (r#"{"method":"mining.unheard_of"}"#, "unknown method"),
        (r#"{"method":7}"#, "not a name"),
        (
            "see {\"method\":\"mining.subscribe\"}",
            "in the middle of a line",
        ),
        ("\"{\"method\":\"mining.subscribe\"}", "in a string"),
        ("{\"method\":\n\"mining.subscribe\"}", "over two lines"),
        (
            &format!(
                r#"{{"method":"job","params":{{"job_id":"7","blob":"{blob}","target":"zz"}}}}"#
            ),
            "bad target",
        ),
    ] {
        for side in [Initiator, Responder] {
            assert_eq!(said(&[(side, line.as_bytes()), (side, b"\n")]), [], "{why}");
        }
    }
}

#[test]
fn a_session_after_a_proxys_handshake_is_found() {
    let inputs: [(Side, &[u8]); 4] = [
        (Initiator, b"CONNECT pool.example:3333 HTTP/1.1\r\n\r\n"),
        (Responder, b"HTTP/1.1 200 OK\r\n\r\n"),
        (
            Initiator,
            b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n",
        ),
        (
            Responder,
            b"{\"id\":null,\"method\":\"mining.set_difficulty\",\"params\":[8]}\n",
        ),
    ];
    // One side alone might be a document.
    assert_eq!(run(&inputs[..3]).1, Answer::NeedMore);
    assert_eq!(run(&inputs).1, Answer::Found);
}

#[test]
fn gives_up_after_the_documented_number_of_bytes() {
    let line = [b'x'; 512];
    let count = |inputs: &mut dyn Iterator<Item = (Side, &[u8])>| {
        let mut parser = Stratum::default();
        inputs
            .take_while(|(side, bytes)| {
                parser.feed(*side, Input::Bytes(bytes), &mut Vec::new()) == Answer::NeedMore
            })
            .count()
    };
    let both = [(Initiator, &line[..]), (Responder, &line[..])];
    assert_eq!(
        count(&mut both.into_iter().cycle().take(1000)),
        2 * 8192 / 512
    );
    let one = [(Responder, &line[..])];
    assert_eq!(count(&mut one.into_iter().cycle().take(1000)), 65536 / 512);
}

#[test]
fn a_line_too_long_is_passed_over_to_the_next() {
    let mut long = br#"{"method":"mining.subscribe","params":[""#.to_vec();
    long.resize(20_000, b'a');
    long.extend_from_slice(b"\"]}\n{\"method\":\"mining.noop\"}\n");
    assert_eq!(
        said(&[(Initiator, &long)]),
        [miner("stratum-eth2", "mining.noop")]
    );
}

#[test]
fn after_missing_bytes_the_next_line_counts() {
    for missing in [Input::Gap, Input::Skipped(100)] {
        let mut parser = Stratum::default();
        let mut facts = Vec::new();
        parser.feed(
            Responder,
            Input::Bytes(b"{\"method\":\"mining."),
            &mut facts,
        );
        parser.feed(Responder, missing, &mut facts);
        // The middle of a line.
        parser.feed(
            Responder,
            Input::Bytes(b" {\"method\":\"mining.set\"}\n"),
            &mut facts,
        );
        assert!(facts.is_empty());
        parser.feed(
            Responder,
            Input::Bytes(b"{\"method\":\"mining.bye\"}"),
            &mut facts,
        );
        assert_eq!(mining(facts)[0].message, "mining.bye");
    }
}

/// Pools and miners begin a segment with each message, of which one may be lost.
#[test]
fn after_missing_bytes_an_object_that_follows_at_once_counts() {
    for missing in [Input::Gap, Input::Skipped(100)] {
        for cut in 0..20 {
            let (begin, rest) = b"{\"method\":\"mining.bye\"}\n".split_at(cut);
            let mut parser = Stratum::default();
            let mut facts = Vec::new();
            for input in [
                Input::Bytes(b"{\"method\":\"mini"),
                missing,
                Input::Bytes(begin),
                Input::Bytes(rest),
            ] {
                parser.feed(Responder, input, &mut facts);
            }
            assert_eq!(mining(facts)[0].message, "mining.bye", "{cut}");
        }
    }
}

#[test]
fn evidence_and_identity_are_bounded() {
    let name = "é".repeat(2000);
    let line = format!(r#"{{"method":"mining.authorize","params":["{name}","x"]}}"#);
    let (facts, _) = run(&[(Initiator, line.as_bytes())]);
    assert_eq!(facts[0].bytes.len(), 256);
    assert_eq!(facts[0].identity.as_ref().unwrap().chars().count(), 25);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_input_panics(inputs in proptest::collection::vec(
        (any::<bool>(), proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'), Just(b'\n'), any::<u8>()], 0..100), 0..9u32),
        0..50,
    )) {
        let mut parser = Stratum::default();
        for (initiator, bytes, kind) in &inputs {
            let input = match kind {
                0 => Input::Gap,
                1 => Input::Skipped(u32::MAX),
                _ => Input::Bytes(bytes),
            };
            let side = if *initiator { Initiator } else { Responder };
            parser.feed(side, input, &mut Vec::new());
        }
    }

    #[test]
    fn splitting_anywhere_changes_nothing(
        name in proptest::sample::select(SESSIONS),
        cuts in proptest::collection::vec(1..300usize, 1..30),
    ) {
        let session = session(name);
        let mut cuts = cuts.iter().cycle();
        let mut split: Vec<(Side, &[u8])> = Vec::new();
        for (side, line) in &session {
            let mut rest = line.as_slice();
            while let Some((head, tail)) = cuts.next().and_then(|&cut| rest.split_at_checked(cut)) {
                split.push((*side, head));
                rest = tail;
            }
            split.push((*side, rest));
        }
        prop_assert_eq!(run(&split).0, run(&borrowed(&session)).0);
    }
}
