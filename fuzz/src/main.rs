//! One program for all targets, so that there is one to build: libFuzzer with the
//! target that the environment names.

#![no_main]

use std::sync::OnceLock;

use agent_monitor_fuzz::{TARGETS, Target, write_seeds};
use libfuzzer_sys::fuzz_target;

/// The variable that names the target; `list` prints their names.
const TARGET: &str = "AGENT_MONITOR_FUZZ_TARGET";
/// The variable that names a directory to write the target's seeds to, if it is set.
const SEEDS: &str = "AGENT_MONITOR_FUZZ_SEEDS";

fn target() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var(TARGET).unwrap_or_default();
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        if name == "list" {
            println!("{}", names.join("\n"));
            std::process::exit(0);
        }
        let found = TARGETS.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("set {TARGET} to one of: {}", names.join(", ")))
    })
}

/// Before the fuzzer reads what it begins from.
fn begin() {
    let target = target();
    if let Some(dir) = std::env::var_os(SEEDS) {
        write_seeds(target, dir.as_ref()).expect("the seeds can be written");
    }
}

fuzz_target!(
    init: begin(),
    |data: &[u8]| {
        (target().run)(data);
    }
);
