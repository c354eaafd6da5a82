//! Bad input: bounded in time and memory, and told clearly.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::rules::detection::MAX_REGEXES;
use crate::rules::set::MAX_RULES;

/// Generous for a debug build, and far below what an unbounded one takes.
const LONGEST: Duration = Duration::from_secs(30);

/// What this thread has used of a processor: other work does not count.
struct Used(Duration);

impl Used {
    fn now() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Self(Duration::try_from(time).expect("a clock of use is not negative"))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

fn refusal(text: &str) -> String {
    let began = Used::now();
    let told = problems(text).join("\n");
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    assert!(!told.is_empty(), "it should be refused");
    assert!(told.len() < 100_000, "{} bytes of messages", told.len());
    told
}

#[test]
fn bombs_of_aliases_and_loops_of_anchors_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (one, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb += &format!("{next}: &{next} [*{one}, *{one}, *{one}, *{one}, *{one}, *{one}]\n");
    }
    assert!(refusal(&bomb).contains("anchors and aliases are not supported"));
    assert!(refusal("a: &a {b: *a}").contains("anchors and aliases"));
}

#[test]
fn large_and_deep_files_are_refused() {
    let large = rule(
        "x",
        &format!("{{process.comm: {}}}", "x".repeat(10_000_000)),
    );
    assert!(refusal(&large).contains("bytes"));
    let deep = rule(
        "x",
        &format!("{{process.comm: {}1{}}}", "[".repeat(200), "]".repeat(200)),
    );
    refusal(&deep);
    let long = rule("x", &format!("{{process.comm: {}}}", "x".repeat(10_000)));
    assert!(refusal(&long).contains("a pattern has at most"));
    let many = (0..90_000)
        .map(|n| format!("v{n}"))
        .collect::<Vec<_>>()
        .join(",");
    let contains = rule("x", &format!("{{process.comm|contains: [{many}]}}"));
    assert!(refusal(&contains).contains("more than 4096 patterns"));
    let began = Used::now();
    let set = compile(&[("x.yaml", &rule("x", &format!("{{process.comm: [{many}]}}")))]);
    assert!(
        set.is_ok() && began.elapsed() < LONGEST,
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn regular_expressions_are_bounded_and_never_catastrophic() {
    let with = |regex: &str| rule("x", &format!("{{process.comm|re: '{regex}'}}"));
    assert!(refusal(&with("(a{1000}){1000}")).contains("needs more than"));
    assert!(refusal(&with(&"(".repeat(300))).contains("regular expression"));
    let nested = "(".repeat(100) + "a" + &")".repeat(100);
    assert!(refusal(&with(&nested)).contains("regular expression"));
    let many = vec!["'a+'"; MAX_REGEXES + 1].join(",");
    assert!(
        refusal(&rule("x", &format!("{{process.comm|re: [{many}]}}"))).contains("more than 1000")
    );
    // The classic of backtracking engines.
    let set = compile(&[("x.yaml", &with("^(a+)+$"))]).expect("it is valid");
    let text = format!("{{process: {{comm: {}b}}, exec: {{}}}}", "a".repeat(10_000));
    let began = Used::now();
    assert_eq!(seen(&set, &[&text]), [""; 0]);
    assert!(began.elapsed() < LONGEST);
}

#[test]
fn a_line_that_nobody_could_read_is_not_shown() {
    let long = rule("x", &format!("{{process.com: {}}}", "x".repeat(4_000)));
    let told = compile(&[("x.yaml", &long)])
        .expect_err("misspelt")
        .show(false, 80);
    assert!(told.len() < 300, "{told}");
    for part in ["x.yaml:6: ", "no field `process.com`", "help: did you mean"] {
        assert!(told.contains(part), "no {part}: {told}");
    }
}

#[test]
fn conditions_are_bounded() {
    let with = |condition: &str| {
        rule("x", "{process.comm: x}").replace("condition: sel", &format!("condition: {condition}"))
    };
    let deep = "(".repeat(2_000) + "sel" + &")".repeat(2_000);
    assert!(refusal(&with(&deep)).contains("64 levels"));
    let long = vec!["sel"; 10_000].join(" and ");
    assert!(refusal(&with(&long)).contains("at most 4096 bytes"));
}

#[test]
fn ten_thousand_rules_are_compiled_in_seconds_and_cost_an_event_little() {
    let rules: String = (0..10_000)
        .map(|n| {
            rule(
                &format!("r{n}"),
                &format!("{{exec.argv|contains: 'word-{n}-x'}}"),
            ) + "---\n"
        })
        .collect();
    let files: Vec<String> = rules
        .split_inclusive("---\n")
        .collect::<Vec<_>>()
        .chunks(1_000)
        .map(<[&str]>::concat)
        .collect();
    let names: Vec<String> = (0..files.len()).map(|n| format!("{n}.yaml")).collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .map(String::as_str)
        .zip(files.iter().map(String::as_str))
        .collect();
    let began = Used::now();
    let set = compile(&files).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(began.elapsed() < LONGEST, "{:?}", began.elapsed());
    assert_eq!(
        seen(&set, &["{exec: {argv: [a, 'the word-4711-x']}}"]),
        ["r4711"]
    );
}

#[test]
fn more_rules_than_the_limit_are_refused() {
    let rules = "a: 1\n---\n".repeat(MAX_RULES + 1);
    assert!(refusal(&rules).contains("more than 20000 rules"));
}

#[test]
fn problems_are_counted_beyond_those_that_are_told() {
    let rules = "a: 1\n---\n".repeat(500);
    let told = refusal(&rules);
    assert!(told.contains("\nand ") && told.ends_with(" more"), "{told}");
}

#[test]
fn no_text_makes_the_compiler_panic() {
    let alone = |text: &str| {
        let source = Source::new(Path::new("x.yaml"), text.to_owned());
        RuleSet::compile(&[vec![source]], Problems::default())
    };
    let good = rule("x", "{process.comm|contains: [a, é], process.uid: 1}");
    for end in 0..good.len() {
        if good.is_char_boundary(end) {
            let _ = alone(&good[..end]);
            let broken = format!("{}\u{0}é{}", &good[..end], &good[end..]);
            if let Err(problems) = alone(&broken) {
                assert!(!problems.show(false, 80).is_empty());
            }
        }
    }
}
