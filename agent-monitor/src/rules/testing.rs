//! `tests`: events that a rule must match, and near misses that it must not.
//!
//! ```yaml
//! tests:
//!   - name: a shell on a socket
//!     match: true          # or false
//!     stage: NAME          # which stage, when the rule has several
//!     event: {exec: {…}, process: {…}}   # or `events`, in order, for correlations,
//!                          # with {finding: DETECTOR, stage: NAME, process: {…}} among them
//!   - {name: of a detector, finding: STAGE, level: high, confidence: medium}
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Engine, Found, Sighting, judge};
use super::keys::{Keys, Report};
use super::problem::Problems;
use super::rule::{Rule, What};
use super::sample;
use super::set::RuleSet;
use super::yaml::Node;

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The test's name.
    pub name: String,
    /// File and line.
    pub place: String,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs the tests of one rule of a set.
pub fn run(set: &Arc<RuleSet>, rule: &Rule) -> Vec<Outcome> {
    let tests = rule.node.get("tests").map_or(&[][..], Node::items);
    let outcomes = tests.iter().enumerate().map(|(number, test)| {
        let began = Instant::now();
        let named = test.get("name").and_then(Node::text);
        let failure = check(set, rule, test).err();
        let before = rule.source.text().get(..test.span.start);
        let line = 1 + before.unwrap_or_default().matches('\n').count();
        Outcome {
            rule: rule.id.clone(),
            name: named.map_or_else(|| format!("number {}", number + 1), str::to_owned),
            place: format!("{}:{line}", rule.source.path().display()),
            failure,
            took: began.elapsed(),
        }
    });
    outcomes.collect()
}

fn check(set: &Arc<RuleSet>, rule: &Rule, test: &Node) -> Result<(), String> {
    let mut problems = Problems::default();
    let report = &mut Report {
        source: &rule.source,
        problems: &mut problems,
    };
    let mut keys = Keys::new(test, "a test", report).ok_or("a test is a map")?;
    let truth = &[("true", true), ("false", false)];
    keys.get("name");
    let finding = keys.text("finding", report);
    let (level, confidence) = (keys.text("level", report), keys.text("confidence", report));
    let wanted = keys.word("match", truth, report);
    let stage = keys.text("stage", report);
    let (one, many) = (keys.get("event"), keys.get("events"));
    keys.end("a test", report);
    if let Some(problem) = problems.list().first() {
        return Err(problem.to_string());
    }
    if let What::Detector(..) = rule.what {
        return check_finding(rule, finding, level, confidence);
    }
    let wanted = wanted.ok_or("a test says `match: true` or `match: false`")?;
    let nodes = match (one, many) {
        (Some(event), None) => std::slice::from_ref(event),
        (None, Some(events)) => events.items(),
        _ => return Err("a test has either `event` or `events`".to_owned()),
    };
    let matched = matches(set, rule, nodes)?;
    let named = |stage: usize| rule.stages[stage].name.as_str();
    match (wanted, matched) {
        (true, None) => Err("it should match, and does not".to_owned()),
        (false, Some(_)) => Err("it should not match, and does".to_owned()),
        (true, Some(found)) => match stage {
            Some(stage) if stage != named(found) => Err(format!(
                "it should be at the stage `{stage}`, and is at `{}`",
                named(found)
            )),
            _ => Ok(()),
        },
        (false, None) => Ok(()),
    }
}

/// The highest stage at which the rule matched one of these events.
fn matches(set: &Arc<RuleSet>, rule: &Rule, nodes: &[Node]) -> Result<Option<usize>, String> {
    let mut engine = Engine::new(set.clone());
    let place = set.rules().iter().position(|known| known.id == rule.id);
    let told = place.is_some_and(|place| set.tells(place));
    let mut highest = None;
    for (number, node) in (0..).zip(nodes) {
        let mut sightings: Vec<Sighting> = Vec::new();
        if node.get("finding").is_some() {
            let sample = sample::finding(node, number)?;
            let found = Found {
                time: sample.time,
                node: &sample.node,
                agent: sample.agent.as_ref(),
                name: None,
                events: std::slice::from_ref(&sample.id),
            };
            engine.finding(&sample.finding, &found, &mut sightings);
        } else {
            let event = sample::event(node, number)?;
            engine.event(&event, &mut sightings);
            // What is only counted, or off, is asked by itself.
            if !told {
                highest = highest.max(judge(rule, &event));
            }
        }
        let own = sightings.iter().filter(|it| it.rule.id == rule.id);
        highest = highest.max(own.map(|it| it.stage).max());
    }
    Ok(highest)
}

fn check_finding(
    rule: &Rule,
    stage: Option<&str>,
    level: Option<&str>,
    confidence: Option<&str>,
) -> Result<(), String> {
    let What::Detector(detector, _) = rule.what else {
        return Ok(());
    };
    let stage = stage.ok_or("the test of a detector's rule names a stage as `finding`")?;
    let place = detector.stages.iter().position(|it| *it == stage);
    let place = place.ok_or_else(|| format!("the detector has no stage `{stage}`"))?;
    // By itself: it may be off, or only counted by a correlation.
    let stage = rule
        .stages
        .get(place)
        .ok_or("the rule does not take the finding")?;
    for (wanted, have) in [
        (level, stage.severity.name()),
        (confidence, stage.confidence.name()),
    ] {
        if wanted.is_some_and(|wanted| wanted != have) {
            return Err(format!(
                "it should be `{}`, and is `{have}`",
                wanted.unwrap_or_default()
            ));
        }
    }
    Ok(())
}
