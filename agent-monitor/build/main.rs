//! Builds the eBPF object that the binary embeds.
//!
//! It picks the toolchain by looking: an object that is already built, a
//! toolchain named by the user, Debian's rustc with its prebuilt core for BPF,
//! or rustup's nightly with rust-src. Without any of them it stops and says
//! what to run: an agent-monitor without its programs would see nothing.

mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Error, Result, bail};
use toolchain::{FIX, Found, Way};

/// Name of the binary target of the eBPF crate, and of the object.
const OBJECT: &str = "agent-monitor-ebpf";
/// An object built elsewhere.
const PREBUILT: &str = "AGENT_MONITOR_EBPF_OBJECT";
/// The name of a rustup nightly that has rust-src.
const TOOLCHAIN: &str = "AGENT_MONITOR_EBPF_TOOLCHAIN";
/// Where Debian's package libstd-rust-web-dev-bpf puts core for BPF.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
/// Little endian, as all machines are that agent-monitor runs on.
const TARGET: &str = "bpfel-unknown-none";

fn main() -> Result<()> {
    for name in [PREBUILT, TOOLCHAIN] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in the workspace's folder")?;
    let object = PathBuf::from(env::var("OUT_DIR")?).join(OBJECT);
    let found = look(root);
    let linker = found.linker.clone();
    let source = match toolchain::choose(found).map_err(Error::msg)? {
        Way::Prebuilt(prebuilt) => {
            println!("cargo:rerun-if-changed={}", prebuilt.display());
            prebuilt
        }
        Way::Debian => {
            let mut cargo = Command::new("/usr/bin/cargo");
            cargo
                .arg("build")
                .env("RUSTC", "/usr/bin/rustc")
                // Lets aya-ebpf, and it alone, use unstable features.
                .env("RUSTC_BOOTSTRAP", "aya_ebpf,agent_monitor_ebpf");
            build(cargo, root, linker)?
        }
        Way::Rustup(name) => {
            let mut cargo = Command::new("rustup");
            cargo
                .args(["run", &name, "cargo", "build", "-Zbuild-std=core"])
                .env_remove("RUSTC");
            build(cargo, root, linker)?
        }
    };
    let built = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    toolchain::check_object(&built)
        .map_err(Error::msg)
        .with_context(|| format!("{} cannot be used", source.display()))?;
    fs::write(&object, built).with_context(|| format!("cannot write {}", object.display()))
}

/// What this machine has to build with.
fn look(root: &Path) -> Found {
    let named = env::var(TOOLCHAIN).ok();
    let debian = Path::new(DEBIAN_CORE).exists();
    Found {
        prebuilt: env::var_os(PREBUILT),
        linker: find_linker(root),
        debian,
        // Asking rustup takes a while: only when the answer matters.
        nightly: named.is_none() && !debian && nightly_has_source(),
        named,
    }
}

/// `cargo xtask setup` builds bpf-linker into the workspace's target/tools.
fn find_linker(root: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(root.join("target/tools/bin"))
        .chain(env::split_paths(&path))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn nightly_has_source() -> bool {
    let sysroot = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .output();
    sysroot.is_ok_and(|output| {
        output.status.success()
            && Path::new(String::from_utf8_lossy(&output.stdout).trim())
                .join("lib/rustlib/src/rust/library/Cargo.lock")
                .exists()
    })
}

/// Builds the eBPF crate with the given `cargo build` and answers where its object is.
///
/// aya-build does much the same, but reaches Debian's compiler only as a
/// linked rustup toolchain, and takes no target CPU.
fn build(mut cargo: Command, root: &Path, linker: Option<PathBuf>) -> Result<PathBuf> {
    for part in ["agent-monitor-ebpf", "agent-monitor-common", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    let linker = linker.with_context(|| format!("no bpf-linker; {FIX}"))?;
    println!("cargo:rerun-if-changed={}", linker.display());
    let flags = [
        // Which machine's registers a program sees.
        format!(
            "--cfg=bpf_target_arch=\"{}\"",
            env::var("CARGO_CFG_TARGET_ARCH")?
        ),
        // Types and lines for the kernel's verifier.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Else LLVM makes every zeroing of more than a word a call of a loop over bytes.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // The first instruction set with atomic operations that return the old value (Linux 5.12).
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    let target_dir = PathBuf::from(env::var("OUT_DIR")?).join("ebpf");
    cargo
        .current_dir(root)
        .args(["--release", "--locked", "--package", "agent-monitor-ebpf"])
        .args(["--bin", OBJECT, "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // What the outer cargo set for its own compiler.
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    let program = cargo.get_program().display().to_string();
    let status = cargo
        .status()
        .with_context(|| format!("cannot start {program}; {FIX}"))?;
    if !status.success() {
        bail!("the eBPF side did not build (its errors are above); if a tool is missing, {FIX}");
    }
    Ok(target_dir.join(TARGET).join("release").join(OBJECT))
}
