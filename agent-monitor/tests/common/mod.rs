//! Alerts to store and deliver, and waiting for what they lead to.
#![allow(dead_code, reason = "each suite uses its own part")]

pub mod http;
pub mod receivers;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_monitor::api::agents;
use agent_monitor::api::hub::Hub;
use agent_monitor::api::routes::{Reload, Sources, StatusSource};
use agent_monitor::event::{Agent, Alert, Body, Confidence, Event, Severity, Timestamp};
use agent_monitor::sinks::Sinks;
use agent_monitor::store::Store;
use agent_monitor::store::recorder::Events;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tempfile::TempDir;

/// 2030-01-01T00:00:00Z.
pub const EPOCH_NS: u64 = 1_893_456_000_000_000_000;

/// The `n`th alert, `n` seconds after [`EPOCH_NS`], its id [`id`]`(n)`.
pub fn alert(n: u64) -> Event {
    alert_saying(n, "agent-1", "it did what it should not")
}

/// An alert with an agent's name and a summary of one's own.
pub fn alert_saying(n: u64, agent: &str, summary: &str) -> Event {
    let time = Timestamp(EPOCH_NS + n * 1_000_000_000);
    Event {
        id: id(n).into(),
        time,
        node: "node-1".into(),
        agent: Some(Arc::new(Agent {
            id: "1".into(),
            name: agent.into(),
            ..Agent::default()
        })),
        process: None,
        body: Body::Alert(Arc::new(Alert {
            incident: format!("incident-{n}"),
            revision: 1,
            rule: "reverse-shell".into(),
            title: "Reverse shell".into(),
            severity: Severity::Critical,
            confidence: Confidence::High,
            attack: ["T1059".into()].into(),
            summary: summary.to_owned(),
            evidence: Vec::new(),
            events: Vec::new(),
            count: 1,
            first_seen: time,
            last_seen: time,
            coverage: "complete".into(),
        })),
    }
}

/// Id of the `n`th alert.
pub fn id(n: u64) -> String {
    format!("alert-{n:06}")
}

/// The id in an event's JSON.
pub fn id_of(json: &str) -> Option<String> {
    let event: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(event.get("id")?.as_str()?.to_owned())
}

/// Looks every 10 ms until `found` has something, for at most `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < limit, "after {limit:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A tmpfs of 1 MiB, gone when dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts it; fails without root.
    pub fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        mount(
            "none",
            folder.path(),
            "tmpfs",
            MountFlags::empty(),
            c"size=1m",
        )
        .expect("this test mounts a tmpfs: run it as root");
        Self(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets nobody write to it, or everybody again.
    pub fn set_read_only(&self, read_only: bool) {
        let flags = if read_only {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        mount_remount(self.path(), flags, c"size=1m").expect("nobody writes to it now");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If that fails, so does removing the folder: both stay, which shows.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// What a daemon's answers are made of, with an empty store in a folder and no sinks.
pub fn sources(folder: &Path, hub: Hub, status: StatusSource, reload: Reload) -> Sources {
    let store = Store::open(&folder.join("store.db")).expect("the folder is ours");
    let (_, stopping) = tokio::sync::watch::channel(false);
    let sinks = Sinks::start(&[], &store, &stopping);
    // Nobody answers: that takes a daemon with agents.
    let (asker, _) = agents::channel();
    Sources {
        hub,
        status,
        reload,
        store,
        events: Events::All,
        asker,
        sinks,
    }
}
