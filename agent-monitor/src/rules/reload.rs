//! The daemon's rules: read at its start, and again when it is asked to.
//!
//! A set is compiled beside the one in use and handed over whole. When
//! anything is wrong with it, the old one stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::problem::Problems;
use super::set::RuleSet;
use crate::event::Timestamp;

/// Longest that a reload waits for new rules to be taken into use: a daemon that is
/// not attached yet, or has much to do, takes them later.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Rules in use, and what came of reading them last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loaded {
    /// Rules that are asked.
    pub enabled: usize,
    /// Rules in SigmaHQ's form that have no counterpart here.
    pub left_out: usize,
    /// Since when these are in use, RFC 3339.
    pub since: String,
    /// Why a later attempt to read them failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where rules come from, and a set that waits to be taken into use.
#[derive(Debug)]
pub struct Reloading {
    /// Directories of rules. Held while they are read: one attempt at a time.
    dirs: Mutex<Vec<PathBuf>>,
    /// Keys of labels that container runtimes are asked for.
    labels: BTreeSet<String>,
    state: Mutex<State>,
    /// A set that waited was taken.
    taken: Condvar,
}

#[derive(Debug)]
struct State {
    next: Option<(Arc<RuleSet>, Loaded)>,
    loaded: Loaded,
}

impl Reloading {
    /// Reads the rules of `dirs`, on top of the default pack.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(dirs: Vec<PathBuf>) -> Result<(Self, Arc<RuleSet>), Problems> {
        let set = Arc::new(RuleSet::load(&dirs)?);
        let reloading = Self {
            dirs: Mutex::new(dirs),
            labels: set.label_keys().map(str::to_owned).collect(),
            state: Mutex::new(State {
                next: None,
                loaded: loaded(&set),
            }),
            taken: Condvar::new(),
        };
        Ok((reloading, set))
    }

    /// Reads the rules again, and waits until they are in use: what happens after the
    /// answer is judged by them.
    ///
    /// # Errors
    /// What is wrong, a line each. The rules in use stay.
    pub fn reload(&self) -> Result<Loaded, String> {
        let dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        self.read(&dirs)
    }

    /// Reads the rules of other directories, which are kept if they can be used.
    ///
    /// # Errors
    /// As [`Reloading::reload`].
    pub fn reload_from(&self, dirs: Vec<PathBuf>) -> Result<Loaded, String> {
        let mut current = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.read(&dirs)?;
        *current = dirs;
        Ok(loaded)
    }

    fn read(&self, dirs: &[PathBuf]) -> Result<Loaded, String> {
        match RuleSet::load(dirs) {
            Ok(set) => {
                let labels = set.label_keys().filter(|key| !self.labels.contains(*key));
                for label in labels {
                    tracing::warn!(
                        label,
                        "rules ask for a label that container runtimes were not asked for: it is known after a restart"
                    );
                }
                let now = loaded(&set);
                let mut state = self.state();
                state.next = Some((Arc::new(set), now.clone()));
                let waits = |state: &mut State| state.next.is_some();
                let waited = self.taken.wait_timeout_while(state, TAKEN_WITHIN, waits);
                let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                drop(state);
                if waited.timed_out() {
                    tracing::warn!("the daemon is busy, new rules wait to be taken into use");
                }
                tracing::info!(enabled = now.enabled, "rules were read again");
                Ok(now)
            }
            Err(problems) => {
                let error = problems.lines().join("\n");
                tracing::error!("rules could not be read, the old ones stay:\n{error}");
                self.state().loaded.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// The set that is to be used from now on, if there is a new one.
    pub fn take(&self) -> Option<Arc<RuleSet>> {
        let mut state = self.state();
        let (set, loaded) = state.next.take()?;
        state.loaded = loaded;
        self.taken.notify_all();
        Some(set)
    }

    /// What is in use.
    pub fn loaded(&self) -> Loaded {
        self.state().loaded.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is whole after every assignment, so a poisoned one is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn loaded(set: &RuleSet) -> Loaded {
    Loaded {
        enabled: set.rules().iter().filter(|rule| rule.enabled).count(),
        left_out: set.unmapped().len(),
        since: Timestamp::now().to_string(),
        error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_answers_once_the_new_rules_are_in_use_and_keeps_the_old_when_they_are_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.yaml");
        std::fs::write(&file, "override: ssh-outbound\nenabled: false\n").expect("a file");
        let dirs = vec![dir.path().to_owned()];
        let (reloading, set) = Reloading::new(dirs).unwrap_or_else(|told| panic!("{told}"));
        let enabled = set.rules().iter().filter(|rule| rule.enabled).count();
        assert_eq!(reloading.loaded().enabled, enabled);

        std::fs::remove_file(&file).expect("it is there");
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| reloading.reload());
            let taken = loop {
                if let Some(set) = reloading.take() {
                    break set;
                }
                assert!(
                    !answer.is_finished(),
                    "it answered before the rules were taken"
                );
                std::thread::sleep(Duration::from_millis(1));
            };
            assert!(taken.get("ssh-outbound").is_some_and(|rule| rule.enabled));
            let answer = answer.join().expect("no panic").expect("they are valid");
            assert_eq!(answer.enabled, enabled + 1);
        });
        assert_eq!(reloading.loaded().enabled, enabled + 1);

        std::fs::write(&file, "titel: x\n").expect("a file");
        let error = reloading.reload().expect_err("they are wrong");
        assert!(error.contains("x.yaml:1"), "{error}");
        assert!(reloading.take().is_none());
        let loaded = reloading.loaded();
        assert_eq!((loaded.enabled, loaded.error), (enabled + 1, Some(error)));
    }
}
