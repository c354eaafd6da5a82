//! What SIGHUP does: reads the configuration again, and with it rules and sinks.
//! What is wrong changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use toml::Table;

use crate::cli::RunArgs;
use crate::config::{Config, Flag, Loaded};
use crate::rules::reload::Reloading;
use crate::sinks::Sinks;
use crate::store::Store;

/// Parts of the configuration that are taken into use while the daemon runs.
const RELOADED: [&str; 4] = ["rules", "sink", "store.max_age", "store.max_bytes"];

/// Where the configuration is from, and what of it can be exchanged.
pub(super) struct Reconfigure {
    place: Option<PathBuf>,
    flags: Vec<Flag>,
    /// What the daemon began with, but for what was exchanged since.
    current: Mutex<Config>,
    rules: Arc<Reloading>,
    sinks: Arc<Sinks>,
    store: Store,
}

impl Reconfigure {
    pub(super) fn new(
        args: &RunArgs,
        config: Config,
        rules: Arc<Reloading>,
        sinks: Arc<Sinks>,
        store: Store,
    ) -> Self {
        Self {
            place: args.config.clone(),
            flags: args.flags(),
            current: Mutex::new(config),
            rules,
            sinks,
            store,
        }
    }

    /// Does it at each SIGHUP; to be called on a runtime of tokio's.
    ///
    /// # Errors
    /// Signals cannot be listened for.
    pub(super) fn on_hangup(self) -> Result<()> {
        let mut hangups = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        let this = Arc::new(self);
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                let this = this.clone();
                // It logs what came of it.
                let _ = tokio::task::spawn_blocking(move || this.reload()).await;
            }
        });
        Ok(())
    }

    fn reload(&self) {
        let config = match Loaded::read(self.place.as_deref(), std::env::vars_os(), &self.flags) {
            Ok(loaded) => loaded.config,
            Err(error) => {
                tracing::error!("all stays as it was: {error}");
                return;
            }
        };
        // It logs what came of it; sinks do not depend on it.
        let _ = self.rules.reload_from(config.rules.dirs.clone());
        self.sinks.replace(&config.sinks);
        if let Err(error) = self.store.set_limits(config.store.limits()) {
            tracing::error!("[store] max_bytes: {error}");
        }
        self.sinks.reopen();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        for setting in differing(&current, &config) {
            tracing::warn!("{setting} was changed: that is taken into use by a restart");
        }
        current.rules = config.rules;
        current.sinks = config.sinks;
        current.store.max_age = config.store.max_age;
        current.store.max_bytes = config.store.max_bytes;
        tracing::info!("the configuration was read again");
    }
}

/// Settings that differ and are not [`RELOADED`].
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let (Ok(one), Ok(other)) = (Table::try_from(one), Table::try_from(other)) else {
        return Vec::new();
    };
    let sections = one
        .keys()
        .chain(other.keys())
        .collect::<std::collections::BTreeSet<_>>();
    let mut differing = Vec::new();
    for section in sections {
        if RELOADED.contains(&section.as_str()) {
            continue;
        }
        let table = |of: &Table| {
            of.get(section)
                .and_then(|it| it.as_table().cloned())
                .unwrap_or_default()
        };
        let (one, other) = (table(&one), table(&other));
        let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
        let changed = names
            .into_iter()
            .filter(|name| one.get(*name) != other.get(*name));
        let changed = changed.map(|name| format!("{section}.{name}"));
        differing.extend(changed.filter(|name| !RELOADED.contains(&name.as_str())));
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restart_is_needed_for_is_named() {
        let mut other = Config::default();
        other.store.path = "/elsewhere".into();
        other.store.max_bytes += 1;
        other.api.group = Some("monitor".into());
        other.rules.dirs = vec!["/rules".into()];
        assert_eq!(
            differing(&Config::default(), &other),
            ["api.group", "store.path"]
        );
        assert!(differing(&other, &other).is_empty());
    }
}
