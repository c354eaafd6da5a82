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
use crate::rules::problem::Problems;
use crate::rules::set::RuleSet;

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

/// `rules check`: whether rules can be used, and what of SigmaHQ's was left out.
fn check(dirs: &[PathBuf]) -> Result<ExitCode> {
    let Some(set) = load(dirs)? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut text = String::new();
    for left_out in set.unmapped() {
        text += &format!("left out: {} ({})\n", left_out.title, left_out.file);
        for reason in &left_out.reasons {
            text += &format!("  {reason}\n");
        }
    }
    let own = set
        .rules()
        .iter()
        .filter(|rule| dirs.iter().any(|dir| rule.source.path().starts_with(dir)));
    text += &format!("{} rules are valid", own.count());
    match set.unmapped().len() {
        0 => text += "\n",
        some => text += &format!(", {some} in SigmaHQ's form were left out\n"),
    }
    print(&escaped(&text))?;
    Ok(ExitCode::SUCCESS)
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
    let count = problems.count();
    let s = if count == 1 { "" } else { "s" };
    writeln!(stderr, "error: {count} problem{s}; no rule was taken")?;
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
