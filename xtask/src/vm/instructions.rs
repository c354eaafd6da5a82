//! What the verifier of each kernel goes through to accept each program: a table
//! that is kept, so that a change that makes it much more work is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::root;

/// By kernel series, then by program.
pub type Table = BTreeMap<String, BTreeMap<String, u64>>;

/// A change by more than this part of what the table says has to be meant.
const TOLERANCE: f64 = 0.2;
/// What writes the table anew.
const UPDATE: &str = "cargo xtask vm --update-instructions";

fn file() -> PathBuf {
    root().join("xtask/verified-instructions.toml")
}

/// Reads the kept table.
///
/// # Errors
/// When it cannot be read.
pub fn kept() -> Result<Table> {
    let file = file();
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}; make it with `{UPDATE}`", file.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is damaged", file.display()))
}

/// Puts what was counted in place of what was kept of the same kernels.
///
/// # Errors
/// When it cannot be written.
pub fn update(counted: &Table) -> Result<()> {
    let mut table = kept().unwrap_or_default();
    table.extend(counted.clone());
    let text = format!(
        "# Instructions that the verifier of each kernel series goes through, by program.\n\
         # Written by `{UPDATE}`.\n\n{}",
        toml::to_string(&table)?
    );
    fs::write(file(), text).with_context(|| format!("cannot write {}", file().display()))
}

/// A line for each program of a kernel that differs by more than is tolerated,
/// is new, or is gone.
pub fn differences(series: &str, kept: &Table, counted: &BTreeMap<String, u64>) -> Vec<String> {
    let empty = BTreeMap::new();
    let kept = kept.get(series).unwrap_or(&empty);
    let mut programs: Vec<&String> = kept.keys().chain(counted.keys()).collect();
    programs.sort();
    programs.dedup();
    let differs = |program: &&String| match (kept.get(*program), counted.get(*program)) {
        (Some(&before), Some(&now)) => {
            let change = now as f64 / before as f64 - 1.0;
            (change.abs() > TOLERANCE).then(|| {
                format!(
                    "{program}: {now} instructions, {before} before ({:+.0} %)",
                    change * 100.0
                )
            })
        }
        (None, now) => Some(format!(
            "{program}: {} instructions, new",
            now.unwrap_or(&0)
        )),
        (Some(before), None) => Some(format!(
            "{program}: not loaded, {before} instructions before"
        )),
    };
    programs.iter().filter_map(differs).collect()
}

/// What a difference asks for.
pub fn advice() -> String {
    format!("if this is meant, run `{UPDATE}` and commit xtask/verified-instructions.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn more_than_a_fifth_either_way_is_a_difference() {
        let kept = Table::from([(
            "6.1".to_owned(),
            table(&[("a", 1000), ("b", 1000), ("c", 1000)]),
        )]);
        let counted = table(&[("a", 1200), ("b", 1201), ("c", 799)]);
        let found = differences("6.1", &kept, &counted);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("b: 1201 instructions, 1000 before (+20 %)"));
        assert!(found[1].starts_with("c: "));
    }

    #[test]
    fn a_new_or_missing_program_is_a_difference() {
        let kept = Table::from([("6.1".to_owned(), table(&[("gone", 5)]))]);
        let found = differences("6.1", &kept, &table(&[("new", 7)]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(differences("6.12", &kept, &table(&[("new", 7)])).len(), 1);
    }

    #[test]
    fn the_kept_table_has_every_kernel_series() {
        let kept = kept().unwrap();
        for series in crate::setup::kernels::SERIES {
            assert!(kept.contains_key(series), "{series}");
        }
    }
}
