//! `agent-monitor rules`: looks at, checks and tests rules, and has the daemon read them again.

mod explain;
mod list;
mod reload;
mod test;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use crate::cli::{RulesArgs, RulesCommand};
use crate::escape::escape;
use crate::rules::problem::{Problems, nearest};
use crate::rules::set::RuleSet;
use crate::rules::testing;

/// Columns of messages when stderr is no terminal.
const WIDTH: usize = 100;

/// Runs the command.
///
/// # Errors
/// Rules cannot be used, a test failed, or there is no daemon.
pub fn run(args: RulesArgs) -> Result<ExitCode> {
    match args.command {
        RulesCommand::List(args) => list::run(&args),
        RulesCommand::Check(args) => check(&args.dirs),
        RulesCommand::Test(args) => test::run(&args),
        RulesCommand::Explain(args) => explain::run(&args),
        RulesCommand::Reload(args) => reload::run(&args),
    }
}

/// `rules check`: whether rules and their tests can be used, and what of SigmaHQ's was left out.
fn check(dirs: &[PathBuf]) -> Result<ExitCode> {
    let Some(set) = load(dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    let own = set.rules().iter().filter(|rule| !rule.is_built_in());
    let (mut rules, mut tests, mut problems) = (0, 0, Problems::default());
    for rule in own {
        rules += 1;
        tests += testing::count(rule);
        testing::check_form(rule, &mut problems);
    }
    let mut text = String::new();
    for left_out in set.unmapped() {
        text += &format!("left out: {} ({})\n", left_out.title, left_out.file);
        for reason in &left_out.reasons {
            text += &format!("  {reason}\n");
        }
    }
    if !problems.is_empty() {
        print(&escaped(&text))?;
        show(&problems)?;
        return Ok(ExitCode::FAILURE);
    }
    text += &match (counted(rules, "rule"), counted(tests, "test")) {
        (rules, tests) if tests.starts_with("0 ") => format!("{rules}, without tests: valid"),
        (rules, tests) => format!("{rules}, {tests}: valid"),
    };
    text += &match set.unmapped().len() {
        0 => "\n".to_owned(),
        some => format!("; {} in SigmaHQ's form left out\n", counted(some, "rule")),
    };
    print(&escaped(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// `1 rule`, `2 rules`.
fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

/// That there is no rule of this id, and what may be meant.
fn unknown(id: &str, set: &RuleSet) -> String {
    let ids = set.rules().iter().map(|rule| &*rule.id);
    let help = nearest(id, ids).unwrap_or_else(|| "see `rules list`".to_owned());
    format!("there is no rule {id:?}; {help}")
}

/// The default pack with `dirs`; `None` when something is wrong, which is then
/// shown on stderr.
fn load(dirs: &[PathBuf]) -> Result<Option<Arc<RuleSet>>> {
    match RuleSet::load(dirs) {
        Ok(set) => Ok(Some(Arc::new(set))),
        Err(problems) => {
            show(&problems)?;
            Ok(None)
        }
    }
}

/// Every problem with its line, then how many.
fn show(problems: &Problems) -> Result<()> {
    let stderr = io::stderr();
    let color = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
    let width = match stderr.is_terminal() {
        true => terminal_size::terminal_size_of(&stderr).map_or(WIDTH, |(width, _)| width.0.into()),
        false => WIDTH,
    };
    let mut stderr = stderr.lock();
    stderr.write_all(problems.show(color, width).as_bytes())?;
    let count = counted(problems.count(), "problem");
    writeln!(stderr, "error: {count}; no rule was taken")?;
    Ok(())
}

/// Text of several lines, made safe to show.
fn escaped(text: &str) -> String {
    let lines = text.lines().map(|line| format!("{}\n", escape(line)));
    lines.collect()
}

/// Writes to stdout; a reader that is gone is no error.
fn print(text: &str) -> Result<()> {
    super::table::print(&mut io::stdout(), text)
}
