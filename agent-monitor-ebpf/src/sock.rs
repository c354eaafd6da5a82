//! What is remembered of a socket, in the socket itself.

use agent_monitor_common::event::{FlowId, Header};
use agent_monitor_common::limits::{BURST_BYTES, HEAD_CAP};
use agent_monitor_common::policy::FlowControl;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_spin_lock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;

use crate::maps::SOCKETS;

/// The TCP handshake is done, or the socket was found in the middle of its life.
pub const ESTABLISHED: u32 = 1;
/// connect() was called before.
pub const CONNECTED: u32 = 2;
/// Not seen being made.
pub const TAKEN_OVER: u32 = 4;

/// Value of [`SOCKETS`].
#[repr(C)]
pub struct Sock {
    /// Guards what packets change: `half`, `burst`, `control`. Both directions
    /// can run at once on two CPUs.
    pub lock: bpf_spin_lock,
    /// [`ESTABLISHED`], [`CONNECTED`], [`TAKEN_OVER`].
    pub flags: u32,
    /// The agent whose process made the socket.
    pub agent: u64,
    /// The cgroup it was made in.
    pub cgroup: u64,
    /// When that process started.
    pub start: u64,
    /// That process; for an accepted socket, the one that made the listener.
    pub tgid: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// Cookie and generation.
    pub flow: FlowId,
    /// How much goes up.
    pub control: FlowControl,
    /// Progress of each direction, by `direction`.
    pub half: [Half; 2],
    /// The burst that is going on.
    pub burst: Burst,
    /// Last peer of an unconnected datagram socket.
    pub peer: [u32; 4],
    /// Its port, network order as the kernel gives it; bit 31 set once known.
    pub peer_port: u32,
    /// Padding.
    pub pad: u32,
}

/// One direction of a TCP stream, or of a datagram socket's traffic.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Half {
    /// Sequence number of the stream's first byte.
    pub base: u32,
    /// Sequence number after the last byte seen.
    pub next: u32,
    /// New payload bytes.
    pub bytes: u64,
    /// Segments with new payload.
    pub packets: u64,
    /// Not 0: `base` and `next` are known.
    pub known: u32,
    /// Padding.
    pub pad: u32,
}

/// Segments in one direction with no long quiet between them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Burst {
    /// Time of the first segment.
    pub first: u64,
    /// Time of the last segment.
    pub last: u64,
    /// New payload bytes.
    pub bytes: u64,
    /// Stream offset of the first byte.
    pub offset: u64,
    /// Segments; 0: no burst.
    pub packets: u32,
    /// Direction.
    pub direction: u32,
    /// Bytes in `data`.
    pub data_len: u32,
    /// Padding.
    pub pad: u32,
    /// First bytes.
    pub data: [u64; BURST_BYTES / 8],
}

impl Half {
    /// Nothing seen.
    pub const NEW: Self = Self {
        base: 0,
        next: 0,
        bytes: 0,
        packets: 0,
        known: 0,
        pad: 0,
    };
}

impl Sock {
    /// Begins a new flow on this socket.
    #[inline(always)]
    pub fn begin(&mut self, flow: FlowId) {
        self.flow = flow;
        self.half = [Half::NEW; 2];
        self.burst.packets = 0;
        self.control = FlowControl {
            head_cap: HEAD_CAP,
            flags: 0,
        };
    }

    /// Header of a record about this socket: its owner's.
    #[inline(always)]
    pub fn header(&self, kind: u32, len: usize, now: u64) -> Header {
        Header {
            kind,
            len: len as u32,
            time: now,
            agent: self.agent,
            cgroup: self.cgroup,
            start: self.start,
            tgid: self.tgid,
            tid: 0,
        }
    }
}

/// What is remembered of `sk`, or nothing if no agent made it.
///
/// # Safety
/// `sk` is a socket pointer from a program's context, checked for null.
#[inline(always)]
pub unsafe fn get<'a>(sk: *mut bpf_sock) -> Option<&'a mut Sock> {
    // SAFETY: per this function's contract; the kernel keeps the storage while
    // the program runs. Other CPUs write it too: fields that packets change are
    // only touched under its lock.
    unsafe { storage(sk, 0).as_mut() }
}

/// As [`get`], made if missing: zeroes.
///
/// # Safety
/// As [`get`].
#[inline(always)]
pub unsafe fn get_or_create<'a>(sk: *mut bpf_sock) -> Option<&'a mut Sock> {
    // SAFETY: as in `get`.
    unsafe { storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)).as_mut() }
}

/// # Safety
/// As [`get`].
#[inline(always)]
unsafe fn storage(sk: *mut bpf_sock, flags: u64) -> *mut Sock {
    // SAFETY: the loader puts the map in SOCKETS' place; the caller vouches for `sk`.
    unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            flags,
        )
    }
    .cast()
}
