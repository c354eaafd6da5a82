//! What a flow has carried, burst by burst, told of as the kernel side does.

use agent_monitor_common::event::FlowId;
use agent_monitor_common::limits::{BURST_BYTES, BURST_QUIET_NS};
use bytes::Bytes;

use crate::decode::{Burst, Way};

/// Counters of both directions of a flow, and the burst that is going on.
#[derive(Debug, Default)]
pub struct Bursts {
    /// Bytes out and in.
    pub bytes: [u64; 2],
    /// Packets with payload out and in.
    pub packets: [u64; 2],
    /// Bytes and packets that were told of.
    told: [(u64, u64); 2],
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    way: Way,
    first: u64,
    last: u64,
    data: [u8; BURST_BYTES],
    length: usize,
}

/// A direction's place in a pair.
pub fn index(way: Way) -> usize {
    match way {
        Way::Out => 0,
        Way::In => 1,
    }
}

impl Bursts {
    /// Counts a packet with `new` bytes; gives the burst that it ends.
    pub fn count(
        &mut self,
        flow: FlowId,
        way: Way,
        now: u64,
        new: u64,
        payload: &[u8],
    ) -> Option<Burst> {
        let ended = match &mut self.open {
            Some(open) if open.way == way && now.saturating_sub(open.last) <= BURST_QUIET_NS => {
                open.last = now;
                None
            }
            _ => {
                let ended = self.end(flow);
                let mut data = [0; BURST_BYTES];
                let length = payload.len().min(BURST_BYTES);
                data[..length].copy_from_slice(&payload[..length]);
                self.open = Some(Open {
                    way,
                    first: now,
                    last: now,
                    data,
                    length,
                });
                ended
            }
        };
        let way = index(way);
        self.bytes[way] = self.bytes[way].saturating_add(new);
        self.packets[way] += 1;
        ended
    }

    /// Ends the burst that is going on.
    pub fn end(&mut self, flow: FlowId) -> Option<Burst> {
        let open = self.open.take()?;
        let way = index(open.way);
        let (bytes, packets) = self.told[way];
        self.told[way] = (self.bytes[way], self.packets[way]);
        Some(Burst {
            flow,
            way: open.way,
            first: open.first,
            last: open.last,
            bytes: self.bytes[way] - bytes,
            offset: bytes,
            packets: u32::try_from(self.packets[way] - packets).unwrap_or(u32::MAX),
            data: Bytes::copy_from_slice(&open.data[..open.length]),
        })
    }
}
