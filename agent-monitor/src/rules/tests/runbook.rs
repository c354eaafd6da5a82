//! The operators' page about each rule of the pack.

use std::collections::BTreeSet;

use clap::Parser as _;

use super::*;
use crate::cli::Cli;

const PAGE: &str = include_str!("../../../../docs/runbook.md");
/// Of every section, in this order.
const PARTS: &[&str] = &[
    "**Means**: ",
    "**Verify**: ",
    "**Do**: ",
    "**Tune**: ",
    "**Known false positives**: ",
];

/// Heading and text of each section about a rule.
fn sections() -> Vec<(&'static str, &'static str)> {
    let sections = PAGE.split("\n## ").skip(1);
    let sections = sections.filter_map(|section| section.split_once('\n'));
    sections
        .filter(|(heading, _)| *heading != "For any alert")
        .collect()
}

#[test]
fn each_rule_of_the_pack_has_its_section_and_nothing_else_has() {
    let pack = RuleSet::builtin();
    let ids: BTreeSet<&str> = pack.rules().iter().map(|rule| &*rule.id).collect();
    let headings: Vec<&str> = sections().iter().map(|(heading, _)| *heading).collect();
    assert_eq!(headings, ids.into_iter().collect::<Vec<_>>());
    for (heading, text) in sections() {
        let places: Vec<_> = PARTS.iter().map(|part| text.find(part)).collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{heading}: {places:?}"
        );
        assert!(
            text.contains("`agent-monitor "),
            "{heading} names no command to verify by"
        );
    }
}

#[test]
fn its_commands_can_be_typed_and_its_overrides_loaded() {
    let spans = PAGE.split('`').skip(1).step_by(2);
    let blocks = PAGE
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let commands = spans
        .chain(blocks)
        .map(|text| text.split(" | ").next().unwrap_or_default());
    let commands: Vec<&str> = commands
        .filter(|text| text.starts_with("agent-monitor "))
        .collect();
    assert!(commands.len() > 30, "{commands:?}");
    for command in commands {
        // Placeholders stand for what is typed.
        let words = command.replace("SELECTOR", "docker:x").replace('…', "");
        let parsed = Cli::try_parse_from(words.split_whitespace());
        // Fragments such as `agent-monitor alerts` with what stops are whole commands, too.
        assert!(
            parsed.is_ok(),
            "{command}: {}",
            parsed.err().map(|it| it.to_string()).unwrap_or_default()
        );
    }
    let overrides = PAGE
        .split('`')
        .filter(|text| text.starts_with("{override: "));
    let overrides: Vec<&str> = overrides.collect();
    assert!(overrides.len() >= 5, "{overrides:?}");
    for text in overrides {
        let told = compile(&[("x.yaml", text)]).map(|_| ());
        told.unwrap_or_else(|problems| panic!("{text}: {problems}"));
    }
    let block = PAGE
        .split("```yaml\n")
        .nth(1)
        .and_then(|it| it.split("```").next());
    let block = block.expect("an example").replace("RULE", "ssh-outbound");
    let told = compile(&[("x.yaml", &block)]).map(|_| ());
    told.unwrap_or_else(|problems| panic!("{block}: {problems}"));
}

#[test]
fn every_variable_is_explained_by_the_rule_that_uses_it() {
    for name in default_pack::variables() {
        let named = sections()
            .iter()
            .any(|(_, text)| text.contains(&format!("`{name}")));
        assert!(named, "no section tells of {name}");
    }
}
