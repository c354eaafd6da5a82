//! Numbers of detectors, and exceptions by variable.

use super::*;
use crate::detect::probe::DETECTOR;
use crate::event::{Address, Agent};
use crate::rules::engine::{Engine, Found};
use crate::rules::exceptions::Deed;
use crate::rules::{sample, yaml};

#[test]
fn an_override_changes_the_numbers_it_names() {
    let change = "override: internal-network-probe\nsettings: {hosts: 30}";
    let set = compile(&[("x.yaml", change)]).unwrap_or_else(|problems| panic!("{problems}"));
    let changed = set.settings(&DETECTOR);
    let default = RuleSet::builtin().settings(&DETECTOR);
    for setting in DETECTOR.settings {
        let expected = match setting.name {
            "hosts" => 30,
            _ => setting.default,
        };
        assert_eq!(changed.get(setting), expected, "{}", setting.name);
        assert_eq!(default.get(setting), setting.default, "{}", setting.name);
    }
}

#[test]
fn numbers_that_could_not_be_meant_are_errors() {
    for (change, problem) in [
        (
            "override: internal-network-probe\nsettings: {hots: 30}",
            "no setting `hots`",
        ),
        (
            "override: internal-network-probe\nsettings: {hosts: 0}",
            "whole number",
        ),
        (
            "override: internal-network-probe\nsettings: {hosts: many}",
            "whole number",
        ),
        (
            "override: internal-network-probe\nsettings: 7",
            "map of numbers",
        ),
        (
            "override: ssh-outbound\nsettings: {hosts: 7}",
            "only a detector's rule",
        ),
        (
            "override: tunnel-tool\nsettings: {hosts: 7}",
            "no setting `hosts`",
        ),
    ] {
        let problems = problems(change);
        assert!(problems[0].contains(problem), "{change}: {problems:?}");
    }
}

#[test]
fn a_destination_can_be_a_list_that_differs_by_agent() {
    let vars = "vars: {peer_networks: [10.1.0.0/16]}\noverrides:\n  - agents: 'docker:train-*'\n    \
                vars: {peer_networks: [10.2.0.0/16]}";
    let set = compile(&[("vars.yaml", vars)]).unwrap_or_else(|problems| panic!("{problems}"));
    let engine = Engine::new(set);
    let agent = |name: &str| Agent {
        name: name.to_owned(),
        container: Some(crate::event::Container {
            name: Some(name.to_owned()),
            runtime: "docker".to_owned(),
            ..Default::default()
        }),
        ..Agent::default()
    };
    let passes = |agent: &Agent, ip: [u8; 4]| {
        let deed = Deed {
            agent: Some(agent),
            remote: Some(Address {
                ip: ip.into(),
                port: 22,
            }),
            ..Deed::default()
        };
        engine.lets_pass(&DETECTOR, &deed)
    };
    let (train, other) = (agent("train-1"), agent("web"));
    assert!(passes(&train, [10, 2, 0, 1]) && !passes(&train, [10, 1, 0, 1]));
    assert!(passes(&other, [10, 1, 0, 1]) && !passes(&other, [10, 2, 0, 1]));
    assert!(!passes(&other, [10, 3, 0, 1]));
}

#[test]
fn the_documentation_has_every_detector_with_its_stages_and_numbers() {
    let text = include_str!("../../../../docs/detectors.md");
    for detector in crate::detect::DETECTORS {
        assert!(
            text.contains(&format!("## {}", detector.name)),
            "{}",
            detector.name
        );
        for stage in detector.stages {
            assert!(text.contains(&format!("`{stage}`")), "{stage}");
        }
        for setting in detector.settings {
            let row = format!("| `{}` | {} |", setting.name, setting.default);
            assert!(text.contains(&row), "{row}");
        }
    }
}

#[test]
fn a_detector_s_finding_is_let_pass_by_the_destination_s_name() {
    let change = "override: tunnel-tool\nexceptions: [{destination: '*.example.net'}]";
    let set = compile(&[("x.yaml", change)]).unwrap_or_else(|problems| panic!("{problems}"));
    let mut engine = Engine::new(set);
    let mut told = |name: Option<&str>| {
        let text = "{finding: tunnel-tool, stage: recognised}";
        let sample = yaml::documents(text).expect(text).remove(0);
        let sample = sample::finding(&sample, 0).expect(text);
        let mut sightings = Vec::new();
        let found = Found {
            time: sample.time,
            node: &sample.node,
            agent: None,
            name,
            events: &[],
        };
        engine.finding(&sample.finding, &found, &mut sightings);
        sightings.len()
    };
    assert_eq!(told(Some("relay.example.net")), 0);
    assert_eq!(told(Some("relay.example.org")), 1);
    assert_eq!(told(None), 1);
}

#[test]
fn programs_that_may_open_a_gpu_can_be_listed_for_one_agent() {
    let vars = "overrides:\n  - agents: 'cgroup:/train/*'\n    \
                vars: {gpu_allowed_binaries: [/usr/bin/python3]}";
    let set = compile(&[("vars.yaml", vars)]).unwrap_or_else(|problems| panic!("{problems}"));
    let rule = set.get("gpu-device-open").expect("it is in the pack");
    let stage = |agent: &str, exe: &str| {
        let text = format!(
            "{{agent: {{cgroup: {agent}}}, process: {{exe: {exe}}}, \
             device: {{type: character, major: 195, minor: 0, access: rw, name: nvidia0}}}}"
        );
        let sample = yaml::documents(&text).expect("a document").remove(0);
        let event = sample::event(&sample, 0).unwrap_or_else(|message| panic!("{message}"));
        let stage = crate::rules::engine::judge(rule, &event).expect("a GPU is opened");
        rule.stages[stage].name.as_str()
    };
    assert_eq!(stage("/train/1", "/usr/bin/python3"), "opened");
    assert_eq!(stage("/train/1", "/tmp/kworker"), "not-allowed");
    assert_eq!(stage("/web/1", "/tmp/kworker"), "opened");
}
