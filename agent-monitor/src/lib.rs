//! agent-monitor's user side, a stage a module, in the order a record travels.

pub mod api;
pub mod attach;
pub mod capture;
pub mod cli;
pub mod commands;
pub mod config;
pub mod coverage;
pub mod decode;
pub mod detect;
pub mod enrich;
mod escape;
pub mod event;
pub mod flow;
mod https;
pub mod live;
pub mod loss;
pub mod pipeline;
pub mod protocol;
pub mod rules;
pub mod sinks;
pub mod stats;
pub mod store;
