//! What the mining parsers cost on one core, beside nothing but reading the same JSON:
//! `cargo bench -p agent-monitor --bench stratum`. Results, with conditions, are in
//! `docs/notes/json.md`.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_monitor::protocol::stratum::Stratum;
use agent_monitor::protocol::{Input, Parser as _, Side};
use serde_json::Value;

/// Times that each has its turn; the fastest counts, as least disturbed.
const TURNS: usize = 25;
/// Bytes that each goes through in a turn, at least.
const BYTES: usize = 4 << 20;
/// Bytes of a flow that the parser looks at before it says that nobody mines there.
const FLOW: usize = 64 << 10;

type Session = Vec<(Side, Vec<u8>)>;

fn main() {
    // Cargo's test runs build and start benches, too: there is nothing to test.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    println!(
        "{:<16} {:>8} {:>8} {:>12} {:>12} {:>8} {:>10}",
        "session", "messages", "bytes", "Value ns", "parser ns", "ratio", "parser MB/s"
    );
    for name in [
        "stratum-v1",
        "npm-stratum",
        "equihash",
        "eth-proxy",
        "xmrig",
    ] {
        row(name, &captured(name));
    }
    row("honest JSON-RPC", &honest());
}

/// Per message: reading it with `serde_json`, and all that the parser does.
fn row(name: &str, session: &Session) {
    let bytes: usize = session.iter().map(|(_, line)| line.len()).sum();
    let rounds = BYTES.div_ceil(bytes);
    let messages = (rounds * session.len()) as f64;
    let (mut value, mut parser) = (Duration::MAX, Duration::MAX);
    for _ in 0..TURNS {
        value = value.min(time(|| {
            for _ in 0..rounds {
                for (_, line) in session {
                    black_box(serde_json::from_slice::<Value>(line).expect("it is JSON"));
                }
            }
        }));
        parser = parser.min(time(|| {
            let mut facts = Vec::new();
            for _ in 0..rounds {
                let mut parser = Stratum::default();
                for (side, line) in session {
                    black_box(parser.feed(*side, Input::Bytes(line), &mut facts));
                }
                black_box(&facts);
                facts.clear();
            }
        }));
    }
    let each = |time: Duration| time.as_nanos() as f64 / messages;
    println!(
        "{name:<16} {:>8} {bytes:>8} {:>12.0} {:>12.0} {:>8.2} {:>10.0}",
        session.len(),
        each(value),
        each(parser),
        parser.as_secs_f64() / value.as_secs_f64(),
        (rounds * bytes) as f64 / parser.as_secs_f64() / 1e6,
    );
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A session of `tests/data/stratum`: lines of `> ` from the miner, `< ` from the pool.
fn captured(name: &str) -> Session {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/stratum")
        .join(name)
        .with_extension("txt");
    let text = std::fs::read_to_string(&path).expect("the session is in the tree");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (mark, message) = line.split_at(2);
            let side = match mark {
                "> " => Side::Initiator,
                _ => Side::Responder,
            };
            (side, format!("{message}\n").into_bytes())
        })
        .collect()
}

/// What an agent's tools say, as long as the parser listens: the worst case, for
/// nothing of it is found and nothing can be skipped.
fn honest() -> Session {
    let mut session = Session::new();
    let mut bytes = 0;
    for id in 0.. {
        let ask = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"search","arguments":{{"query":"how \"fast\" is it","limit":10,"paths":["src","tests"]}}}}}}"#
        );
        let answer = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{}"}}],"isError":false,"score":0.25}}}}"#,
            "fn main() {\\n    println!(\\\"hello\\\");\\n}\\n".repeat(20)
        );
        for (side, message) in [(Side::Initiator, ask), (Side::Responder, answer)] {
            bytes += message.len() + 1;
            session.push((side, (message + "\n").into_bytes()));
        }
        if bytes > FLOW {
            return session;
        }
    }
    session
}
