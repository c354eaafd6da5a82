//! What is bad, and how bad: rules over events and findings, folded into incidents.
//!
//! A rule is a YAML document in Sigma's form ([`rule`]). Its selections become a
//! typed tree ([`tree`]) over the fields of an event ([`fields`]), its texts an
//! index (`index.rs`) that leaves out rules that cannot match. [`set`] reads and
//! checks files together, [`engine`] asks, [`incidents`] folds.

#![forbid(unsafe_code)]

mod condition;
pub mod correlation;
pub mod detection;
pub mod engine;
pub mod exceptions;
pub mod fields;
mod files;
pub mod incidents;
mod index;
mod keys;
mod modifiers;
mod pack;
pub mod problem;
pub mod reload;
pub mod rule;
pub mod sample;
pub mod set;
pub mod settings;
pub mod sigma;
pub mod summary;
pub mod testing;
pub mod text;
pub mod tree;
pub mod value;
pub mod vars;
pub mod words;
pub mod yaml;

#[cfg(test)]
mod tests;
