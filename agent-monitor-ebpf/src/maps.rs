//! Every map: what it holds and who writes it.

use agent_monitor_common::limits::{
    EVENTS_RING_BYTES, MAX_AGENTS, MAX_NURSERIES, MAX_OWNED, MAX_STEERED_FLOWS, MAX_TASKS,
    MAX_WATCHED, OUTSIDE_PLACES, PAYLOAD_RING_BYTES,
};
use agent_monitor_common::policy::{
    AgentState, CLASSES, FlowControl, Nursery, Offsets, Owner, Settings, Task, Told, Watch,
};
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};

use crate::peers::Peers;
use crate::probes::coverage::Walk;
use crate::probes::exec::Scratch;
use crate::probes::packet::batch::Batch;
use crate::sock::Sock;

/// Offsets of kernel members; written by user space before load, read with [`global`].
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = ZERO_OFFSETS;

/// Settings; written by user space before load, read with [`global`].
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    quota: [0; CLASSES],
    watch_containers: 0,
    pad: 0,
};

/// What addresses are mixed with; written by user space before load.
#[unsafe(no_mangle)]
pub static HASH_KEY: u64 = 0;

/// `global!(OFFSETS.member)`: one member of what user space has written before
/// load. Volatile, as the compiler knows another value; and of the member alone,
/// because a volatile read of the whole is an instruction for each of its words.
macro_rules! global {
    ($global:ident.$($place:tt)+) => {
        // SAFETY: a member of a static that nobody writes while programs run.
        unsafe { (&raw const $crate::maps::$global.$($place)+).read_volatile() }
    };
}
pub(crate) use global;

// SAFETY: Offsets is made of u32 only, for which zero is a value.
const ZERO_OFFSETS: Offsets = unsafe { core::mem::zeroed() };

/// Life cycle, connects and outcomes. Written here, read by user space.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_RING_BYTES, 0);

/// Heads, bursts and segment sizes. Written here, read by user space.
#[map]
pub static PAYLOAD: RingBuf = RingBuf::with_byte_size(PAYLOAD_RING_BYTES, 0);

/// When a record was last sent in either ring, to a millisecond, nanoseconds
/// since boot. Written here.
#[map]
pub static LAST_SENT: Array<u64> = Array::with_max_entries(1, 0);

/// Cgroup id → agent. Written by user space for agents it chose, here for
/// cgroups born inside them or looking like a container.
#[map]
pub static WATCHED: HashMap<u64, Watch> = HashMap::with_max_entries(MAX_WATCHED, BPF_F_NO_PREALLOC);

/// Cgroup id → how agents are born below it. Written by user space, and here
/// for the levels in between.
#[map]
pub static NURSERIES: HashMap<u64, Nursery> =
    HashMap::with_max_entries(MAX_NURSERIES, BPF_F_NO_PREALLOC);

/// Agent → quotas in use and losses. Made where the agent is; counted here.
/// Agent 0 is the node: cgroups that lead to agents.
#[map]
pub static AGENTS: HashMap<u64, AgentState> =
    HashMap::with_max_entries(MAX_AGENTS, BPF_F_NO_PREALLOC);

/// Agent → what user space has told of it. Written by user space, with `--pin`,
/// for the next daemon.
#[map]
pub static TOLD: HashMap<u64, Told> = HashMap::with_max_entries(MAX_AGENTS, BPF_F_NO_PREALLOC);

/// Thread-group id → what is remembered of a process of an agent. Written here;
/// user space adds the processes that were there before.
#[map]
pub static TASKS: HashMap<u32, Task> = HashMap::with_max_entries(MAX_TASKS, BPF_F_NO_PREALLOC);

/// What every process of the node needs to know, in one cache line. The first is not
/// 0 if a process of an agent is, or was, in a cgroup that is no agent's: moved there
/// or born there. The others: serial numbers of cgroups that are no agent's. Written
/// here; but for the first emptied by user space.
#[map]
pub static OUTSIDE: Array<u64> = Array::with_max_entries(OUTSIDE_PLACES, 0);

/// Socket cookie → whose a socket is that was made before the watch. Written by
/// user space; taken out here when the socket's first packet comes.
#[map]
pub static OWNERS: HashMap<u64, Owner> = HashMap::with_max_entries(MAX_OWNED, BPF_F_NO_PREALLOC);

/// Socket cookie → how much of it goes up. Written by user space.
#[map]
pub static FLOW_CONTROL: HashMap<u64, FlowControl> =
    HashMap::with_max_entries(MAX_STEERED_FLOWS, BPF_F_NO_PREALLOC);

/// Where an exec record is put together: its length varies, and a reservation
/// in the ring has to be of constant size. Only sched_process_exec uses it: the
/// kernel does not start a tracing program again on a CPU where it runs.
#[map]
pub static EXEC_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Where a process's descriptors are walked: by the iterator, which one reader
/// runs, and by sched_process_exit, which the kernel does not start twice on a CPU.
#[map]
pub static SCAN_SCRATCH: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// See [`SCAN_SCRATCH`]: an exit may interrupt a scan.
#[map]
pub static EXIT_SCRATCH: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// A map definition that aya's wrapper cannot express: `BPF_F_CLONE` gives an
/// accepted socket a copy of its listener's storage.
#[repr(C)]
pub struct SockStorage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const Sock,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are never followed; their types are the definition.
unsafe impl Sync for SockStorage {}

/// Socket → what is known of it. Written here; kept by the kernel as long as the socket.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SOCKETS")]
pub static SOCKETS: SockStorage = SockStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// As [`SockStorage`]; no socket inherits it.
#[repr(C)]
pub struct BatchStorage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const Batch,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: as of SockStorage.
unsafe impl Sync for BatchStorage {}

/// Socket → bursts that are to be told of at once. Made and written here for flows
/// whose bursts are many; kept by the kernel as long as the socket.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "BATCHES")]
pub static BATCHES: BatchStorage = BatchStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// As [`SockStorage`]; no socket inherits it.
#[repr(C)]
pub struct PeerStorage {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const Peers,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: as of SockStorage.
unsafe impl Sync for PeerStorage {}

/// Socket of datagrams → its last peers. Made with its first datagram and written
/// here; kept by the kernel as long as the socket.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "PEERS")]
pub static PEERS: PeerStorage = PeerStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};
