//! `rules explain`: what a rule finds, how, and what to do about its mistakes.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::{escaped, load, print, unknown};
use crate::cli::RulesExplainArgs;
use crate::rules::fields::{Field, of_kind};
use crate::rules::rule::{Rule, What};
use crate::rules::set::RuleSet;
use crate::rules::value::Type;
use crate::rules::words;

/// Words of a field that are shown; more are counted.
const MAX_WORDS: usize = 12;
/// Columns that text is filled to.
const WIDTH: usize = 100;

/// Runs the command.
///
/// # Errors
/// There is no such rule, or stdout cannot be written.
pub fn run(args: &RulesExplainArgs) -> Result<ExitCode> {
    let Some(set) = load(&args.dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    let Some(rule) = set.get(&args.id) else {
        bail!("{}", unknown(&args.id, &set));
    };
    print(&escaped(&explain(rule, &set)))?;
    Ok(ExitCode::SUCCESS)
}

fn explain(rule: &Rule, set: &RuleSet) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: {}", rule.id, rule.title);
    let source = rule.source.path().display();
    let enabled = if rule.enabled { "" } else { ", switched off" };
    let _ = writeln!(text, "{source}, {}{enabled}", rule.status);
    if !rule.description.is_empty() {
        let _ = writeln!(text, "\n{}", filled(&rule.description, ""));
    }
    for (heading, lines) in words::asks(rule, set) {
        let _ = writeln!(text, "\n{}", filled(&heading, "  "));
        for line in lines {
            let _ = writeln!(text, "  {}", filled(&line, "      "));
        }
    }
    if let Some((detector, settings)) = rule.what.detector() {
        for setting in detector.settings {
            let (name, value) = (setting.name, settings.get(setting));
            let line = format!("{name} = {value}: {}", setting.about);
            let _ = writeln!(text, "  {}", filled(&line, "      "));
        }
    }
    grades(&mut text, rule);
    list(&mut text, "It lets pass", &words::exceptions(rule, set));
    list(
        &mut text,
        "It may also find what is not bad",
        &rule.falsepositives,
    );
    list(&mut text, "Its tests: it finds", &words::tests(rule, true));
    list(
        &mut text,
        "Its tests: it does not find",
        &words::tests(rule, false),
    );
    list(&mut text, "Tags", &rule.tags);
    list(&mut text, "Read on", &rule.references);
    if let What::Event { kind, .. } = &rule.what {
        let asked = words::fields(rule);
        let is_asked = |field: &&Field| asked.contains(&field.path);
        let (asked, others): (Vec<_>, Vec<_>) = of_kind(kind).partition(is_asked);
        fields(&mut text, "Fields that it asks for", &asked);
        fields(
            &mut text,
            &format!("Other fields of {kind} events"),
            &others,
        );
    }
    let _ = writeln!(text, "\nAs written:\n");
    let written = rule.source.text().get(rule.node.span.clone());
    for line in written.unwrap_or_default().lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn grades(text: &mut String, rule: &Rule) {
    let conditions = rule
        .node
        .get("stages")
        .map_or(&[][..], |stages| stages.items());
    let _ = writeln!(text, "\nHow bad, and how sure:");
    for stage in &rule.stages {
        let (severity, confidence) = (stage.severity.name(), stage.confidence.name());
        let written = conditions
            .iter()
            .find(|node| node.get("name").and_then(|it| it.text()) == Some(stage.name.as_str()));
        let condition = written.and_then(|node| node.get("condition")?.text());
        let condition = condition.map_or_else(String::new, |it| format!(", when besides  {it}"));
        let name = match stage.name.as_str() {
            "" => String::new(),
            name => format!("{name}: "),
        };
        let _ = writeln!(
            text,
            "  {name}severity {severity}, confidence {confidence}{condition}"
        );
    }
}

fn list(text: &mut String, title: &str, items: &[impl AsRef<str>]) {
    if !items.is_empty() {
        let _ = writeln!(text, "\n{title}:");
    }
    for item in items {
        let _ = writeln!(text, "  - {}", filled(item.as_ref().trim(), "    "));
    }
}

fn fields(text: &mut String, title: &str, fields: &[&Field]) {
    if !fields.is_empty() {
        let _ = writeln!(text, "\n{title}:");
    }
    for field in fields {
        let ty = match field.ty {
            Type::Word(words) => {
                let words = words();
                let shown = words
                    .iter()
                    .take(MAX_WORDS)
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ");
                let more = if words.len() > MAX_WORDS { " …" } else { "" };
                format!("{shown}{more}")
            }
            ty => ty.name().to_owned(),
        };
        let _ = writeln!(text, "  {:<28} {ty}", field.path);
    }
}

/// Text in lines of at most [`WIDTH`] columns, of which the later ones are indented.
fn filled(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    // Two spaces in a row set a condition off: they stay.
    for word in text.trim().split(' ').map(str::trim) {
        let last = lines.last_mut().map_or(0, |line| line.chars().count());
        let first = lines.len() == 1;
        let room = WIDTH - if first { 0 } else { indent.len() };
        if last > 0 && last + 1 + word.chars().count() > room && !word.is_empty() {
            lines.push(word.to_owned());
        } else if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{indent}"))
}
