//! Rules in SigmaHQ's form.

use super::*;

fn sigma(logsource: &str, detection: &str) -> String {
    format!(
        "title: A rule\nid: 7e4c1b5a-9d0e-4c5e-8a51-000000000001\nstatus: test\ndescription: Words.\n\
         references:\n    - https://example.com/\nauthor: Somebody\ndate: 2024-01-01\nmodified: 2024-02-02\n\
         tags:\n    - attack.execution\n    - attack.t1059.004\nlogsource:\n    {logsource}\n\
         detection:\n    {detection}\nfalsepositives:\n    - Unknown\nlevel: medium\n"
    )
}

const PROCESS: &str = "product: linux\n    category: process_creation";
const NETWORK: &str = "product: linux\n    category: network_connection";
const DNS: &str = "category: dns";

fn set(text: &str) -> Arc<RuleSet> {
    let file = "rules/proc_creation_lnx_a_rule.yml";
    compile(&[(file, text)]).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn processes_are_asked_for_by_image_command_line_parent_and_user() {
    let text = sigma(
        PROCESS,
        "selection_img:\n        Image|endswith:\n            - /bash\n            - /sh\n        \
         User: root\n    selection_cli:\n        CommandLine|contains|all:\n            - 'curl '\n            - ' | sh'\n    \
         filter_main:\n        ParentImage|endswith: /apt\n    \
         condition: all of selection_* and not 1 of filter_*",
    );
    let set = set(&text);
    assert_eq!(set.unmapped(), []);
    let rule = set
        .get("proc-creation-lnx-a-rule")
        .expect("named by its file");
    assert_eq!(
        rule.uuid.as_deref(),
        Some("7e4c1b5a-9d0e-4c5e-8a51-000000000001")
    );
    assert_eq!(*rule.attack, ["T1059.004".into()]);
    let event = |parent: &str, uid: u32| {
        format!(
            "{{process: {{exe: /usr/bin/bash, uid: {uid}, ancestors: [{{exe: {parent}}}]}}, \
             exec: {{argv: [bash, -c, 'curl x', '|', sh]}}}}"
        )
    };
    assert_eq!(seen(&set, &[&event("/usr/bin/python3", 0)]).len(), 1);
    assert_eq!(seen(&set, &[&event("/usr/bin/apt", 0)]).len(), 0);
    assert_eq!(seen(&set, &[&event("/usr/bin/python3", 1000)]).len(), 0);
}

#[test]
fn connections_are_asked_for_by_address_port_and_name() {
    let text = sigma(
        NETWORK,
        "selection:\n        Initiated: 'true'\n        DestinationPort: [4444, 1337]\n        \
         DestinationIp|cidr: 198.51.100.0/24\n    condition: selection",
    );
    let connect = "{connect: {remote: {ip: 198.51.100.9, port: 4444}}}";
    assert_eq!(seen(&set(&text), &[connect]).len(), 1);
    let text = sigma(
        NETWORK,
        "selection:\n        DestinationHostname|endswith: .example\n    condition: selection",
    );
    let flow = "{flow: {server_name: pool.example, remote: {ip: 198.51.100.9, port: 443}}}";
    assert_eq!(seen(&set(&text), &[flow]).len(), 1);
}

#[test]
fn names_are_asked_for_by_question_and_type() {
    let text = sigma(
        DNS,
        "selection:\n        query|contains: pool\n        record_type: TXT\n    condition: selection",
    );
    let dns = "{dns: {question: my.pool.example, type: TXT}}";
    assert_eq!(seen(&set(&text), &[dns]).len(), 1);
}

#[test]
fn what_has_no_counterpart_is_left_out_with_every_reason_and_nothing_else_is() {
    let selection =
        |members: &str| format!("selection:\n        {members}\n    condition: selection");
    for (logsource, members, reason) in [
        (
            "product: windows\n    category: process_creation",
            "Image: x",
            "it is for `windows`",
        ),
        (
            "product: linux\n    service: auditd",
            "type: x",
            "log source `auditd`",
        ),
        (
            "product: linux\n    category: file_event",
            "TargetFilename: x",
            "log source `file_event`",
        ),
        (
            PROCESS,
            "CurrentDirectory: /tmp",
            "working directory is not recorded",
        ),
        (
            PROCESS,
            "Unheard: x",
            "the field `Unheard`: there is nothing like it",
        ),
        (
            PROCESS,
            "User: www-data",
            "only the number of root is known",
        ),
        (
            PROCESS,
            "Image|re: '(?<=x)y'",
            "regular expression that cannot be used",
        ),
        (NETWORK, "Initiated: 'false'", "`accept` events"),
        (
            NETWORK,
            "DestinationIp|startswith: '10.'",
            "`startswith` does not go with it",
        ),
    ] {
        let set = set(&sigma(logsource, &selection(members)));
        let [left_out] = set.unmapped() else {
            panic!("{members} was not left out");
        };
        assert_eq!(left_out.title, "A rule");
        let reasons = left_out.reasons.join("\n");
        assert!(
            reasons.contains("line ") && reasons.contains(reason),
            "{members}: {reasons}"
        );
    }
    let keywords = sigma(
        PROCESS,
        "keywords:\n        - one\n        - two\n    condition: keywords",
    );
    assert!(set(&keywords).unmapped()[0].reasons[0].contains("keywords without a field"));
}

#[test]
fn members_of_somebody_s_own_are_ignored_and_misspelt_ones_are_not() {
    let detection = "selection:\n        Image|endswith: /x\n    condition: selection";
    let text = sigma(PROCESS, detection);
    let own = text.clone() + "regression_tests_path: data/x\nsimulation:\n  - {type: y}\n";
    assert_eq!(set(&own).unmapped(), []);
    let misspelt = set(&(text + "exeptions: [{agent: 'docker:x'}]\n"));
    let reasons = &misspelt.unmapped()[0].reasons;
    assert!(reasons[0].contains("no member `exeptions`"), "{reasons:?}");
}

#[test]
fn a_correlation_of_what_was_left_out_is_left_out_too() {
    let base = sigma(
        PROCESS,
        "selection:\n        CurrentDirectory: /tmp\n    condition: selection",
    );
    let named = base.replace("title: A rule", "title: A rule\nname: in_tmp");
    for name in ["in_tmp", "7e4c1b5a-9d0e-4c5e-8a51-000000000001"] {
        let correlation = format!(
            "---\ntitle: Often\nid: 7e4c1b5a-9d0e-4c5e-8a51-000000000002\nlevel: high\ncorrelation:\n    \
             type: event_count\n    rules: [{name}]\n    group-by: [process.uid]\n    timespan: 1m\n    \
             condition: {{gte: 5}}\n"
        );
        let set = set(&(named.clone() + &correlation));
        let [_, left_out] = set.unmapped() else {
            panic!("{:?}", set.unmapped());
        };
        assert_eq!(left_out.title, "Often");
        assert_eq!(
            left_out.reasons,
            [format!("it counts `{name}`, which was left out")]
        );
    }
}
