//! `rules list`: every rule in a table.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{load, print};
use crate::cli::{Output, RulesListArgs};
use crate::rules::rule::Rule;
use crate::rules::set::RuleSet;

/// Runs the command.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: &RulesListArgs) -> Result<ExitCode> {
    let Some(set) = load(&args.dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    let shown = match args.output.format() {
        Output::Pretty => table(&set),
        Output::Json => lines(&set)?,
    };
    print(&shown)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a rule speaks: `yes`, `no`, or `counted` by a correlation alone.
fn enabled(set: &RuleSet, place: usize, rule: &Rule) -> &'static str {
    match (rule.enabled, set.tells(place)) {
        (false, _) => "no",
        (true, true) => "yes",
        (true, false) => "counted",
    }
}

fn level(rule: &Rule) -> String {
    let mut names: Vec<&str> = rule.stages.iter().map(|it| it.severity.name()).collect();
    names.dedup();
    names.join("-")
}

/// Techniques as alerts name them and tags that are not ATT&CK's; its tactics are left out.
fn tags(rule: &Rule) -> String {
    let others = rule.tags.iter().map(String::as_str);
    let others = others.filter(|tag| !tag.starts_with("attack."));
    let tags: Vec<&str> = rule.attack.iter().map(|it| &**it).chain(others).collect();
    tags.join(" ")
}

fn table(set: &RuleSet) -> String {
    let rows = set.rules().iter().enumerate().map(|(place, rule)| {
        vec![
            rule.id.to_string(),
            level(rule),
            rule.what.name(),
            tags(rule),
            enabled(set, place, rule).to_owned(),
            rule.source.path().display().to_string(),
        ]
    });
    let head = ["ID", "LEVEL", "EVENT", "TAGS", "ENABLED", "SOURCE"];
    super::super::table::table(&head, rows)
}

fn lines(set: &RuleSet) -> Result<String> {
    let mut text = String::new();
    for (place, rule) in set.rules().iter().enumerate() {
        let stages = rule.stages.iter();
        let stages = stages.map(|it| {
            json!({"name": it.name, "severity": it.severity.name(), "confidence": it.confidence.name()})
        });
        let line = json!({
            "id": rule.id,
            "title": rule.title,
            "status": rule.status,
            "event": rule.what.name(),
            "stages": stages.collect::<Vec<_>>(),
            "tags": rule.tags,
            "enabled": enabled(set, place, rule),
            "source": rule.source.path().display().to_string(),
        });
        text += &serde_json::to_string(&line)?;
        text.push('\n');
    }
    Ok(text)
}
