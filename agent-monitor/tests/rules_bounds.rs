//! Bad rules, given to the real program under limits of the kernel's: more memory or
//! processor time than these ends it, and the test fails.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

/// Address space, in KiB. The program alone maps some 130 MiB in a debug build.
const MEMORY: &str = "700000";
/// Seconds of processor time, for a debug build.
const SECONDS: &str = "30";
/// Bytes of messages: what is wrong has to stay readable.
const MESSAGES: usize = 64 << 10;

fn rule(id: usize, detection: &str) -> String {
    format!(
        "title: r{id}\nid: r{id}\nlevel: low\nevent: exec\ndetection:\n  sel: {detection}\n  condition: sel\n---\n"
    )
}

/// Runs `agent-monitor rules WHAT` on files of these texts.
fn rules(what: &str, files: &[String]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    for (number, text) in files.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{number}.yaml")), text).expect("a file");
    }
    run(what, dir.path())
}

fn run(what: &str, dir: &Path) -> Output {
    let limited = "ulimit -v \"$1\" && ulimit -t \"$2\" && shift 2 && exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", limited, "sh", MEMORY, SECONDS])
        .arg(assert_cmd::cargo::cargo_bin!("agent-monitor"))
        .args(["rules", what])
        .arg(dir);
    command.output().expect("it starts")
}

fn refused(files: &[String]) -> String {
    let output = rules("check", files);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let start: String = told.chars().take(500).collect();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{:?}: {start}",
        output.status
    );
    assert!(told.len() < MESSAGES, "{} bytes: {start}", told.len());
    told
}

fn accepted(files: &[String]) -> String {
    let output = rules("check", files);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {told}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn limits_are_real() {
    let limited = "ulimit -v \"$1\" && head -c 800000000 /dev/zero | tail -c 800000000 >/dev/null";
    let mut command = Command::new("sh");
    let output = command
        .args(["-c", limited, "sh", MEMORY])
        .output()
        .expect("it starts");
    assert!(
        !output.status.success(),
        "what needs more memory has to fail here"
    );
}

#[test]
fn bombs_of_aliases_and_loops_of_anchors() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        writeln!(bomb, "a{level}: &a{level} [{before}x]").expect("a String takes all");
    }
    let told = refused(&[bomb, "a: &a {b: *a}\n".to_owned()]);
    assert_eq!(
        told.matches("anchors and aliases are not supported")
            .count(),
        2
    );
    assert!(
        told.contains("help: write the value out where it is needed"),
        "{told}"
    );
}

#[test]
fn ten_megabytes_in_one_file_and_in_many() {
    let long = rule(1, &format!("{{process.comm: {}}}", "x".repeat(10_000_000)));
    assert!(refused(&[long]).contains("has more than the 1048576 bytes"));
    // Files of nearly a megabyte, each of one rule with 60,000 values.
    let many = |files: usize| -> Vec<String> {
        let values = |file: usize| (0..60_000).map(move |n| format!("value-{file}-{n}"));
        let list = |file| values(file).collect::<Vec<_>>().join(",");
        (0..files)
            .map(|file| rule(file, &format!("{{process.comm: [{}]}}", list(file))))
            .collect()
    };
    assert_eq!(accepted(&many(10)), "10 rules, without tests: valid\n");
    assert!(refused(&many(20)).contains("more than 16777216 bytes together"));
}

#[test]
fn deep_values_and_deep_and_long_conditions() {
    let brackets = format!(
        "{{process.comm: {}1{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let with = |condition: &str| {
        rule(1, "{process.comm: x}").replace("condition: sel", &format!("condition: {condition}"))
    };
    let parentheses = with(&("(".repeat(100_000) + "sel" + &")".repeat(100_000)));
    let nots = with(&("not ".repeat(900) + "sel"));
    let long = with(&vec!["sel"; 10_000].join(" or "));
    let told = refused(&[rule(1, &brackets), parentheses, nots, long]);
    for part in [
        "not YAML",
        "at most 4096 bytes",
        "nests at most 64 levels",
        "4 problems",
    ] {
        assert!(told.contains(part), "no {part}: {told}");
    }
}

#[test]
fn regular_expressions_that_are_huge_many_or_catastrophic_elsewhere() {
    let with = |id, regex: &str| rule(id, &format!("{{process.comm|re: '{regex}'}}"));
    let told = refused(&[
        with(1, "(a{1000}){1000}"),
        with(2, &"(".repeat(3_000)),
        with(3, &format!("(?i){}", "\\w{100}".repeat(50))),
        with(4, &"x".repeat(5_000)),
    ]);
    assert_eq!(
        told.matches("needs more than 262144 bytes").count(),
        2,
        "{told}"
    );
    assert!(told.contains("a pattern has at most 4096 bytes"), "{told}");
    // As many as there can be, each as large as it can be.
    let large = |count: usize| -> Vec<String> {
        let of_file = |file: usize| {
            let list = (0..count / 4).map(|n| format!("'(?i)x{file}{n}[a-z]{{250}}\\w\\w'"));
            rule(
                file,
                &format!(
                    "{{process.comm|re: [{}]}}",
                    list.collect::<Vec<_>>().join(",")
                ),
            )
        };
        (0..4).map(of_file).collect()
    };
    assert_eq!(accepted(&large(960)), "4 rules, without tests: valid\n");
    assert!(refused(&large(1_040)).contains("more than 1000 regular expressions"));
    // What takes engines that go back exponential time.
    let test = format!(
        "tests:\n  - match: false\n    event: {{process: {{comm: {}b}}, exec: {{}}}}\n",
        "a".repeat(100_000)
    );
    let text = with(1, "^(a+)+$").replace("---\n", &test);
    let output = rules("test", &[text]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn ten_thousand_rules_right_and_wrong() {
    let all = |detection: &str| -> Vec<String> {
        let all: Vec<String> = (0..10_000)
            .map(|n| rule(n, &detection.replace("NUMBER", &n.to_string())))
            .collect();
        all.chunks(1_000).map(<[String]>::concat).collect()
    };
    let told = accepted(&all(
        "{exec.argv|joined|contains: 'word NUMBER x', process.comm: xNUMBER}",
    ));
    assert_eq!(told, "10000 rules, without tests: valid\n");
    let told = refused(&all("{exec.argvv|contains: word-NUMBER}"));
    assert!(told.contains("did you mean `exec.argv`?"), "{told}");
    assert!(told.contains("and 9900 more\n"), "{told}");
    assert!(
        told.contains("error: 10000 problems; no rule was taken"),
        "{told}"
    );
}
