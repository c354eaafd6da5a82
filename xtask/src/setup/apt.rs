//! Installs Debian packages, and reads where the machine gets them from.

use std::fs;
use std::io::{IsTerminal as _, stdin};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::requirements::{Requirement, find_program};
use crate::{is_root, step};

/// Installs without starting services: invoke-rc.d and deb-systemd-invoke ask
/// policy-rc.d, and 101 forbids. One that is already there is the machine's own
/// and stays, unless it is what a killed setup left behind.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
mark='# agent-monitor setup: no services while packages are installed'
trap 'exit 130' INT TERM
trap 'if grep -qsxF "$mark" "$policy"; then rm -f "$policy"; fi' EXIT
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# A source that cannot be reached need not be one that matters: install decides.
apt-get -o DPkg::Lock::Timeout=600 update || echo "apt-get update failed; going on"
apt-get -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold \
    install --yes --no-install-recommends "$@"
"#;

/// Installs what the missing requirements name.
///
/// # Errors
/// When there is no apt-get, no way to become root, or apt-get fails.
pub fn install(missing: &[&Requirement]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        bail!("{}", by_hand(missing));
    }
    for requirement in missing {
        eprintln!("installing {}: {}", requirement.name, requirement.why);
    }
    let mut command = as_root("sh")?;
    command.args(["-euc", INSTALL, "setup"]);
    command.args(missing.iter().flat_map(|requirement| requirement.packages));
    step::run("apt", "installing Debian packages", &mut command).with_context(|| by_hand(missing))
}

/// A command run as root: directly, or through sudo.
///
/// # Errors
/// When this is neither root nor allowed to become it.
pub fn as_root(program: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if find_program("sudo").is_none() {
        bail!("installing needs root, and there is no sudo: run `cargo xtask setup` as root");
    }
    // Asks for the password now, while no progress line is in its way.
    let mut ask = Command::new("sudo");
    ask.arg("-v");
    if !stdin().is_terminal() {
        ask.arg("-n").stdin(Stdio::null());
    }
    if !ask.status().context("cannot start sudo")?.success() {
        bail!("installing needs root, and sudo refused: run `cargo xtask setup` as root");
    }
    let mut command = Command::new("sudo");
    // The proxy a user has set is needed for downloads.
    command.args([
        "--preserve-env=http_proxy,https_proxy,no_proxy",
        "--",
        program,
    ]);
    Ok(command)
}

fn by_hand(missing: &[&Requirement]) -> String {
    let mut text =
        "this machine lacks, and apt-get could not bring, the following; install it by hand \
                    (names are Debian 12's packages):"
            .to_owned();
    for Requirement {
        name,
        why,
        packages,
        ..
    } in missing
    {
        text += &format!("\n  {name} ({why}): {}", packages.join(" "));
    }
    text + "\n  Instead of Rust for eBPF, its clippy and LLVM 22 you can use rustup:\n    \
            rustup toolchain install nightly --component rust-src && cargo install bpf-linker"
}

/// The release and the archive that this Debian machine installs from.
///
/// # Errors
/// When the machine is not Debian, or its apt sources do not name an archive for its release.
pub fn debian_archive() -> Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let release = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .context("/etc/os-release names no release (VERSION_CODENAME)")?;
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    let uri = files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "list" => in_one_line_style(&text, &release),
            "sources" => in_deb822_style(&text, &release),
            _ => None,
        }
    });
    let uri =
        uri.with_context(|| format!("no apt source of this machine has the suite {release}"))?;
    Ok((release, uri))
}

/// sources.list(5): `deb [options] uri suite component…`.
fn in_one_line_style(text: &str, release: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        (words.next()? == release && words.any(|component| component == "main"))
            .then(|| uri.to_owned())
    })
}

/// sources.list(5), "DEB822-STYLE FORMAT": stanzas of `Field: value…`.
fn in_deb822_style(text: &str, release: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let words = |field: &str| -> Vec<&str> {
            let value = stanza.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case(field).then_some(value)
            });
            value.unwrap_or_default().split_whitespace().collect()
        };
        let fits = words("Types").contains(&"deb")
            && words("Suites").contains(&release)
            && words("Components").contains(&"main")
            && words("Enabled") != ["no"];
        fits.then(|| words("URIs").first().map(|uri| (*uri).to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_archive_in_one_line_style() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://other.example stable main\n\
                    deb [arch=amd64] http://mirror.example/debian bookworm main contrib\n";
        assert_eq!(
            in_one_line_style(text, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(in_one_line_style(text, "trixie"), None);
    }

    #[test]
    fn finds_the_archive_in_deb822_style() {
        let text = "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n\n\
                    Types: deb\n# URIs: http://no.example\nURIs: http://mirror.example/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://sec.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(
            in_deb822_style(text, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            in_deb822_style(text, "bookworm-security").as_deref(),
            Some("http://sec.example/debian-security")
        );
        assert_eq!(in_deb822_style(text, "trixie"), None);
    }

    #[test]
    fn what_to_do_by_hand_names_packages_and_reasons() {
        let missing = Requirement {
            name: "thing",
            why: "it is needed",
            shown_by: &["x"],
            packages: &["thing-bin"],
        };
        let text = by_hand(&[&missing]);
        assert!(text.contains("thing (it is needed): thing-bin"), "{text}");
        assert!(text.contains("rust-src"), "{text}");
    }
}
