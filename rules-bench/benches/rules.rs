//! What a rule that does not match costs: this program's engine, the crate `cel`
//! and the crate `sigma-rust`, on the same rules and events, in turns in one run.
//!
//! Every engine is given its events in its own form beforehand, and only the
//! rules of an event's kind. `cel` has neither networks nor letters that match in
//! either case, so it compares the beginnings of addresses, and case counts.
//! Exits with 1 when a budget is not met.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_monitor::event::Event;
use agent_monitor::rules::engine::{Engine, stage_of};
use agent_monitor::rules::problem::{Problems, Source};
use agent_monitor::rules::set::RuleSet;
use agent_monitor::rules::tree::{Joined, Subject};
use agent_monitor::rules::{sample, yaml};

/// Rules of all kinds together.
const RULES: usize = 200;
/// Times that each engine has its turn; the fastest counts, as least disturbed.
const TURNS: usize = 15;
/// Most nanoseconds for a rule that does not match.
const PER_RULE: f64 = 50.0;
/// Most nanoseconds for an event and [`RULES`] rules, on average.
const PER_EVENT: f64 = 1_000.0;

const KINDS: [&str; 4] = ["exec", "connect", "flow", "dns"];

/// One rule in the three languages.
struct Written {
    kind: &'static str,
    own: String,
    cel: String,
    sigma: String,
}

/// The `n`th rule: a kind in turn, and of each kind several shapes.
fn rule(n: usize, kinds: &[&'static str]) -> Written {
    let kind = kinds[n % kinds.len()];
    let shape = n / kinds.len() % 4;
    // Per shape: our selection, the same for a flat event, and in CEL.
    let (own, flat, cel) = match (kind, shape) {
        ("exec", 0) => (
            format!(
                "process.exe|endswith: [/tool-{n}, /tool-{n}.bin]\n    exec.argv|joined|contains: '--steal-{n} '"
            ),
            format!(
                "process.exe|endswith: [/tool-{n}, /tool-{n}.bin]\n    exec.line|contains: '--steal-{n} '"
            ),
            format!(
                "(process.exe.endsWith('/tool-{n}') || process.exe.endsWith('/tool-{n}.bin')) && exec.line.contains('--steal-{n} ')"
            ),
        ),
        ("exec", 1) => (
            format!("exec.argv|joined|contains|all: ['curl', 'evil-{n}.example', '| sh']"),
            format!("exec.line|contains|all: ['curl', 'evil-{n}.example', '| sh']"),
            format!(
                "exec.line.contains('curl') && exec.line.contains('evil-{n}.example') && exec.line.contains('| sh')"
            ),
        ),
        ("exec", 2) => (
            format!("process.comm: [miner-{n}, minerd-{n}, xm-{n}]\n    process.uid: 0"),
            format!("process.comm: [miner-{n}, minerd-{n}, xm-{n}]\n    process.uid: 0"),
            format!("process.comm in ['miner-{n}', 'minerd-{n}', 'xm-{n}'] && process.uid == 0"),
        ),
        ("exec", _) => (
            format!(
                "process.exe|startswith: /opt/app-{n}/\n    process.ancestors.0.exe|endswith: /server-{n}"
            ),
            format!("process.exe|startswith: /opt/app-{n}/\n    parent.exe|endswith: /server-{n}"),
            format!(
                "process.exe.startsWith('/opt/app-{n}/') && parent.exe.endsWith('/server-{n}')"
            ),
        ),
        ("dns", _) => (
            format!("dns.question|endswith: [.pool-{n}.example, .mine-{n}.example]"),
            format!("dns.question|endswith: [.pool-{n}.example, .mine-{n}.example]"),
            format!(
                "dns.question.endsWith('.pool-{n}.example') || dns.question.endsWith('.mine-{n}.example')"
            ),
        ),
        (kind, 0 | 1) => (
            format!(
                "{kind}.remote.port: [{}, {}]\n    process.exe|endswith: /c2-{n}",
                10_000 + n,
                20_000 + n
            ),
            format!(
                "{kind}.port: [{}, {}]\n    process.exe|endswith: /c2-{n}",
                10_000 + n,
                20_000 + n
            ),
            format!(
                "{kind}.port in [{}, {}] && process.exe.endsWith('/c2-{n}')",
                10_000 + n,
                20_000 + n
            ),
        ),
        (kind, _) => (
            format!(
                "{kind}.remote.ip|cidr: 10.{}.0.0/16\n    {kind}.transport: tcp",
                n % 256
            ),
            format!(
                "{kind}.ip|cidr: 10.{}.0.0/16\n    {kind}.transport: tcp",
                n % 256
            ),
            format!(
                "{kind}.ip.startsWith('10.{}.') && {kind}.transport == 'tcp'",
                n % 256
            ),
        ),
    };
    let document = |event: &str, selection: &str| {
        format!(
            "title: r{n}\nid: r{n}\nlevel: low\n{event}\ndetection:\n  sel:\n    {selection}\n  condition: sel\n"
        )
    };
    Written {
        kind,
        own: document(&format!("event: {kind}"), &own),
        cel,
        sigma: document("logsource: {product: linux}", &flat),
    }
}

/// One event in the three forms.
struct Happened {
    own: Event,
    cel: cel::Context<'static, 'static>,
    sigma: sigma_rust::Event,
}

fn events(kinds: &[&str]) -> Vec<Happened> {
    let programs = [
        (
            "python3",
            "/usr/bin/python3.11",
            "train.py --model base --epochs 20 --lr 0.0003 --out /data/run",
        ),
        (
            "git",
            "/usr/bin/git",
            "fetch --all --prune --tags origin refs/heads/main",
        ),
        (
            "cc1plus",
            "/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus",
            "-quiet -I include -D_GNU_SOURCE src/lib.cc -O2 -o /tmp/cc.s",
        ),
        ("sh", "/usr/bin/dash", "-c make -j8 test"),
    ];
    let mut events = Vec::new();
    for (number, (comm, exe, line)) in (0..).zip(programs) {
        for kind in kinds {
            let line = format!("{comm} {line}");
            let argv: Vec<&str> = line.split(' ').collect();
            let ip = format!("198.51.100.{}", number + 1);
            let (own, flat) = match *kind {
                "exec" => (
                    serde_json::json!({"filename": exe, "argv": argv}),
                    serde_json::json!({"line": line}),
                ),
                "dns" => (
                    serde_json::json!({"question": format!("host-{number}.cdn.example"), "type": "A"}),
                    serde_json::json!({"question": format!("host-{number}.cdn.example")}),
                ),
                _ => (
                    serde_json::json!({"remote": {"ip": ip, "port": 443}}),
                    serde_json::json!({"ip": ip, "port": 443, "transport": "tcp"}),
                ),
            };
            let parent = serde_json::json!({"exe": "/usr/bin/bash"});
            let process = serde_json::json!({"pid": 7, "comm": comm, "exe": exe, "uid": 1000});
            let mut whole = process.clone();
            whole["argv"] = argv.clone().into();
            whole["ancestors"] =
                vec![serde_json::json!({"pid": 1, "comm": "bash", "exe": "/usr/bin/bash"})].into();
            let text = serde_json::json!({"process": whole, *kind: own}).to_string();
            let node = yaml::documents(&text).expect("JSON is YAML").remove(0);

            let mut context = cel::Context::default();
            for (name, value) in [("process", &process), ("parent", &parent), (*kind, &flat)] {
                context.add_variable(name, value).expect("it can be made");
            }
            let mut flattened = serde_json::Map::new();
            for (name, value) in [("process", &process), ("parent", &parent), (*kind, &flat)] {
                for (member, value) in value.as_object().expect("an object") {
                    flattened.insert(format!("{name}.{member}"), value.clone());
                }
            }
            let flattened = serde_json::Value::Object(flattened).to_string();
            events.push(Happened {
                own: sample::event(&node, number).expect("it is an event"),
                cel: context,
                sigma: sigma_rust::event_from_json(&flattened).expect("it is an event"),
            });
        }
    }
    events
}

/// An engine's name, and what has it ask all its rules about all events.
type Contender<'a> = (&'static str, Box<dyn FnMut() + 'a>);

/// Nanoseconds of one call, the fastest of [`TURNS`] turns; engines in turns, so
/// that what disturbs one disturbs all.
fn fastest(engines: &mut [Contender<'_>], calls: usize) -> Vec<f64> {
    let mut best = vec![Duration::MAX; engines.len()];
    for _ in 0..TURNS {
        for (best, (_, engine)) in best.iter_mut().zip(engines.iter_mut()) {
            let began = Instant::now();
            for _ in 0..calls {
                engine();
            }
            *best = (*best).min(began.elapsed());
        }
    }
    let each = best.iter();
    each.map(|best| best.as_nanos() as f64 / calls as f64)
        .collect()
}

/// Measures [`RULES`] rules of these kinds on events of these kinds; whether the budgets are met.
fn measure(name: &str, kinds: &[&'static str]) -> bool {
    let written: Vec<Written> = (0..RULES).map(|n| rule(n, kinds)).collect();
    let events = events(kinds);
    let sources = written
        .iter()
        .map(|it| Source::new(Path::new("x.yaml"), it.own.clone()));
    let set = match RuleSet::compile(&[sources.collect()], Problems::default()) {
        Ok(set) => Arc::new(set),
        Err(problems) => panic!("{problems}"),
    };
    let of_kind =
        |kind: &str| -> Vec<usize> { (0..RULES).filter(|n| written[*n].kind == kind).collect() };
    // (event, its rules) by place.
    let pairs: Vec<(&Happened, Vec<usize>)> = events
        .iter()
        .map(|event| (event, of_kind(event.own.body.kind())))
        .collect();
    let cel: Vec<cel::Program> = written
        .iter()
        .map(|it| cel::Program::compile(&it.cel).expect("it is CEL"))
        .collect();
    let sigma: Vec<sigma_rust::Rule> = written
        .iter()
        .map(|it| sigma_rust::rule_from_yaml(&it.sigma).expect("it is a rule"))
        .collect();

    let mut engine = Engine::new(set.clone());
    let mut sightings = Vec::new();
    let mut joined = Joined::default();
    let mut engines: Vec<Contender<'_>> = vec![
        (
            "agent-monitor",
            Box::new(|| {
                for (event, _) in &pairs {
                    engine.event(black_box(&event.own), &mut sightings);
                }
                assert!(sightings.is_empty(), "nothing may match");
            }),
        ),
        (
            "agent-monitor, without its index",
            Box::new(|| {
                for (event, rules) in &pairs {
                    let mut subject = Subject::new(black_box(&event.own), &mut joined);
                    for rule in rules {
                        assert!(stage_of(&set.rules()[*rule], &mut subject).is_none());
                    }
                }
            }),
        ),
        (
            "cel",
            Box::new(|| {
                for (event, rules) in &pairs {
                    for rule in rules {
                        let found = cel[*rule]
                            .execute(black_box(&event.cel))
                            .expect("it can be asked");
                        assert!(matches!(found, cel::Value::Bool(false)));
                    }
                }
            }),
        ),
        (
            "sigma-rust",
            Box::new(|| {
                for (event, rules) in &pairs {
                    for rule in rules {
                        assert!(!sigma[*rule].is_match(black_box(&event.sigma)));
                    }
                }
            }),
        ),
    ];
    let names: Vec<&str> = engines.iter().map(|(name, _)| *name).collect();
    let nanoseconds = fastest(&mut engines, 20);
    let asked: usize = pairs.iter().map(|(_, rules)| rules.len()).sum();
    println!(
        "\n{RULES} rules of {name}, {} events that none matches",
        pairs.len()
    );
    println!("{:<36} {:>14} {:>14}", "", "ns per rule", "ns per event");
    let mut met = true;
    for (name, ns) in names.iter().zip(nanoseconds) {
        let (per_rule, per_event) = (ns / asked as f64, ns / pairs.len() as f64);
        println!("{name:<36} {per_rule:>14.1} {per_event:>14.0}");
        met &= match *name {
            "agent-monitor" => per_event <= PER_EVENT,
            own if own.starts_with("agent-monitor") => per_rule <= PER_RULE,
            _ => true,
        };
    }
    met
}

fn main() {
    let mixed = measure("4 kinds", &KINDS);
    let same = measure("one kind", &["exec"]);
    println!("\nbudget: {PER_RULE} ns per rule, {PER_EVENT} ns per event on average");
    if !(mixed && same) {
        println!("not met");
        std::process::exit(1);
    }
    println!("met");
}
