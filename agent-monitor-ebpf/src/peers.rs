//! The peers of a socket of datagrams, in the socket itself.
//!
//! The last few are remembered, so a socket that talks to a million costs no more
//! memory than one that talks to four: who comes back after others is told of anew.

use agent_monitor_common::event::{PEER_FLOW, PEER_HASHED};
use agent_monitor_common::limits::{BURST_QUIET_NS, PEERS};
use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_spin_lock};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_spin_lock, bpf_spin_unlock};

use crate::address::is_mapped;
use crate::maps;

/// Value of [`maps::PEERS`].
#[repr(C)]
pub struct Peers {
    /// Guards all of it: both directions can run at once on two CPUs.
    lock: bpf_spin_lock,
    /// See [`Peers::find`].
    place: u32,
    /// Whom the program named last, as a flow's generation; 0: nobody.
    named: u64,
    /// Always 0: see [`Peers::veil`].
    nothing: u64,
    peers: [Peer; PEERS],
}

/// One peer, or what the socket is connected to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Peer {
    /// Who it is.
    pub who: Who,
    /// When it was last heard of or sent to, nanoseconds since boot; 0: nobody.
    used: u64,
    /// Bytes of each direction's datagrams that went up.
    head: [u32; 2],
    /// Bytes of each direction.
    bytes: [u64; 2],
    /// Time of the burst's first datagram.
    pub first: u64,
    /// Time of its last.
    pub last: u64,
    /// Its bytes.
    pub count: u64,
    /// Bytes of its direction before it.
    pub offset: u64,
    /// Its datagrams; 0: no burst.
    pub packets: u32,
    /// Its direction.
    pub direction: u32,
}

/// Whom a datagram is for, or from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Who {
    /// The flow's generation.
    pub generation: u64,
    /// Address, network order; an IPv4 one is v4-mapped.
    pub ip: [u32; 4],
    /// Host order.
    pub port: u32,
    /// `IPPROTO_*` of the packet.
    pub protocol: u32,
}

/// Nobody, and no burst.
pub const NOBODY: Peer = Peer {
    who: Who {
        generation: 0,
        ip: [0; 4],
        port: 0,
        protocol: 0,
    },
    used: 0,
    head: [0; 2],
    bytes: [0; 2],
    first: 0,
    last: 0,
    count: 0,
    offset: 0,
    packets: 0,
    direction: 0,
};

/// What is counted of a datagram.
pub struct Datagram {
    pub way: u32,
    /// Datagrams: more than one if they were sent or received at once.
    pub packets: u32,
    pub bytes: u32,
    /// Bytes of each direction that go up.
    pub cap: u32,
    pub now: u64,
}

impl Who {
    /// The same, mixed with [`Peers::veil`].
    #[inline(always)]
    pub fn veiled(self, veil: u32) -> Self {
        let [a, b, c, d] = self.ip;
        Self {
            generation: self.generation ^ u64::from(veil),
            ip: [a ^ veil, b ^ veil, c ^ veil, d ^ veil],
            port: self.port ^ veil,
            protocol: self.protocol ^ veil,
        }
    }

    /// A peer of a socket that is not connected to it.
    #[inline(always)]
    pub fn peer(ip: [u32; 4], port: u16, protocol: u32) -> Self {
        let port = u32::from(port);
        let place = u64::from(protocol & 0xff) << 48 | u64::from(port);
        let generation = if is_mapped(&ip) {
            PEER_FLOW | u64::from(u32::from_be(ip[3])) << 16 | place
        } else {
            PEER_FLOW | PEER_HASHED | hash(&ip, place) >> 2
        };
        Self {
            generation,
            ip,
            port,
            protocol,
        }
    }
}

/// Mixes an address with a key that no agent knows, so that none can choose two
/// addresses that are one flow. The steps are those of MurmurHash3's end.
#[inline(always)]
fn hash(ip: &[u32; 4], place: u64) -> u64 {
    // SAFETY: a static that nobody writes while programs run; the compiler knows
    // another value.
    let mut mixed = unsafe { (&raw const maps::HASH_KEY).read_volatile() };
    let words = [
        u64::from(ip[0]) << 32 | u64::from(ip[1]),
        u64::from(ip[2]) << 32 | u64::from(ip[3]),
        place,
    ];
    for word in words {
        mixed = (mixed ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^= mixed >> 33;
    }
    mixed
}

impl Peers {
    /// 0, which the verifier does not know. What it is mixed into is the same to the
    /// verifier whichever way it came about, so that what follows is gone through
    /// once, and not for each kind of packet.
    #[inline(always)]
    pub fn veil(&self) -> u32 {
        // SAFETY: a member of a map value.
        unsafe { (&raw const self.nothing).read_volatile() as u32 }
    }

    /// Where a peer is.
    #[inline(always)]
    fn place(&self, generation: u64) -> Option<usize> {
        let mut place = 0;
        while place < PEERS {
            let peer = &self.peers[place];
            if peer.used != 0 && peer.who.generation == generation {
                return Some(place);
            }
            place += 1;
        }
        None
    }

    /// Whether a peer is remembered. Without the lock: what is read half-way is
    /// at worst taken for another, and told of anew.
    #[inline(always)]
    pub fn knows(&self, generation: u64) -> bool {
        self.place(generation).is_some()
    }

    /// Whom the program named last.
    #[inline(always)]
    pub fn named(&self) -> Option<Who> {
        if self.named == 0 {
            return None;
        }
        let place = self.place(self.named)?;
        Some(self.peers[place % PEERS].who)
    }

    /// The place that was not used for longest.
    #[inline(always)]
    fn oldest(&self) -> usize {
        let mut oldest = 0;
        let mut place = 1;
        while place < PEERS {
            if self.peers[place].used < self.peers[oldest % PEERS].used {
                oldest = place;
            }
            place += 1;
        }
        oldest
    }

    /// Whether a peer is remembered, and where; or where to put it. For who holds
    /// the lock.
    ///
    /// The place makes a way through memory: what the verifier does not know it need
    /// not follow for each value.
    #[inline(always)]
    fn find(&mut self, generation: u64) -> (bool, usize) {
        let known = self.place(generation);
        let place = known.unwrap_or(self.oldest()) as u32;
        // SAFETY: a member of a map value.
        let place = unsafe {
            (&raw mut self.place).write_volatile(place);
            (&raw const self.place).read_volatile()
        };
        (known.is_some(), place as usize % PEERS)
    }

    /// Notes whom the program names; `true` if it was not remembered. A burst of
    /// who is forgotten for it goes to `ended`.
    #[inline(always)]
    pub fn name(&mut self, who: &Who, now: u64, ended: &mut Peer) -> bool {
        // SAFETY: the lock of this value; nothing is called while it is held.
        unsafe { bpf_spin_lock(&raw mut self.lock) };
        self.named = who.generation;
        let (known, place) = self.find(who.generation);
        let peer = &mut self.peers[place];
        if !known {
            peer.replace(who, ended);
        }
        peer.used = now;
        // SAFETY: as above.
        unsafe { bpf_spin_unlock(&raw mut self.lock) };
        !known
    }

    /// Counts a datagram; a burst that ends with it goes to `ended`. Gives how
    /// many bytes of it may go up.
    #[inline(always)]
    pub fn count(&mut self, who: &Who, datagram: &Datagram, ended: &mut Peer) -> u32 {
        let way = (datagram.way & 1) as usize;
        // SAFETY: the lock of this value; nothing is called while it is held.
        unsafe { bpf_spin_lock(&raw mut self.lock) };
        let (known, place) = self.find(who.generation);
        let peer = &mut self.peers[place];
        let quiet = datagram.now.saturating_sub(peer.last) > BURST_QUIET_NS;
        if !known {
            peer.replace(who, ended);
        } else if peer.packets > 0 && (peer.direction != datagram.way || quiet) {
            peer.copy_to(ended);
            peer.packets = 0;
        }
        if peer.packets == 0 {
            peer.first = datagram.now;
            peer.count = 0;
            peer.offset = peer.bytes[way];
            peer.direction = datagram.way;
        }
        peer.used = datagram.now;
        peer.last = datagram.now;
        peer.packets += datagram.packets;
        peer.count += u64::from(datagram.bytes);
        peer.bytes[way] += u64::from(datagram.bytes);
        let left = datagram.cap.saturating_sub(peer.head[way]);
        let up = if left < datagram.bytes {
            left
        } else {
            datagram.bytes
        };
        peer.head[way] = peer.head[way].saturating_add(up);
        // SAFETY: as above.
        unsafe { bpf_spin_unlock(&raw mut self.lock) };
        up
    }

    /// Forgets a peer; a burst of it goes to `ended`.
    #[inline(always)]
    pub fn forget(&mut self, place: usize, ended: &mut Peer) {
        // SAFETY: the lock of this value; nothing is called while it is held.
        unsafe { bpf_spin_lock(&raw mut self.lock) };
        let peer = &mut self.peers[place % PEERS];
        peer.copy_to(ended);
        peer.used = 0;
        peer.packets = 0;
        // SAFETY: as above.
        unsafe { bpf_spin_unlock(&raw mut self.lock) };
    }
}

impl Peer {
    /// Copies it, a word at a time: a plain copy can become a call, and before 6.8
    /// nothing may be called while a lock is held.
    #[inline(always)]
    fn copy_to(&self, to: &mut Self) {
        const WORDS: usize = size_of::<Peer>() / size_of::<u64>();
        const { assert!(align_of::<Peer>() == align_of::<u64>()) };
        let (from, to) = (
            (&raw const *self).cast::<u64>(),
            (&raw mut *to).cast::<u64>(),
        );
        let mut word = 0;
        while word < WORDS {
            // SAFETY: both are a Peer, which is as many aligned words long, without padding.
            unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
            word += 1;
        }
    }

    /// Becomes another's; a burst of who was here goes to `ended`.
    #[inline(always)]
    fn replace(&mut self, who: &Who, ended: &mut Peer) {
        self.copy_to(ended);
        self.who = *who;
        for way in 0..2 {
            // Volatile, because zeroes in a row can become a call too.
            // SAFETY: members of a map value.
            unsafe {
                (&raw mut self.head[way]).write_volatile(0);
                (&raw mut self.bytes[way]).write_volatile(0);
            }
        }
        self.packets = 0;
    }
}

/// The peers of `sk`, or nothing if it has had none.
///
/// # Safety
/// `sk` is a socket pointer from a program's context, checked for null.
#[inline(always)]
pub unsafe fn get<'a>(sk: *mut bpf_sock) -> Option<&'a mut Peers> {
    // SAFETY: per this function's contract; the kernel keeps the storage while the
    // program runs.
    unsafe { storage(sk, 0).as_mut() }
}

/// As [`get`], made if missing: zeroes.
///
/// # Safety
/// As [`get`].
#[inline(always)]
pub unsafe fn get_or_create<'a>(sk: *mut bpf_sock) -> Option<&'a mut Peers> {
    // SAFETY: as in `get`.
    unsafe { storage(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)).as_mut() }
}

/// # Safety
/// As [`get`].
#[inline(always)]
unsafe fn storage(sk: *mut bpf_sock, flags: u64) -> *mut Peers {
    // SAFETY: the loader puts the map in PEERS' place; the caller vouches for `sk`.
    unsafe {
        bpf_sk_storage_get(
            (&raw const maps::PEERS).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            flags,
        )
    }
    .cast()
}
