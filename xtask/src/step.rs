//! Runs one long command: its output goes to a log file, progress to the terminal.

use std::fs::{self, File};
use std::io::{IsTerminal as _, stderr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::root;

/// Lines of a failed command's log that are shown.
const TAIL: usize = 30;

/// Runs `command`, says what it is doing, and on failure shows the end of its log.
///
/// `name` names the log file, `target/xtask/<name>.log`; `what` is one line for a person.
///
/// # Errors
/// When the command cannot be started or exits with a failure.
pub fn run(name: &str, what: &str, command: &mut Command) -> Result<()> {
    let path = log_path(name)?;
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let bar = start(what);
    let began = Instant::now();
    let status = command
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status();
    bar.finish_and_clear();
    let status = status
        .with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        eprintln!("{}", tail(&text, TAIL));
        bail!(
            "{what}: failed ({status}); the whole output is in {}",
            path.display()
        );
    }
    eprintln!("{what}: done in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// A spinner with the time gone by on a terminal; one plain line elsewhere.
fn start(what: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        eprintln!("{what} …");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn log_path(name: &str) -> Result<PathBuf> {
    let dir = root().join("target/xtask");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.join(format!("{name}.log")))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_keeps_the_last_lines_in_order() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 30), "a");
        assert_eq!(tail("", 30), "");
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_its_log() {
        let error = run(
            "selftest",
            "trying",
            Command::new("sh").args(["-c", "echo broken; exit 3"]),
        )
        .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("trying: failed") && text.contains("selftest.log"),
            "{text}"
        );
    }
}
