//! What was looked up beside the kernel's records, because it bears on what is found.

use crate::decode::ProcessKey;

/// Processor time that an agent has used, read from its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Cgroup id of the agent.
    pub agent: u64,
    /// When that was read, nanoseconds since boot.
    pub time: u64,
    /// Nanoseconds since the cgroup was made.
    pub used: u64,
}

impl Usage {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [agent, time, used] = words(bytes)?;
        Some(Self { agent, time, used })
    }

    pub(super) fn to_bytes(self) -> [[u8; 8]; 3] {
        [self.agent, self.time, self.used].map(u64::to_le_bytes)
    }
}

/// Huge pages that a process holds, and the processor time that it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Cgroup id of the agent.
    pub agent: u64,
    /// The process.
    pub process: ProcessKey,
    /// When that was read, nanoseconds since boot.
    pub time: u64,
    /// Bytes of huge pages of any size that it has mapped, without those that it shares.
    pub held: u64,
    /// Nanoseconds of processor time since it started, of all of its threads.
    pub used: u64,
}

impl Holding {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [agent, time, pid, start, held, used] = words(bytes)?;
        let pid = u32::try_from(pid).ok()?;
        let process = ProcessKey { pid, start };
        Some(Self {
            agent,
            process,
            time,
            held,
            used,
        })
    }

    pub(super) fn to_bytes(self) -> [[u8; 8]; 6] {
        let ProcessKey { pid, start } = self.process;
        let pid = u64::from(pid);
        [self.agent, self.time, pid, start, self.held, self.used].map(u64::to_le_bytes)
    }
}

/// So many numbers, and nothing else.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let words: &[[u8; 8]; N] = words.try_into().ok()?;
    Some(words.map(u64::from_le_bytes))
}
