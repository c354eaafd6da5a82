//! `doctor`: whether `run` can work here, one line a requirement.

#![forbid(unsafe_code)]

mod runtimes;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::attach::pins;
use crate::attach::probe::{ProbeError, ScratchCgroup, try_hook};
use crate::attach::programs::{Need, OLDEST, PROGRAMS, Program};
use crate::cli::{DoctorArgs, Output};
use crate::enrich::cgroupfs::{CgroupFs, FindError};
use crate::enrich::runtime::Api;

/// The types that program members' places are looked up in.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// How a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Met.
    Ok,
    /// Not met: `run` works, but sees or knows less.
    Warn,
    /// Not met: `run` cannot work.
    Missing,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Missing => "missing",
        }
    }

    fn style(self) -> Style {
        let color = match self {
            Self::Ok => AnsiColor::Green,
            Self::Warn => AnsiColor::Yellow,
            Self::Missing => AnsiColor::Red,
        };
        Style::new().bold().fg_color(Some(color.into()))
    }
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is required.
    pub requirement: &'static str,
    /// How it is met.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What does not work without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disables: Option<&'static str>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn ok(requirement: &'static str, found: impl Into<String>) -> Self {
        Self {
            requirement,
            state: State::Ok,
            found: found.into(),
            disables: None,
            advice: None,
        }
    }

    fn failed(
        state: State,
        requirement: &'static str,
        found: impl Into<String>,
        disables: &'static str,
        advice: impl Into<String>,
    ) -> Self {
        let (found, advice) = (found.into(), Some(advice.into()));
        Self {
            requirement,
            state,
            found,
            disables: Some(disables),
            advice,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// stdout cannot be written.
pub fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let json = args.output.format() == Output::Json;
    match examine(json, &mut anstream::stdout()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        examined => Ok(examined?),
    }
}

/// Checks everything and writes the result to `out`, as JSON one object a line.
/// The code is 1 when `run` cannot work, else 0.
///
/// # Errors
/// When `out` cannot be written to.
pub fn examine(json: bool, out: &mut impl Write) -> io::Result<ExitCode> {
    let checks = all();
    if json {
        for check in &checks {
            serde_json::to_writer(&mut *out, check)?;
            writeln!(out)?;
        }
    } else {
        write_pretty(&checks, out)?;
    }
    out.flush()?;
    let works = checks.iter().all(|check| check.state != State::Missing);
    Ok(if works {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Every requirement, on this machine, now.
pub fn all() -> Vec<Check> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cgroups = CgroupFs::find();
    let mut checks = capabilities(effective_capabilities(&status));
    checks.push(kernel(&rustix::system::uname().release().to_string_lossy()));
    checks.push(btf());
    checks.extend(lockdown(
        &fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default(),
    ));
    checks.push(namespace("host pid namespace", "pid", 0xEFFF_FFFC));
    checks.push(namespace("host cgroup namespace", "cgroup", 0xEFFF_FFFB));
    checks.push(cgroup2(&cgroups));
    checks.extend(hooks(cgroups.ok().as_ref()));
    checks.push(other_sockets());
    checks.push(pinned());
    checks.push(runtimes::check(&Api::new([])));
    checks
}

fn write_pretty(checks: &[Check], out: &mut impl Write) -> io::Result<()> {
    let width = checks
        .iter()
        .map(|check| check.requirement.len())
        .max()
        .unwrap_or_default();
    for check in checks {
        let (style, word) = (check.state.style(), check.state.word());
        writeln!(
            out,
            "{style}{word:<7}{style:#}  {:<width$}  {}",
            check.requirement, check.found
        )?;
        for (label, text) in [
            ("without it", check.disables),
            ("what to do", check.advice.as_deref()),
        ] {
            if let Some(text) = text {
                writeln!(out, "{:9}{label}: {text}", "")?;
            }
        }
    }
    writeln!(out, "\n{}", in_a_sentence(checks))
}

/// What all of it means.
fn in_a_sentence(checks: &[Check]) -> String {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    match (count(State::Missing), count(State::Warn)) {
        (0, 0) => "agent-monitor can run here and see all that it can see anywhere.".to_owned(),
        (0, warned) => format!(
            "agent-monitor can run here; {warned} of the above (warn) tell what it will not see or know."
        ),
        (missing, _) => format!(
            "agent-monitor cannot run here: {missing} of the above (missing) must be seen to first."
        ),
    }
}

/// Bits of linux/capability.h.
const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

fn capabilities(effective: u64) -> Vec<Check> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    // The kernel takes CAP_SYS_ADMIN for the three that were split from it or
    // that bpf() asks for (capabilities(7); kernel/bpf/syscall.c).
    let required = [
        ("CAP_BPF", CAP_BPF, "loading any program"),
        (
            "CAP_PERFMON",
            CAP_PERFMON,
            "programs that read kernel memory: processes and their arguments",
        ),
        (
            "CAP_NET_ADMIN",
            CAP_NET_ADMIN,
            "network programs: connections and their bytes",
        ),
    ];
    let useful = [
        (
            "CAP_SYS_PTRACE",
            CAP_SYS_PTRACE,
            "executables of other users' processes that ran before the start",
        ),
        (
            "CAP_DAC_READ_SEARCH",
            CAP_DAC_READ_SEARCH,
            "directories and sockets that belong to other users",
        ),
    ];
    let mut checks = Vec::new();
    for (state, list) in [(State::Missing, &required[..]), (State::Warn, &useful[..])] {
        for &(name, bit, disables) in list {
            let by_admin = state == State::Missing && has(CAP_SYS_ADMIN);
            checks.push(if has(bit) {
                Check::ok(name, "held")
            } else if by_admin {
                Check::ok(name, "by CAP_SYS_ADMIN")
            } else {
                let advice = "run as root, or give the service AmbientCapabilities=CAP_BPF CAP_PERFMON \
                     CAP_NET_ADMIN CAP_SYS_PTRACE CAP_DAC_READ_SEARCH";
                Check::failed(state, name, "not held", disables, advice)
            });
        }
    }
    checks
}

/// `CapEff` of /proc/self/status; none when it cannot be read.
fn effective_capabilities(status: &str) -> u64 {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn kernel(release: &str) -> Check {
    let name = "kernel 6.1 or newer";
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST => Check::ok(name, release),
        _ => Check::failed(
            State::Missing,
            name,
            release,
            "everything",
            "boot a newer kernel",
        ),
    }
}

fn btf() -> Check {
    let name = "kernel types (BTF)";
    match fs::metadata(BTF) {
        Ok(file) => Check::ok(name, format!("{BTF}, {} KiB", file.len() / 1024)),
        Err(error) => Check::failed(
            State::Missing,
            name,
            format!("{BTF}: {error}"),
            "everything",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels have; in a container mount /sys",
        ),
    }
}

/// Lockdown, where it can be read: `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Option<Check> {
    let name = "kernel lockdown";
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    Some(match mode {
        "confidentiality" => Check::failed(
            State::Missing,
            name,
            mode,
            "programs that read kernel memory",
            "boot with lockdown=integrity or none",
        ),
        _ => Check::ok(name, mode),
    })
}

/// Whether this is the initial namespace, whose inode numbers are fixed
/// (`PROC_*_INIT_INO`, include/linux/proc_ns.h).
fn namespace(name: &'static str, kind: &str, initial: u64) -> Check {
    let link = match fs::read_link(format!("/proc/self/ns/{kind}")) {
        Ok(link) => link.to_string_lossy().into_owned(),
        Err(error) => format!("/proc/self/ns/{kind}: {error}"),
    };
    if link == format!("{kind}:[{initial}]") {
        return Check::ok(name, link);
    }
    Check::failed(
        State::Warn,
        name,
        link,
        "names of what ran before the start, and agents outside of this container",
        "run on the host, or the container with --pid=host --cgroupns=host (hostPID in Kubernetes)",
    )
}

fn cgroup2(cgroups: &Result<CgroupFs, FindError>) -> Check {
    let name = "cgroup2 mount";
    match cgroups {
        Ok(found) => {
            let beside = if found.is_hybrid() {
                " (hybrid: version 1 is mounted too)"
            } else {
                ""
            };
            Check::ok(name, format!("{}{beside}", found.mount().display()))
        }
        Err(error) => {
            let advice = "mount it as said above; a kernel command line with systemd.unified_cgroup_hierarchy=1 does so at boot";
            Check::failed(
                State::Missing,
                name,
                error.to_string(),
                "everything",
                advice,
            )
        }
    }
}

fn hooks(cgroups: Option<&CgroupFs>) -> Vec<Check> {
    let not_tried = match cgroups.map(ScratchCgroup::make) {
        Some(Ok(scratch)) => {
            let programs = PROGRAMS.iter();
            return programs.map(|it| check_hook(it, &scratch)).collect();
        }
        Some(Err(error)) => format!("not tried: cannot make a cgroup to try them on: {error}"),
        None => "not tried: there is no cgroup2 mount".to_owned(),
    };
    let advice = "run doctor as root where the cgroup2 mount can be written to; of a daemon that runs, \
                  `status` shows what is attached";
    vec![Check::failed(
        State::Warn,
        "hooks in the kernel",
        not_tried,
        "an answer whether each program can be attached",
        advice,
    )]
}

fn check_hook(program: &Program, scratch: &ScratchCgroup) -> Check {
    let (name, disables) = (program.place, program.gives);
    let state = match program.need {
        Need::Required => State::Missing,
        Need::Optional => State::Warn,
    };
    match try_hook(program.hook, scratch.fd()) {
        Ok(()) => Check::ok(name, format!("loaded, attached, detached: {disables}")),
        Err(error) => {
            let (major, minor) = program.since;
            let advice = format!(
                "it needs Linux {major}.{minor} or newer; {}",
                hook_advice(&error)
            );
            Check::failed(state, name, error.to_string(), disables, advice)
        }
    }
}

fn hook_advice(error: &ProbeError) -> &'static str {
    let refused = match error {
        ProbeError::Load(error) | ProbeError::Attach(error) => error.raw_os_error(),
        ProbeError::Btf(_) => return "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
    };
    match refused {
        Some(libc::EPERM | libc::EACCES) => {
            "see the capabilities above; with all of them, a seccomp filter or security module refuses bpf()"
        }
        Some(libc::ENOSYS) => "boot a kernel with CONFIG_BPF_SYSCALL=y",
        _ => "boot a kernel with CONFIG_BPF_SYSCALL=y, CONFIG_CGROUP_BPF=y and CONFIG_BPF_EVENTS=y",
    }
}

/// What daemons with `--pin` have left attached, running or not.
fn pinned() -> Check {
    let name = "pins of `run --pin`";
    if !pins::is_mounted() {
        let advice = format!("mount -t bpf bpf {}", pins::MOUNT);
        let found = format!("no BPF file system at {}", pins::MOUNT);
        return Check::failed(State::Warn, name, found, "`run --pin`", advice);
    }
    let daemons = pins::daemons();
    let daemons: Vec<_> = daemons
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    Check::ok(
        name,
        match daemons.as_slice() {
            [] => "none".to_owned(),
            daemons => format!("{}; removing them detaches", daemons.join(", ")),
        },
    )
}

/// What no kernel has a hook for that only agents pay for: cgroup programs see
/// socket() for inet families alone (inet_create, inet6_create), and an LSM's
/// `socket_create`, also one for cgroups, is called for every socket of the node.
fn other_sockets() -> Check {
    Check::failed(
        State::Warn,
        "sockets that are not inet",
        "packet, vsock and AF_ALG sockets have no hook that only agents pay for",
        "`socket` events of theirs, and what they carry",
        "take CAP_NET_RAW from agents; what holds a packet or vsock socket is found and told of as a `gap`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_and_each_missing_one_is_named_with_its_loss() {
        let bits = effective_capabilities("Name:\tx\nCapPrm:\tff\nCapEff:\t0000004000001004\n");
        let states: Vec<_> = capabilities(bits)
            .into_iter()
            .map(|c| (c.requirement, c.state))
            .collect();
        assert_eq!(
            states,
            [
                ("CAP_BPF", State::Missing),
                ("CAP_PERFMON", State::Ok),
                ("CAP_NET_ADMIN", State::Ok),
                ("CAP_SYS_PTRACE", State::Warn),
                ("CAP_DAC_READ_SEARCH", State::Ok),
            ]
        );
        assert!(
            capabilities(0)
                .iter()
                .all(|check| check.disables.is_some() && check.advice.is_some())
        );
        assert_eq!(effective_capabilities("nothing"), 0);
    }

    #[test]
    fn cap_sys_admin_stands_for_those_split_from_it_but_not_for_reading_others_files() {
        let missing: Vec<_> = capabilities(1 << CAP_SYS_ADMIN)
            .into_iter()
            .filter(|check| check.state != State::Ok)
            .map(|check| check.requirement)
            .collect();
        assert_eq!(missing, ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    }

    #[test]
    fn kernels_before_6_1_are_too_old() {
        for (release, state) in [
            ("6.1.0-42-cloud-amd64", State::Ok),
            ("6.18.44", State::Ok),
            ("10.0-rc1", State::Ok),
            ("6.0.19", State::Missing),
            ("5.15.0-91-generic", State::Missing),
            ("unknown", State::Missing),
            ("", State::Missing),
        ] {
            assert_eq!(kernel(release).state, state, "{release}");
        }
    }

    #[test]
    fn lockdown_matters_only_when_it_hides_kernel_memory() {
        let state = |text| lockdown(text).map(|check| check.state);
        assert_eq!(state("none [integrity] confidentiality\n"), Some(State::Ok));
        assert_eq!(
            state("none integrity [confidentiality]\n"),
            Some(State::Missing)
        );
        assert_eq!(state(""), None);
    }

    #[test]
    fn hooks_that_cannot_be_tried_say_so_once_and_do_not_forbid_to_run() {
        let checks = hooks(None);
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].state, State::Warn);
        assert!(checks[0].found.contains("not tried"), "{checks:?}");
    }

    #[test]
    fn a_line_is_aligned_and_what_is_missing_is_followed_by_what_to_do() {
        let checks = [
            Check::ok("short", "here"),
            Check::failed(State::Missing, "much longer", "gone", "all", "fetch it"),
        ];
        let mut out = anstream::StripStream::new(Vec::new());
        write_pretty(&checks, &mut out).expect("memory");
        let text = String::from_utf8(out.into_inner()).expect("text");
        let lines = [
            "ok       short        here",
            "missing  much longer  gone",
            "         without it: all",
            "         what to do: fetch it",
            "",
            "agent-monitor cannot run here: 1 of the above (missing) must be seen to first.",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
