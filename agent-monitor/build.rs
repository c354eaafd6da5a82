//! Builds the eBPF object that the binary embeds.
//!
//! It picks the toolchain by looking: an object that is already built, a
//! toolchain named by the user, Debian's rustc with its prebuilt core for BPF,
//! or rustup's nightly with rust-src. Without any of them it stops and says
//! what to run: an agent-monitor without its programs would see nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use aya_build::Toolchain;

/// Name of the binary target of the eBPF crate, and of the object.
const OBJECT: &str = "agent-monitor";
/// An object built elsewhere.
const PREBUILT: &str = "AGENT_MONITOR_EBPF_OBJECT";
/// A rustup toolchain that can build for BPF.
const TOOLCHAIN: &str = "AGENT_MONITOR_EBPF_TOOLCHAIN";
/// Where Debian's package libstd-rust-web-dev-bpf puts core for BPF.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const FIX: &str = "run `cargo xtask setup`, which installs what the eBPF side needs to be built";

fn main() -> Result<()> {
    for name in [PREBUILT, TOOLCHAIN] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let object = out.join(OBJECT);
    if let Some(prebuilt) = env::var_os(PREBUILT) {
        println!("cargo:rerun-if-changed={}", Path::new(&prebuilt).display());
        std::fs::copy(&prebuilt, &object)
            .with_context(|| format!("cannot read {} named by {PREBUILT}", Path::new(&prebuilt).display()))?;
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in the workspace's folder")?;
    for part in ["agent-monitor-ebpf", "agent-monitor-common", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    put_linker_on_path(root)?;
    if let Ok(name) = env::var(TOOLCHAIN) {
        aya_build(root, Toolchain::Custom(&name))
    } else if Path::new(DEBIAN_CORE).exists() {
        debian_build(root, &out)
    } else if nightly_has_source() {
        aya_build(root, Toolchain::Nightly)
    } else {
        bail!("no toolchain here can build eBPF programs; {FIX}")
    }
}

/// `cargo xtask setup` builds bpf-linker into the workspace's target/tools.
fn put_linker_on_path(root: &Path) -> Result<()> {
    let tools = root.join("target/tools/bin");
    println!("cargo:rerun-if-changed={}", tools.join("bpf-linker").display());
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::iter::once(tools).chain(env::split_paths(&path)).collect();
    if !dirs.iter().any(|dir| dir.join("bpf-linker").is_file()) {
        bail!("bpf-linker is neither in target/tools/bin nor on PATH; {FIX}");
    }
    // SAFETY: a build script's main is single-threaded here: nothing else reads
    // the environment at the same time.
    unsafe { env::set_var("PATH", env::join_paths(dirs)?) };
    Ok(())
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

fn aya_build(root: &Path, toolchain: Toolchain<'_>) -> Result<()> {
    let dir = root.join("agent-monitor-ebpf");
    let package = aya_build::Package {
        name: "agent-monitor-ebpf",
        root_dir: dir.to_str().context("the workspace's path is not UTF-8")?,
        ..Default::default()
    };
    aya_build::build_ebpf([package], toolchain).context(FIX)
}

/// aya-build always adds `-Z build-std` for toolchains that are not its own, so
/// Debian's compiler, which has a prebuilt core, is called with aya-build's
/// flags directly. `RUSTC_BOOTSTRAP` lets aya-ebpf alone use unstable features.
fn debian_build(root: &Path, out: &Path) -> Result<()> {
    let target_dir = out.join("ebpf");
    let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"].join("\x1f");
    let status = Command::new("/usr/bin/cargo")
        .current_dir(root)
        .args(["build", "--release", "--locked", "--package", "agent-monitor-ebpf"])
        .args(["--bin", OBJECT, "--target", "bpfel-unknown-none", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC", "/usr/bin/rustc")
        .env("RUSTC_BOOTSTRAP", "aya_ebpf")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .context("cannot start /usr/bin/cargo")?;
    if !status.success() {
        bail!("the eBPF side did not build (its errors are above); if a tool is missing, {FIX}");
    }
    std::fs::copy(target_dir.join("bpfel-unknown-none/release").join(OBJECT), out.join(OBJECT))?;
    Ok(())
}
