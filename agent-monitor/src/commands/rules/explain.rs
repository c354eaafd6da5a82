//! `rules explain`: what a rule finds, how, and what to do about its mistakes.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{escaped, load, print};
use crate::cli::RulesExplainArgs;
use crate::rules::fields::of_kind;
use crate::rules::problem::nearest;
use crate::rules::rule::{Rule, What};

/// Runs the command.
///
/// # Errors
/// There is no such rule, or stdout cannot be written.
pub fn run(args: &RulesExplainArgs) -> Result<ExitCode> {
    let Some(set) = load(&args.dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    let Some(rule) = set.get(&args.id) else {
        let ids = set.rules().iter().map(|rule| &*rule.id);
        let help = nearest(&args.id, ids).unwrap_or_else(|| "see `rules list`".to_owned());
        bail!("there is no rule {:?}; {help}", args.id);
    };
    print(&escaped(&explain(rule)))?;
    Ok(ExitCode::SUCCESS)
}

fn explain(rule: &Rule) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}  ({}, {})", rule.id, rule.title, rule.status);
    let _ = writeln!(text, "from {}\n", rule.source.path().display());
    if !rule.description.is_empty() {
        let _ = writeln!(text, "{}\n", rule.description);
    }
    let _ = writeln!(text, "Asks for: {}", rule.what.name());
    for stage in &rule.stages {
        let name = match stage.name.as_str() {
            "" => String::new(),
            name => format!("{name}: "),
        };
        let (severity, confidence) = (stage.severity.name(), stage.confidence.name());
        let _ = writeln!(text, "  {name}severity {severity}, confidence {confidence}");
    }
    if let What::Detector(detector, settings) = &rule.what {
        for setting in detector.settings {
            let (name, value) = (setting.name, settings.get(setting));
            let _ = writeln!(text, "  setting {name}: {value} ({})", setting.about);
        }
    }
    if !rule.enabled {
        let _ = writeln!(text, "It is not enabled.");
    }
    list(&mut text, "Tags", &rule.tags);
    list(&mut text, "It may also find", &rule.falsepositives);
    list(&mut text, "Read on", &rule.references);
    let _ = writeln!(text, "\nAs written:\n");
    let written = rule.source.text().get(rule.node.span.clone());
    for line in written.unwrap_or_default().lines() {
        let _ = writeln!(text, "  {line}");
    }
    if let What::Event { kind, .. } = rule.what {
        let _ = writeln!(text, "\nFields of {kind} events:");
        for field in of_kind(kind) {
            let _ = writeln!(text, "  {:<28} {}", field.path, field.ty.name());
        }
    }
    text
}

fn list(text: &mut String, title: &str, items: &[String]) {
    if !items.is_empty() {
        let _ = writeln!(text, "{title}:");
    }
    for item in items {
        let _ = writeln!(text, "  - {}", item.trim());
    }
}
