//! Which way the eBPF object is built: decided by looking at the machine.

use std::ffi::OsString;
use std::path::PathBuf;

/// What ends the message when something is missing.
pub const FIX: &str =
    "run `cargo xtask setup`, which installs what the eBPF side needs to be built";

/// What was found on the machine.
#[derive(Clone, Default)]
pub struct Found {
    /// An object built elsewhere, named by the user.
    pub prebuilt: Option<OsString>,
    /// A rustup nightly with rust-src, named by the user.
    pub named: Option<String>,
    /// Where bpf-linker is.
    pub linker: Option<PathBuf>,
    /// Debian's rustc with its ready-made core for BPF.
    pub debian: bool,
    /// rustup's nightly with rust-src.
    pub nightly: bool,
}

/// The way to build.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// Take this object.
    Prebuilt(PathBuf),
    /// rustup's toolchain of this name, a nightly with rust-src.
    Rustup(String),
    /// Debian's cargo and rustc.
    Debian,
}

/// Picks the way: what the user named goes before what was found, and Debian's
/// compiler before nightly, because it is the one whose LLVM the linker of
/// `cargo xtask setup` shares.
///
/// # Errors
/// When a part is missing; the message says which, and what to run.
pub fn choose(found: Found) -> Result<Way, String> {
    if let Some(object) = found.prebuilt {
        return Ok(Way::Prebuilt(object.into()));
    }
    if found.linker.is_none() {
        return Err(format!(
            "bpf-linker is neither in target/tools/bin nor on PATH; {FIX}"
        ));
    }
    match found {
        Found {
            named: Some(name), ..
        } => Ok(Way::Rustup(name)),
        Found { debian: true, .. } => Ok(Way::Debian),
        Found { nightly: true, .. } => Ok(Way::Rustup("nightly".to_owned())),
        _ => Err(format!("no toolchain here can build eBPF programs; {FIX}")),
    }
}

/// Refuses what is not a BPF object: an agent-monitor without its programs
/// would see nothing and say nothing.
///
/// # Errors
/// When `object` is not an ELF file for BPF.
pub fn check_object(object: &[u8]) -> Result<(), String> {
    // ELF header: magic at 0, class 2 (64 bits) at 4, data 1 (little endian) at 5, e_machine at 18;
    // EM_BPF is 247 (include/uapi/linux/elf-em.h).
    let machine = object.get(18..20);
    if object.starts_with(b"\x7fELF\x02\x01") && machine == Some(&247u16.to_le_bytes()) {
        return Ok(());
    }
    Err(format!("it is not a BPF object ({} bytes)", object.len()))
}
