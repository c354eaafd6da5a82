//! `agent-monitor man` and `agent-monitor completions`: what packages install
//! beside the binary, made from the command line's own definition.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::attach::offsets;
use crate::cli::{Cli, CompletionsArgs, ManArgs};

/// The manual's name, at the foot and the head of each page.
const MANUAL: &str = "agent-monitor";

/// Where things are, for the main page.
const FILES: [(&str, &str); 5] = [
    (
        "/etc/agent-monitor/config.toml",
        "The configuration, with the files in conf.d beside it.",
    ),
    (
        "/etc/agent-monitor/rules",
        "The usual place for rules of one's own, once [rules] dirs names it.",
    ),
    (
        "/var/lib/agent-monitor/store.db",
        "Alerts, and how far each sink is.",
    ),
    (
        "/var/log/agent-monitor",
        "The usual place for the files of sinks.",
    ),
    (
        crate::api::DEFAULT_SOCKET,
        "The socket that the other commands talk to the daemon over.",
    ),
];

/// Prints the script that completes the command line in a shell.
///
/// # Errors
/// stdout cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut command = visible();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "agent-monitor", &mut script);
    print(&script)
}

/// Prints the main page, or writes every page into a directory.
///
/// # Errors
/// A page cannot be written.
pub fn man(args: &ManArgs) -> Result<ExitCode> {
    let mut command = visible();
    command.build();
    let Some(dir) = &args.dir else {
        return print(&page(&command)?);
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    write_pages(&command, dir)?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that people type: `kernel-offsets` is between the program and itself,
/// and what is only left out of the list of commands, to keep it short, is in.
fn visible() -> Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands();
    let shown = shown.filter(|it| it.get_name() != offsets::COMMAND);
    let mut visible = Command::new("agent-monitor")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommands(shown.map(|it| it.clone().hide(false)));
    if let Some(about) = whole.get_about() {
        visible = visible.about(about.clone());
    }
    if let Some(about) = whole.get_long_about() {
        visible = visible.long_about(about.clone());
    }
    if let Some(help) = whole.get_after_help() {
        visible = visible.after_help(help.clone());
    }
    visible
}

/// A page for `command` and each below it, named as git's are.
fn write_pages(command: &Command, dir: &Path) -> Result<()> {
    for below in command.get_subcommands() {
        write_pages(below, dir)?;
    }
    let file = dir.join(format!("{}.1", page_name(command)));
    fs::write(&file, page(command)?).with_context(|| format!("cannot write {}", file.display()))
}

/// `agent-monitor-rules-list`, which man finds for `man agent-monitor rules list`, too.
fn page_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

/// The page of `command`, in roff.
fn page(command: &Command) -> Result<Vec<u8>> {
    let source = format!("agent-monitor {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).manual(MANUAL).source(source);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|it| !it.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::default();
    if let Some(help) = command.get_after_help() {
        after_help(&help.to_string(), &mut rest);
    }
    if page_name(command) == "agent-monitor" {
        rest.control("SH", ["FILES"]);
        for (file, what) in FILES {
            rest.control("TP", []);
            rest.text([bold(file)]);
            rest.text([roman(what)]);
        }
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// What `--help` ends with: paragraphs, each a section if it begins with its title
/// and a colon on a line of their own.
fn after_help(text: &str, roff: &mut Roff) {
    let (titled, others): (Vec<_>, Vec<_>) =
        text.split("\n\n").partition(|it| title_of(it).is_some());
    for paragraph in titled {
        let (title, lines) = title_of(paragraph).unwrap_or_default();
        roff.control("SH", [title.to_uppercase().as_str()]);
        roff.control("nf", []);
        for line in lines.lines() {
            match line.strip_prefix("  ") {
                Some(line) => roff.text([roman(line)]),
                // What follows the list is a sentence, to be filled.
                None => roff
                    .control("fi", [])
                    .control("PP", [])
                    .text([roman(line)])
                    .control("nf", []),
            };
        }
        roff.control("fi", []);
    }
    if !others.is_empty() {
        roff.control("SH", ["NOTES"]);
    }
    for paragraph in others {
        roff.control("PP", []);
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        roff.text([roman(lines.join(" "))]);
    }
}

/// The title of a paragraph, and the lines below it.
fn title_of(paragraph: &str) -> Option<(&str, &str)> {
    let (first, rest) = paragraph.trim_start_matches('\n').split_once('\n')?;
    Some((first.strip_suffix(':')?, rest))
}

fn print(bytes: &[u8]) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_but_the_program_s_own_has_a_page_and_the_page_its_options() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("man1");
        man(&ManArgs {
            dir: Some(place.clone()),
        })
        .expect("the pages");
        let mut seen = 0;
        check_below(&Cli::command(), "agent-monitor", &place, &mut seen);
        let pages = fs::read_dir(&place).expect("the pages").count();
        assert_eq!(pages, seen, "a page of no command");
        assert!(seen > 20, "{seen}");
    }

    fn check_below(command: &Command, name: &str, place: &Path, seen: &mut usize) {
        *seen += 1;
        let page = fs::read_to_string(place.join(format!("{name}.1"))).expect(name);
        assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
        assert!(page.contains(MANUAL), "{name}: {page}");
        for long in command.get_arguments().filter_map(|it| it.get_long()) {
            let option = format!("\\-\\-{}", long.replace('-', "\\-"));
            assert!(page.contains(&option), "{option} in {name}: {page}");
        }
        let hidden = offsets::COMMAND.replace('-', "\\-");
        assert!(!page.contains(&hidden), "{name}: {page}");
        for below in command.get_subcommands() {
            if below.get_name() == offsets::COMMAND {
                continue;
            }
            let below_name = format!("{name}-{}", below.get_name());
            check_below(below, &below_name, place, seen);
        }
    }

    #[test]
    fn lists_in_help_become_sections_and_keep_their_lines_and_the_rest_is_filled() {
        let mut roff = Roff::default();
        let text = "Examples:\n  one --flag   first\n  two          second\nAnd so on.\n\nA sentence\nin two lines.";
        after_help(text, &mut roff);
        let page = roff.to_roff();
        let sections = ".SH EXAMPLES\n.nf\none \\-\\-flag   first\ntwo          second\n.fi\n.PP\nAnd so on.\n.nf\n.fi\n\
                        .SH NOTES\n.PP\nA sentence in two lines.\n";
        assert_eq!(page, sections);
    }

    #[test]
    fn every_shell_s_script_knows_the_commands_and_none_knows_the_program_s_own() {
        for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut visible(), "agent-monitor", &mut script);
            let script = String::from_utf8(script).expect("text");
            for word in ["replay", "drop-dead-letters", "max-size", "completions"] {
                assert!(script.contains(word), "{word} for {shell}");
            }
            assert!(!script.contains(offsets::COMMAND), "{shell}");
        }
    }
}
