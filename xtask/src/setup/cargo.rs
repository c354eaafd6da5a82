//! What comes from the crate registry: bpf-linker and the workspace's dependencies.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::requirements::LLVM_PREFIX;
use crate::{root, step};

/// The release whose LLVM is Debian's rustc's.
const BPF_LINKER: &str = "0.13.0";

/// A command that runs the cargo that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Whether `target/tools` has the right bpf-linker. Cargo keeps a list of what it installed.
pub fn has_bpf_linker() -> bool {
    let tools = root().join("target/tools");
    tools.join("bin/bpf-linker").is_file()
        && fs::read_to_string(tools.join(".crates.toml"))
            .is_ok_and(|list| list.contains(&format!("\"bpf-linker {BPF_LINKER} ")))
}

/// Builds bpf-linker into `target/tools`; the user's own cargo folder is left alone.
///
/// # Errors
/// When it does not build.
pub fn install_bpf_linker() -> Result<()> {
    eprintln!("installing bpf-linker {BPF_LINKER}: links the kernel side");
    let mut command = cargo();
    command
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--root",
            "target/tools",
        ])
        .args(["--no-default-features", "--features", "llvm-22"]);
    step::run("bpf-linker", "building bpf-linker", &mut command)
}

/// Downloads the dependencies that `Cargo.lock` names, when one is missing.
///
/// # Errors
/// When they cannot be downloaded, or `Cargo.lock` does not fit the manifests.
pub fn fetch() -> Result<()> {
    let mut look = cargo();
    look.args(["fetch", "--locked", "--offline"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if look.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    step::run(
        "fetch",
        "downloading crates",
        cargo().args(["fetch", "--locked"]),
    )
}
