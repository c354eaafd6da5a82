//! agent-monitor's user side, a stage a module, in the order a record travels.

pub mod attach;
pub mod commands;
pub mod enrich;
pub mod event;
pub mod protocol;
