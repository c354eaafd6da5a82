//! Correlations over events in order.

use super::*;
use crate::rules::engine::Found;
use crate::rules::testing;

/// Rules `a`, `b` and `c`, each for the program of its name, and a correlation.
fn set(correlation: &str) -> Result<Arc<RuleSet>, Problems> {
    let base = ["a", "b", "c"].map(|id| rule(id, &format!("{{process.comm: {id}}}")));
    let text = format!("title: x\nid: x\nlevel: high\ncorrelation:\n{correlation}");
    let all = [base.join("---\n"), text].join("---\n");
    compile(&[("x.yaml", &all)])
}

fn fired(correlation: &str, events: &[(&str, u64)]) -> Vec<String> {
    let set = set(correlation).unwrap_or_else(|problems| panic!("{problems}"));
    let events: Vec<String> = events
        .iter()
        .map(|(program, second)| {
            let (name, uid) = program.split_once('@').unwrap_or((program, "0"));
            let (minute, second) = (second / 60, second % 60);
            format!(
                "{{time: '2030-01-01T00:{minute:02}:{second:02}Z', process: {{pid: 1, comm: {name}, uid: {uid}}}, \
                 exec: {{}}}}"
            )
        })
        .collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    seen(&set, &events)
}

#[test]
fn so_many_events_within_a_time_by_group() {
    let of = "  type: event_count\n  rules: [a]\n  group-by: [process.uid]\n  timespan: 10s\n  condition: {gte: 3}\n";
    assert_eq!(fired(of, &[("a", 0), ("a", 5), ("a", 10)]), ["x"]);
    assert_eq!(fired(of, &[("a", 0), ("a", 5), ("a", 11)]), [""; 0]);
    assert_eq!(fired(of, &[("a@1", 0), ("a@2", 1), ("a@1", 2)]), [""; 0]);
    assert_eq!(fired(of, &[("a", 0), ("b", 1), ("b", 2)]), ["b", "b"]);
    let six = [0, 1, 2, 3, 4, 5].map(|second| ("a", second));
    assert_eq!(fired(of, &six), ["x", "x"], "it begins anew after each");
    let told_too = of.to_owned() + "  generate: true\n";
    assert_eq!(fired(&told_too, &[("a", 0)]), ["a"]);
}

#[test]
fn so_many_values_of_a_field() {
    let of = "  type: value_count\n  rules: [a, b]\n  timespan: 1m\n  condition: {field: process.uid, gt: 1}\n";
    assert_eq!(fired(of, &[("a@1", 0), ("a@1", 1), ("b@1", 2)]), [""; 0]);
    assert_eq!(fired(of, &[("a@1", 0), ("b@2", 59)]), ["x"]);
    assert_eq!(fired(of, &[("a@1", 0), ("b@2", 61)]), [""; 0]);
}

#[test]
fn each_rule_in_any_order_or_in_this_one() {
    let any = "  type: temporal\n  rules: [a, b, c]\n  timespan: 1m\n";
    assert_eq!(fired(any, &[("c", 0), ("a", 1), ("b", 2)]), ["x"]);
    assert_eq!(fired(any, &[("c", 0), ("a", 30), ("b", 61)]), [""; 0]);
    let ordered = any.replace("temporal", "temporal_ordered");
    assert_eq!(fired(&ordered, &[("c", 0), ("a", 1), ("b", 2)]), [""; 0]);
    assert_eq!(
        fired(&ordered, &[("a", 0), ("c", 1), ("b", 2), ("c", 3)]),
        ["x"]
    );
    assert_eq!(fired(&ordered, &[("a", 0), ("b", 2), ("c", 61)]), [""; 0]);
}

#[test]
fn an_order_is_seen_however_often_one_of_its_rules_comes_between() {
    let ordered = "  type: temporal_ordered\n  rules: [a, b, c]\n  timespan: 10m\n";
    let mut events = vec![("a", 0)];
    events.extend((1..500).map(|second| ("b", second)));
    events.push(("c", 500));
    assert_eq!(fired(ordered, &events), ["x"]);
}

#[test]
fn groups_may_be_named_otherwise_in_each_rule() {
    let connect = of_kind("connect", "to", "{connect.remote.port: 22}");
    let asked = of_kind("dns", "asked", "{dns.question: x.example}");
    let correlation = "title: x\nid: x\nlevel: high\ncorrelation:\n  type: temporal\n  rules: [to, asked]\n  \
                       timespan: 1m\n  group-by: [peer]\n  aliases:\n    peer:\n      to: connect.remote.ip\n      \
                       asked: dns.answers\n";
    let all = [connect.as_str(), &asked, correlation].join("---\n");
    let set = compile(&[("x.yaml", &all)]).unwrap_or_else(|problems| panic!("{problems}"));
    let dns = "{dns: {question: x.example, answers: [192.0.2.7]}}";
    let to = |last: u8| format!("{{connect: {{remote: {{ip: 192.0.2.{last}, port: 22}}}}}}");
    assert_eq!(seen(&set, &[dns, &to(7)]), ["x"]);
    assert_eq!(seen(&set, &[dns, &to(8)]), [""; 0]);
}

#[test]
fn mistakes_are_errors() {
    let good = "  type: event_count\n  rules: [a]\n  timespan: 10s\n  condition: {gte: 3}\n";
    for (from, to, wanted) in [
        ("event_count", "event_cuont", "did you mean `event_count`?"),
        ("rules: [a]", "rules: [d]", "there is no rule `d`"),
        (
            "timespan",
            "group-by: [flow.remote.ip]\n  timespan",
            "no field `flow.remote.ip`",
        ),
        ("rules: [a]", "rules: []", "1 to 64 rules"),
        ("10s", "10", "no `timespan`"),
        ("10s", "99d", "no `timespan`"),
        (
            "{gte: 3}",
            "{lt: 3}",
            "cannot be decided while events still come",
        ),
        ("{gte: 3}", "{gte: 999999}", "no number from 1 to"),
        (
            "{gte: 3}",
            "{gte: 3, field: process.pid}",
            "counts no `field`",
        ),
        ("  condition: {gte: 3}\n", "", "has no `condition`"),
        (
            "timespan",
            "group-by: [process.gid]\n  timespan",
            "no field `process.gid`",
        ),
        (
            "timespan",
            "gruop-by: [process.uid]\n  timespan",
            "did you mean `group-by`?",
        ),
    ] {
        let told = set(&good.replace(from, to))
            .expect_err(to)
            .lines()
            .join("\n");
        assert!(told.contains(wanted), "{to}: {told}");
    }
}

#[test]
fn all_that_is_wrong_with_a_correlation_is_told_at_once() {
    let told =
        set("  type: event_cuont\n  rules: [aa, bb]\n  timespan: 3y\n  condition: {lt: 4}\n");
    let told = told.expect_err("it is wrong").lines().join("\n");
    for part in [
        "`event_cuont`",
        "no rule `aa`",
        "no rule `bb`",
        "`3y` is no `timespan`",
        "`lt` cannot",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_forgotten_is_counted() {
    let of = "  type: event_count\n  rules: [a]\n  group-by: [process.pid]\n  timespan: 1h\n  condition: {gte: 10}\n";
    let set = set(of).expect("it is valid");
    let mut engine = Engine::new(set);
    let mut sightings = Vec::new();
    for pid in 0..50_000 {
        let text = format!("{{process: {{pid: {pid}, comm: a}}, exec: {{}}}}");
        engine.event(&event(&text, pid), &mut sightings);
    }
    assert!(engine.forgotten() > 40_000, "{}", engine.forgotten());
    assert!(sightings.is_empty());
}

/// Whether the tests in a file of one rule pass.
fn passes(text: &str) {
    let set = compile(&[("x.yaml", text)]).unwrap_or_else(|problems| panic!("{problems}"));
    let rule = set.get("x").expect("it has this id");
    let outcomes = testing::run(&set, rule, &no_capture);
    assert!(!outcomes.is_empty());
    for outcome in outcomes {
        assert_eq!(outcome.end, testing::End::Passed, "{outcome:?}");
    }
}

#[test]
fn findings_of_detectors_are_counted_with_events_and_grouped_by_whom_they_are_about() {
    passes(
        "title: x
id: x
level: critical
correlation:
  type: temporal
  rules: [gpu-device-open, mining-pool-protocol]
  group-by: [agent.id]
  timespan: 10m
tests:
  - name: an agent opens a GPU and mines
    match: true
    events:
      - {time: '2030-01-01T00:00:00Z', agent: {id: a}, device: {type: character, name: nvidia0, access: rw}}
      - {time: '2030-01-01T00:05:00Z', agent: {id: a}, finding: mining-pool-protocol, stage: both-sides}
  - name: one agent opens a GPU, another mines
    match: false
    events:
      - {agent: {id: a}, device: {type: character, name: nvidia0, access: rw}}
      - {agent: {id: b}, finding: mining-pool-protocol, stage: both-sides}
  - name: too late
    match: false
    events:
      - {time: '2030-01-01T00:00:00Z', agent: {id: a}, finding: mining-pool-protocol, stage: weak-signs}
      - {time: '2030-01-01T00:11:00Z', agent: {id: a}, device: {type: character, name: nvidia0, access: rw}}
",
    );
}

#[test]
fn a_detector_that_a_correlation_counts_is_told_of_only_with_generate() {
    let text = |generate| {
        format!(
            "title: x\nid: x\nlevel: high\ncorrelation: {{type: event_count, rules: [tunnel-tool], \
             timespan: 1h, condition: {{gte: 2}}, generate: {generate}}}\n"
        )
    };
    let told = |generate: bool| -> Vec<String> {
        let set = compile(&[("x.yaml", &text(generate))]).unwrap_or_else(|told| panic!("{told}"));
        let mut engine = Engine::new(set);
        let mut sightings = Vec::new();
        for number in 0..2 {
            let text = "{finding: tunnel-tool, stage: recognised}";
            let node = yaml::documents(text).expect(text).remove(0);
            let sample = sample::finding(&node, number).expect(text);
            let found = Found {
                time: sample.time,
                node: &sample.node,
                agent: None,
                name: None,
                events: &[],
            };
            engine.finding(&sample.finding, &found, &mut sightings);
        }
        sightings.iter().map(|it| it.rule.id.to_string()).collect()
    };
    assert_eq!(told(false), ["x"]);
    assert_eq!(told(true), ["tunnel-tool", "x", "tunnel-tool"]);
}

#[test]
fn a_correlation_of_correlations_is_an_error() {
    let one = "title: y\nid: y\nlevel: low\ncorrelation: {type: event_count, rules: [memfd-exec], timespan: 1m, \
               condition: {gte: 2}}\n";
    let other = one.replace(": y\n", ": z\n").replace("memfd-exec", "y");
    let told = problems(&format!("{one}---\n{other}")).join("\n");
    assert!(told.contains("`y` is a correlation itself"), "{told}");
}
