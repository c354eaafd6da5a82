//! Everything that reads what an agent or a stranger wrote, as targets of a fuzzer.
//!
//! A target takes any bytes and panics if something is wrong. `cargo xtask fuzz`
//! runs them with libFuzzer; the tests here run each once over its seeds, made from
//! what real tools said, and over everything that was ever found.

mod formats;
mod seeds;
mod sessions;
mod targets;

pub use seeds::write as write_seeds;

/// One thing to fuzz.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]),
    /// What it begins from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub static TARGETS: &[Target] = &[
    target("http", |data| targets::parser("http", data), seeds::streams),
    target(
        "socks",
        |data| targets::parser("socks", data),
        seeds::streams,
    ),
    target(
        "http2",
        |data| targets::parser("http2", data),
        seeds::streams,
    ),
    target(
        "shell",
        |data| targets::parser("shell", data),
        seeds::streams,
    ),
    target("dns", |data| targets::parser("dns", data), seeds::streams),
    target("tls", |data| targets::parser("tls", data), seeds::streams),
    target("ssh", |data| targets::parser("ssh", data), seeds::streams),
    target(
        "stratum",
        |data| targets::parser("stratum", data),
        seeds::streams,
    ),
    target(
        "stratum-v2",
        |data| targets::parser("stratum-v2", data),
        seeds::streams,
    ),
    target(
        "tunnel-tool",
        |data| targets::parser("tunnel-tool", data),
        seeds::streams,
    ),
    target("websocket", targets::websocket, seeds::streams),
    target("layers", targets::layers, seeds::streams),
    target("datagrams", targets::datagrams, seeds::datagrams),
    target(
        "icmp-tunnel",
        |data| targets::datagram("icmp-tunnel", data),
        seeds::echoes,
    ),
    target("quic", targets::quic, seeds::quic),
    target("stream", targets::stream, seeds::streams),
    target("packets", targets::packets, seeds::captures),
    target("record", targets::record, seeds::records),
    target("recording", targets::recording, seeds::recordings),
    target("replay", targets::replay, seeds::replays),
    target("rules", targets::rules, seeds::rules),
    target("config", targets::config, seeds::configs),
    target("command-line", targets::command_line, seeds::command_lines),
    target("formats", formats::formats, seeds::texts),
];

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_bears_its_seeds_and_their_beginnings() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
            for seed in seeds {
                (target.run)(&seed);
                (target.run)(&seed[..seed.len() / 2]);
            }
        }
    }

    #[test]
    fn every_target_bears_what_was_once_found() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
        for target in TARGETS {
            let Ok(found) = fs::read_dir(dir.join(target.name)) else {
                continue;
            };
            for file in found {
                let path = file.expect("it can be listed").path();
                (target.run)(&fs::read(&path).expect("it can be read"));
            }
        }
    }

    #[test]
    fn every_protocol_is_a_target() {
        let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
        for protocol in agent_monitor::protocol::PROTOCOLS {
            assert!(names.contains(protocol.name), "{} is none", protocol.name);
        }
        for protocol in agent_monitor::protocol::datagram::DATAGRAM_PROTOCOLS {
            assert!(names.contains(protocol.name), "{} is none", protocol.name);
        }
        assert_eq!(names.len(), TARGETS.len());
    }
}
