//! What building and testing agent-monitor need from the machine: one table.

use std::env;
use std::path::{Path, PathBuf};

/// Something that must be on the machine.
pub struct Requirement {
    /// What a person calls it.
    pub name: &'static str,
    /// What it is needed for.
    pub why: &'static str,
    /// What shows that it is there: absolute paths, or programs looked up on
    /// PATH and in the sbin folders. All must exist.
    pub shown_by: &'static [&'static str],
    /// Debian packages that bring it.
    pub packages: &'static [&'static str],
}

/// Where Debian's package libstd-rust-web-dev-bpf puts a ready-made `core` for BPF.
pub const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
/// Debian's LLVM of the release that its rustc uses; bpf-linker must use the same.
pub const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// The compiler for the eBPF side. Needed unless rustup's nightly with rust-src
/// and a bpf-linker are there.
pub const EBPF: &[Requirement] = &[
    Requirement {
        name: "Rust for eBPF",
        why: "compiles the kernel side; comes with a ready-made core for BPF",
        shown_by: &[DEBIAN_CORE, "/usr/bin/cargo", "/usr/bin/rustc"],
        packages: &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"],
    },
    Requirement {
        name: "clippy for eBPF",
        why: "lints the kernel side",
        shown_by: &["/usr/bin/cargo-clippy", "/usr/bin/clippy-driver"],
        packages: &["rust-web-clippy"],
    },
    Requirement {
        name: "LLVM 22",
        why: "bpf-linker is built on it",
        shown_by: &[
            "/usr/lib/llvm-22/bin/llvm-config",
            "/usr/lib/llvm-22/lib/libPolly.a",
        ],
        packages: &[
            "llvm-22-dev",
            "libpolly-22-dev",
            "zlib1g-dev",
            "libzstd-dev",
            "libxml2-dev",
            "libffi-dev",
        ],
    },
];

/// What the demo and the tests use. To add a tool, add a row.
pub const TOOLS: &[Requirement] = &[
    Requirement {
        name: "C compiler",
        why: "builds the bundled SQLite and links programs",
        shown_by: &["cc", "/usr/include/stdio.h"],
        packages: &["gcc", "libc6-dev"],
    },
    Requirement {
        name: "Docker",
        why: "runs agents in containers",
        shown_by: &[
            "docker",
            "dockerd",
            "docker-init",
            "containerd",
            "runc",
            "iptables",
        ],
        packages: &["docker.io", "containerd", "runc", "iptables"],
    },
    Requirement {
        name: "iproute2 and util-linux",
        why: "make network and mount namespaces",
        shown_by: &["ip", "ss", "unshare", "nsenter"],
        packages: &["iproute2", "util-linux"],
    },
    Requirement {
        name: "OpenSSH",
        why: "real reverse tunnels",
        shown_by: &["ssh", "sshd", "ssh-keygen"],
        packages: &["openssh-client", "openssh-server"],
    },
    Requirement {
        name: "OpenSSL",
        why: "makes the certificates of test servers",
        shown_by: &["openssl"],
        packages: &["openssl"],
    },
    Requirement {
        name: "bpftool",
        why: "shows the tests that nothing stays in the kernel",
        shown_by: &["/usr/sbin/bpftool"],
        packages: &["bpftool"],
    },
    Requirement {
        name: "Git",
        why: "keeps the repository that agents push to over SSH",
        shown_by: &["git"],
        packages: &["git"],
    },
    Requirement {
        name: "Python",
        why: "runs the servers that agents talk to",
        shown_by: &["/usr/bin/python3"],
        packages: &["python3"],
    },
    Requirement {
        name: "Node.js",
        why: "runs a mining pool that is not our own",
        shown_by: &["node"],
        packages: &["nodejs"],
    },
    // A row of its own: some bring Node.js without Debian's package, whose npm would replace it.
    Requirement {
        name: "npm",
        why: "brings that mining pool's packages",
        shown_by: &["npm"],
        packages: &["npm"],
    },
    Requirement {
        name: "microsocks",
        why: "is a proxy outside that agents use",
        shown_by: &["microsocks"],
        packages: &["microsocks"],
    },
    Requirement {
        name: "rsyslog",
        why: "receives forwarded alerts",
        shown_by: &[
            "rsyslogd",
            "/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so",
        ],
        packages: &["rsyslog", "rsyslog-gnutls"],
    },
    // Not syslog-ng itself, which Debian does not install beside rsyslog: setup unpacks it.
    Requirement {
        name: "syslog-ng's libraries",
        why: "let syslog-ng run, another receiver of forwarded alerts",
        shown_by: &[
            "/usr/lib/x86_64-linux-gnu/libivykis.so.0",
            "/usr/lib/x86_64-linux-gnu/libjson-c.so.5",
            "/usr/lib/x86_64-linux-gnu/libnet.so.1",
            "/usr/lib/x86_64-linux-gnu/libpcre.so.3",
            "/usr/lib/x86_64-linux-gnu/libwrap.so.0",
        ],
        packages: &[
            "libivykis0",
            "libjson-c5",
            "libnet1",
            "libpcre3",
            "libwrap0",
        ],
    },
    Requirement {
        name: "curl",
        why: "talks to the API as a user would",
        shown_by: &["curl", "/etc/ssl/certs/ca-certificates.crt"],
        packages: &["curl", "ca-certificates"],
    },
    Requirement {
        name: "binutils and xz",
        why: "make binaries and packages smaller",
        shown_by: &["strip", "xz"],
        packages: &["binutils", "xz-utils"],
    },
    Requirement {
        name: "systemd's tools",
        why: "check the unit",
        shown_by: &["systemd-analyze"],
        packages: &["systemd"],
    },
    Requirement {
        name: "debootstrap",
        why: "makes the root filesystem of the test containers",
        shown_by: &[
            "debootstrap",
            "/usr/share/keyrings/debian-archive-keyring.gpg",
        ],
        packages: &["debootstrap", "debian-archive-keyring"],
    },
];

/// What boots stock kernels; only checks do.
pub const VM: &[Requirement] = &[
    Requirement {
        name: "qemu",
        why: "boots stock kernels",
        shown_by: &["qemu-system-x86_64"],
        packages: &["qemu-system-x86"],
    },
    Requirement {
        name: "static busybox",
        why: "is the user space of the machines that boot stock kernels",
        shown_by: &["busybox"],
        packages: &["busybox-static"],
    },
    Requirement {
        name: "cpio",
        why: "packs what those machines boot into",
        shown_by: &["cpio"],
        packages: &["cpio"],
    },
];

/// What agent-monitor is compared with; only the benchmark does.
pub const BENCH: &[Requirement] = &[
    Requirement {
        name: "bpftrace",
        why: "is asked for the same events",
        shown_by: &["bpftrace"],
        packages: &["bpftrace"],
    },
    Requirement {
        name: "libbpf-tools",
        why: "their execsnoop is compared with",
        shown_by: &["/usr/sbin/execsnoop"],
        packages: &["libbpf-tools"],
    },
    Requirement {
        name: "strace",
        why: "shows the scale",
        shown_by: &["strace"],
        packages: &["strace"],
    },
];

impl Requirement {
    /// Whether everything that shows it exists. Looks at files only.
    pub fn is_met(&self) -> bool {
        self.shown_by
            .iter()
            .all(|shown| match shown.strip_prefix('/') {
                Some(_) => Path::new(shown).exists(),
                None => find_program(shown).is_some(),
            })
    }
}

/// Whether eBPF programs can be built with rustup's nightly and a bpf-linker of the user's own.
pub fn has_rustup_way() -> bool {
    find_program("bpf-linker").is_some() && nightly_has_source()
}

/// Finds a program on PATH or in the sbin folders, which users' PATHs often lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn nightly_has_source() -> bool {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let toolchains = home.and_then(|home| home.join("toolchains").read_dir().ok());
    toolchains.into_iter().flatten().flatten().any(|toolchain| {
        // "nightly-<host>" is the channel itself; dated nightlies are named nightly-<date>-<host>.
        let name = toolchain.file_name();
        let host = name.to_str().and_then(|name| name.strip_prefix("nightly-"));
        host.is_some_and(|host| !host.starts_with(|first: char| first.is_ascii_digit()))
            && toolchain
                .path()
                .join("lib/rustlib/src/rust/library/Cargo.lock")
                .exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_says_how_it_is_shown_and_how_to_get_it() {
        for requirement in EBPF.iter().chain(TOOLS).chain(VM).chain(BENCH) {
            assert!(!requirement.why.is_empty(), "{}", requirement.name);
            assert!(!requirement.shown_by.is_empty(), "{}", requirement.name);
            assert!(!requirement.packages.is_empty(), "{}", requirement.name);
        }
    }

    #[test]
    fn a_requirement_is_met_only_when_all_that_shows_it_exists() {
        let with = |shown_by| Requirement {
            name: "x",
            why: "x",
            shown_by,
            packages: &["x"],
        };
        assert!(with(&["sh", "/proc/self/status"]).is_met());
        assert!(!with(&["sh", "/nonexistent/file"]).is_met());
        assert!(!with(&["no-such-program-anywhere"]).is_met());
    }
}
