//! Command lines that ask an SSH client for a remote forward.
//!
//! A program is known by its name here. Renamed clients, forwards written in
//! configuration files and those added later are found by bytes and behaviour.

use std::borrow::Cow;

/// An SSH client, by the way it reads its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// OpenSSH's client.
    Ssh,
    /// autossh, which hands most of its options to ssh.
    Autossh,
    /// dropbear's client.
    Dbclient,
    /// PuTTY's command-line client.
    Plink,
}

impl Program {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Autossh => "autossh",
            Self::Dbclient => "dbclient",
            Self::Plink => "plink",
        }
    }
}

/// A remote forward that a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteForward {
    /// Which client it is.
    pub program: Program,
    /// What to forward, as written: `[bind:]port[:host:port]`, or with spaces or socket paths.
    pub spec: String,
}

/// The first remote forward that `argv` asks for, by the name of its program in `argv[0]`.
pub fn remote_forward(argv: &[String]) -> Option<RemoteForward> {
    remote_forward_of(argv.first()?, argv)
}

/// The same for a program whose name or path is known otherwise, such as from its executable.
pub fn remote_forward_of(program: &str, argv: &[String]) -> Option<RemoteForward> {
    let program = program_named(program)?;
    let arguments = argv.get(1..)?;
    let spec = match program {
        Program::Ssh => openssh(&options(arguments, OPENSSH)),
        Program::Autossh => openssh(&options(arguments, AUTOSSH)),
        Program::Dbclient => options(arguments, DBCLIENT)
            .into_iter()
            .find_map(|option| (option.letter == 'R').then(|| option.value.to_owned())),
        Program::Plink => plink(arguments),
    };
    let spec = spec
        .map(|spec| spec.trim().to_owned())
        .filter(|spec| !spec.is_empty())?;
    Some(RemoteForward { program, spec })
}

fn program_named(path: &str) -> Option<Program> {
    let name = path.rsplit(['/', '\\']).next()?.to_ascii_lowercase();
    match name.strip_suffix(".exe").unwrap_or(&name) {
        "ssh" => Some(Program::Ssh),
        "autossh" => Some(Program::Autossh),
        "dbclient" => Some(Program::Dbclient),
        "plink" => Some(Program::Plink),
        _ => None,
    }
}

// Options that take an argument.

/// As in the usage text of OpenSSH 9.2, and `-P`, which takes a tag in later versions.
const OPENSSH: &str = "bceilmopBDEFIJLOPQRSwW";
/// autossh 1.4's own `-M` takes a port; ssh's is a flag.
const AUTOSSH: &str = "bceilmopBDEFIJLMOPQRSwW";
/// As in the usage text of dropbear 2022.83, and OpenSSH's `-e`, `-D` and `-F`.
const DBCLIENT: &str = "bceilmopBDFIJKLRW";

/// An option with its argument, empty if it takes none.
struct Flag<'a> {
    letter: char,
    value: &'a str,
}

/// Reads clustered one-letter options up to the remote command: options may
/// also come after the host, unless `--` came before it.
fn options<'a>(arguments: &'a [String], with_argument: &str) -> Vec<Flag<'a>> {
    let mut found = Vec::new();
    let mut host_seen = false;
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(cluster) = word.strip_prefix('-').filter(|cluster| !cluster.is_empty()) else {
            if host_seen {
                break;
            }
            host_seen = true;
            continue;
        };
        if cluster == "-" {
            break;
        }
        for (at, letter) in cluster.char_indices() {
            if !with_argument.contains(letter) {
                found.push(Flag { letter, value: "" });
                continue;
            }
            let joined = &cluster[at + letter.len_utf8()..];
            let value = if joined.is_empty() {
                rest.next().map_or("", |s| s)
            } else {
                joined
            };
            found.push(Flag { letter, value });
            break;
        }
    }
    found
}

/// What OpenSSH makes of its options.
fn openssh(options: &[Flag<'_>]) -> Option<String> {
    let mut spec = None;
    for option in options {
        match (option.letter, option.value) {
            // Prints its version, its configuration or what it supports, and leaves.
            ('V' | 'G' | 'Q', _) => return None,
            // To a master: only `forward` sets one up; `-O proxy` is a session.
            ('O', command) if !matches!(command, "forward" | "proxy") => return None,
            ('R', value) => {
                spec.get_or_insert_with(|| value.to_owned());
            }
            ('o', line) => {
                let (keyword, value) = config_line(line);
                match keyword.to_ascii_lowercase().as_str() {
                    "remoteforward" => {
                        spec.get_or_insert_with(|| value.into_owned());
                    }
                    "clearallforwardings" if matches!(value.as_ref(), "yes" | "true") => {
                        return None;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    spec
}

/// Keyword and value of a configuration line: `Key value`, `Key=value`, either quoted.
fn config_line(line: &str) -> (&str, Cow<'_, str>) {
    let line = line.trim_start();
    let (keyword, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => {
            let end = line.find(|c: char| c.is_whitespace() || c == '=' || c == '"');
            line.split_at(end.unwrap_or(line.len()))
        }
    };
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim();
    if value.contains('"') {
        (keyword, value.replace('"', "").into())
    } else {
        (keyword, value.into())
    }
}

/// plink's options are words; those that take an argument, as in the usage text of PuTTY 0.78 and its manual.
const PLINK: &[&str] = &[
    "-load",
    "-l",
    "-P",
    "-pw",
    "-pwfile",
    "-m",
    "-D",
    "-L",
    "-nc",
    "-i",
    "-cert",
    "-hostkey",
    "-host",
    "-loghost",
    "-proxycmd",
    "-sercfg",
    "-sessionlog",
    "-sshlog",
    "-sshrawlog",
];

fn plink(arguments: &[String]) -> Option<String> {
    let mut host_seen = false;
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if word == "-R" {
            return rest.next().cloned();
        }
        if PLINK.contains(&word.as_str()) {
            rest.next();
        } else if !word.starts_with('-') {
            if host_seen {
                return None;
            }
            host_seen = true;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Splits at spaces; `_` stands for a space within an argument.
    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(|word| word.replace('_', " ")).collect()
    }

    #[test]
    fn finds_remote_forwards() {
        for (line, spec) in [
            ("ssh -R 8080:localhost:22 host", "8080:localhost:22"),
            (
                "/usr/bin/ssh -N -R 8080:localhost:22 host",
                "8080:localhost:22",
            ),
            ("ssh -R8080:localhost:22 host", "8080:localhost:22"),
            ("ssh -fNR 8080:localhost:22 host", "8080:localhost:22"),
            ("ssh -NfR8080:localhost:22 host", "8080:localhost:22"),
            ("ssh -R *:8080:localhost:22 host", "*:8080:localhost:22"),
            ("ssh -R 1080 host", "1080"),
            ("ssh -R /run/x:localhost:22 host", "/run/x:localhost:22"),
            ("ssh host -R 80:localhost:3000", "80:localhost:3000"),
            ("ssh host -NR 80:localhost:3000", "80:localhost:3000"),
            (
                "ssh -p 443 -i key -R 80:localhost:3000 host cmd",
                "80:localhost:3000",
            ),
            (
                "ssh -tt -o StrictHostKeyChecking=no -R 80:a:1 host",
                "80:a:1",
            ),
            ("ssh -i -L -R 80:a:1 host", "80:a:1"),
            (
                "ssh -oRemoteForward=8080:localhost:22 host",
                "8080:localhost:22",
            ),
            (
                "ssh -o RemoteForward=8080_localhost:22 host",
                "8080 localhost:22",
            ),
            (
                "ssh -o remoteforward_8080_localhost:22 host",
                "8080 localhost:22",
            ),
            (
                "ssh -o REMOTEFORWARD_=_8080_localhost:22 host",
                "8080 localhost:22",
            ),
            (
                "ssh -o RemoteForward=\"8080_localhost:22\" host",
                "8080 localhost:22",
            ),
            (
                "ssh -o \"RemoteForward\"_8080_localhost:22 host",
                "8080 localhost:22",
            ),
            (
                "ssh -o __RemoteForward\t8080_localhost:22 host",
                "8080 localhost:22",
            ),
            ("ssh -NoRemoteForward=8080:a:1 host", "8080:a:1"),
            ("ssh -o ClearAllForwardings=no -R 1:a:1 host", "1:a:1"),
            ("ssh -S ctl -O forward -R 1:a:1 host", "1:a:1"),
            ("ssh -R 1:a:1 -R 2:b:2 host", "1:a:1"),
            ("ssh -P tag -R 1:a:1 host", "1:a:1"),
            ("ssh -R 1:a:1 -- host cmd", "1:a:1"),
        ] {
            let found = remote_forward(&argv(line));
            let expected = RemoteForward {
                program: Program::Ssh,
                spec: spec.to_owned(),
            };
            assert_eq!(found, Some(expected), "{line}");
        }
    }

    #[test]
    fn finds_them_in_other_clients() {
        use Program::{Autossh, Dbclient, Plink};
        for (line, program, spec) in [
            ("autossh -M 0 -f -N -R 1:a:1 host", Autossh, "1:a:1"),
            ("autossh -M0 -fNR 1:a:1 host", Autossh, "1:a:1"),
            (
                "autossh -fM 20000:7 -oRemoteForward=1:a:1 host",
                Autossh,
                "1:a:1",
            ),
            (
                "dbclient -y -i key -p 2222 -N -R 1:a:1 host",
                Dbclient,
                "1:a:1",
            ),
            ("dbclient -fNR 1:a:1 host", Dbclient, "1:a:1"),
            ("dbclient host -R 1:a:1", Dbclient, "1:a:1"),
            (
                "plink -batch -P 2222 -pw x -N -R 1:a:1 host",
                Plink,
                "1:a:1",
            ),
            ("C:\\PuTTY\\PLINK.EXE -ssh host -R 1:a:1", Plink, "1:a:1"),
        ] {
            let expected = RemoteForward {
                program,
                spec: spec.to_owned(),
            };
            assert_eq!(remote_forward(&argv(line)), Some(expected), "{line}");
        }
    }

    #[test]
    fn near_misses_are_none() {
        for line in [
            "ssh host",
            "ssh",
            "ssh -R",
            "ssh -N -L 8080:localhost:22 host",
            "ssh -D 1080 host",
            "ssh -i -R host",
            "ssh -i -R 8080:localhost:22",
            "ssh -l -R host cmd",
            "ssh -o -R host",
            "ssh -E -R host",
            "ssh -LR host",
            "ssh -pR host",
            "ssh -r 1:a:1 host",
            "ssh host grep -R pattern .",
            "ssh -t host ls -R /",
            "ssh -- host -R 1:a:1",
            "ssh host -- ls -R",
            "ssh -W a:1 host",
            "ssh -o LocalForward=8080:localhost:22 host",
            "ssh -o ProxyCommand=ssh_-R_1:a:1_host host",
            "ssh -o PermitRemoteOpen=RemoteForward host",
            "ssh -o ClearAllForwardings=yes -R 1:a:1 host",
            "ssh -G -R 1:a:1 host",
            "ssh -V -R 1:a:1",
            "ssh -O cancel -R 1:a:1 host",
            "autossh -M -R host",
            "autossh -M 0 -N -L 1:a:1 host",
            "dbclient -i -R host",
            "dbclient host ls -R /",
            "plink -fNR 1:a:1 host",
            "plink -r 1:a:1 host",
            "plink -pw -R host",
            "plink host ls -R /",
            "scp -R 1:a:1 host",
            "sshd -R 1:a:1",
            "ssh-keygen -R host",
            "ls -R /",
            "bash -c ssh_-R_1:a:1_host",
        ] {
            assert_eq!(remote_forward(&argv(line)), None, "{line}");
        }
        assert_eq!(remote_forward(&[]), None);
    }

    #[test]
    fn the_executable_can_name_a_program_that_calls_itself_otherwise() {
        let argv = argv("[kworker/0:1] -R 1:a:1 host");
        assert_eq!(remote_forward(&argv), None);
        assert!(remote_forward_of("/usr/bin/ssh", &argv).is_some());
    }

    proptest! {
        #[test]
        fn no_command_line_panics(
            program in prop_oneof!["ssh", "autossh", "dbclient", "plink"],
            words in proptest::collection::vec("(-?-?[RoLié\"= a-z]{0,6}|\\PC{0,8})", 0..12),
        ) {
            let mut argv = vec![program];
            argv.extend(words);
            remote_forward(&argv);
        }
    }
}
