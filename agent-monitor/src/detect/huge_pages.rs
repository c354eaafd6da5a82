//! Huge pages: who has the kernel reserve them, and who computes with many of them.
//!
//! RandomX, which Monero is mined with, reads 2,080 MiB at random. With pages of 4 KiB each
//! read misses the processor's table of addresses, so miners reserve huge pages: by a
//! sysctl, which passes a hook of the cgroup, or by a file of sysfs, which passes none.
//! Their use shows either way, as what the process holds of them.
//!
//! To hold them is no sign by itself: virtual machines and JVMs do, too. A miner is busy
//! besides, itself and all the time. Databases and packet processors share theirs
//! between processes, which RandomX has no use for: those do not count.

use std::collections::HashMap;
use std::sync::Arc;

use super::pool_shape::{AT_WORK, BUSY, BUSY_S};
use super::{Finding, Setting, Settings, Subject, who};
use crate::capture::recording::Holding;
use crate::decode::{ProcessKey, Sysctl};
use crate::event::Process;

/// The sysctls that reserve huge pages (Documentation/admin-guide/mm/hugetlbpage.rst).
const RESERVES: [&str; 3] = [
    "vm.nr_hugepages",
    "vm.nr_hugepages_mempolicy",
    "vm.nr_overcommit_hugepages",
];

/// Processes with many huge pages that are followed at once, of all agents. More are not
/// judged.
const MAX_HOLDERS: usize = 4_096;

pub(super) static HUGE: Setting = Setting {
    name: "huge_mib",
    default: 1024,
    about: "MiB of huge pages of its own that a process holds: RandomX's dataset takes 2,080 (tevador/RandomX, \
            README.md), and XMRig with one thread held 2,340 (measured)",
};

/// Follows the processes that hold many.
pub struct Holders {
    huge: u64,
    busy: u64,
    busy_time: u64,
    followed: HashMap<ProcessKey, Followed>,
}

struct Followed {
    agent: u64,
    /// Processor time used, and when that was read.
    since: (u64, u64),
    told: bool,
}

impl Default for Holders {
    fn default() -> Self {
        let mut new = Self {
            huge: 0,
            busy: 0,
            busy_time: 0,
            followed: HashMap::new(),
        };
        new.configure(&Settings::default());
        new
    }
}

impl Holders {
    /// Goes by these numbers from now on.
    pub fn configure(&mut self, settings: &Settings) {
        self.huge = settings.get(&HUGE).saturating_mul(1 << 20).max(1);
        self.busy = settings.get(&BUSY);
        self.busy_time = settings.get(&BUSY_S).saturating_mul(1_000_000_000);
    }

    /// Bytes from which on a holding is of interest.
    pub fn least(&self) -> u64 {
        self.huge
    }

    /// Whether what this process holds is of interest even if it has become less.
    pub fn follows(&self, process: ProcessKey) -> bool {
        self.followed.contains_key(&process)
    }

    /// Whether any process is followed.
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// A process has ended.
    pub fn ended(&mut self, process: ProcessKey) {
        self.followed.remove(&process);
    }

    /// Forgets an agent.
    pub fn forget_agent(&mut self, agent: u64) {
        self.followed.retain(|_, followed| followed.agent != agent);
    }

    /// A process holds so much, and has used so much. `process` says who it is.
    pub fn holds(
        &mut self,
        holding: &Holding,
        process: impl FnOnce() -> Option<Arc<Process>>,
    ) -> Option<Finding> {
        let key = holding.process;
        if holding.held < self.huge {
            self.ended(key);
            return None;
        }
        if !self.follows(key) && self.followed.len() == MAX_HOLDERS {
            return None;
        }
        let followed = self.followed.entry(key).or_insert(Followed {
            agent: holding.agent,
            since: (holding.used, holding.time),
            told: false,
        });
        let (before, since) = followed.since;
        let time = holding.time.saturating_sub(since);
        if followed.told || time < self.busy_time || time == 0 {
            return None;
        }
        followed.since = (holding.used, holding.time);
        let used = holding.used.saturating_sub(before);
        let percent = u128::from(used) * 100 / u128::from(time);
        if percent < u128::from(self.busy) {
            return None;
        }
        followed.told = true;
        let process = process();
        let held = format!("{} MiB of huge pages", holding.held >> 20);
        let seconds = time as f64 / 1e9;
        let busy = format!("{percent} % of one processor over {seconds:.0} s");
        Some(Finding {
            detector: &AT_WORK,
            stage: 0,
            agent: holding.agent,
            subjects: vec![Subject::Process(key)],
            remote: None,
            summary: format!(
                "{} seems to mine: it holds {held} and used {busy}",
                who(process.as_ref())
            ),
            evidence: vec![
                format!(
                    "it holds {held} of its own, by /proc/{}/status and maps",
                    key.pid
                ),
                format!("the process used {busy} meanwhile"),
            ],
            process,
            time: holding.time,
            tells_more: false,
        })
    }
}

/// A process has the kernel reserve huge pages.
pub fn reserves(
    agent: u64,
    process: Option<&Arc<Process>>,
    key: ProcessKey,
    sysctl: &Sysctl,
    now: u64,
) -> Option<Finding> {
    if !RESERVES.contains(&&*sysctl.name) || !is_some(sysctl) {
        return None;
    }
    let number = match sysctl.truncated {
        true => "a number of more than 255 bytes".to_owned(),
        false => sysctl.value.trim().to_owned(),
    };
    Some(Finding {
        detector: &AT_WORK,
        stage: 0,
        agent,
        process: process.cloned(),
        subjects: vec![Subject::Process(key)],
        remote: None,
        summary: format!(
            "{} has the machine reserve huge pages, as miners do to hash faster",
            who(process)
        ),
        evidence: vec![format!("wrote {number} to {}", sysctl.name)],
        time: now,
        tells_more: false,
    })
}

/// Whether the kernel would read a number above 0. It skips white space and takes hexadecimal
/// and octal numbers, too (proc_get_long, kernel/sysctl.c). What is too long to be kept
/// is nobody's honest number.
fn is_some(sysctl: &Sysctl) -> bool {
    let Some(word) = sysctl.value.split_ascii_whitespace().next() else {
        return sysctl.truncated;
    };
    let hexadecimal = ["0x", "0X"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix));
    let (digits, radix) = match hexadecimal {
        Some(digits) => (digits, 16),
        None => (word, 10),
    };
    let is_number = !digits.is_empty() && digits.chars().all(|it| it.is_digit(radix));
    sysctl.truncated || (is_number && digits.contains(|it| it != '0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const KEY: ProcessKey = ProcessKey { pid: 5, start: 1 };

    /// What is found of a process that holds so many MiB and has used so many seconds, at
    /// so many seconds.
    fn at(holders: &mut Holders, mib: u64, used: u64, time: u64) -> Option<Finding> {
        let holding = Holding {
            agent: 7,
            process: KEY,
            time: time * S,
            held: mib << 20,
            used: used * S,
        };
        holders.holds(&holding, || None)
    }

    fn writes(name: &str, value: &str, truncated: bool) -> bool {
        let sysctl = Sysctl {
            name: name.into(),
            value: value.into(),
            truncated,
        };
        reserves(7, None, KEY, &sysctl, 0).is_some()
    }

    #[test]
    fn who_has_huge_pages_reserved_prepares_to_mine() {
        for name in RESERVES {
            assert!(writes(name, "1280", false), "{name}");
        }
        for value in ["1", " \t1168", "0x500", "0X1", "010", "1280 7"] {
            assert!(writes("vm.nr_hugepages", value, false), "{value:?}");
        }
    }

    #[test]
    fn a_number_behind_more_spaces_than_are_kept_is_one() {
        assert!(writes("vm.nr_hugepages", "", true));
        assert!(writes("vm.nr_hugepages", "0", true));
    }

    #[test]
    fn who_gives_huge_pages_back_or_sets_something_else_does_not() {
        for value in ["0", "0x0", "00", "", "-1", "x", "0x", "12x"] {
            assert!(!writes("vm.nr_hugepages", value, false), "{value:?}");
        }
        for name in [
            "vm.overcommit_memory",
            "vm.hugetlb_shm_group",
            "nr_hugepages",
        ] {
            assert!(!writes(name, "1280", false), "{name}");
        }
    }

    #[test]
    fn a_busy_process_in_huge_pages_is_a_miner_at_work() {
        let mut holders = Holders::default();
        assert!(at(&mut holders, 2_336, 100, 500).is_none(), "no time yet");
        assert!(at(&mut holders, 2_336, 190, 530).is_none(), "too short");
        let finding = at(&mut holders, 2_336, 280, 560).expect("three threads for a minute");
        assert_eq!((finding.detector.name, finding.stage), ("miner-process", 0));
        assert_eq!(finding.subjects, [Subject::Process(KEY)]);
        assert!(
            finding
                .summary
                .contains("2336 MiB of huge pages and used 300 %")
        );
        assert!(at(&mut holders, 2_336, 460, 620).is_none(), "told before");
    }

    #[test]
    fn an_idle_process_in_huge_pages_is_none() {
        let mut holders = Holders::default();
        for minute in 0..60 {
            assert!(at(&mut holders, 8_192, minute * 30, minute * 60).is_none());
        }
    }

    #[test]
    fn a_busy_process_with_few_huge_pages_is_none_and_is_not_followed() {
        let mut holders = Holders::default();
        for minute in 0..10 {
            assert!(at(&mut holders, 1_023, minute * 60, minute * 60).is_none());
        }
        assert!(holders.is_empty());
    }

    #[test]
    fn being_busy_counts_only_while_the_pages_are_held() {
        let mut holders = Holders::default();
        assert!(at(&mut holders, 1_024, 0, 0).is_none());
        assert!(at(&mut holders, 0, 30, 30).is_none());
        assert!(at(&mut holders, 1_024, 61, 61).is_none(), "begins anew");
        assert!(at(&mut holders, 1_024, 121, 121).is_some());
    }

    #[test]
    fn those_who_end_are_forgotten_and_no_more_are_followed_than_said() {
        let mut holders = Holders::default();
        let holding = |pid| Holding {
            agent: u64::from(pid % 2),
            process: ProcessKey { pid, start: 1 },
            time: 0,
            held: 4 << 30,
            used: 0,
        };
        for pid in 0..MAX_HOLDERS as u32 + 9 {
            assert!(holders.holds(&holding(pid), || None).is_none());
        }
        assert_eq!(holders.followed.len(), MAX_HOLDERS);
        holders.ended(ProcessKey { pid: 0, start: 1 });
        assert_eq!(holders.followed.len(), MAX_HOLDERS - 1);
        holders.forget_agent(1);
        assert_eq!(holders.followed.len(), MAX_HOLDERS / 2 - 1);
        holders.forget_agent(0);
        assert!(holders.is_empty());
    }
}
