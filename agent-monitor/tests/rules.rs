//! `agent-monitor rules`: what it says of good rules and of bad ones.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use assert_cmd::assert::Assert;
use assert_cmd::cargo::cargo_bin_cmd;

const GOOD: &str = "\
title: Netcat
id: netcat
level: low
event: exec
detection:
  sel: {process.exe|endswith: /nc}
  condition: sel
tests:
  - {name: nc, match: true, event: {process: {exe: /usr/bin/nc}, exec: {argv: [nc]}}}
  - {name: cat, match: false, event: {process: {exe: /usr/bin/cat}, exec: {argv: [cat]}}}
";

fn rules(args: &[&str]) -> Assert {
    let mut command = cargo_bin_cmd!("agent-monitor");
    command.arg("rules").args(args).assert()
}

fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

fn path(dir: &tempfile::TempDir) -> &str {
    dir.path().to_str().expect("it is UTF-8")
}

fn stdout(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn the_list_has_the_default_pack_and_what_directories_add_and_replace() {
    let replaced = GOOD.replace("id: netcat", "id: memfd-exec");
    let own = dir(&[("a.yaml", GOOD), ("b.yml", &replaced)]);
    let listed = stdout(&rules(&["list", "--output", "json", path(&own)]).success());
    let lines: Vec<serde_json::Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |id: &str| lines.iter().filter(|it| it["id"] == id).collect::<Vec<_>>();
    assert_eq!(of("netcat").len(), 1);
    assert_eq!(of("memfd-exec").len(), 1, "one of two");
    assert_eq!(of("memfd-exec")[0]["title"], "Netcat");
    assert_eq!(
        of("ssh-outbound")[0]["source"],
        "built-in/ssh-outbound.yaml"
    );
    let table = stdout(&rules(&["list", "--output", "pretty", path(&own)]).success());
    assert!(table.starts_with(" ID"), "{table}");
    assert_eq!(table.lines().count(), lines.len() + 1);
}

#[test]
fn every_problem_of_every_file_is_shown_with_its_line_and_what_may_be_meant() {
    let misspelt = GOOD.replace("process.exe", "process.exee");
    let unknown = GOOD
        .replace("event: exec", "event: exce")
        .replace("id: netcat", "id: other");
    let bad = dir(&[
        ("a.yaml", &misspelt),
        ("b.yaml", &unknown),
        ("c.yaml", "a: [1"),
    ]);
    let assert = rules(&["check", path(&bad)]).code(1);
    let told = stderr(&assert);
    for part in [
        "an exec event has no field `process.exee`",
        "did you mean `process.exe`?",
        "a.yaml:6",
        "sel: {process.exee|endswith: /nc}",
        "there are no `exce` events",
        "did you mean `exec`?",
        "not YAML",
        "c.yaml:1",
        "3 problems",
    ] {
        assert!(told.contains(part), "no {part} in:\n{told}");
    }
    assert_eq!(stdout(&assert), "");
}

#[test]
fn check_says_how_many_are_valid_and_what_of_sigmahq_s_was_left_out_and_why() {
    let sigma = |id: &str, field: &str| {
        format!(
            "title: {id}\nid: 00000000-0000-4000-8000-000000000001\nlevel: medium\n\
             logsource: {{product: linux, category: process_creation}}\n\
             detection:\n  sel:\n    {field}: x\n  condition: sel\n"
        )
    };
    let own = dir(&[
        ("good.yaml", GOOD),
        ("proc_lnx_one.yml", &sigma("One", "CommandLine|contains")),
        ("proc_lnx_two.yml", &sigma("Two", "ParentCommandLine")),
    ]);
    let told = stdout(&rules(&["check", path(&own)]).success());
    for part in [
        "2 rules, 2 tests: valid; 1 rule in SigmaHQ's form left out",
        "left out: Two",
        "line 7: the field `ParentCommandLine`: of a parent only its program is known",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn tests_pass_or_fail_with_their_place_and_are_written_as_junit() {
    let failing = GOOD.replace("match: false", "match: true");
    let own = dir(&[("a.yaml", &failing)]);
    let junit = own.path().join("out.xml");
    let junit = junit.to_str().expect("it is UTF-8");
    let told = stdout(&rules(&["test", path(&own), "--junit", junit]).code(1));
    assert!(told.contains("FAILED netcat: cat"), "{told}");
    assert!(
        told.contains("a.yaml:10: it should match, and does not"),
        "{told}"
    );
    let xml = std::fs::read_to_string(junit).expect("it was written");
    for part in [
        "<testsuite name=\"netcat\" tests=\"2\" skipped=\"0\" errors=\"0\" failures=\"1\"",
        "<testcase name=\"cat\" classname=\"netcat\"",
        "a.yaml:10: it should match, and does not",
    ] {
        assert!(xml.contains(part), "no {part}: {xml}");
    }
    // The head adds up what the suites have.
    let cases = xml.matches("<testcase ").count();
    let skipped = xml.matches("<skipped").count();
    assert!(
        skipped > 0,
        "the default pack's captures are not in the program"
    );
    let head = format!(
        "<testsuites name=\"agent-monitor rules\" tests=\"{cases}\" skipped=\"{skipped}\" failures=\"1\""
    );
    assert!(xml.contains(&head), "no {head}: {xml}");
    let told = stdout(&rules(&["test"]).success());
    assert!(told.contains(" passed, 0 failed\n"), "{told}");
    assert!(
        told.contains("their captures are in the source tree"),
        "{told}"
    );
}

#[test]
fn check_tells_of_mistakes_in_tests_with_their_lines() {
    let wrong = GOOD
        .replace("match: false", "match: no")
        .replace("argv: [nc]", "argvs: [nc]");
    let own = dir(&[("a.yaml", &wrong)]);
    let told = stderr(&rules(&["check", path(&own)]).code(1));
    for part in [
        "a.yaml:9",
        "unknown field `argvs`",
        "a.yaml:10",
        "`match` cannot be `no`",
        "2 problems",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
}

#[test]
fn files_that_cannot_be_read_are_told_of_at_once_whatever_they_are() {
    let own = dir(&[("good.yaml", GOOD)]);
    let at = |name: &str| own.path().join(name);
    std::fs::write(at("bytes.yaml"), b"\xff\xfe").expect("a file");
    std::os::unix::fs::symlink("/nonexistent", at("link.yaml")).expect("a link");
    std::os::unix::fs::symlink("/dev/zero", at("zero.yaml")).expect("a link");
    let pipe = Command::new("mkfifo")
        .arg(at("pipe.yaml"))
        .status()
        .expect("mkfifo");
    assert!(pipe.success());
    let mut command = cargo_bin_cmd!("agent-monitor");
    let checked = command
        .args(["rules", "check", path(&own)])
        .timeout(Duration::from_secs(60))
        .assert();
    let told = stderr(&checked.code(1));
    for part in [
        "bytes.yaml: is not UTF-8",
        "link.yaml: cannot be read: No such file or directory",
        "zero.yaml: is no file",
        "pipe.yaml: is no file",
        "4 problems",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
}

#[test]
fn a_capture_shows_whether_a_rule_finds_it() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/recordings/ssh_reverse_tunnel_with_traffic.agmr");
    let capture = capture.to_str().expect("it is UTF-8");
    let test = |id: &str| rules(&["test", "--capture", capture, "--expect", id]);
    test("reverse-ssh-tunnel").success();
    let told = stdout(&test("mining-pool-protocol").code(1));
    assert!(
        told.contains("not found; found was reverse-ssh-tunnel"),
        "{told}"
    );
    let packets =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/captures/stratum_monero.pcap.gz");
    let packets = packets.to_str().expect("it is UTF-8");
    let test = |id: &str| rules(&["test", "--capture", packets, "--expect", id]);
    test("mining-pool-protocol").success();
    let told = stderr(&test("mining-pool-protocl").code(1));
    assert!(
        told.contains("did you mean `mining-pool-protocol`?"),
        "{told}"
    );
}

#[test]
fn explain_says_in_words_what_a_rule_finds_how_bad_it_is_and_what_it_lets_pass() {
    let told = stdout(&rules(&["explain", "gpu-device-open"]).success());
    for part in [
        "gpu-device-open: GPU opened\nbuilt-in/gpu-device-open.yaml, stable\n",
        "It finds a `device` event when  gpu and opened\n",
        "  opened: device.access contains r or w\n",
        "  listed: process.exe is %gpu_allowed_binaries% (now *)\n",
        "  opened: severity info, confidence high\n",
        "  not-allowed: severity high, confidence high, when besides  not listed\n",
        "Its tests: it finds:\n  - python opens a GPU\n",
        "Its tests: it does not find:\n  - another device\n",
        "\nFields that it asks for:\n",
        "  device.type                  character block\n",
        "  device.name                  text\n\nOther fields of device events:\n",
        "  process.argv                 list of texts\n",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
    assert!(told.ends_with("access: m, name: nvidia0}\n"), "{told}");
    let told = stdout(&rules(&["explain", "internal-network-probe"]).success());
    for part in [
        "It finds what the detector `internal-network-probe` tells of.",
        "  hosts = 8: ",
        "  fast: severity high, confidence high\n",
        "It lets pass:\n  - destination %peer_networks% (now empty)  (peers of this agent)\n",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
    let told = stderr(&rules(&["explain", "miner-proces"]).code(1));
    assert!(told.contains("did you mean `miner-process`?"), "{told}");
}

#[test]
fn what_a_rule_says_cannot_command_a_terminal() {
    let evil = GOOD.replace("title: Netcat", "title: \"Net\\e[2Jcat\"");
    let own = dir(&[("a.yaml", &evil)]);
    for args in [
        &["explain", "netcat", path(&own)][..],
        &["list", "--output", "pretty", path(&own)],
    ] {
        assert!(!stdout(&rules(args).success()).contains('\x1b'), "{args:?}");
    }
}
