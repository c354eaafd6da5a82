//! What is bad, and how bad: rules over findings, folded into incidents.

pub mod incidents;
pub mod pack;
