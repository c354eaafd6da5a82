//! What stands in for the kernel side where there are only packets: the records
//! it would have sent, had it been there.
//!
//! Headers, fragments and the state of connections are read here; what the bytes
//! mean is left to the same stages as live. Checksums are not looked at: captures
//! of what a machine sends often lack them.

#![forbid(unsafe_code)]

mod bursts;
mod datagrams;
pub mod file;
mod fragments;
mod ip;
mod link;
mod tcp;
#[cfg(test)]
mod tests;
mod whose;

use std::net::IpAddr;

use agent_monitor_common::event::FlowId;
use agent_monitor_common::policy::FlowControl;
use ipnet::IpNet;

use crate::decode::{Body, ProcessKey, Record};
use crate::event::{Address, Outcome};
use datagrams::{Datagrams, Message};
use file::Frame;
use fragments::Fragments;
use ip::Packet;
use link::Payload;
use tcp::{Connections, Segment};
use whose::Whose;

/// The one agent of a capture, in its records.
pub const AGENT: u64 = 1;

/// TCP connections, and as many flows of datagrams, that are followed at once.
const MAX_FLOWS: usize = 32_768;
/// What is forgotten at once when there are too many.
const EVICT: usize = MAX_FLOWS / 16;

/// IANA, "Assigned Internet Protocol Numbers".
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NO_NEXT_HEADER: u8 = 59;

/// Why a packet ends a replay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its frame cannot be unpacked.
    #[error(
        "packet {number} has link type {link}, which is not read: only Ethernet, raw IP, \
         Linux cooked captures and BSD loopback are"
    )]
    UnknownLink {
        /// Which packet.
        number: u64,
        /// `LINKTYPE_*`.
        link: u32,
    },
}

/// What could not be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Packets whose headers are cut or contradict themselves.
    pub packets: u64,
    /// Packets of which not all fragments are there.
    pub fragmented: u64,
    /// Packets of which less was kept in the capture than is looked at.
    pub cut: u64,
    /// Flows that were forgotten because there were too many.
    pub flows: u64,
}

/// Makes records from packets.
#[derive(Default)]
pub struct Packets {
    whose: Whose,
    fragments: Fragments,
    connections: Connections,
    datagrams: Datagrams,
    state: State,
    malformed: u64,
}

/// What connections and datagrams share.
#[derive(Default)]
struct State {
    now: u64,
    flows: u64,
    /// The flow on which data came in last, and when.
    last_in: Option<(FlowId, u64)>,
    /// Packets of which less was kept than is looked at.
    cut: u64,
}

/// What a packet is looked at in.
struct Context<'a> {
    whose: &'a Whose,
    state: &'a mut State,
    now: u64,
    out: &'a mut Vec<Record>,
}

impl Context<'_> {
    fn tell(&mut self, body: Body) {
        self.out.push(Record {
            time: self.now,
            agent: AGENT,
            cgroup: 0,
            process: ProcessKey::default(),
            body,
        });
    }

    fn new_flow(&mut self) -> FlowId {
        self.state.flows += 1;
        FlowId {
            cookie: self.state.flows,
            generation: 0,
        }
    }

    /// Of a packet `kept` bytes are there where `wanted` are looked at.
    fn note_kept(&mut self, kept: usize, wanted: usize) {
        self.state.cut += u64::from(kept < wanted);
    }

    fn last_in(&self) -> Option<(FlowId, u64)> {
        self.state.last_in
    }

    fn note_in(&mut self, flow: FlowId) {
        self.state.last_in = Some((flow, self.now));
    }
}

impl Packets {
    /// For agents in these networks; without any, whoever begins a flow is one.
    pub fn new(nets: Vec<IpNet>) -> Self {
        Self {
            whose: Whose { nets },
            ..Self::default()
        }
    }

    /// Takes a packet; adds the records that follow from it.
    ///
    /// # Errors
    /// The packet's link is not known.
    pub fn take(
        &mut self,
        number: u64,
        frame: Frame<'_>,
        out: &mut Vec<Record>,
    ) -> Result<(), Error> {
        self.state.now = frame.time.unwrap_or(self.state.now);
        let packet = match link::payload(frame.link, frame.data) {
            Payload::Ip(bytes) => ip::parse(bytes),
            Payload::Other => return Ok(()),
            Payload::Short => None,
            Payload::UnknownLink => {
                let link = frame.link;
                return Err(Error::UnknownLink { number, link });
            }
        };
        let Some(packet) = packet else {
            self.malformed += 1;
            return Ok(());
        };
        match packet.fragment {
            None => self.whole(&packet, out),
            Some(fragment) => {
                let whole = self.fragments.take(&packet, fragment, self.state.now);
                if let Some((protocol, bytes)) = whole {
                    let mut whole = Packet {
                        protocol,
                        payload: &bytes,
                        length: bytes.len(),
                        fragment: None,
                        ..packet
                    };
                    // A fragment of a fragment is nothing that anybody sends.
                    match whole
                        .skip_extensions()
                        .filter(|()| whole.fragment.is_none())
                    {
                        Some(()) => self.whole(&whole, out),
                        None => self.malformed += 1,
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes up a wish for the flow that was last told of: how much to tell of it.
    pub fn steer(&mut self, flow: FlowId, control: FlowControl) {
        self.connections.steer(flow, control);
        self.datagrams.steer(flow, control);
    }

    /// Time of the last packet, nanoseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.state.now
    }

    /// Tells of what is left at the capture's end.
    pub fn end(&mut self, out: &mut Vec<Record>) -> Lost {
        self.fragments.end();
        let mut context = Context {
            whose: &self.whose,
            now: self.state.now,
            state: &mut self.state,
            out,
        };
        self.connections.end(&mut context);
        self.datagrams.end(&mut context);
        Lost {
            packets: self.malformed,
            fragmented: self.fragments.dropped,
            cut: self.state.cut,
            flows: self.connections.evicted + self.datagrams.evicted,
        }
    }

    /// A whole IP packet.
    fn whole(&mut self, packet: &Packet<'_>, out: &mut Vec<Record>) {
        let context = &mut Context {
            whose: &self.whose,
            now: self.state.now,
            state: &mut self.state,
            out,
        };
        self.connections.give_up(context);
        let (source, destination) = (packet.source, packet.destination);
        match packet.protocol {
            TCP => {
                let (bytes, length) = (packet.payload, packet.length);
                match Segment::parse(source, destination, bytes, length) {
                    Some(segment) => self.connections.take(context, &segment),
                    None => self.malformed += 1,
                }
            }
            UDP => match udp(packet) {
                Some(message) => self.datagrams.take(context, &message),
                None => self.malformed += 1,
            },
            ICMP | ICMPV6 => match icmp(packet) {
                Some(Icmp::Echo(message)) => self.datagrams.take(context, &message),
                Some(Icmp::Failed { from, to, result }) => {
                    self.connections.failed(context, from, to, result);
                }
                Some(Icmp::Other) => {}
                None => self.malformed += 1,
            },
            // What a network's own machinery says.
            IGMP | NO_NEXT_HEADER => {}
            protocol => {
                let port = 0;
                let message = Message {
                    source: Address { ip: source, port },
                    destination: Address {
                        ip: destination,
                        port,
                    },
                    protocol,
                    payload: packet.payload,
                    length: packet.length,
                };
                self.datagrams.take(context, &message);
            }
        }
    }
}

/// The 1/16 that is to go: those that are over first, then those quiet longest.
fn oldest<K: Copy + Ord>(all: impl Iterator<Item = (bool, u64, K)>) -> Vec<K> {
    let mut all: Vec<(bool, u64, K)> = all.collect();
    if all.len() > EVICT {
        all.select_nth_unstable(EVICT);
        all.truncate(EVICT);
    }
    all.sort_unstable();
    all.into_iter().map(|(_, _, key)| key).collect()
}

fn udp<'a>(packet: &Packet<'a>) -> Option<Message<'a>> {
    let (header, payload) = packet.payload.split_first_chunk::<8>()?;
    let said = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let length = match said {
        // Before the card cut it (UFO), or a jumbogram.
        0 => packet.length,
        said => said.min(packet.length),
    };
    let length = length.checked_sub(header.len())?;
    Some(Message {
        source: Address {
            ip: packet.source,
            port: u16::from_be_bytes([header[0], header[1]]),
        },
        destination: Address {
            ip: packet.destination,
            port: u16::from_be_bytes([header[2], header[3]]),
        },
        protocol: UDP,
        payload: &payload[..payload.len().min(length)],
        length,
    })
}

enum Icmp<'a> {
    Echo(Message<'a>),
    /// An attempt to reach somebody by TCP failed.
    Failed {
        from: Address,
        to: Address,
        result: Outcome,
    },
    Other,
}

fn icmp<'a>(packet: &Packet<'a>) -> Option<Icmp<'a>> {
    let (header, payload) = packet.payload.split_first_chunk::<8>()?;
    let at = |ip: IpAddr, port| Address { ip, port };
    match (packet.protocol, header[0], header[1]) {
        // RFC 792 and RFC 4443: echo requests and answers.
        (ICMP, 0 | 8, _) | (ICMPV6, 128 | 129, _) => Some(Icmp::Echo(Message {
            source: at(packet.source, 0),
            destination: at(packet.destination, 0),
            protocol: packet.protocol,
            payload,
            length: packet.length.checked_sub(header.len())?,
        })),
        // Too big for a link on the way: sent again in smaller pieces.
        (ICMP, 3, 4) => Some(Icmp::Other),
        (ICMP, 3, code) | (ICMPV6, 1, code) => {
            let Some(quoted) = ip::parse(payload).filter(|quoted| quoted.protocol == TCP) else {
                return Some(Icmp::Other);
            };
            let Some(&[s0, s1, d0, d1]) = quoted.payload.first_chunk() else {
                return Some(Icmp::Other);
            };
            // What the kernel makes of it: icmp_err_convert (net/ipv4/icmp.c), and in
            // net/ipv6/icmp.c, where a port is code 4.
            let is_port = code == if packet.protocol == ICMP { 3 } else { 4 };
            Some(Icmp::Failed {
                from: at(quoted.source, u16::from_be_bytes([s0, s1])),
                to: at(quoted.destination, u16::from_be_bytes([d0, d1])),
                result: match is_port {
                    true => Outcome::Refused,
                    false => Outcome::Unreachable,
                },
            })
        }
        _ => Some(Icmp::Other),
    }
}
