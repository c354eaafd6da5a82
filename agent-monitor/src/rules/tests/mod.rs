//! What holds of rules as a whole.

mod bounds;
mod correlations;
mod fields;
mod language;
mod pack;
mod runbook;
mod settings;
mod sigma;
mod testing;
mod variables;
mod words;

use std::path::Path;
use std::sync::Arc;

use super::engine::{Engine, Sighting};
use super::problem::{Problems, Source};
use super::sample;
use super::set::RuleSet;
use super::{pack as default_pack, yaml};
use crate::event::{Alert, Event};

/// Compiles files, by their names, on top of the default pack.
fn compile(files: &[(&str, &str)]) -> Result<Arc<RuleSet>, Problems> {
    let own = files
        .iter()
        .map(|(name, text)| Source::new(Path::new(name), (*text).to_owned()))
        .collect();
    RuleSet::compile(&[default_pack::sources(), own], Problems::default()).map(Arc::new)
}

/// A rule of exec events with this detection.
fn rule(id: &str, detection: &str) -> String {
    of_kind("exec", id, detection)
}

fn of_kind(kind: &str, id: &str, detection: &str) -> String {
    format!(
        "title: {id}\nid: {id}\nlevel: low\nevent: {kind}\ndetection:\n  sel: {detection}\n  condition: sel\n"
    )
}

fn event(text: &str, number: u64) -> Event {
    let node = yaml::documents(text).expect(text).remove(0);
    sample::event(&node, number).expect(text)
}

/// Ids of the rules of which these events, in order, are sightings.
fn seen(set: &Arc<RuleSet>, events: &[&str]) -> Vec<String> {
    let mut engine = Engine::new(set.clone());
    let mut sightings: Vec<Sighting> = Vec::new();
    for (number, text) in (0..).zip(events) {
        engine.event(&event(text, number), &mut sightings);
    }
    sightings.iter().map(|it| it.rule.id.to_string()).collect()
}

/// The problems of one file, a line each.
fn problems(text: &str) -> Vec<String> {
    match compile(&[("x.yaml", text)]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.lines(),
    }
}

/// For tests of rules that have no captures.
fn no_capture(path: &Path, _: &Arc<RuleSet>) -> Result<Vec<Arc<Alert>>, String> {
    Err(format!("there is no {}", path.display()))
}
