use proptest::prelude::*;

use super::super::Fact as AnyFact;
use super::*;
use Side::{Initiator, Responder};

fn run(said: &[(Side, &[u8])]) -> (Vec<AnyFact>, Answer, Http) {
    let mut http = Http::default();
    let mut facts = Vec::new();
    let mut answer = Answer::NeedMore;
    for (side, bytes) in said {
        answer = http.feed(*side, Input::Bytes(bytes), &mut facts);
        if answer == Answer::NotThis {
            break;
        }
    }
    (facts, answer, http)
}

fn mining(facts: Vec<AnyFact>) -> Vec<stratum::Fact> {
    let mining = facts.into_iter().filter_map(|fact| match fact {
        AnyFact::Mining(fact) => Some(fact),
        _ => None,
    });
    mining.collect()
}

fn message(first_line: &str, body: &str) -> Vec<u8> {
    format!(
        "{first_line}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[test]
fn the_host_is_that_of_the_address_or_else_of_the_field() {
    for (head, host) in [
        (
            "GET / HTTP/1.1\r\nHost: web.example:8080\r\n\r\n",
            Some("web.example"),
        ),
        (
            "GET http://far.example/x HTTP/1.1\r\nHost: near.example\r\n\r\n",
            Some("far.example"),
        ),
        (
            "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n",
            Some("2001:db8::1"),
        ),
        ("GET / HTTP/1.0\r\n\r\n", None),
    ] {
        let (facts, answer, _) = run(&[(Initiator, head.as_bytes())]);
        assert_eq!(answer, Answer::Found);
        assert_eq!(facts[0].server_name(), host, "{head}");
    }
}

#[test]
fn a_connection_that_a_proxy_grants_is_told_without_credentials() {
    let request = b"CONNECT a.example:22 HTTP/1.1\r\nProxy-Authorization: Basic eDp4\r\n\r\n";
    let granted = |answer: &str| {
        let (facts, ..) = run(&[(Initiator, request), (Responder, answer.as_bytes())]);
        let granted = facts.into_iter().filter_map(|fact| match fact {
            AnyFact::Proxy(granted) => Some(granted),
            _ => None,
        });
        granted.collect::<Vec<_>>()
    };
    let established = |reply: &str| proxy::Granted {
        by: "HTTP CONNECT".to_owned(),
        target: "a.example:22".to_owned(),
        request: b"CONNECT a.example:22 HTTP/1.1".to_vec(),
        reply: reply.as_bytes().to_vec(),
    };
    let reply = "HTTP/1.0 200 Connection established";
    for rest in [
        "",
        "Via: 1.1 proxy\r\n",
        "Content-Length: 0\r\n",
        // As a library for servers has it that knows nothing of tunnels.
        "Transfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(
            granted(&format!("{reply}\r\n{rest}\r\n")),
            [established(reply)]
        );
    }
    for no in [
        "HTTP/1.1 403 Filtered\r\n\r\n",
        "HTTP/1.1 501 Unsupported method\r\n\r\n",
        // A web server that takes any method for a page.
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<h1>Hi!</h1>",
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n<h1>Hi!</h1>",
    ] {
        assert_eq!(granted(no), [], "{no}");
    }
}

#[test]
fn requests_are_told_once_a_host() {
    let get = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let answer = message("HTTP/1.1 200 OK", "hello");
    let other = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let said = [
        (Initiator, &get[..]),
        (Responder, &answer),
        (Initiator, get),
        (Responder, &answer),
        (Initiator, other),
    ];
    let hosts: Vec<_> = run(&said)
        .0
        .iter()
        .map(|fact| fact.server_name().map(str::to_owned))
        .collect();
    assert_eq!(
        hosts,
        [Some("a.example".to_owned()), Some("b.example".to_owned())]
    );
}

#[test]
fn other_protocols_are_not_it() {
    for bytes in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"\x16\x03\x01\x02\x00",
        b"{\"method\":\"x\"}",
        b"hello there\r\n",
        b"EHLO mail\r\n\r\n",
        b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"220 ready\r\n",
    ] {
        assert_eq!(run(&[(Initiator, bytes)]).1, Answer::NotThis, "{bytes:?}");
    }
    let endless = vec![b'A'; 2 * HEAD_MAX];
    let said = [(Initiator, &b"GET /"[..]), (Initiator, &endless)];
    assert_eq!(run(&said).1, Answer::NotThis);
}

#[test]
fn after_missing_bytes_the_next_head_is_found() {
    let get = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let (_, _, mut http) = run(&[(Initiator, get)]);
    let mut facts = Vec::new();
    http.feed(Initiator, Input::Gap, &mut facts);
    http.feed(Initiator, Input::Bytes(b"middle of something"), &mut facts);
    let other = b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
    http.feed(Initiator, Input::Bytes(other), &mut facts);
    assert_eq!(facts[0].server_name(), Some("b.example"));
}

#[test]
fn bodies_that_were_not_captured_are_passed_over() {
    let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5000\r\n\r\n";
    let (_, _, mut http) = run(&[(Initiator, head)]);
    let mut facts = Vec::new();
    http.feed(Initiator, Input::Bytes(&[b'x'; 100]), &mut facts);
    http.feed(Initiator, Input::Skipped(4900), &mut facts);
    let connect = b"CONNECT b.example:1 HTTP/1.1\r\n\r\n";
    http.feed(Initiator, Input::Bytes(connect), &mut facts);
    assert_eq!(facts[0].server_name(), Some("b.example"));
}

/// A getwork miner's, a template miner's, XMRig's in daemon mode, an Ethereum
/// miner's: what they ask a node, its answer, and a share it takes.
fn node_sessions() -> Vec<(&'static str, [Vec<u8>; 4])> {
    let hex = |digits: usize| "5f".repeat(digits / 2);
    let post = |path: &str, fields: &str, body: &str| {
        message(
            &format!("POST {path} HTTP/1.1\r\nHost: node.example{fields}"),
            body,
        )
    };
    let ok = |body: &str| message("HTTP/1.1 200 OK", body);
    let work = format!(
        r#"{{"result":{{"data":"{}","target":"{}"}},"error":null,"id":1}}"#,
        hex(256),
        hex(64)
    );
    let template = format!(
        r#"{{"result":{{"version":2,"previousblockhash":"{}","transactions":[]}},"error":null,"id":0}}"#,
        hex(64)
    );
    let monero = format!(
        r#"{{"id":1,"jsonrpc":"2.0","result":{{"blocktemplate_blob":"{}","difficulty":9}}}}"#,
        hex(300)
    );
    let hash = format!("0x{}", hex(64));
    vec![
        (
            "getwork",
            [
                post(
                    "/",
                    "\r\nUser-Agent: bfgminer/3.0\r\nX-Mining-Extensions: longpoll midstate",
                    r#"{"method": "getwork", "params": [], "id":1}"#,
                ),
                ok(&work),
                post(
                    "/",
                    "",
                    &format!(r#"{{"method":"getwork","params":["{}"],"id":1}}"#, hex(256)),
                ),
                ok(r#"{"result":true,"error":null,"id":1}"#),
            ],
        ),
        (
            "getblocktemplate",
            [
                post(
                    "/",
                    "",
                    r#"{"id":0,"method":"getblocktemplate","params":[{"capabilities":["coinbasetxn"]}]}"#,
                ),
                ok(&template),
                post(
                    "/",
                    "",
                    r#"{"id":1,"method":"submitblock","params":["00"]}"#,
                ),
                ok(r#"{"result":null,"error":null,"id":1}"#),
            ],
        ),
        (
            "getblocktemplate",
            [
                post(
                    "/json_rpc",
                    "\r\nUser-Agent: XMRig/6.21",
                    &format!(
                        r#"{{"id":1,"jsonrpc":"2.0","method":"getblocktemplate","params":{{"wallet_address":"4{}","extra_nonce":"00"}}}}"#,
                        "4".repeat(94)
                    ),
                ),
                ok(&monero),
                post(
                    "/json_rpc",
                    "",
                    r#"{"id":2,"jsonrpc":"2.0","method":"submitblock","params":["0707"]}"#,
                ),
                ok(r#"{"id":2,"jsonrpc":"2.0","result":{"status":"OK"}}"#),
            ],
        ),
        (
            "eth-proxy",
            [
                post(
                    "/",
                    "",
                    r#"{"id":1,"jsonrpc":"2.0","method":"eth_getWork","params":[]}"#,
                ),
                ok(&format!(
                    r#"{{"id":1,"result":["{hash}","{hash}","{hash}"]}}"#
                )),
                post(
                    "/",
                    "",
                    r#"{"id":4,"method":"eth_submitWork","params":["0x1","0x2","0x3"]}"#,
                ),
                ok(r#"{"id":4,"result":true}"#),
            ],
        ),
    ]
}

#[test]
fn mining_with_a_node_is_told_by_what_is_asked_and_answered() {
    for (dialect, [ask, work, submit, taken]) in node_sessions() {
        let said = [
            (Initiator, ask.as_slice()),
            (Responder, &work),
            (Initiator, &submit),
            (Responder, &taken),
        ];
        let facts = mining(run(&said).0);
        assert!(
            facts.iter().all(|fact| fact.dialect == dialect),
            "{facts:#?}"
        );
        assert!(
            facts
                .iter()
                .all(|fact| fact.plain && fact.from_pool == (fact.side == Responder))
        );
        let words: Vec<_> = facts
            .iter()
            .filter(|f| f.from_pool)
            .map(|f| f.message.as_str())
            .collect();
        assert_eq!(words, ["work", "share accepted"], "{dialect}");
        assert_eq!(facts.last().unwrap().weight, stratum::Weight::Proof);
        assert_eq!(facts[0].pool.as_deref(), Some("node.example"));
    }
}

#[test]
fn a_miner_that_asks_a_node_for_its_height_is_told() {
    let asked = |path: &str, agent: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: node.example\r\nUser-Agent: {agent}");
        let facts = mining(run(&[(Initiator, &message(&head, ""))]).0);
        facts.into_iter().map(|fact| fact.message).next()
    };
    let xmrig = "XMRig/6.21.0 (Linux x86_64) libuv/1.44.2 gcc/12.2.0";
    assert_eq!(asked("/getheight", xmrig).as_deref(), Some("/getheight"));
    assert_eq!(
        asked("/getinfo", "xmrig-mo/6.20").as_deref(),
        Some("/getinfo")
    );
    assert_eq!(asked("/getheight", "monero-wallet"), None);
    assert_eq!(asked("/2/summary", xmrig), None);
}

#[test]
fn what_else_is_asked_of_nodes_is_no_mining() {
    for body in [
        r#"{"id":1,"method":"eth_blockNumber","params":[]}"#,
        r#"{"id":1,"method":"getblockchaininfo","params":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"getwork"}}"#,
        r#"{"jsonrpc":"2.0","method":"call","params":{"service":"common","method":"login","args":["db","u","p"]}}"#,
        r#"{"id":1,"method":"get_info"}"#,
        r#"["getwork"]"#,
    ] {
        let post = message("POST / HTTP/1.1\r\nHost: a.example", body);
        let answer = message("HTTP/1.1 200 OK", r#"{"id":1,"result":true}"#);
        let (facts, ..) = run(&[(Initiator, &post), (Responder, &answer)]);
        assert_eq!(mining(facts), [], "{body}");
    }
}

#[test]
fn every_cut_of_an_exchange_tells_the_same() {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\n{\"re\r\n13\r\nsult\":true,\"id\":1}\n\r\n0\r\nTrailer: x\r\n\r\n";
    let submit = &node_sessions()[0].1[2];
    let whole = run(&[(Initiator, submit), (Responder, chunked)]).0;
    assert_eq!(mining(whole.clone())[1].message, "share accepted");
    for cut in 0..submit.len() {
        let (a, b) = submit.split_at(cut);
        let said = [(Initiator, a), (Initiator, b), (Responder, &chunked[..])];
        assert_eq!(run(&said).0, whole, "{cut}");
    }
    for cut in 0..chunked.len() {
        let (a, b) = chunked.split_at(cut);
        let said = [
            (Initiator, submit.as_slice()),
            (Responder, a),
            (Responder, b),
        ];
        assert_eq!(run(&said).0, whole, "{cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_input_panics(said in proptest::collection::vec(
        (any::<bool>(), prop_oneof![
            Just(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
            Just(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec()),
            Just(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n".to_vec()),
            Just(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec()),
            Just(b"HTTP/1.1 200 x\r\nContent-Length: 18446744073709551615\r\n\r\n".to_vec()),
            Just(b"CONNECT a:1 HTTP/1.1\r\n\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..40),
            Just(b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ], any::<u8>()), 0..30,
    )) {
        let mut http = Http::default();
        for (initiator, bytes, kind) in &said {
            let side = if *initiator { Initiator } else { Responder };
            let input = match kind {
                0 => Input::Gap,
                1..20 => Input::Skipped(u32::from(*kind) << (kind % 24)),
                _ => Input::Bytes(bytes),
            };
            http.feed(side, input, &mut Vec::new());
            http.carried();
        }
    }
}
