//! `rules test`: runs the tests that rules carry, or replays a capture and
//! looks for an alert.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{counted, escaped, load, print, unknown};
use crate::cli::RulesTestArgs;
use crate::commands::replay::{self, Options};
use crate::event::{Alert, Body};
use crate::rules::set::RuleSet;
use crate::rules::testing::{self, End, Outcome};

/// Runs the command.
///
/// # Errors
/// A capture cannot be read, a rule that is expected is not there, or the report
/// cannot be written.
pub fn run(args: &RulesTestArgs) -> Result<ExitCode> {
    let Some(set) = load(&args.dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    if let Some(id) = args.expect.iter().find(|id| set.get(id).is_none()) {
        bail!("{}", unknown(id, &set));
    }
    let outcomes = match &args.capture {
        Some(capture) => expected(capture, &args.expect, &set)?,
        None => set
            .rules()
            .iter()
            .flat_map(|rule| testing::run(&set, rule, &alerts))
            .collect(),
    };
    if let Some(path) = &args.junit {
        write_junit(path, &outcomes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (mut text, mut passed, mut failed, mut not_run) = (String::new(), 0, 0, 0);
    for outcome in &outcomes {
        let Outcome {
            rule, name, place, ..
        } = outcome;
        match &outcome.end {
            End::Passed => passed += 1,
            End::Failed(failure) => {
                failed += 1;
                text += &format!("FAILED {rule}: {name}\n       {place}: {failure}\n");
            }
            End::NotRun(_) => not_run += 1,
        }
    }
    text += &format!("{passed} passed, {failed} failed\n");
    if not_run > 0 {
        let tests = counted(not_run, "test");
        text += &format!(
            "{tests} of the default pack not run: their captures are in the source tree, not in the program\n"
        );
    }
    print(&escaped(&text))?;
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Every alert of a capture's replay.
fn alerts(capture: &Path, set: &Arc<RuleSet>) -> Result<Vec<Arc<Alert>>, String> {
    replayed(capture, set).map_err(|error| format!("{error:#}"))
}

fn replayed(capture: &Path, set: &Arc<RuleSet>) -> Result<Vec<Arc<Alert>>> {
    let options = Options {
        rules: set.clone(),
        ..Options::default()
    };
    let mut alerts = Vec::new();
    replay::replay_with(capture, 0, &options, |event| {
        if let Body::Alert(alert) = &event.body {
            alerts.push(alert.clone());
        }
        Ok(())
    })?;
    Ok(alerts)
}

/// Whether a replay of the capture raises an alert of each of these rules.
fn expected(capture: &Path, ids: &[String], set: &Arc<RuleSet>) -> Result<Vec<Outcome>> {
    let began = Instant::now();
    let alerts = replayed(capture, set)?;
    let seen: BTreeSet<&str> = alerts.iter().map(|alert| &*alert.rule).collect();
    let others = match seen.iter().copied().collect::<Vec<_>>().as_slice() {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    };
    let outcomes = ids.iter().map(|id| Outcome {
        rule: id.as_str().into(),
        name: format!("is found in {}", capture.display()),
        place: capture.display().to_string(),
        end: match seen.contains(id.as_str()) {
            true => End::Passed,
            false => End::Failed(format!("not found; found was {others}")),
        },
        took: began.elapsed(),
    });
    Ok(outcomes.collect())
}

fn write_junit(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut report = Report::new("agent-monitor rules");
    for of_rule in outcomes.chunk_by(|one, other| one.rule == other.rule) {
        let mut suite = TestSuite::new(&*of_rule[0].rule);
        for outcome in of_rule {
            let status = match &outcome.end {
                End::Passed => TestCaseStatus::success(),
                End::Failed(failure) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(format!("{}: {failure}", outcome.place));
                    status
                }
                End::NotRun(why) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(why.as_str());
                    status
                }
            };
            let mut case = TestCase::new(outcome.name.as_str(), status);
            case.set_classname(&*outcome.rule).set_time(outcome.took);
            suite.add_test_case(case);
        }
        // Only now: a report adds up what a suite has when it is taken in.
        report.add_test_suite(suite);
    }
    report.serialize(BufWriter::new(File::create(path)?))?;
    Ok(())
}
