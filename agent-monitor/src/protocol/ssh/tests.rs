mod identification;

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use super::super::Fact as AnyFact;
use super::*;

/// A segment of a capture; what was encrypted is kept as its length only.
#[derive(Clone, Debug)]
struct Segment {
    side: Side,
    clear: Vec<u8>,
    encrypted: usize,
}

impl Segment {
    /// The whole segment; what stands for ciphertext must not matter.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.clear.clone();
        bytes.resize(bytes.len() + self.encrypted, 0xee);
        bytes
    }

    fn cut(&self, at: usize) -> [Self; 2] {
        let side = self.side;
        let clear = at.min(self.clear.len());
        let (first, second) = (self.clear[..clear].to_vec(), self.clear[clear..].to_vec());
        let encrypted = at - clear;
        [
            Self {
                side,
                clear: first,
                encrypted,
            },
            Self {
                side,
                clear: second,
                encrypted: self.encrypted - encrypted,
            },
        ]
    }
}

fn captures() -> Vec<(String, Vec<Segment>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/ssh");
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                load(&path),
            )
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(all.len() > 40, "captures are missing");
    all
}

fn capture(name: &str) -> Vec<Segment> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/data/ssh/{name}.json")))
}

fn load(path: &Path) -> Vec<Segment> {
    let rows: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    rows.iter()
        .map(|row| Segment {
            side: if row["side"] == "initiator" {
                Side::Initiator
            } else {
                Side::Responder
            },
            clear: hex(row["hex"].as_str().unwrap_or("")),
            encrypted: row["encrypted"].as_u64().unwrap_or(0) as usize,
        })
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn run(segments: &[Segment]) -> (Vec<Fact>, Ssh) {
    let mut ssh = Ssh::default();
    let mut facts = Vec::new();
    for segment in segments {
        ssh.feed(segment.side, Input::Bytes(&segment.bytes()), &mut facts);
    }
    let facts = facts
        .into_iter()
        .map(|fact| match fact {
            AnyFact::Ssh(fact) => fact,
            other => panic!("{other:?}"),
        })
        .collect();
    (facts, ssh)
}

/// Kinds of facts, without their words.
fn kinds(facts: &[Fact]) -> Vec<&'static str> {
    facts
        .iter()
        .map(|fact| match fact {
            Fact::Banner { .. } => "banner",
            Fact::Kex { .. } => "kex",
            Fact::Authenticated { .. } => "authenticated",
            Fact::Session { terminal: true, .. } => "terminal",
            Fact::Session { .. } => "command",
            Fact::ForwardRequested { .. } => "requested",
            Fact::ForwardedOpen { .. } => "open",
        })
        .collect()
}

fn told(segments: &[Segment]) -> (bool, bool) {
    let kinds = kinds(&run(segments).0);
    (kinds.contains(&"requested"), kinds.contains(&"open"))
}

/// Index of the first segment after the one that lets the client in.
fn after_success(segments: &[Segment]) -> usize {
    let count = (1..=segments.len())
        .find(|&n| kinds(&run(&segments[..n]).0).contains(&"authenticated"))
        .expect("never authenticated");
    // The fact comes with the segment after it.
    count - 1
}

/// Whether a capture asks for a forward, and a connection came through that sizes can show.
fn expected(name: &str) -> (bool, bool) {
    let compressed = ["dbclient-R", "chacha20-R-compressed"].contains(&name);
    let asks = name.contains("-R") && !compressed;
    let comes = name.contains("-R-traffic")
        || [
            "asyncssh-R",
            "node-ssh2-R",
            "paramiko-R",
            "plink-R",
            "dbclient-plain-R",
            "chacha20-M-R-late",
        ]
        .contains(&name);
    (asks, asks && comes)
}

#[test]
fn tells_remote_forwards_from_everything_else_in_every_capture() {
    for (name, segments) in captures() {
        assert_eq!(told(&segments), expected(&name), "{name}");
    }
}

/// What kind of session sizes tell of in a capture. A client of dropbear's asks for
/// more than these sizes know.
fn session_of(name: &str) -> Option<&'static str> {
    let runs = ["command", "sftp", "scp", "git", "rekey"];
    match name {
        _ if name.starts_with("dbclient") => None,
        _ if name.ends_with("shell") => Some("terminal"),
        _ if runs.iter().any(|what| name.contains(what)) => Some("command"),
        _ => None,
    }
}

/// Not every server says something unasked after it let a client in.
#[test]
fn keepalives_to_a_server_that_says_nothing_unasked_are_no_forward() {
    for cipher in ["chacha20", "aes128-gcm", "aes128-ctr"] {
        let mut segments = capture(&format!("{cipher}-L-keepalive"));
        let at = after_success(&segments);
        let keepalive = (at..segments.len())
            .filter(|&at| segments[at].side == Side::Initiator)
            .nth(1)
            .expect("it asks whether the server is there");
        let mut place = 0;
        segments.retain(|segment| {
            place += 1;
            !(at..keepalive).contains(&(place - 1)) || segment.side == Side::Initiator
        });
        assert_eq!(told(&segments), (false, false), "{cipher}");
    }
}

/// With larger blocks a session and no-more-sessions are as long as a keepalive and a farewell.
#[test]
fn a_forward_and_a_command_asked_for_before_the_server_speaks_are_no_keepalives() {
    // The answers to both come in one segment, and here in two.
    for (cipher, yes, both) in [
        ("chacha20", 28, 72),
        ("aes128-gcm", 36, 88),
        ("aes128-ctr", 52, 120),
    ] {
        let mut segments = capture(&format!("{cipher}-R-command"));
        let at = after_success(&segments);
        segments.swap(at + 1, at + 2);
        let mut requests = segments[at..at + 2].iter();
        assert!(requests.all(|it| it.side == Side::Initiator));
        let answers = at + 4;
        assert_eq!(segments[answers].encrypted, both);
        segments.splice(answers..=answers, segments[answers].cut(yes));
        assert_eq!(told(&segments), (true, false), "{cipher}");
    }
}

/// A path's MSS cuts the segment in which a server's NEWKEYS and what it says next are.
#[test]
fn a_segment_that_is_cut_after_newkeys_costs_nothing() {
    let mut cuts = 0;
    for (name, segments) in captures() {
        let newkeys = (segments.iter())
            .position(|segment| segment.encrypted > 0 && segment.clear.len() >= 536);
        let Some(at) = newkeys else { continue };
        let clear = segments[at].clear.len();
        for after in 1..segments[at].encrypted {
            let mut cut = segments.clone();
            cut.splice(at..=at, segments[at].cut(clear + after));
            assert_eq!(told(&cut), expected(&name), "{name}: {after} after NEWKEYS");
            cuts += 1;
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn tells_a_shells_session_from_a_commands_in_every_capture() {
    for (name, segments) in captures() {
        let kinds = kinds(&run(&segments).0);
        let told: Vec<_> = (kinds.into_iter())
            .filter(|kind| ["terminal", "command"].contains(kind))
            .collect();
        assert_eq!(told, Vec::from_iter(session_of(&name)), "{name}");
    }
}

/// The fingerprints of a capture's client and server.
fn hassh(name: &str) -> (String, String) {
    let (facts, _) = run(&capture(name));
    let mut kex = facts.into_iter().filter_map(|fact| match fact {
        Fact::Kex {
            hassh,
            hassh_server,
            ..
        } => Some((hassh, hassh_server)),
        _ => None,
    });
    kex.next().expect("algorithms were agreed on")
}

#[test]
fn fingerprints_are_those_that_others_compute_of_the_same_bytes() {
    let debian = "425d29fe50d8e4f5e37efb6e24bcf660";
    for (name, client) in [
        ("chacha20-R-two", "472b5de333ad665af5cbf10ff892c4df"),
        ("asyncssh-R", "c70169683f416ecb6afc5aed972ec23c"),
        ("node-ssh2-R", "79998ef35ac304b313689c51801acb58"),
        ("dbclient-R", "16574631849ea8d13c926c9905839928"),
        ("paramiko-R", "a704be057881f0b1d623cd263e477a8b"),
        ("plink-R", "10d5550e526d158ce7ad2f18cf621f66"),
    ] {
        assert_eq!(
            hassh(name),
            (client.to_owned(), debian.to_owned()),
            "{name}"
        );
    }
}

#[test]
fn a_capture_yields_two_banners_the_algorithms_and_the_login() {
    for (name, segments) in captures() {
        let (facts, _) = run(&segments);
        let kinds = kinds(&facts);
        assert_eq!(kinds[..3], ["banner", "banner", "kex"], "{name}");
        let compressed = facts.iter().any(|fact| {
            matches!(fact, Fact::Kex { algorithms, .. } if algorithms.compression_to_server != "none")
        });
        assert_eq!(kinds.contains(&"authenticated"), !compressed, "{name}");
    }
}

#[test]
fn negotiated_names_are_those_asked_for() {
    let (facts, _) = run(&capture("aes128-ctr-command"));
    let algorithms = facts
        .iter()
        .find_map(|fact| match fact {
            Fact::Kex {
                algorithms,
                client: Side::Initiator,
                ..
            } => Some(algorithms),
            _ => None,
        })
        .unwrap();
    assert_eq!(algorithms.cipher_to_server, "aes128-ctr");
    assert_eq!(
        algorithms.mac_to_client.as_deref(),
        Some("hmac-sha2-256-etm@openssh.com")
    );
    assert_eq!(algorithms.kex, "sntrup761x25519-sha512");
    assert!(algorithms.ext_info);
}

#[test]
fn the_client_is_who_behaves_as_one_even_if_it_accepted_the_connection() {
    let mut segments = capture("chacha20-R-traffic");
    for segment in &mut segments {
        segment.side = segment.side.other();
    }
    let (facts, _) = run(&segments);
    assert!(facts.iter().any(|f| matches!(
        f,
        Fact::Kex {
            client: Side::Responder,
            ..
        }
    )));
    assert!(facts.iter().any(|f| matches!(
        f,
        Fact::ForwardedOpen {
            client: Side::Responder,
            ..
        }
    )));
}

#[test]
fn every_prefix_tells_a_prefix_of_the_facts() {
    for (name, segments) in captures() {
        let (all, _) = run(&segments);
        for count in 0..segments.len() {
            let (facts, _) = run(&segments[..count]);
            assert_eq!(facts, all[..facts.len()], "{name} {count}");
        }
    }
}

#[test]
fn every_split_of_the_part_in_clear_tells_the_same() {
    for name in ["chacha20-R-localhost", "plink-R", "dbclient-R"] {
        let segments = capture(name);
        let (all, _) = run(&segments);
        for at in 0..segments.len() {
            for cut in 1..segments[at].clear.len() {
                let mut split = segments.clone();
                split.splice(at..=at, segments[at].cut(cut));
                assert_eq!(run(&split).0, all, "{name} {at} {cut}");
            }
        }
    }
}

#[test]
fn no_split_of_the_encrypted_part_tells_of_a_forward_that_was_not() {
    // A server that cuts a record to look like several could only accuse its
    // own client; record sizes here are all multiples of four.
    for (name, segments) in captures() {
        let expected = expected(&name);
        for at in 0..segments.len().min(24) {
            for cut in 1..segments[at].encrypted.min(160) {
                if segments[at].side == Side::Responder && cut % 4 == 0 {
                    continue;
                }
                let mut split = segments.clone();
                split.splice(at..=at, segments[at].cut(segments[at].clear.len() + cut));
                let told = told(&split);
                assert!(
                    (expected.0 || !told.0) && (expected.1 || !told.1),
                    "{name} {at} {cut} {:?}",
                    run(&split).0.last()
                );
            }
        }
    }
}

#[test]
fn records_that_share_a_segment_tell_the_same() {
    // A flight may be written at once, or be held back by Nagle's algorithm.
    for (name, flight, sum) in [
        ("chacha20-R-localhost", 2, 128),
        ("chacha20-R-star", 2, 112),
        ("chacha20-R-any4", 2, 120),
        ("chacha20-R-two", 3, 196),
        ("aes128-gcm-R-localhost", 2, 136),
        ("aes128-gcm-R-star", 2, 120),
        ("aes128-ctr-R-localhost", 2, 168),
        ("aes128-ctr-eam-R", 2, 160),
    ] {
        let mut segments = capture(name);
        let at = after_success(&segments);
        let merged: usize = segments[at..at + flight].iter().map(|s| s.encrypted).sum();
        assert_eq!(merged, sum, "{name}");
        segments[at].encrypted = merged;
        segments.drain(at + 1..at + flight);
        assert_eq!(told(&segments), (true, false), "{name}");
    }
}

#[test]
fn a_command_written_in_two_segments_is_no_forward() {
    for (name, session) in [
        ("chacha20-command", 52),
        ("aes128-gcm-git", 52),
        ("aes128-ctr-shell", 68),
    ] {
        let mut segments = capture(name);
        let at = after_success(&segments);
        let halves = segments[at].cut(session);
        segments.splice(at..=at, halves);
        assert_eq!(told(&segments), (false, false), "{name}");
    }
}

#[test]
fn a_slow_network_that_brings_the_servers_first_words_early_tells_the_same() {
    for (name, segments) in captures() {
        // Where requests are all of one size, an early word leaves it ambiguous.
        if ["plink-R", "aes128-ctr-eam-R"].contains(&name.as_str()) || !expected(&name).0 {
            continue;
        }
        let at = after_success(&segments);
        let mut late = segments.clone();
        if let Some(first) = (at..at + 5).find(|&n| late[n].side == Side::Responder) {
            let word = late.remove(first);
            late.insert(at, word);
        }
        assert_eq!(told(&late), expected(&name), "{name}");
    }
}

#[test]
fn segments_that_were_not_captured_count_by_their_length() {
    for (name, segments) in captures() {
        let mut ssh = Ssh::default();
        let mut facts = Vec::new();
        for segment in &segments {
            let input_bytes = segment.bytes();
            let input = if segment.clear.is_empty() {
                Input::Skipped(segment.encrypted as u32)
            } else {
                Input::Bytes(&input_bytes)
            };
            ssh.feed(segment.side, input, &mut facts);
        }
        let whole: Vec<AnyFact> = run(&segments).0.into_iter().map(AnyFact::Ssh).collect();
        assert_eq!(facts, whole, "{name}");
    }
}

#[test]
fn a_gap_stops_the_sizes_but_not_the_protocol() {
    let segments = capture("chacha20-R-traffic");
    for at in 2..segments.len() {
        let mut ssh = Ssh::default();
        let mut facts = Vec::new();
        for (n, segment) in segments.iter().enumerate() {
            if n == at {
                ssh.feed(segment.side, Input::Gap, &mut facts);
                let before = facts.len();
                assert_ne!(ssh.wants(), Wants::Segments);
                for later in &segments[at..] {
                    let answer = ssh.feed(later.side, Input::Bytes(&later.bytes()), &mut facts);
                    assert_eq!(answer, Answer::Found);
                }
                // Only the part in clear of the other side may still speak.
                let new: BTreeSet<_> = facts[before..]
                    .iter()
                    .filter(|f| !matches!(f, AnyFact::Ssh(Fact::Banner { .. } | Fact::Kex { .. })))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|f| format!("{f:?}"))
                    .collect();
                assert!(new.is_empty(), "{at}: {new:?}");
                break;
            }
            ssh.feed(segment.side, Input::Bytes(&segment.bytes()), &mut facts);
        }
    }
}

#[test]
fn segments_are_wanted_until_there_is_nothing_more_to_learn() {
    assert_eq!(
        run(&capture("chacha20-R-localhost")[..16]).1.wants(),
        Wants::Segments
    );
    assert_eq!(run(&capture("chacha20-command")).1.wants(), Wants::Nothing);
    assert_eq!(
        run(&capture("chacha20-R-traffic")).1.wants(),
        Wants::Nothing
    );
    assert_eq!(
        run(&capture("chacha20-R-localhost")[..2]).1.wants(),
        Wants::Segments
    );
}

fn any_input() -> impl Strategy<Value = (bool, Option<Vec<u8>>, u32)> {
    (
        any::<bool>(),
        proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..200)),
        0..3000u32,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_input_panics(after in 0..40usize, inputs in proptest::collection::vec(any_input(), 0..60)) {
        let segments = capture("chacha20-R-traffic");
        let mut ssh = Ssh::default();
        let mut facts = Vec::new();
        for segment in segments.iter().take(after) {
            ssh.feed(segment.side, Input::Bytes(&segment.bytes()), &mut facts);
        }
        for (initiator, bytes, length) in &inputs {
            let side = if *initiator { Side::Initiator } else { Side::Responder };
            let input = match bytes {
                Some(bytes) => Input::Bytes(bytes),
                None if *length == 0 => Input::Gap,
                None => Input::Skipped(*length),
            };
            ssh.feed(side, input, &mut facts);
        }
    }

    #[test]
    fn splitting_the_part_in_clear_anywhere_changes_nothing(
        cuts in proptest::collection::vec(1..400usize, 1..40),
    ) {
        let segments = capture("aes128-gcm-R-traffic");
        let mut cuts = cuts.iter().cycle();
        let mut split = Vec::new();
        for segment in &segments {
            let mut rest = segment.clone();
            while let Some(&cut) = cuts.next().filter(|&&cut| cut < rest.clear.len()) {
                let [head, tail] = rest.cut(cut);
                split.push(head);
                rest = tail;
            }
            split.push(rest);
        }
        prop_assert_eq!(run(&split).0, run(&segments).0);
    }
}
