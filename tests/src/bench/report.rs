//! The results, for the terminal and for BENCHMARKS.md.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Extent;
use super::cost::{Costs, Samples};
use super::judge::{Estimate, Row};
use super::subject::Subject;

/// What follows it in the file is written by people and kept.
const BY_HAND: &str = "<!-- From here on written by hand; `cargo xtask bench` keeps it. -->";

/// What a run found.
#[derive(Debug)]
pub struct Report(String);

impl Report {
    /// Puts it together.
    pub fn new(extent: Extent, costs: &Costs, rows: &[Row]) -> Self {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = write(&mut text, extent, costs, rows);
        Self(text)
    }

    /// As Markdown.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Writes BENCHMARKS.md, except for what is written by hand.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../BENCHMARKS.md");
        let before = fs::read_to_string(&file).unwrap_or_default();
        let by_hand = before.split_once(BY_HAND).map_or("\n", |(_, kept)| kept);
        fs::write(&file, format!("{}\n{BY_HAND}{by_hand}", self.0))
            .with_context(|| format!("write {}", file.display()))?;
        Ok(file)
    }
}

fn write(to: &mut String, extent: Extent, costs: &Costs, rows: &[Row]) -> std::fmt::Result {
    writeln!(to, "# Benchmarks\n")?;
    writeln!(
        to,
        "Written by `cargo xtask bench`. {}, {} rounds in which each subject watches the same\n\
         work in turn; all on one machine:\n\n{}\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        extent.rounds,
        machine()
    )?;
    writeln!(to, "## Budgets\n")?;
    writeln!(
        to,
        "Nanoseconds are those of our programs by the kernel's statistics, which read the clock\n\
         twice a run and count that too. What they count in the same round for as many runs of\n\
         programs that do nothing (see \"nothing\" below) is taken off; the figure before that is\n\
         printed beside it. ± is half of the 95 % interval of the mean over the rounds; an\n\
         interval that spans the budget is inconclusive, which is not met. Throughput is compared\n\
         in pairs right after each other, in an agent and outside.\n"
    )?;
    table(
        to,
        &["what", "budget", "measured", "verdict"],
        rows.iter().map(|row| {
            vec![
                row.what.clone(),
                row.budget.clone(),
                row.figure.clone(),
                row.verdict.to_string(),
            ]
        }),
    )?;
    writeln!(to, "\n## Compared\n")?;
    writeln!(
        to,
        "`wall` is the time of the operation over the same unmonitored, pair by pair of a round,\n\
         with its 95 % interval. `programs` is the kernel's count for the subject's programs, per\n\
         operation, nothing taken off; `a run` per run of those attached to cgroups: for stream and ping-pong, per\n\
         segment. \"nothing\" are programs that do nothing at agent-monitor's hooks. bpftrace and\n\
         execsnoop look at the whole node and are asked for events, not for bytes; strace is here\n\
         for scale.\n"
    )?;
    for (index, kind) in Costs::works() {
        writeln!(to, "### {kind:?}\n")?;
        let lines = Subject::ALL.into_iter().filter_map(|subject| {
            let samples = costs.inside.get(&(index, subject))?;
            let ratio = costs.ratio(kind, subject);
            Some(line(subject.name(), samples, ratio))
        });
        let outside = costs
            .outside
            .get(&index)
            .map(|samples| line("agent-monitor, outside agents", samples, None));
        table(
            to,
            &[
                "subject",
                "wall ns/op",
                "wall ratio",
                "programs ns/op",
                "runs/op",
                "ns a run",
            ],
            lines.chain(outside),
        )?;
        writeln!(to)?;
    }
    for (subject, why) in &costs.absent {
        writeln!(to, "Not compared: {}: {why}\n", subject.name())?;
    }
    Ok(())
}

fn line(name: &str, samples: &Samples, ratio: Option<Estimate>) -> Vec<String> {
    let show = |samples: &[f64]| {
        Estimate::of(samples).map_or_else(|| "–".to_owned(), |estimate| estimate.to_string())
    };
    let programs = |samples: &[f64]| {
        if samples.iter().all(|sample| *sample == 0.0) {
            "–".to_owned()
        } else {
            show(samples)
        }
    };
    let runs = Estimate::of(&samples.runs).map_or(0.0, |runs| runs.mean);
    vec![
        name.to_owned(),
        show(&samples.wall),
        ratio.map_or_else(
            || "–".to_owned(),
            |ratio| {
                let (least, most) = (ratio.mean - ratio.half, ratio.mean + ratio.half);
                format!("{:.2} ({least:.2} to {most:.2})", ratio.mean)
            },
        ),
        programs(&samples.programs),
        if runs == 0.0 {
            "–".to_owned()
        } else {
            format!("{runs:.2}")
        },
        show(&samples.a_run),
    ]
}

fn table(
    to: &mut String,
    head: &[&str],
    lines: impl Iterator<Item = Vec<String>>,
) -> std::fmt::Result {
    writeln!(to, "| {} |", head.join(" | "))?;
    writeln!(to, "|{}", "---|".repeat(head.len()))?;
    for line in lines {
        writeln!(to, "| {} |", line.join(" | "))?;
    }
    Ok(())
}

/// What the machine is, a line a fact.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0)
        >> 20;
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let version = |name: &str, program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
        let text = String::from_utf8_lossy(&text).into_owned();
        // "bpftrace v0.17.0", "strace -- version 6.1".
        let words = text.lines().next().unwrap_or_default().split(' ');
        let has_digit = |word: &&str| word.contains(|c: char| c.is_ascii_digit());
        match words.rev().find(has_digit) {
            Some(version) => format!("{name} {}", version.trim_start_matches('v')),
            None => format!("no {name}"),
        }
    };
    format!(
        "- {model}, {cores} cores, {memory} GiB; load {load} at the end, the benchmark's own included\n\
         - kernel {}\n- agent-monitor {}, {} build; {}; {}; {}",
        read("/proc/sys/kernel/osrelease").trim(),
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        version("bpftrace", "bpftrace", &["--version"]),
        version("strace", "strace", &["--version"]),
        version(
            "libbpf-tools",
            "dpkg-query",
            &["-W", "-f=${Version}", "libbpf-tools"]
        ),
    )
}
