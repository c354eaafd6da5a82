//! `cargo xtask vm`: the same binary on stock kernels, in emulated machines.
//!
//! Each kernel boots with the binary and a script as its whole user space. The
//! script runs the daemon, does things in an agent's cgroup and prints what the
//! daemon told; what must be in there is checked out here.

mod checks;
mod console;
mod image;
mod machine;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use console::Console;

use crate::setup;
use crate::setup::kernels::{Kernel, SERIES};

/// Which kernels to try.
#[derive(clap::Args)]
pub struct Options {
    /// Kernel series; all by default
    #[arg(value_name = "KERNEL", value_parser = PossibleValuesParser::new(SERIES))]
    kernels: Vec<String>,
}

/// Boots each kernel and prints a line for every check.
///
/// # Errors
/// When setup or the build fails, or when a check fails on any kernel; a machine
/// that panics, stalls or takes too long fails every check.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let initramfs = image::make()?;
    let mut kernels: Vec<&str> = options.kernels.iter().map(String::as_str).collect();
    if kernels.is_empty() {
        kernels = SERIES.to_vec();
    }
    let (mut passed, mut failed) = (0, 0);
    let mut instructions: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    for (number, series) in kernels.iter().enumerate() {
        let kernel = Kernel::of(series)?;
        let began = Instant::now();
        let (lines, log) = machine::boot(&kernel, &initramfs)?;
        let console = Console::read(&lines);
        let failed_before = failed;
        for (name, outcome) in checks::all(&kernel.release, &console) {
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
        for (program, count) in console.instructions {
            instructions
                .entry(program)
                .or_insert_with(|| vec![None; kernels.len()])[number] = Some(count);
        }
    }
    print_instructions(&kernels, &instructions);
    let word = if failed == 0 { "ok" } else { "FAILED" };
    // In libtest's words: `cargo xtask test` adds them up.
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

/// A table of what each kernel's verifier went through to accept each program.
fn print_instructions(kernels: &[&str], instructions: &BTreeMap<String, Vec<Option<u64>>>) {
    print!("\n{:<24}", "verified instructions");
    for kernel in kernels {
        print!("{kernel:>10}");
    }
    println!();
    for (program, counts) in instructions {
        print!("{program:<24}");
        for count in counts {
            print!(
                "{:>10}",
                count.map_or_else(|| "-".to_owned(), |count| count.to_string())
            );
        }
        println!();
    }
}
