//! The default pack.

use std::sync::Arc;

use crate::rules::problem::Problems;
use crate::rules::rule::What;
use crate::rules::set::RuleSet;
use crate::rules::testing;

fn pack() -> Arc<RuleSet> {
    match RuleSet::load(&[]) {
        Ok(set) => Arc::new(set),
        Err(problems) => panic!("{}", Problems::show(&problems, false, 100)),
    }
}

#[test]
fn the_default_pack_compiles_and_passes_its_own_tests() {
    let set = pack();
    for rule in set.rules() {
        let outcomes = testing::run(&set, rule);
        assert!(!outcomes.is_empty(), "{} has no tests", rule.id);
        for outcome in outcomes {
            assert_eq!(outcome.failure, None, "{outcome:?}");
        }
    }
}

#[test]
fn every_rule_tells_people_what_they_need_and_has_near_misses() {
    for rule in pack().rules() {
        let id = &rule.id;
        assert!(rule.uuid.is_some(), "{id}");
        assert!(rule.description.len() > 60, "{id}");
        assert!(!rule.references.is_empty(), "{id}");
        assert!(!rule.attack.is_empty(), "{id}");
        assert!(!rule.falsepositives.is_empty(), "{id}");
        assert!(rule.source.text().contains("# exceptions:"), "{id}");
        if matches!(rule.what, What::Event { .. }) {
            for expected in ["match: true", "match: false"] {
                assert!(rule.source.text().contains(expected), "{id} {expected}");
            }
        }
    }
}

#[test]
fn ids_and_grades_are_those_of_the_contract() {
    let grades = |id: &str| {
        let set = pack();
        let rule = set.get(id).expect(id);
        let grade = |stage: &crate::rules::rule::Stage| {
            format!("{}/{}", stage.severity.name(), stage.confidence.name())
        };
        rule.stages.iter().map(grade).collect::<Vec<_>>().join(" ")
    };
    for (id, expected) in [
        ("mining-pool-protocol", "low/low high/medium critical/high"),
        ("reverse-ssh-tunnel", "medium/low high/medium critical/high"),
        ("reverse-tunnel-relay", "high/medium critical/high"),
        ("ssh-outbound", "info/high"),
        ("tunnel-tool", "medium/high"),
        ("reverse-shell", "critical/high"),
        ("metadata-service-access", "high/high"),
        ("gpu-device-open", "info/high high/high"),
        ("internal-network-probe", "medium/medium high/high"),
        ("miner-process", "high/medium"),
        ("dns-tunnel", "high/medium"),
        ("memfd-exec", "medium/high"),
        ("cgroup-escape", "high/high"),
        ("monitoring-loss", "medium/high"),
    ] {
        assert_eq!(grades(id), expected, "{id}");
    }
}
