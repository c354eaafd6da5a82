//! Rules in words.

use super::*;
use crate::rules::words::{asks, exceptions};

fn words(files: &[(&str, &str)]) -> String {
    let set = compile(files).unwrap_or_else(|problems| panic!("{problems}"));
    let rule = set.get("x").expect("it is there");
    let parts = asks(rule, &set).into_iter();
    let lines = parts.flat_map(|(heading, lines)| [vec![heading], lines].concat());
    lines
        .chain(exceptions(rule, &set))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn each_modifier_has_its_words() {
    for (detection, wanted) in [
        ("{process.comm: [sh, bash]}", "process.comm is sh or bash"),
        (
            "{exec.argv|contains|all: [a, b, c]}",
            "one of exec.argv contains a, b and c",
        ),
        (
            "{exec.argv|joined|endswith: x}",
            "exec.argv, put together, ends with x",
        ),
        (
            "{process.exe|startswith: /x, process.uid|gte: 7}",
            "process.exe begins with /x, and process.uid is at least 7",
        ),
        (
            "[{process.comm|cased: A}, {process.uid|lt: 1}]",
            "(process.comm is A (case counts)) or (process.uid is less than 1)",
        ),
        (
            "{process.exe|re: '^x'}",
            "process.exe matches the regular expression ^x",
        ),
        (
            "{process.exe|below: /opt}",
            "process.exe is or lies below /opt",
        ),
        ("{process.exe|exists: false}", "process.exe is not there"),
        ("{process.exe: [null, '']}", "process.exe is nothing or ''"),
        (
            "{process.exe|fieldref: exec.filename}",
            "process.exe is the value of exec.filename",
        ),
        (
            "{exec.argv|base64offset|contains: sh}",
            "one of exec.argv contains, in base64, sh",
        ),
        (
            "{exec.argv|windash: '-R'}",
            "one of exec.argv is -R (with any dash)",
        ),
        (
            "{process.exe|expand: '%metadata_clients%'}",
            "process.exe is %metadata_clients% (now empty)",
        ),
    ] {
        let told = words(&[("x.yaml", &rule("x", detection))]);
        assert_eq!(
            told,
            format!("It finds an `exec` event when  sel\nsel: {wanted}")
        );
    }
    let net = of_kind("connect", "x", "{connect.remote.ip|cidr: 192.0.2.0/24}");
    assert!(words(&[("x.yaml", &net)]).contains("connect.remote.ip is in 192.0.2.0/24"));
}

#[test]
fn variables_are_told_with_their_values_and_exceptions_with_their_reason() {
    let text = rule("x", "{process.exe|expand: '%metadata_clients%'}")
        + "exceptions: [{agent: ['docker:a', 'docker:b'], destination: '%git_hosts%', reason: git}]\n";
    let vars = "vars: {metadata_clients: [/a, /b]}\noverrides: [{agents: 'docker:x', vars: {metadata_clients: []}}]";
    let told = words(&[("x.yaml", &text), ("vars.yaml", vars)]);
    for wanted in [
        "%metadata_clients% (now /a or /b; another for some agents)",
        "agent docker:a or docker:b, and destination %git_hosts% (now empty)  (git)",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
}

#[test]
fn correlations_and_detectors_are_told_too() {
    let correlation = |members: &str| {
        let text = format!(
            "title: x\nid: x\nlevel: low\ncorrelation: {{rules: [memfd-exec, miner-process], timespan: 5m, {members}}}"
        );
        words(&[("x.yaml", &text)])
    };
    assert_eq!(
        correlation(
            "type: value_count, group-by: [agent.id], condition: {field: process.exe, gte: 3}"
        ),
        "It finds at least 3 different values of process.exe in matches of memfd-exec or miner-process within 5m, \
         with the same agent.id."
    );
    assert_eq!(
        correlation("type: temporal_ordered"),
        "It finds a match of memfd-exec, then one of miner-process within 5m."
    );
    let detector = "title: x\nid: x\ndetector: tunnel-tool\nstages: [{name: recognised, level: low, confidence: low}]";
    assert_eq!(
        words(&[("x.yaml", detector)]),
        "It finds what the detector `tunnel-tool` tells of."
    );
}
