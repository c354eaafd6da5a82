//! The daemon's interface: HTTP/1.1 over a Unix socket, and its client.
//!
//! `GET /v1/events` streams events as NDJSON, `GET /v1/alerts` answers with stored
//! alerts, `GET /v1/status` with one JSON object, `GET /v1/agents/ID/processes` and
//! `…/flows` with what an agent has, `GET /v1/activity` with what all of them do. For root: `POST /v1/rules/reload` has
//! rules read again, `POST /v1/sinks/NAME/retry` and `…/drop-dead-letters` see to dead
//! letters. The command line is one client, `curl --unix-socket` another.

pub mod activity;
pub mod agents;
pub mod alerts;
pub mod client;
pub mod hub;
pub mod metrics;
pub mod probes;
pub mod query;
mod reading;
pub mod routes;
pub mod server;
pub mod socket;
pub mod status;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/agent-monitor.sock";
