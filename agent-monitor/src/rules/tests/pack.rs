//! The default pack.

use super::*;
use crate::commands::replay::{Options, replay_with};
use crate::event::Body;
use crate::rules::testing::{self, End};
use crate::rules::words;

fn pack() -> Arc<RuleSet> {
    match RuleSet::load(&[]) {
        Ok(set) => Arc::new(set),
        Err(problems) => panic!("{}", Problems::show(&problems, false, 100)),
    }
}

/// The same from the source tree, where its captures are.
fn in_the_source_tree() -> Arc<RuleSet> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    match RuleSet::load(&[dir]) {
        Ok(set) => Arc::new(set),
        Err(problems) => panic!("{}", Problems::show(&problems, false, 100)),
    }
}

fn replayed(capture: &Path, set: &Arc<RuleSet>) -> Result<Vec<Arc<Alert>>, String> {
    let options = Options {
        rules: set.clone(),
        ..Options::default()
    };
    let mut alerts = Vec::new();
    let end = replay_with(capture, 0, &options, |event| {
        if let Body::Alert(alert) = &event.body {
            alerts.push(alert.clone());
        }
        Ok(())
    });
    end.map(|()| alerts).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_default_pack_passes_its_own_tests_captures_included() {
    let set = in_the_source_tree();
    for rule in set.rules() {
        assert!(!rule.is_built_in(), "{}", rule.id);
        for outcome in testing::run(&set, rule, &replayed) {
            assert_eq!(outcome.end, End::Passed, "{outcome:?}");
        }
    }
}

#[test]
fn in_the_program_only_captures_are_left_out_of_its_tests() {
    let set = pack();
    for rule in set.rules() {
        for outcome in testing::run(&set, rule, &replayed) {
            match outcome.end {
                End::Passed => {}
                End::NotRun(why) => assert!(why.contains("tests/data/"), "{why}"),
                End::Failed(why) => panic!("{} {}: {why}", rule.id, outcome.name),
            }
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
        for finds in [true, false] {
            let tests = words::tests(rule, finds);
            assert!(!tests.is_empty(), "{id}: no test with `match: {finds}`");
        }
    }
}

/// What they show of exceptions has to be right, too.
#[test]
fn the_exceptions_shown_as_comments_can_be_used() {
    for file in default_pack::sources() {
        let lines = file.text().lines();
        let commented = lines
            .skip_while(|line| *line != "# exceptions:")
            .take_while(|line| line.starts_with('#'));
        let shown: Vec<&str> = commented
            .filter_map(|line| line.strip_prefix("# "))
            .collect();
        if shown.is_empty() {
            assert!(
                file.path().ends_with("vars.yaml"),
                "{}",
                file.path().display()
            );
            continue;
        }
        let stem = file.path().file_stem().unwrap_or_default();
        let text = format!("override: {}\n{}\n", stem.display(), shown.join("\n"));
        let told = compile(&[("shown.yaml", &text)]).map(|_| ());
        told.unwrap_or_else(|problems| panic!("{}: {problems}\n{text}", file.path().display()));
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
