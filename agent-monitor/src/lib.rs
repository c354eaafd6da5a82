//! agent-monitor's user side, a stage a module, in the order a record travels.

pub mod enrich;
pub mod event;
pub mod protocol;
