//! What a service manager is told (sd_notify(3)); nothing without one.

use std::cell::Cell;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// A daemon that a service manager may look after.
pub(super) struct Service {
    /// How often a sign of life is given: half of what systemd.service(5),
    /// `WatchdogSec=`, allows.
    every: Option<Duration>,
    told: Cell<Instant>,
}

impl Service {
    /// Everything is attached.
    pub(super) fn ready(agents: usize) -> Self {
        let status = format!("attached: {agents} agents at the start");
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        Self {
            every: sd_notify::watchdog_enabled().map(|allowed| allowed / 2),
            told: Cell::new(Instant::now()),
        }
    }

    /// The thread that takes records still does.
    pub(super) fn alive(&self) {
        if self
            .every
            .is_some_and(|every| self.told.get().elapsed() >= every)
        {
            self.told.set(Instant::now());
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// The daemon is going away.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell the service manager: {error}");
    }
}
