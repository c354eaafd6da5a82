//! `agent-monitor config`: whether it can be used, and what it says.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use toml::{Table, Value};

use super::run::group_id;
use crate::cli::{ConfigCommand, Output};
use crate::config::{Config, Loaded, reference};
use crate::enrich::selector::Selector;
use crate::rules::set::RuleSet;

/// Checks, shows or prints the configuration.
///
/// # Errors
/// It cannot be used: everything that is wrong with it.
pub fn run(command: ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Check(args) => check(args.place.as_deref())?,
        ConfigCommand::Show(args) => show(args.place.as_deref(), args.output.format())?,
        ConfigCommand::Default => anstream::print!("{}", reference::commented()),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(place: Option<&Path>) -> Result<()> {
    let loaded = Loaded::read(place, std::env::vars_os(), &[])?;
    let problems = problems(&loaded.config);
    if !problems.is_empty() {
        bail!("the configuration cannot be used:\n{}", problems.join("\n"));
    }
    if loaded.files.is_empty() {
        anstream::println!("ok: no file, so the defaults");
    }
    for file in &loaded.files {
        anstream::println!("ok: {}", file.display());
    }
    Ok(())
}

/// What is wrong beyond the form of the files: all of it.
fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    for selector in &config.agents.select {
        if let Err(error) = selector.parse::<Selector>() {
            problems.push(format!("agents.select: {error}"));
        }
    }
    if let Some(Err(error)) = config.api.group.as_deref().map(group_id) {
        problems.push(format!("{error:#}"));
    }
    if let Err(error) = RuleSet::load(&config.rules.dirs) {
        problems.push(format!("rules.dirs:\n{error}"));
    }
    for sink in &config.sinks {
        let secrets = sink.secrets().into_iter();
        let unread = secrets.filter_map(|secret| secret.read().err());
        problems.extend(unread.map(|error| format!("sink \"{}\": {error}", sink.name())));
    }
    problems
}

fn show(place: Option<&Path>, output: Output) -> Result<()> {
    let loaded = Loaded::read(place, std::env::vars_os(), &[])?;
    let all = Table::try_from(&loaded.config).context("cannot write the configuration as TOML")?;
    let mut sections = Vec::new();
    for (name, section) in &all {
        match section {
            Value::Table(table) => sections.push((format!("[{name}]"), name.clone(), table)),
            Value::Array(sinks) => {
                for sink in sinks.iter().filter_map(Value::as_table) {
                    let of = sink.get("name").and_then(Value::as_str).unwrap_or_default();
                    sections.push(("[[sink]]".to_owned(), format!("sink.{of}"), sink));
                }
            }
            _ => {}
        }
    }
    if output == Output::Json {
        let mut settings = serde_json::Map::new();
        for (_, path, table) in &sections {
            for (name, value) in leaves(table) {
                let setting = format!("{path}.{name}");
                let origin = loaded.origin(&setting).to_string();
                settings.insert(setting, json!({ "value": value, "origin": origin }));
            }
        }
        let shown = json!({ "files": loaded.files, "settings": settings });
        anstream::println!("{shown}");
        return Ok(());
    }
    for (place, (header, path, table)) in sections.iter().enumerate() {
        if place > 0 {
            anstream::println!();
        }
        anstream::println!("{header}");
        for (name, value) in leaves(table) {
            let origin = loaded.origin(&format!("{path}.{name}"));
            let line = format!("{name} = {value}");
            anstream::println!("{line:<60} # {origin}");
        }
    }
    Ok(())
}

/// Each value of a table, with the path to it.
fn leaves(table: &Table) -> Vec<(String, &Value)> {
    let mut leaves = Vec::new();
    for (name, value) in table {
        match value {
            // What names where a secret is is one value.
            Value::Table(inner) if !inner.contains_key("file") && !inner.contains_key("env") => {
                let inner = self::leaves(inner).into_iter();
                leaves.extend(inner.map(|(path, value)| (format!("{name}.{path}"), value)));
            }
            _ => leaves.push((name.clone(), value)),
        }
    }
    leaves
}
