//! What agents can do that no program of ours sees, and for how long.
//!
//! The kernel's programs follow the cgroup a socket was born in. A process that
//! is moved out, a socket that is handed in, a packet socket and a TUN device pass
//! them by. The kernel side looks for those now and then, and at each process's
//! end; here what it finds becomes holes with a begin and an end.

#![forbid(unsafe_code)]

pub mod downtime;
mod words;

use std::collections::HashMap;

use agent_monitor_common::event::{Uncovered, uncovered};

use crate::decode::ProcessKey;
use crate::detect::blind::Hole;

/// Holes that are followed at once; what is beyond is counted.
const MAX_OPEN: usize = 4_096;
/// A process that forked may, until it execs, hold what its parent had: one that
/// is younger than this, in nanoseconds, has to be seen a second time.
const YOUNG: u64 = 200_000_000;

/// The holes there are now.
#[derive(Debug, Default)]
pub struct Coverage {
    open: HashMap<Key, Open>,
    /// When the kernel last looked, nanoseconds since boot.
    looked: u64,
    /// Holes that there was no room for.
    pub overlooked: u64,
}

/// One hole, whoever uses it: a socket may be held by many processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    agent: u64,
    reason: u32,
    process: ProcessKey,
    inode: u64,
}

#[derive(Debug)]
struct Open {
    hole: Hole,
    /// It was told, as lasting until then.
    told: Option<u64>,
    /// Found when the kernel looked at this time.
    seen: u64,
    /// Where a socket leads is known.
    connected: bool,
}

impl Coverage {
    /// Takes all that the kernel found when it looked, at `now`; gives the holes
    /// that have begun, and those that ended after they were told.
    pub fn looked(&mut self, found: &[Uncovered], now: u64) -> Vec<Hole> {
        let mut holes = Vec::new();
        for one in found {
            let key = key(one);
            if let Some(open) = self.open.get_mut(&key) {
                open.seen = now;
                holes.extend(open.still(one, now));
                continue;
            }
            let young = one.header.start.saturating_add(YOUNG) > now;
            if let Some(hole) = self.begin(key, one, now, !young) {
                holes.push(hole);
            }
        }
        self.open.retain(|_, open| {
            if open.seen == now {
                return true;
            }
            if open.told.is_some_and(|told| told < open.hole.to) {
                open.hole.again = true;
                holes.push(open.hole.clone());
            }
            false
        });
        self.looked = now;
        holes
    }

    /// Takes what a process held when it ended.
    pub fn ended(&mut self, one: &Uncovered) -> Option<Hole> {
        let key = key(one);
        match self.open.get_mut(&key) {
            Some(open) => open.still(one, one.header.time),
            None => self.begin(key, one, one.header.time, true),
        }
    }

    /// Whether an agent has a process outside of it.
    pub fn has_escaped(&self, agent: u64) -> bool {
        let mut keys = self.open.keys();
        keys.any(|key| key.agent == agent && key.reason == uncovered::OUTSIDE)
    }

    fn begin(&mut self, key: Key, one: &Uncovered, now: u64, tell: bool) -> Option<Hole> {
        if self.open.len() >= MAX_OPEN {
            self.overlooked += 1;
            return None;
        }
        let hole = Hole {
            agent: one.header.agent,
            process: ProcessKey::from_ns(one.header.tgid, one.header.start),
            reason: words::reason(one),
            // It was not there when the kernel looked before.
            from: self.looked.max(one.header.start).min(now),
            to: now,
            again: false,
        };
        let mut open = Open {
            hole,
            told: None,
            seen: now,
            connected: one.remote.port != 0,
        };
        let hole = tell.then(|| open.tell()).flatten();
        self.open.insert(key, open);
        hole
    }
}

impl Open {
    /// It was found again; gives the hole if it was not told, or not where it leads.
    fn still(&mut self, one: &Uncovered, now: u64) -> Option<Hole> {
        self.hole.to = now;
        let connected = one.remote.port != 0;
        if !connected || std::mem::replace(&mut self.connected, true) {
            return self.tell();
        }
        self.hole.reason = words::reason(one);
        self.tell().or_else(|| {
            self.told = Some(now);
            self.hole.again = true;
            Some(self.hole.clone())
        })
    }

    /// The hole, the first time.
    fn tell(&mut self) -> Option<Hole> {
        if self.told.is_some() {
            return None;
        }
        self.told = Some(self.hole.to);
        Some(self.hole.clone())
    }
}

fn key(one: &Uncovered) -> Key {
    let of_process = matches!(one.reason, uncovered::OUTSIDE | uncovered::TOO_MANY);
    Key {
        agent: one.header.agent,
        reason: one.reason,
        process: match of_process {
            true => ProcessKey::from_ns(one.header.tgid, one.header.start),
            false => ProcessKey::default(),
        },
        inode: one.inode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_monitor_common::event::Header;

    const SECOND: u64 = 1_000_000_000;

    fn socket(tgid: u32, start: u64, inode: u64) -> Uncovered {
        Uncovered {
            header: Header {
                agent: 7,
                tgid,
                start,
                ..Header::default()
            },
            reason: uncovered::SOCKET,
            family: 2,
            protocol: 6,
            inode,
            ..Uncovered::default()
        }
    }

    #[test]
    fn a_hole_is_told_when_it_begins_and_when_it_has_become_longer() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.looked(&[], 10 * SECOND), []);
        let found = [socket(5, SECOND, 1)];
        let begun = coverage.looked(&found, 11 * SECOND);
        assert_eq!((begun[0].from, begun[0].to), (10 * SECOND, 11 * SECOND));
        assert!(!begun[0].again);
        assert_eq!(coverage.looked(&found, 12 * SECOND), []);
        let over = coverage.looked(&[], 13 * SECOND);
        assert_eq!((over[0].from, over[0].to), (10 * SECOND, 12 * SECOND));
        assert!(over[0].again);
        assert_eq!(coverage.looked(&[], 14 * SECOND), []);
    }

    #[test]
    fn one_that_did_not_last_is_told_once() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.looked(&[socket(5, 0, 1)], SECOND).len(), 1);
        assert_eq!(coverage.looked(&[], 2 * SECOND), []);
    }

    #[test]
    fn a_socket_that_several_processes_hold_is_one_hole() {
        let mut coverage = Coverage::default();
        let found = [socket(5, 0, 1), socket(6, 0, 1), socket(6, 0, 2)];
        assert_eq!(coverage.looked(&found, SECOND).len(), 2);
    }

    #[test]
    fn a_socket_that_is_connected_later_is_told_again_with_where_it_leads() {
        let mut coverage = Coverage::default();
        let mut found = socket(5, 0, 1);
        assert_eq!(coverage.looked(&[found], SECOND).len(), 1);
        found.remote.port = 3333;
        let holes = coverage.looked(&[found], 2 * SECOND);
        assert!(holes[0].again && holes[0].reason.contains(":3333"));
        assert_eq!(coverage.looked(&[found], 3 * SECOND), []);
    }

    #[test]
    fn what_a_new_process_has_from_its_parent_must_last() {
        let mut coverage = Coverage::default();
        let young = [socket(5, 10 * SECOND - 1, 1)];
        assert_eq!(coverage.looked(&young, 10 * SECOND), []);
        assert_eq!(coverage.looked(&[], 11 * SECOND), []);
        let young = [socket(5, 20 * SECOND - 1, 2)];
        assert_eq!(coverage.looked(&young, 20 * SECOND), []);
        assert_eq!(coverage.looked(&young, 21 * SECOND).len(), 1);
    }

    #[test]
    fn what_a_process_held_at_its_end_is_told_once() {
        let mut coverage = Coverage::default();
        let mut found = socket(5, 10 * SECOND, 1);
        found.header.time = 10 * SECOND + 5;
        let hole = coverage.ended(&found).expect("it was not told");
        assert_eq!((hole.from, hole.to), (10 * SECOND, 10 * SECOND + 5));
        assert_eq!(coverage.ended(&found), None, "another process held it too");
        assert_eq!(coverage.looked(&[], 11 * SECOND), []);
    }

    #[test]
    fn there_is_a_bound_and_what_is_beyond_is_counted() {
        let mut coverage = Coverage::default();
        let found: Vec<_> = (0..MAX_OPEN as u64 + 3).map(|n| socket(5, 0, n)).collect();
        assert_eq!(coverage.looked(&found, SECOND).len(), MAX_OPEN);
        assert_eq!(coverage.overlooked, 3);
    }
}
