//! Every variable of the default pack: what it lets pass, for all agents and for some.

use super::*;
use crate::rules::engine::Found;
use crate::rules::pack;

/// A variable, a list that lets nothing pass and one that does, what then passes, and
/// the stage without and with it (`None`: nothing is told).
struct Case {
    name: &'static str,
    strict: &'static str,
    allowing: &'static str,
    happened: &'static str,
    stages: (usize, Option<usize>),
}

const SSH: &str = "flow: {state: identified, protocol: ssh, server_name: git.example, \
                   remote: {ip: 198.51.100.1, port: 22}}";

const CASES: &[Case] = &[
    Case {
        name: "trusted_networks",
        strict: "[192.0.2.0/24]",
        allowing: "[198.51.100.0/24]",
        happened: SSH,
        stages: (0, None),
    },
    Case {
        name: "trusted_networks",
        strict: "[10.2.0.0/16]",
        allowing: "[10.1.0.0/16]",
        happened: "finding: internal-network-probe, stage: fast, remote: {ip: 10.1.0.9, port: 445}",
        stages: (1, None),
    },
    Case {
        name: "allowed_ssh_hosts",
        strict: "['198.51.100.1:2222']",
        allowing: "['198.51.100.1:22']",
        happened: SSH,
        stages: (0, None),
    },
    Case {
        name: "git_hosts",
        strict: "['*.git.example']",
        allowing: "[git.example]",
        happened: SSH,
        stages: (0, None),
    },
    Case {
        name: "peer_networks",
        strict: "[]",
        allowing: "[10.1.0.0/16]",
        happened: "finding: internal-network-probe, stage: slow, remote: {ip: 10.1.0.9, port: 445}",
        stages: (0, None),
    },
    Case {
        name: "dns_data_domains",
        strict: "[]",
        allowing: "['*.scanner.example']",
        happened: "finding: dns-tunnel, stage: tunnel, name: a.scanner.example",
        stages: (0, None),
    },
    Case {
        name: "metadata_clients",
        strict: "[/usr/bin/aws]",
        allowing: "[/usr/bin/aw?, /opt/sdk/*]",
        happened: "process: {exe: /opt/sdk/x}, connect: {remote: {ip: 169.254.169.254, port: 80}}",
        stages: (0, None),
    },
    Case {
        name: "gpu_allowed_binaries",
        strict: "[/opt/train]",
        allowing: "[/opt/train, /usr/bin/python*]",
        happened: "process: {exe: /usr/bin/python3}, device: {type: character, access: rw, name: nvidia0}",
        stages: (1, Some(0)),
    },
];

/// The stage at which `happened` is told of an agent, with this `vars.yaml`.
fn stage(vars: &str, agent: &str, happened: &str) -> Option<usize> {
    let set = compile(&[("vars.yaml", vars)]).unwrap_or_else(|told| panic!("{vars}: {told}"));
    let text = format!("{{agent: {{cgroup: /agents/{agent}}}, {happened}}}");
    let node = yaml::documents(&text).expect(&text).remove(0);
    let mut engine = Engine::new(set);
    let mut sightings = Vec::new();
    match node.get("finding") {
        None => engine.event(&sample::event(&node, 0).expect(&text), &mut sightings),
        Some(_) => {
            let sample = sample::finding(&node, 0).expect(&text);
            let found = Found {
                time: sample.time,
                node: &sample.node,
                agent: sample.agent.as_ref(),
                name: sample.name.as_deref(),
                events: &[],
            };
            engine.finding(&sample.finding, &found, &mut sightings);
        }
    }
    sightings.first().map(|sighting| sighting.stage)
}

#[test]
fn each_variable_lets_pass_what_it_names_of_all_agents_or_of_those_with_a_list_of_their_own() {
    for case in CASES {
        let Case {
            name,
            strict,
            allowing,
            happened,
            stages: (told, passed),
        } = case;
        let for_all = |list: &str| format!("vars: {{{name}: {list}}}");
        let for_some = format!(
            "{}\noverrides:\n  - agents: 'cgroup:/agents/o*'\n    vars: {{{name}: {allowing}}}",
            for_all(strict)
        );
        assert_eq!(
            stage(&for_all(strict), "one", happened),
            Some(*told),
            "{name}"
        );
        assert_eq!(
            stage(&for_all(allowing), "one", happened),
            *passed,
            "{name}"
        );
        assert_eq!(stage(&for_some, "one", happened), *passed, "{name}");
        assert_eq!(stage(&for_some, "two", happened), Some(*told), "{name}");
    }
}

#[test]
fn every_variable_of_the_pack_is_tested_and_used_by_a_rule() {
    let tested = CASES.iter().map(|case| case.name.to_owned()).collect();
    assert_eq!(pack::variables(), tested);
    let sources = default_pack::sources();
    for name in pack::variables() {
        let used = sources
            .iter()
            .any(|file| file.text().contains(&format!("'%{name}%'")));
        assert!(used, "no rule uses {name}");
    }
}
