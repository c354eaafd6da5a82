//! The files that packages consist of, beside those that are in the repository.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Certificates of those who vouch for receivers, for images that have none of their own.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The shells that Debian has a place for completions of.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Makes `dist/files` anew: the binary without what only a debugger reads, manual
/// pages, completions and certificates.
///
/// # Errors
/// When the binary is not static, or a file cannot be made.
pub fn make(binary: &Path, dist: &Path) -> Result<()> {
    let files = dist.join("files");
    match fs::remove_dir_all(&files) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", files.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;
    let ours = files.join("agent-monitor");
    // Symbols stay for backtraces; lines are only in the unstripped binary.
    succeed(
        Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&ours)
            .arg(binary),
    )?;
    succeed(
        Command::new(&ours)
            .args(["man", "--dir"])
            .arg(files.join("man1")),
    )?;
    for shell in SHELLS {
        let script = files.join(format!("agent-monitor.{shell}"));
        let script =
            File::create(&script).with_context(|| format!("cannot write {}", script.display()))?;
        succeed(
            Command::new(&ours)
                .args(["completions", shell])
                .stdout(script),
        )?;
    }
    fs::copy(CERTIFICATES, files.join("ca-certificates.crt"))
        .with_context(|| format!("cannot copy {CERTIFICATES}"))?;
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}
