//! What the tests of rules can say, and what is an error in them.

use super::*;
use crate::event::{Confidence, Severity, Timestamp};
use crate::rules::testing::{self, End, check_form, run};

/// A rule of exec events with one test, or one of a detector.
fn of_event(test: &str) -> String {
    format!("{}tests: [{test}]\n", rule("x", "{process.comm: x}"))
}

fn of_detector(test: &str) -> String {
    format!(
        "title: x\nid: x\ndetector: tunnel-tool\nstages: [{{name: recognised, level: low, confidence: high}}]\n\
         exceptions: [{{agent: 'cgroup:/agents/*', destination: 192.0.2.0/24}}, {{destination: '*.example.com'}}]\n\
         tests: [{test}]\n"
    )
}

fn end(text: &str, replay: testing::Replay<'_>) -> End {
    let set = compile(&[("own/x.yaml", text)]).unwrap_or_else(|problems| panic!("{problems}"));
    run(&set, set.get("x").expect("it is there"), replay)
        .remove(0)
        .end
}

#[test]
fn findings_are_graded_and_let_pass_by_whom_they_are_about() {
    for (test, passes) in [
        ("{match: true, finding: recognised}", true),
        (
            "{match: true, finding: recognised, level: low, confidence: high}",
            true,
        ),
        ("{match: true, finding: recognised, level: high}", false),
        ("{match: false, finding: recognised}", false),
        (
            "{match: false, finding: recognised, about: {agent: {cgroup: /agents/a}, remote: {ip: 192.0.2.7, port: 1}}}",
            true,
        ),
        (
            "{match: false, finding: recognised, about: {agent: {cgroup: /b}, remote: {ip: 192.0.2.7, port: 1}}}",
            false,
        ),
        (
            "{match: false, finding: recognised, about: {name: a.example.com}}",
            true,
        ),
    ] {
        let end = end(&of_detector(test), &no_capture);
        assert_eq!(end == End::Passed, passes, "{test}: {end:?}");
    }
}

#[test]
fn a_capture_beside_the_rule_is_replayed_and_its_last_stage_counts() {
    let alert = |rule: &str, severity| {
        Arc::new(Alert {
            incident: String::new(),
            revision: 1,
            rule: rule.into(),
            title: "".into(),
            severity,
            confidence: Confidence::Medium,
            attack: Arc::default(),
            summary: String::new(),
            evidence: Vec::new(),
            events: Vec::new(),
            count: 1,
            first_seen: Timestamp(0),
            last_seen: Timestamp(0),
            coverage: String::new(),
        })
    };
    let replay = |path: &Path, _: &Arc<RuleSet>| match path.to_str() {
        Some("own/found.pcap") => Ok(vec![alert("x", Severity::Low), alert("y", Severity::High)]),
        Some("own/other.pcap") => Ok(vec![alert("y", Severity::Low)]),
        _ => Err("there is none".to_owned()),
    };
    for (test, passes) in [
        ("{match: true, capture: found.pcap}", true),
        ("{match: false, capture: found.pcap}", false),
        ("{match: true, capture: other.pcap}", false),
        ("{match: false, capture: other.pcap}", true),
        ("{match: false, capture: none.pcap}", false),
    ] {
        let end = end(&of_event(test), &replay);
        assert_eq!(end == End::Passed, passes, "{test}: {end:?}");
    }
}

#[test]
fn a_test_that_says_nothing_is_an_error_at_its_line() {
    for (text, wanted) in [
        (
            of_event("{event: {exec: {}}}"),
            "says `match: true` or `match: false`",
        ),
        (
            of_event("{match: yes, event: {exec: {}}}"),
            "`match` cannot be `yes`",
        ),
        (
            of_event("{match: true}"),
            "one of `event`, `events` and `capture`",
        ),
        (
            of_event("{match: true, event: {exe: {}}}"),
            "there are no `exe` events",
        ),
        (
            of_event("{match: true, event: {exec: {argvv: [x]}}}"),
            "unknown field `argvv`",
        ),
        (
            of_event("{mtach: true, event: {exec: {}}}"),
            "did you mean `match`?",
        ),
        (
            of_event("{match: false, event: {exit: {}}}"),
            "the rule asks for `exec` events, and this is of `exit`",
        ),
        (
            of_event("{match: true, stage: late, event: {exec: {}}}"),
            "the rule has no stage `late`",
        ),
        (
            of_detector("{match: true, event: {exec: {}}}"),
            "either `finding` or `capture`",
        ),
        (
            of_detector("{match: true, finding: recognized}"),
            "no stage `recognized` (did you mean `recognised`?)",
        ),
        (
            of_detector("{match: true, finding: recognised, about: {agnet: {}}}"),
            "about no `agnet`",
        ),
    ] {
        let set = compile(&[("x.yaml", &text)]).unwrap_or_else(|problems| panic!("{problems}"));
        let mut problems = Problems::default();
        check_form(set.get("x").expect("it is there"), &mut problems);
        let told = problems.lines().join("\n");
        let line = text.lines().count();
        assert!(told.contains(wanted), "{wanted}: {told}");
        assert!(told.starts_with(&format!("x.yaml:{line}: ")), "{told}");
        let end = end(&text, &no_capture);
        assert!(matches!(end, End::Failed(_)), "{end:?}");
    }
}
