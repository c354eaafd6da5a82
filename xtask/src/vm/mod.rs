//! `cargo xtask vm`: the same binary on stock kernels, in emulated machines.
//!
//! Each kernel boots with the binary and a script as its whole user space. The
//! script runs the daemon, does things in an agent's cgroup and prints what the
//! daemon told; what must be in there is checked out here.

mod checks;
mod console;
mod host;
mod image;
mod instructions;
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use console::Console;

use crate::setup::kernels::{Kernel, SERIES};
use crate::{is_root, setup};

/// Which kernels to try.
#[derive(clap::Args)]
pub struct Options {
    /// Kernel series; all by default
    #[arg(value_name = "KERNEL", value_parser = PossibleValuesParser::new(SERIES))]
    kernels: Vec<String>,
    /// Keep the verifier's instruction counts of this run as what the next is compared with
    #[arg(long)]
    update_instructions: bool,
}

/// Boots each kernel and prints a line for every check.
///
/// # Errors
/// When setup or the build fails, or when a check fails on any kernel; a machine
/// that panics, stalls or takes too long fails every check. When the verifier's
/// work on a program differs much from what `xtask/verified-instructions.toml` has, on
/// those kernels or, as root and without a choice of kernels, on this machine's own.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let initramfs = image::make()?;
    let mut kernels: Vec<&str> = options.kernels.iter().map(String::as_str).collect();
    if kernels.is_empty() {
        kernels = SERIES.to_vec();
    }
    let (mut passed, mut failed) = (0, 0);
    let kept = if options.update_instructions {
        instructions::Table::new()
    } else {
        instructions::kept()?
    };
    let mut counted = instructions::Table::new();
    for series in &kernels {
        let kernel = Kernel::of(series)?;
        let began = Instant::now();
        let (lines, log) = machine::boot(&kernel, &initramfs)?;
        let console = Console::read(&lines);
        let failed_before = failed;
        let mut outcomes = checks::all(&kernel.release, &console);
        if !options.update_instructions {
            outcomes.push((
                "the verifier's work is as before",
                same_work(series, &kept, &console.instructions),
            ));
        }
        for (name, outcome) in outcomes {
            match outcome {
                Ok(()) => passed += 1,
                Err(_) => failed += 1,
            }
            let outcome = outcome.map_or_else(|why| format!("FAILED: {why}"), |()| "ok".to_owned());
            println!("{}  {name:<44} {outcome}", kernel.release);
        }
        println!(
            "{}  took {:.1} s",
            kernel.release,
            began.elapsed().as_secs_f64()
        );
        if failed > failed_before {
            println!(
                "{}  the whole console is in {}",
                kernel.release,
                log.display()
            );
        }
        counted.insert((*series).to_owned(), console.instructions);
    }
    if is_root() && options.kernels.is_empty() {
        let (series, here) = host::instructions()?;
        let name = format!("this machine's {series}");
        // Only those who work on such a machine can keep the table of its kernel.
        if !kept.contains_key(&series) {
            println!("{name}: loads every program; the table has no such kernel");
        } else if let Err(why) = same_work(&series, &kept, &here) {
            failed += 1;
            println!("{name}: the verifier's work is not as before: {why}");
        } else {
            passed += 1;
            println!("{name}: loads every program, and the verifier's work is as before");
        }
        counted.insert(series, here);
    }
    print_instructions(&counted);
    if options.update_instructions && failed == 0 {
        instructions::update(&counted)?;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    // In libtest's words: `cargo xtask test` adds them up.
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

/// Whether the verifier went through about as much as is kept.
fn same_work(
    series: &str,
    kept: &instructions::Table,
    counted: &BTreeMap<String, u64>,
) -> Result<(), String> {
    let differences = instructions::differences(series, kept, counted);
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}; {}",
        differences.join("; "),
        instructions::advice()
    ))
}

/// A table of what each kernel's verifier went through to accept each program.
fn print_instructions(counted: &instructions::Table) {
    print!("\n{:<24}", "verified instructions");
    for series in counted.keys() {
        print!("{series:>10}");
    }
    println!();
    let programs: BTreeSet<&String> = counted.values().flat_map(BTreeMap::keys).collect();
    for program in programs {
        print!("{program:<24}");
        for counts in counted.values() {
            let count = counts.get(program).map_or("-".to_owned(), u64::to_string);
            print!("{count:>10}");
        }
        println!();
    }
}
