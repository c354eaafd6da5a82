//! `rules test`: runs the tests that rules carry, or replays a capture and
//! looks for an alert.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{escaped, load, print};
use crate::cli::RulesTestArgs;
use crate::commands::replay::{self, Options};
use crate::event::Body;
use crate::rules::set::RuleSet;
use crate::rules::testing::{self, Outcome};

/// Runs the command.
///
/// # Errors
/// A capture cannot be read, or the report cannot be written.
pub fn run(args: &RulesTestArgs) -> Result<ExitCode> {
    let Some(set) = load(&args.dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    let outcomes = match &args.capture {
        Some(capture) => expected(capture, &args.expect, &set)?,
        None => set
            .rules()
            .iter()
            .flat_map(|rule| testing::run(&set, rule))
            .collect(),
    };
    if let Some(path) = &args.junit {
        write_junit(path, &outcomes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failed: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| Some((outcome, outcome.failure.as_ref()?)))
        .collect();
    let mut text = String::new();
    for (outcome, failure) in &failed {
        let Outcome {
            rule, name, place, ..
        } = outcome;
        text += &format!("FAILED {rule}: {name}\n       {place}: {failure}\n");
    }
    let passed = outcomes.len() - failed.len();
    text += &format!("{passed} passed, {} failed\n", failed.len());
    print(&escaped(&text))?;
    Ok(match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whether a replay of the capture raises an alert of each of these rules.
fn expected(capture: &Path, ids: &[String], set: &Arc<RuleSet>) -> Result<Vec<Outcome>> {
    let mut seen = std::collections::BTreeSet::new();
    let options = Options {
        rules: set.clone(),
        ..Options::default()
    };
    replay::replay_with(capture, 0, &options, |event| {
        if let Body::Alert(alert) = &event.body {
            seen.insert(alert.rule.clone());
        }
        Ok(())
    })?;
    let others: Vec<&str> = seen.iter().map(|rule| &**rule).collect();
    let others = match others.as_slice() {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    };
    let outcomes = ids.iter().map(|id| Outcome {
        rule: id.as_str().into(),
        name: format!("is found in {}", capture.display()),
        place: capture.display().to_string(),
        failure: (!seen.contains(id.as_str())).then(|| format!("not found; found was {others}")),
        took: Duration::ZERO,
    });
    Ok(outcomes.collect())
}

fn write_junit(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut report = Report::new("agent-monitor rules");
    for outcome in outcomes {
        let status = match &outcome.failure {
            None => TestCaseStatus::success(),
            Some(failure) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(format!("{}: {failure}", outcome.place));
                status
            }
        };
        let mut case = TestCase::new(outcome.name.as_str(), status);
        case.set_classname(&*outcome.rule).set_time(outcome.took);
        match report.test_suites.last_mut() {
            Some(suite) if suite.name.as_str() == &*outcome.rule => {
                suite.add_test_case(case);
            }
            _ => {
                let mut suite = TestSuite::new(&*outcome.rule);
                suite.add_test_case(case);
                report.add_test_suite(suite);
            }
        }
    }
    report.serialize(BufWriter::new(File::create(path)?))?;
    Ok(())
}
