//! What can be written, what it means, and what is refused.

use super::*;

/// Whether a detection of exec events matches.
fn matches(detection: &str, text: &str) -> bool {
    let set = compile(&[("x.yaml", &rule("x", detection))])
        .unwrap_or_else(|problems| panic!("{detection}: {problems}"));
    seen(&set, &[text]).contains(&"x".to_owned())
}

const SSH: &str = "{process: {pid: 7, uid: 0, comm: ssh, exe: /usr/bin/ssh, ancestors: [{pid: 5, comm: bash}, \
                   {pid: 1, comm: init}]}, exec: {filename: /usr/bin/ssh, argv: [ssh, -N, '-R', '9001:localhost:80', \
                   host], stdio_sockets: [0, 2]}}";

#[test]
fn selections_match_by_type_and_modifier() {
    for (detection, want) in [
        ("{process.comm: ssh}", true),
        ("{process.comm: SSH}", true),
        ("{process.comm|cased: SSH}", false),
        ("{process.comm: [scp, ssh]}", true),
        ("{process.comm: s?h}", true),
        ("{process.exe|startswith: /usr/, process.comm: scp}", false),
        ("[{process.comm: scp}, {process.exe|endswith: /ssh}]", true),
        ("{process.exe|below: /usr}", true),
        ("{process.exe|below: /us}", false),
        ("{exec.argv: '-R'}", true),
        ("{exec.argv: 'ssh -N'}", false),
        ("{exec.argv|joined: 'ssh -N*'}", true),
        ("{exec.argv|joined|contains: ' -R 9001'}", true),
        ("{exec.argv|contains|all: [9001, host]}", true),
        ("{exec.argv|contains|all: [9001, absent]}", false),
        ("{exec.argv|re: '^[0-9]+:'}", true),
        ("{exec.argv|re: '^HOST$'}", false),
        ("{exec.argv|re|i: '^HOST$'}", true),
        ("{exec.argv.0: ssh}", true),
        ("{process.uid: 0}", true),
        ("{process.uid|gt: 0}", false),
        ("{process.pid|gte: 7, process.pid|lt: 8}", true),
        ("{exec.stdio_sockets: [1, 2]}", true),
        ("{exec.stdio_sockets: 1}", false),
        ("{exec.memfd: false}", true),
        ("{process.ppid|exists: false}", true),
        ("{process.uid|exists: true}", true),
        ("{process.ppid: null}", true),
        ("{process.comm: null}", false),
        ("{process.ancestors.comm: init}", true),
        ("{process.ancestors.0.comm: init}", false),
        ("{exec.filename|fieldref: process.exe}", true),
        ("{exec.filename|endswith|fieldref: process.comm}", true),
        ("{process.pid|fieldref: process.uid}", false),
        ("{exec.argv|windash: '/N'}", true),
    ] {
        assert_eq!(matches(detection, SSH), want, "{detection}");
    }
    let coded = "{exec: {argv: [sh, -c, 'echo eCAvYmluL2Jhc2ggLWk= | base64 -d']}}";
    assert!(matches(
        "{exec.argv|base64offset|contains: /bin/bash}",
        coded
    ));
}

#[test]
fn addresses_match_by_value_and_by_network() {
    let flow = "{connect: {remote: {ip: 192.0.2.7, port: 22}}}";
    for (detection, want) in [
        ("{connect.remote.ip: 192.0.2.7}", true),
        (
            "{connect.remote.ip|cidr: [198.51.100.0/24, 192.0.2.0/24]}",
            true,
        ),
        ("{connect.remote.ip|cidr: '2001:db8::/32'}", false),
        ("{connect.transport: tcp, connect.result: attempted}", true),
    ] {
        let set = compile(&[("x.yaml", &of_kind("connect", "x", detection))]).expect(detection);
        assert_eq!(
            seen(&set, &[flow]),
            vec!["x"; usize::from(want)],
            "{detection}"
        );
    }
}

/// What cannot match, or is not what it seems, is an error; never a rule that is silent.
#[test]
fn mistakes_are_errors_with_what_may_be_meant() {
    for (detection, wanted) in [
        (
            "{process.com: x}",
            "no field `process.com`|did you mean `process.comm`?",
        ),
        ("{comm: x}", "no field `comm`|did you mean `process.comm`?"),
        (
            "{flow.protocol: ssh}",
            "an exec event has no field `flow.protocol`",
        ),
        (
            "{process.comm|contian: x}",
            "no modifier `contian`|did you mean `contains`?",
        ),
        (
            "{process.comm|gt: 5}",
            "`process.comm` is text: `gt, gte, lt and lte` does not go with it",
        ),
        (
            "{process.comm|cidr: 10.0.0.0/8}",
            "`cidr` does not go with it",
        ),
        (
            "{process.uid: root}",
            "`process.uid` takes whole numbers: `root`",
        ),
        (
            "{process.uid|contains: 1}",
            "`contains` does not go with it",
        ),
        (
            "{exec.memfd: yes}",
            "`exec.memfd` is `true` or `false`: `yes`",
        ),
        ("{process.comm|joined: x}", "`joined` does not go with it"),
        (
            "{process.comm|re: '('}",
            "regular expression that cannot be used",
        ),
        ("{process.comm|re: '(?=x)'}", "look-around"),
        ("{process.comm: []}", "an empty list matches nothing"),
        ("[a]", "keywords without a field"),
        (
            "{process.comm|expand: '%nothing%'}",
            "no variable `nothing`",
        ),
        (
            "{process.comm|expand: gpu_allowed_binaries}",
            "between percent signs|'%gpu_allowed_binaries%'",
        ),
        (
            "{process.comm|fieldref: process.uid}",
            "they are never the same",
        ),
        (
            "{process.comm|fieldref: process.com}",
            "did you mean `process.comm`?",
        ),
        ("{process.comm: {x: 1}}", "takes values, not a map"),
        (
            "{process.comm|exists: maybe}",
            "`exists` is `true` or `false`",
        ),
        ("{process.uid|gt: [1, 2]}", "a comparison takes one number"),
        (
            "{process.comm|re|windash: x}",
            "exclude each other|dashes into the expression",
        ),
        (
            "{process.comm|base64offset|endswith: x}",
            "exclude each other",
        ),
        ("{process.comm|exists|all: true}", "exclude each other"),
        (
            "{process.comm|expand|all: '%git_hosts%'}",
            "exclude each other",
        ),
    ] {
        let told = problems(&rule("x", detection));
        assert_eq!(told.len(), 1, "{detection}: {told:?}");
        assert!(told[0].starts_with("x.yaml:6: "), "{}", told[0]);
        for part in wanted.split('|') {
            assert!(
                told[0].contains(part),
                "{detection}: no {part} in {}",
                told[0]
            );
        }
    }
    for (detection, wanted) in [
        (
            "{connect.transport: tpc}",
            "never this (did you mean `tcp`?)",
        ),
        ("{connect.result|startswith: ok}", "never this"),
        (
            "{connect.remote.ip: 192.0.2.0/24}",
            "a network needs the modifier `cidr`",
        ),
        ("{connect.remote.ip|cidr: 192.0.2.0/33}", "no network"),
        ("{connect.remote.ip: host}", "no IP address"),
    ] {
        let told = problems(&of_kind("connect", "x", detection));
        assert!(told[0].contains(wanted), "{detection}: {told:?}");
    }
}

#[test]
fn the_rest_of_a_rule_is_checked_too() {
    let good = rule("x", "{process.comm: x}");
    for (from, to, wanted) in [
        ("id: x", "id: Not_This", "an id is of small letters"),
        ("title: x\n", "", "a rule has no `title`"),
        ("level: low", "level: hihg", "did you mean `high`?"),
        ("level: low\n", "", "a rule has no `level`"),
        (
            "level: low",
            "level: low\nlevl: low",
            "a rule has no member `levl`|did you mean `level`?",
        ),
        ("level: low", "level: low\nuuid: x", "this is no UUID"),
        (
            "level: low",
            "level: low\ntags: [attack.t15]",
            "no technique of ATT&CK",
        ),
        ("level: low", "level: low\naction: kill", "the only action"),
        (
            "level: low",
            "level: low\nsummary: '{process.com}'",
            "did you mean `process.comm`?",
        ),
        (
            "level: low",
            "level: low\nsummary: '{process.comm'",
            "without its `}`",
        ),
        (
            "level: low",
            "level: low\nincident: [flow.flow]",
            "no field `flow.flow`",
        ),
        (
            "level: low",
            "level: low\ndetector: relay",
            "no detector `relay`",
        ),
        (
            "level: low",
            "level: low\ndetector: reverse-tunnel-relay",
            "must have one stage each",
        ),
        (
            "level: low",
            "level: low\nsettings: {busy_s: 7}",
            "only a detector's rule",
        ),
        (
            "level: low",
            "level: low\nexceptions: [{}]",
            "names nothing",
        ),
        (
            "condition: sel",
            "condition: sel and other",
            "name of a selection",
        ),
        ("  condition: sel\n", "", "has no `condition`"),
        (
            "condition: sel",
            "condition: sel\n  more: {process.pid: 1}",
            "no condition uses the selection `more`",
        ),
        ("event: exec", "event: alert", "no `alert` events"),
        ("id: x", "id: ssh-outbound\nid: x", "`id` is written twice"),
    ] {
        assert!(good.contains(from), "{from}");
        let told = problems(&good.replace(from, to)).join("\n");
        for part in wanted.split('|') {
            assert!(told.contains(part), "{to}: no {part} in {told}");
        }
    }
    let detector = "title: x\nid: x\ndetector: mining-pool-protocol\nstages: []\n";
    assert!(problems(detector)[0].contains("lacks `weak-signs`"));
    let misspelt = detector.replace("mining-pool", "minning-pool");
    assert!(problems(&misspelt)[0].contains("did you mean `mining-pool-protocol`?"));
}

#[test]
fn two_rules_of_one_id_are_an_error_unless_one_replaces_the_default() {
    let one = rule("x", "{process.comm: x}");
    let told = compile(&[("a.yaml", &one), ("b.yaml", &one)]).expect_err("twice");
    assert!(told.lines()[0].contains("another rule with the id `x` (it is in a.yaml)"));
    let own = rule("memfd-exec", "{process.comm: x}");
    let set = compile(&[("a.yaml", &own)]).expect("it replaces");
    assert_eq!(seen(&set, &["{exec: {memfd: true}}"]), [""; 0]);
    assert_eq!(
        seen(&set, &["{process: {comm: x}, exec: {}}"]),
        ["memfd-exec"]
    );
}

#[test]
fn overrides_switch_rules_off_and_add_exceptions() {
    let memfd = "{agent: {cgroup: /agents/one}, process: {exe: /x}, exec: {memfd: true}}";
    let with = |text: &str| compile(&[("o.yaml", text)]).map(|set| seen(&set, &[memfd]));
    assert_eq!(with("").expect("nothing"), ["memfd-exec"]);
    let off = with("{override: memfd-exec, enabled: false}");
    assert_eq!(off.expect("it is valid"), [""; 0]);
    let exception =
        "override: memfd-exec\nexceptions:\n  - {agent: 'cgroup:/agents/*', binary: /x}\n";
    assert_eq!(with(exception).expect("it is valid"), [""; 0]);
    let other = exception.replace("/x", "/y");
    assert_eq!(with(&other).expect("it is valid"), ["memfd-exec"]);
    let told = with("{override: memfd-exce, enabled: false}").expect_err("misspelt");
    assert!(told.lines()[0].contains("did you mean `memfd-exec`?"));
}

#[test]
fn variables_count_for_all_agents_or_for_some() {
    let open = |agent: &str| {
        format!(
            "{{agent: {{cgroup: /agents/{agent}}}, process: {{exe: /usr/bin/python3}}, \
             device: {{type: character, access: rw, name: nvidia0}}}}"
        )
    };
    let stage = |vars: &str, agent: &str| {
        let set = compile(&[("vars.yaml", vars)]).unwrap_or_else(|p| panic!("{p}"));
        let mut sightings = Vec::new();
        Engine::new(set).event(&event(&open(agent), 0), &mut sightings);
        sightings[0].stage
    };
    assert_eq!(stage("", "one"), 0);
    let listed = "vars: {gpu_allowed_binaries: [/opt/train]}";
    assert_eq!(stage(listed, "one"), 1);
    let some = "vars: {gpu_allowed_binaries: [/opt/train]}\noverrides:\n  \
                - agents: 'cgroup:/agents/o*'\n    vars: {gpu_allowed_binaries: [/usr/bin/python*]}\n";
    assert_eq!((stage(some, "one"), stage(some, "two")), (0, 1));
    for (vars, wanted) in [
        (
            "vars: {gpu_allowed_binarys: [x]}",
            "did you mean `gpu_allowed_binaries`?",
        ),
        ("vars: {allowed_ssh_hosts: ['a b']}", "no destination"),
        ("vras: {}", "did you mean `vars`?"),
        ("overrides: [{agents: one, vars: {}}]", "names no kind"),
    ] {
        let told = compile(&[("vars.yaml", vars)]).expect_err(vars).lines();
        assert!(told[0].starts_with("vars.yaml:1: "), "{told:?}");
        assert!(told[0].contains(wanted), "{told:?}");
    }
}

#[test]
fn what_shows_a_match_is_in_the_alert() {
    let text = rule("x", "{process.comm: ssh}").replace(
        "level: low",
        "level: low\nconfidence: high\nsummary: '{process.comm} {{has} {process.exe} {process.ppid}'",
    );
    let set = compile(&[("x.yaml", &text)]).expect("it is valid");
    let mut sightings = Vec::new();
    Engine::new(set).event(&event(SSH, 3), &mut sightings);
    let own = sightings
        .iter()
        .find(|it| &*it.rule.id == "x")
        .expect("it matches");
    assert_eq!(own.summary, "ssh {has} /usr/bin/ssh ?");
    assert_eq!(
        own.evidence,
        ["process.comm: ssh", "process.exe: /usr/bin/ssh"]
    );
    assert_eq!(own.events, ["test-3".into()]);
}

#[test]
fn an_alert_about_a_flow_says_which_it_is_and_with_whom() {
    let text = of_kind("flow", "x", "{flow.bytes_out|gt: 5}");
    let set = compile(&[("x.yaml", &text)]).expect("it is valid");
    let mut sightings = Vec::new();
    let flow = "{flow: {flow: 1-2, state: update, bytes_out: 9, server_name: x.example, \
                local: {ip: 10.0.0.2, port: 4000}, remote: {ip: 192.0.2.7, port: 443}}}";
    Engine::new(set).event(&event(flow, 3), &mut sightings);
    assert_eq!(
        sightings[0].evidence,
        [
            "flow.bytes_out: 9",
            "flow.flow: 1-2",
            "flow.transport: tcp",
            "flow.local.ip: 10.0.0.2",
            "flow.local.port: 4000",
            "flow.remote.ip: 192.0.2.7",
            "flow.remote.port: 443",
            "flow.server_name: x.example",
        ]
    );
}

#[test]
fn a_summary_names_the_process_or_says_that_it_is_not_known() {
    let told = |summary: &str, text: &str| {
        let level = format!("level: low\nsummary: '{summary}'");
        let rule = of_kind("flow", "x", "{flow.state: open}").replace("level: low", &level);
        let set = compile(&[("x.yaml", &rule)]).unwrap_or_else(|problems| panic!("{problems}"));
        let mut sightings = Vec::new();
        Engine::new(set).event(&event(text, 0), &mut sightings);
        sightings.remove(0).summary
    };
    let flow = "flow: {state: open, remote: {ip: 192.0.2.7, port: 22}}";
    let known = format!("{{process: {{pid: 7, comm: ssh}}, {flow}}}");
    let unknown = format!("{{{flow}}}");
    assert_eq!(told("{process} is here", &known), "ssh[7] is here");
    assert_eq!(
        told("{process} is here", &unknown),
        "A process of the agent is here"
    );
    assert_eq!(
        told("This is {process}", &unknown),
        "This is a process of the agent"
    );
    assert_eq!(
        told("{process.comm} to {flow.remote.port}", &unknown),
        "? to 22"
    );
}
