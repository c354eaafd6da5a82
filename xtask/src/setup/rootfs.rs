//! The root filesystem of the containers and nodes in tests and demos.

use std::fs;

use anyhow::Result;

use super::apt;
use crate::{root, step};

/// What agents in test containers use. A change here rebuilds the filesystem.
///
/// debootstrap does not resolve virtual packages: a real one must be named where
/// something depends on a virtual one.
const PACKAGES: &[&str] = &[
    // Reverse tunnels: OpenSSH's, one kept alive, one of another implementation.
    "openssh-client",
    "autossh",
    "dropbear-bin",
    // Scripted agents; a tunnel from a library.
    "python3",
    "python3-paramiko",
    // Stands for the virtual python3-cffi-backend-api-…, which Paramiko's libraries need.
    "python3-cffi-backend",
    // Ordinary work: downloads, repositories, certificates.
    "curl",
    "git",
    "ca-certificates",
    // Services inside an agent, which its tunnels and proxies lead to.
    "redis-server",
    "tinyproxy-bin",
    "microsocks",
    "socat",
    // Programs that hand a shell to whoever they connect to: three with an option for it.
    "netcat-traditional",
    "ncat",
    "busybox",
    // Makes it a node that agent-monitor's package is installed on.
    "systemd",
    // Looking at an agent from inside: addresses, sockets, processes.
    "iproute2",
    "procps",
];

/// Lies in the finished filesystem and holds the recipe it was made by.
const STAMP: &str = ".agent-monitor-rootfs";

/// Builds beside the final place and renames, so that what is in the final
/// place is always whole. debootstrap mounts /proc and /sys; in a mount
/// namespace of its own nothing of that outlives it. Services are not started:
/// debootstrap puts a start-stop-daemon that does nothing in place meanwhile.
const MAKE: &str = r#"
final=$1 recipe=$2 stamp=$3 packages=$4 suite=$5 archive=$6
partial=$final.partial
trap 'exit 130' INT TERM
trap 'rm -rf --one-file-system "$partial"' EXIT
rm -rf --one-file-system "$partial"
debootstrap --variant=minbase --include="$packages" "$suite" "$partial" "$archive" || {
    cat "$partial/debootstrap/debootstrap.log" || true
    exit 1
}
umount "$partial/proc" "$partial/sys" 2>/dev/null || true
rm -rf "$partial"/var/cache/apt/* "$partial"/var/lib/apt/lists/* \
    "$partial"/usr/share/doc/* "$partial"/usr/share/man/* "$partial"/usr/share/locale/*
# debootstrap copies these two from the machine it runs on.
echo agent > "$partial/etc/hostname"
: > "$partial/etc/resolv.conf"
printf '%s' "$recipe" > "$partial/$stamp"
rm -rf --one-file-system "$final"
mv "$partial" "$final"
"#;

/// Makes `target/rootfs` when it is missing or made by another recipe.
///
/// # Errors
/// When the machine is not Debian, nobody can become root, or debootstrap fails.
pub fn make() -> Result<()> {
    let place = root().join("target/rootfs");
    let packages = PACKAGES.join(",");
    let recipe = format!("minbase {packages}\n");
    if fs::read_to_string(place.join(STAMP)).is_ok_and(|made_by| made_by == recipe) {
        return Ok(());
    }
    eprintln!("making target/rootfs: the root filesystem of the test containers");
    let (suite, archive) = apt::debian_archive()?;
    let mut command = apt::as_root("unshare")?;
    command
        .args(["--mount", "sh", "-euc", MAKE, "rootfs"])
        .arg(&place);
    command.args([&recipe, STAMP, &packages, &suite, &archive]);
    step::run("rootfs", "building the root filesystem", &mut command)
}
