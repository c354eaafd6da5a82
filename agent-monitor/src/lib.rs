//! agent-monitor's user side, a stage a module, in the order a record travels.

pub mod api;
pub mod cli;
pub mod commands;
pub mod event;
pub mod protocol;
