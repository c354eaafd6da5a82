//! What comes from the crate registry: tools and the workspace's dependencies.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::requirements::LLVM_PREFIX;
use crate::{root, step};

/// A program built from the crate registry into `target/tools`; the user's own
/// cargo folder is left alone.
pub struct Tool {
    name: &'static str,
    version: &'static str,
    why: &'static str,
    options: &'static [&'static str],
}

/// Its version is the one whose LLVM is Debian's rustc's.
pub const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    why: "links the kernel side",
    options: &["--no-default-features", "--features", "llvm-22"],
};

/// Unoptimised: it runs for a second, and builds in half the time.
pub const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    why: "checks the licences and sources of crates",
    options: &["--debug"],
};

/// Unoptimised, for the same reason; it leaves compressing to `xz`.
pub const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    why: "makes the Debian package",
    options: &["--debug", "--no-default-features"],
};

impl Tool {
    /// Builds the tool unless this version is there.
    ///
    /// # Errors
    /// When it does not build.
    pub fn install(&self) -> Result<()> {
        let Self {
            name,
            version,
            why,
            options,
        } = self;
        if self.is_installed(&root().join("target/tools")) {
            return Ok(());
        }
        eprintln!("installing {name} {version}: {why}");
        let mut command = cargo();
        command
            .env("LLVM_PREFIX", LLVM_PREFIX)
            .args([
                "install",
                name,
                "--version",
                version,
                "--locked",
                "--root",
                "target/tools",
            ])
            .args(*options);
        step::run(name, &format!("building {name}"), &mut command)
    }

    /// Cargo keeps a list of what it installed in the folder.
    fn is_installed(&self, tools: &Path) -> bool {
        tools.join("bin").join(self.name).is_file()
            && fs::read_to_string(tools.join(".crates.toml"))
                .is_ok_and(|list| list.contains(&format!("\"{} {} ", self.name, self.version)))
    }
}

/// A command that runs the cargo that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_installed_only_in_the_version_asked_for() {
        let tools = tempfile::tempdir().unwrap();
        let tool = |version| Tool {
            name: "thing",
            version,
            why: "",
            options: &[],
        };
        fs::create_dir(tools.path().join("bin")).unwrap();
        fs::write(
            tools.path().join(".crates.toml"),
            "[v1]\n\"thing 1.2.0 (registry)\" = [\"thing\"]\n",
        )
        .unwrap();
        assert!(
            !tool("1.2.0").is_installed(tools.path()),
            "listed, but its program is gone"
        );
        fs::write(tools.path().join("bin/thing"), "").unwrap();
        assert!(tool("1.2.0").is_installed(tools.path()));
        assert!(!tool("1.2").is_installed(tools.path()));
        assert!(!tool("1.3.0").is_installed(tools.path()));
    }
}
