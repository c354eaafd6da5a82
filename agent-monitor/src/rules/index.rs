//! Which rules an event can match: those whose texts it has.
//!
//! The texts that rules need of a field are looked for all at once, so a rule
//! whose texts are not there costs nothing. Rules that need none are always asked.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};

use super::fields::Field;
use super::text::automaton;
use super::tree::Tree;
use super::value::Value;
use crate::event::Event;

/// Texts that are looked for in one field; rules that need more are always asked.
const MAX_TEXTS: usize = 16_384;

/// The rules of one kind of event.
#[derive(Debug, Default)]
pub struct Index {
    /// Rules by their place in the set.
    rules: Vec<usize>,
    /// Bits of the rules that are always asked.
    always: Vec<u64>,
    scans: Vec<Scan>,
}

/// Texts that are looked for in one field.
#[derive(Debug)]
struct Scan {
    field: &'static Field,
    texts: AhoCorasick,
    /// For each text, the rules that need it.
    rules: Vec<Vec<u32>>,
}

impl Index {
    /// Puts rules together: each with its place in the set.
    ///
    /// # Errors
    /// They have too many texts.
    pub fn new<'r>(rules: impl IntoIterator<Item = (usize, &'r Tree)>) -> Result<Self, String> {
        let mut index = Self::default();
        let mut needles: BTreeMap<&str, (&'static Field, BTreeMap<String, Vec<u32>>)> =
            BTreeMap::new();
        for (number, (place, tree)) in (0_u32..).zip(rules) {
            index.rules.push(place);
            let full = |(field, _): &(&'static Field, &str)| {
                let known = needles.get(field.path);
                known.is_some_and(|(_, texts)| texts.len() >= MAX_TEXTS)
            };
            match tree.needles().filter(|found| !found.iter().any(full)) {
                Some(found) => {
                    for (field, text) in found {
                        let (_, texts) = needles
                            .entry(field.path)
                            .or_insert_with(|| (field, BTreeMap::new()));
                        let rules = texts.entry(text.to_ascii_lowercase()).or_default();
                        if rules.last() != Some(&number) {
                            rules.push(number);
                        }
                    }
                }
                None => set(&mut index.always, number),
            }
        }
        index.always.resize(index.rules.len().div_ceil(64), 0);
        for (field, texts) in needles.into_values() {
            let (texts, rules): (Vec<String>, Vec<Vec<u32>>) = texts.into_iter().unzip();
            index.scans.push(Scan {
                field,
                texts: automaton(&texts, false, MatchKind::Standard)?,
                rules,
            });
        }
        Ok(index)
    }

    /// Calls `each` with the place of every rule that may match. `bits` is
    /// memory that is used again.
    pub fn candidates(&self, event: &Event, bits: &mut Vec<u64>, mut each: impl FnMut(usize)) {
        bits.clear();
        bits.extend_from_slice(&self.always);
        for scan in &self.scans {
            scan.field.see(event, &mut |value| {
                if let Value::Text(text) = value {
                    for found in scan.texts.find_overlapping_iter(text) {
                        for rule in &scan.rules[found.pattern().as_usize()] {
                            set(bits, *rule);
                        }
                    }
                }
                false
            });
        }
        for (word, bits) in bits.iter().enumerate() {
            let mut rest = *bits;
            while rest != 0 {
                each(self.rules[word * 64 + rest.trailing_zeros() as usize]);
                rest &= rest - 1;
            }
        }
    }
}

fn set(bits: &mut Vec<u64>, number: u32) {
    let word = number as usize / 64;
    if bits.len() <= word {
        bits.resize(word + 1, 0);
    }
    bits[word] |= 1 << (number % 64);
}
