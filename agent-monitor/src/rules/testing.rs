//! `tests`: events that a rule must match, and near misses that it must not.
//!
//! ```yaml
//! tests:
//!   - name: a shell on a socket
//!     match: true              # or false
//!     stage: NAME              # which stage, when the rule has several
//!     event: {exec: {…}, process: {…}}   # or `events`, in order, for correlations,
//!                              # with {finding: DETECTOR, stage: NAME, process: {…}} among them
//!   - name: of a detector
//!     match: true              # or false, of what an exception lets pass
//!     finding: STAGE           # with the grade that it has to get
//!     level: high
//!     confidence: medium
//!     about: {agent: {…}, process: {…}, remote: {…}, name: …}
//!   - name: whatever the rule asks for
//!     match: true              # or false
//!     stage: NAME              # the last
//!     capture: FILE            # that is replayed, beside the rule's own file
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::{Engine, Found, Sighting, judge};
use super::exceptions::Deed;
use super::keys::{Keys, Report};
use super::problem::Problems;
use super::rule::{Rule, What};
use super::sample;
use super::set::RuleSet;
use super::yaml::Node;
use crate::event::Alert;

/// Replays a capture, judged by a set of rules; gives every alert.
pub type Replay<'r> = &'r dyn Fn(&Path, &Arc<RuleSet>) -> Result<Vec<Arc<Alert>>, String>;

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule's id.
    pub rule: Arc<str>,
    /// The test's name.
    pub name: String,
    /// File and line.
    pub place: String,
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub took: Duration,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Passed,
    /// Why it failed.
    Failed(String),
    /// Why it could not be run.
    NotRun(String),
}

impl From<Result<(), String>> for End {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Passed)
    }
}

/// Runs the tests of one rule of a set.
pub fn run(set: &Arc<RuleSet>, rule: &Rule, replay: Replay<'_>) -> Vec<Outcome> {
    let outcomes = nodes(rule).iter().enumerate().map(|(number, node)| {
        let began = Instant::now();
        let mut problems = Problems::default();
        let end = match read(node, rule, &mut problems) {
            Some(test) => match &test.asks {
                Asks::Capture(capture) if rule.is_built_in() => {
                    let name = capture.display();
                    End::NotRun(format!("{name} is not in the program"))
                }
                _ => check(set, rule, &test, replay).into(),
            },
            None => {
                let first = problems.list().first();
                End::Failed(first.map_or_else(String::new, ToString::to_string))
            }
        };
        let before = rule.source.text().get(..node.span.start);
        let line = 1 + before.unwrap_or_default().matches('\n').count();
        let named = node.get("name").and_then(Node::text);
        Outcome {
            rule: rule.id.clone(),
            name: named.map_or_else(|| format!("number {}", number + 1), str::to_owned),
            place: format!("{}:{line}", rule.source.path().display()),
            end,
            took: began.elapsed(),
        }
    });
    outcomes.collect()
}

/// Adds what keeps a rule's tests from being run.
pub fn check_form(rule: &Rule, problems: &mut Problems) {
    for node in nodes(rule) {
        read(node, rule, problems);
    }
}

/// How many tests a rule has.
pub fn count(rule: &Rule) -> usize {
    nodes(rule).len()
}

fn nodes(rule: &Rule) -> &[Node] {
    match rule.node.get("tests") {
        Some(tests) if !tests.is_null() => tests.items(),
        _ => &[],
    }
}

/// A test, read.
struct Test<'n> {
    wanted: bool,
    stage: Option<&'n str>,
    asks: Asks<'n>,
}

/// What is asked about.
enum Asks<'n> {
    Events(Vec<Happened>),
    Finding {
        stage: usize,
        level: Option<&'n str>,
        confidence: Option<&'n str>,
        about: Box<sample::Sample>,
    },
    Capture(PathBuf),
}

enum Happened {
    Event(Box<crate::event::Event>),
    Finding(Box<sample::Sample>),
}

fn read<'n>(node: &'n Node, rule: &Rule, problems: &mut Problems) -> Option<Test<'n>> {
    let before = problems.count();
    let report = &mut Report {
        source: &rule.source,
        problems,
    };
    let mut keys = Keys::new(node, "a test", report)?;
    keys.text("name", report);
    let wanted = keys.word("match", &[("true", true), ("false", false)], report);
    let has_match = keys.get("match").is_some();
    let stage = keys.text("stage", report);
    let stage_node = keys.get("stage");
    let finding = keys.text("finding", report);
    let finding_node = keys.get("finding");
    let (level, confidence) = (keys.text("level", report), keys.text("confidence", report));
    let about = keys.get("about");
    let (one, many) = (keys.get("event"), keys.get("events"));
    let capture = keys.text("capture", report);
    keys.end("a test", report);

    if let (Some(stage), Some(node)) = (stage, stage_node)
        && !rule.stages.iter().any(|known| known.name == stage)
    {
        let names = rule.stages.iter().map(|stage| stage.name.as_str());
        let help = super::problem::nearest(stage, names);
        report.add(
            &node.span,
            format!("the rule has no stage `{}`", stage.escape_debug()),
            help,
        );
    }
    if !has_match {
        let start = node.span.start..node.span.start;
        let message = "a test says `match: true` or `match: false`";
        report.add(&start, message, None);
    }
    let detector = rule.what.detector().map(|(detector, _)| detector);
    let finds_only = matches!(rule.what, What::Detector(..));
    let asks = match (one, many, finding, capture, detector) {
        (None, None, None, Some(capture), _) => {
            let beside = rule.source.path().parent().unwrap_or(Path::new(""));
            Some(Asks::Capture(beside.join(capture)))
        }
        (None, None, Some(name), None, Some(detector)) => {
            let place = detector.stages.iter().position(|it| *it == name);
            if place.is_none()
                && let Some(node) = finding_node
            {
                let help = super::problem::nearest(name, detector.stages.iter().copied());
                let name = name.escape_debug();
                report.add(
                    &node.span,
                    format!("the detector has no stage `{name}`"),
                    help,
                );
            }
            let sample = match about.map(|about| (about, sample::about(detector, about))) {
                Some((about, Err(message))) => {
                    report.add(&about.span, message, None);
                    None
                }
                Some((_, Ok(sample))) => Some(sample),
                None => Some(sample::nobody(detector)),
            };
            sample.zip(place).map(|(sample, stage)| Asks::Finding {
                stage,
                level,
                confidence,
                about: Box::new(sample),
            })
        }
        (Some(event), None, None, None, _) if !finds_only => {
            events(std::slice::from_ref(event), rule, report)
        }
        (None, Some(events_), None, None, _) if !finds_only => {
            events(events_.items(), rule, report)
        }
        _ => {
            let message = match finds_only {
                true => "the test of a detector's rule has either `finding` or `capture`",
                false => "a test has one of `event`, `events` and `capture`",
            };
            let start = node.span.start..node.span.start;
            report.add(&start, message, None);
            None
        }
    };
    if problems.count() > before {
        return None;
    }
    Some(Test {
        wanted: wanted?,
        stage,
        asks: asks?,
    })
}

fn events<'n>(nodes: &[Node], rule: &Rule, report: &mut Report<'_>) -> Option<Asks<'n>> {
    let mut all = Some(Vec::new());
    for (number, node) in (0..).zip(nodes) {
        let happened = match node.get("finding") {
            Some(_) => sample::finding(node, number).map(|it| Happened::Finding(Box::new(it))),
            None => sample::event(node, number).map(|it| Happened::Event(Box::new(it))),
        };
        let fits = happened.and_then(|happened| match (&happened, &rule.what) {
            // It could not match, whatever is wrong with the rule.
            (Happened::Event(event), What::Event { kind, .. }) if event.body.kind() != *kind => {
                let is = event.body.kind();
                Err(format!(
                    "the rule asks for `{kind}` events, and this is of `{is}`"
                ))
            }
            _ => Ok(happened),
        });
        match fits {
            Ok(happened) => {
                if let Some(all) = &mut all {
                    all.push(happened);
                }
            }
            Err(message) => {
                report.add(&node.span, message, None);
                all = None;
            }
        }
    }
    all.map(Asks::Events)
}

fn check(
    set: &Arc<RuleSet>,
    rule: &Rule,
    test: &Test<'_>,
    replay: Replay<'_>,
) -> Result<(), String> {
    let matched = match &test.asks {
        Asks::Events(all) => highest(set, rule, all),
        Asks::Capture(capture) => {
            let alerts = replay(capture, set)?;
            let own = alerts.iter().filter(|alert| alert.rule == rule.id);
            let stages = own.filter_map(|alert| {
                // A revision tells its grade; stages of one grade are told apart by nothing.
                let same = |stage: &super::rule::Stage| {
                    (stage.severity, stage.confidence) == (alert.severity, alert.confidence)
                };
                rule.stages.iter().rposition(same)
            });
            stages.max()
        }
        Asks::Finding {
            stage,
            level,
            confidence,
            about,
        } => {
            let grade = rule.stages.get(*stage).ok_or("the rule lacks the stage")?;
            for (wanted, have) in [
                (level, grade.severity.name()),
                (confidence, grade.confidence.name()),
            ] {
                if wanted.is_some_and(|wanted| wanted != have) {
                    let wanted = wanted.unwrap_or_default();
                    return Err(format!("it should be `{wanted}`, and is `{have}`"));
                }
            }
            (!rule.lets_pass(&deed(about))).then_some(*stage)
        }
    };
    let named = |stage: usize| rule.stages[stage].name.as_str();
    match (test.wanted, matched) {
        (true, None) => Err("it should match, and does not".to_owned()),
        (false, Some(_)) => Err("it should not match, and does".to_owned()),
        (true, Some(found)) => match test.stage {
            Some(stage) if stage != named(found) => Err(format!(
                "it should be at the stage `{stage}`, and is at `{}`",
                named(found)
            )),
            _ => Ok(()),
        },
        (false, None) => Ok(()),
    }
}

fn deed(sample: &sample::Sample) -> Deed<'_> {
    Deed {
        agent: sample.agent.as_deref(),
        process: sample.finding.process.as_deref(),
        remote: sample.finding.remote,
        name: sample.name.as_deref(),
    }
}

/// The highest stage at which the rule matched one of these.
fn highest(set: &Arc<RuleSet>, rule: &Rule, all: &[Happened]) -> Option<usize> {
    let mut engine = Engine::new(set.clone());
    let place = set.rules().iter().position(|known| known.id == rule.id);
    let told = place.is_some_and(|place| set.tells(place));
    let mut highest = None;
    for happened in all {
        let mut sightings: Vec<Sighting> = Vec::new();
        match happened {
            Happened::Finding(sample) => {
                let found = Found {
                    time: sample.time,
                    node: &sample.node,
                    agent: sample.agent.as_ref(),
                    name: sample.name.as_deref(),
                    events: std::slice::from_ref(&sample.id),
                };
                engine.finding(&sample.finding, &found, &mut sightings);
            }
            Happened::Event(event) => {
                engine.event(event, &mut sightings);
                // What is only counted, or off, is asked by itself.
                if !told {
                    highest = highest.max(judge(rule, event));
                }
            }
        }
        let own = sightings.iter().filter(|it| it.rule.id == rule.id);
        highest = highest.max(own.map(|it| it.stage).max());
    }
    highest
}
