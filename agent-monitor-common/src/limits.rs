//! Every cap and size, in one place.

/// Bytes of the ring that carries life-cycle records, connects and outcomes.
pub const EVENTS_RING_BYTES: u32 = 4 << 20;
/// Bytes of the ring that carries flow heads, bursts and segment sizes.
pub const PAYLOAD_RING_BYTES: u32 = 8 << 20;

/// Cgroups that can be watched at once, nested ones included.
pub const MAX_WATCHED: u32 = 16_384;
/// Cgroups of one agent that can be watched at once: whoever may make cgroups must
/// not fill the map for all.
pub const MAX_AGENT_CGROUPS: u64 = 1_024;
/// Agents that can be watched at once.
pub const MAX_AGENTS: u32 = 4_096;
/// Processes of agents that can be tracked at once.
pub const MAX_TASKS: u32 = 65_536;
/// Flows whose capture user space can steer at once.
pub const MAX_STEERED_FLOWS: u32 = 16_384;
/// Sockets from before the watch whose owners wait for a packet of theirs.
pub const MAX_OWNED: u32 = 16_384;
/// Directories whose new sub-cgroups are reported.
pub const MAX_NURSERIES: u32 = 1_024;

/// Words of the map that says which cgroups are no agent's: a cache line.
pub const OUTSIDE_PLACES: u32 = 8;

/// Bytes of a process's name, with its NUL (`TASK_COMM_LEN`, linux/sched.h).
pub const COMM_LEN: usize = 16;
/// Bytes of argv kept from a new program; a longer argv is marked truncated.
pub const ARGV_CAP: usize = 4096;
/// Bytes of a path kept (executable as components, file name, cgroup).
pub const PATH_CAP: usize = 512;
/// Components of an executable's path that are walked.
pub const PATH_COMPONENTS: u32 = 40;

/// Bytes of a sysctl's name, with its NUL. The longest have an interface's name of 15
/// bytes in the middle (`net/ipv6/conf/…/stable_secret`).
pub const SYSCTL_NAME: usize = 128;
/// Bytes kept of what is written to a sysctl, with a NUL.
pub const SYSCTL_VALUE: usize = 256;

/// Bytes of each direction of a flow that go up unless user space asks for more.
pub const HEAD_CAP: u32 = 8192;
/// Payload bytes of a small head record.
pub const CHUNK_SMALL: usize = 256;
/// Payload bytes of a large head record.
pub const CHUNK_LARGE: usize = 2048;
/// Large records that one segment may fill, so 8 KiB of any one super-segment.
pub const CHUNKS_PER_SEGMENT: u32 = 4;
/// Peers of a datagram socket that are remembered at once: name servers that a
/// resolver has at once (`MAXNS`, resolv.h, is 3), and one more.
pub const PEERS: usize = 4;
/// First bytes of a burst that go up with it.
pub const BURST_BYTES: usize = 64;
/// A burst ends after this much quiet.
pub const BURST_QUIET_NS: u64 = 20_000_000;
/// Bursts of a flow that end in quick succession before several are told of at
/// once. Until then each is told of when it ends.
pub const QUICK_BURSTS: u32 = 32;
/// How soon after another a burst ends in quick succession; and how long after the
/// first of several that are told of at once the last of them ends at most.
pub const QUICK_NS: u64 = 5_000_000;
/// Bursts that are told of at once.
pub const BURSTS_AT_ONCE: usize = 8;

/// Descriptors of a process that are looked at for sockets nobody sees, each word
/// of 64 closed ones counting as one; and when the process ends.
pub const DESCRIPTORS: u32 = 1024;
/// See [`DESCRIPTORS`].
pub const DESCRIPTORS_AT_EXIT: u32 = 128;
/// Of those, how many are told of a process at a time.
pub const UNCOVERED_PER_PROCESS: u32 = 16;

/// Length of the window in which an agent's quotas are counted.
pub const QUOTA_WINDOW_NS: u64 = 1_000_000_000;

/// Records of a class that an agent may send in a window even when a ring is more
/// than half full; further ones are lost then, so that the others' are not.
pub const FAIR_SHARE: u64 = 1_000;

/// How often the kernel side notes that it sends records.
pub const NOTE_EVERY_NS: u64 = 1_000_000;
/// For how long after taking a record user space looks for more by itself. It is
/// not woken for records that come less than half of that after another.
pub const LINGER_NS: u64 = 10_000_000;
