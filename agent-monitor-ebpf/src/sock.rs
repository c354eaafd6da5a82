//! What is remembered of a socket, in the socket itself.

use agent_monitor_common::event::{FlowId, Header, Spell};
use agent_monitor_common::limits::HEAD_CAP;
use agent_monitor_common::policy::FlowControl;
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;

use crate::maps::SOCKETS;
use crate::task::Caller;
use crate::{atomic, emit};

/// The TCP handshake is done, or the socket was found in the middle of its life.
pub const ESTABLISHED: u32 = 1;
/// connect() was called before.
pub const CONNECTED: u32 = 2;
/// Not seen being made.
pub const TAKEN_OVER: u32 = 4;
/// connect() was called and TCP has not begun to send.
pub const STARTING: u32 = 8;
/// A raw socket: its packets bear headers that its program may have made.
pub const RAW: u32 = 16;

/// Value of [`SOCKETS`]. What every packet reads comes first, in one cache line.
///
/// Both directions can run at once on two CPUs, and ingress inside egress on one:
/// `burst` and what is counted belong to who holds the socket ([`Sock::hold`]). Who
/// does not hold it adds atomically to what was missed.
#[repr(C)]
pub struct Sock {
    /// [`ESTABLISHED`], [`CONNECTED`], [`TAKEN_OVER`], [`STARTING`], [`RAW`].
    pub flags: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// How much goes up.
    pub control: FlowControl,
    /// Progress of each direction, by `direction`.
    pub half: [Half; 2],
    /// The burst that is going on.
    pub burst: Burst,
    /// Not 0: held.
    held: u64,
    /// The agent whose process made the socket.
    pub agent: u64,
    /// The cgroup it was made in.
    pub cgroup: u64,
    /// When that process started.
    pub start: u64,
    /// That process; for an accepted socket, the one that made the listener.
    pub tgid: u32,
    /// Padding.
    pub pad: u32,
    /// Cookie and generation.
    pub flow: FlowId,
    /// Of a listener: what the last handshake with data brought ([`Early`]). One
    /// word, so that an accepted socket's copy is not half of one and half of another.
    early: u64,
    /// What a datagram socket was last connected to.
    pub peer: [u32; 4],
    /// Its port, host order.
    pub peer_port: u32,
    /// Padding.
    pub pad_end: u32,
}

/// One direction of a TCP stream, or of a datagram socket's traffic.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Half {
    /// Sequence number of the stream's first byte.
    pub base: u32,
    /// Not 0: `base` is known.
    pub known: u32,
    /// Sequence number after the last byte seen.
    pub next: u32,
    /// Ticks when user space's wishes were last looked up.
    pub looked: u32,
    /// New payload bytes of the bursts that ended.
    pub bytes: u64,
    /// Their segments.
    pub packets: u64,
    /// Bytes of segments that came while another packet held the socket, of which
    /// nobody was told yet.
    pub missed_bytes: u64,
    /// How many segments.
    pub missed_packets: u64,
}

/// Segments in one direction with no long quiet between them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Burst {
    /// Jiffies at `spell.last`, which is the time to a jiffy.
    pub tick: u64,
    /// Not 0: there is a burst.
    pub open: u32,
    /// Bursts that ended in quick succession.
    pub quick: u32,
    /// When the burst before it ended.
    pub ended: u64,
    /// What is told of it.
    pub spell: Spell,
    /// When the first of the bursts that are to be told of at once ended.
    pub held_since: u64,
    /// How many they are.
    pub held: u64,
}

/// Data that reached a listener with a handshake's last segment.
pub struct Early {
    /// Sequence number of its first byte.
    pub base: u32,
    /// How many bytes; 0: none.
    pub bytes: u32,
}

impl Half {
    /// Nothing seen.
    pub const NEW: Self = Self {
        base: 0,
        known: 0,
        next: 0,
        looked: 0,
        bytes: 0,
        packets: 0,
        missed_bytes: 0,
        missed_packets: 0,
    };

    /// Takes `start` as the stream's first byte if none is known.
    #[inline(always)]
    pub fn begin_at(&mut self, start: u32) {
        if self.known == 0 {
            let begun = u64::from(start) | 1 << 32;
            // SAFETY: `base` and `known` are one aligned word of a map value. Who
            // comes second on another CPU changes nothing.
            unsafe { atomic::compare_exchange((&raw mut self.base).cast(), 0, begun) };
            self.next = start;
        }
    }

    /// Counts a segment for who does not hold the socket.
    #[inline(always)]
    pub fn miss(&mut self, bytes: u32) {
        // SAFETY: members of a map value.
        unsafe {
            atomic::fetch_add(&raw mut self.missed_bytes, u64::from(bytes));
            atomic::fetch_add(&raw mut self.missed_packets, 1);
        }
    }

    /// Bytes and segments so far, but for a burst that goes on.
    #[inline(always)]
    pub fn total(&self) -> (u64, u64) {
        (
            self.bytes + self.missed_bytes,
            self.packets + self.missed_packets,
        )
    }
}

impl Sock {
    /// Begins another flow on a socket that had one.
    #[inline(always)]
    pub fn begin(&mut self, flow: FlowId) {
        self.half = [Half::NEW; 2];
        self.burst.open = 0;
        self.burst.quick = 0;
        self.burst.held = 0;
        self.early = 0;
        // The copy that an accepted socket gets may have been made while the
        // listener was held.
        self.held = 0;
        self.begin_first(flow);
    }

    /// Begins a flow in storage that was made just now: all else is zero.
    #[inline(always)]
    pub fn begin_first(&mut self, flow: FlowId) {
        self.flow = flow;
        self.control = FlowControl {
            head_cap: HEAD_CAP,
            flags: 0,
        };
    }

    /// Notes what reached this listener.
    #[inline(always)]
    pub fn set_early(&mut self, early: &Early) {
        let word = u64::from(early.bytes) << 32 | u64::from(early.base);
        // SAFETY: a member of a map value.
        unsafe { (&raw mut self.early).write_volatile(word) };
    }

    /// What reached the listener whose storage this is a copy of.
    #[inline(always)]
    pub fn early(&self) -> Early {
        Early {
            base: self.early as u32,
            bytes: (self.early >> 32) as u32,
        }
    }

    /// Takes hold of the burst; `false` if another packet has. Nobody waits: one
    /// who could be waited for may be what this one interrupts.
    #[inline(always)]
    pub fn hold(&mut self) -> bool {
        // SAFETY: a member of a map value.
        unsafe { atomic::compare_exchange(&raw mut self.held, 0, 1) == 0 }
    }

    /// Lets go after [`Sock::hold`].
    #[inline(always)]
    pub fn release(&mut self) {
        // SAFETY: a member of a map value. A plain store would not order what was
        // written before on every machine.
        unsafe { atomic::swap(&raw mut self.held, 0) };
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
    // the program runs. Other CPUs write it too: see [`Sock`].
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

/// As [`get_or_create`], as the caller's, for a socket of which nothing is remembered.
///
/// # Safety
/// As [`get`].
#[inline(always)]
pub unsafe fn own<'a>(
    sk: *mut bpf_sock,
    caller: &Caller,
    cookie: u64,
    protocol: u32,
) -> Option<&'a mut Sock> {
    // SAFETY: as in `get`.
    let Some(socket) = (unsafe { get_or_create(sk) }) else {
        emit::no_room(caller.agent);
        return None;
    };
    socket.agent = caller.agent;
    socket.cgroup = caller.cgroup;
    socket.tgid = caller.tgid;
    socket.start = caller.start();
    socket.protocol = protocol;
    socket.begin_first(FlowId {
        cookie,
        generation: 0,
    });
    Some(socket)
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
