//! Flows: who talks to whom, how much, in what protocol.
//!
//! A flow is (cookie, generation), or (cookie, peer) for a datagram socket that is
//! not connected. It may begin with any record: data before
//! its connect, or in the middle of its life. What the kernel sends of its
//! bytes is put in order and fed to the protocol parsers.

pub mod address;
mod datagrams;
mod followed;
mod handshake;
pub mod names;
pub mod stream;
pub mod table;
mod traffic;

use std::sync::Arc;

use agent_monitor_common::event::{FlowId, PEER_FLOW};

use crate::decode::{Burst, ProcessKey};
use crate::event::{Address, Direction, Outcome, Transport};
use crate::protocol::{Fact, Side, http, ssh};

pub use followed::Steering;
pub use table::Table;
pub use traffic::Traffic;

/// Fingerprints of the programs that speak on a flow, as hexadecimal texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of an SSH client, by its KEXINIT.
    pub hassh: Option<Arc<str>>,
    /// Of an SSH server.
    pub hassh_server: Option<Arc<str>>,
    /// Of a TLS or QUIC client, by its ClientHello.
    pub ja4: Option<Arc<str>>,
}

/// One flow, as known so far.
#[derive(Debug)]
pub struct Flow {
    /// Which.
    pub id: FlowId,
    /// The agent it belongs to.
    pub agent: u64,
    /// Who made the socket; for an accepted flow, who made the listener.
    pub owner: ProcessKey,
    /// Who called connect().
    pub connector: Option<ProcessKey>,
    /// The flow on which data last arrived for the connector, and when.
    pub cause: Option<(FlowId, u64)>,
    /// Over what.
    pub transport: Transport,
    /// It is made of datagrams, each a message, or of a raw socket's packets.
    pub is_datagrams: bool,
    /// Who began it, if known.
    pub direction: Option<Direction>,
    /// This end.
    pub local: Option<Address>,
    /// The other end.
    pub remote: Option<Address>,
    /// Nanoseconds since boot of the first record about it.
    pub begun: u64,
    /// Nanoseconds since boot of the handshake's end.
    pub established: Option<u64>,
    /// It was open before the watch began: when is not known, and its direction is
    /// guessed.
    pub is_found: bool,
    /// Its protocol, once a parser has found it.
    pub protocol: Option<&'static str>,
    /// The name of the server that is asked for: SNI, Host, or what a proxy is to connect to.
    pub server_name: Option<Arc<str>>,
    /// What the last proxy is to connect to, if that one was reached through another.
    pub leads_to: Option<Arc<str>>,
    /// The name for which the agent's resolver answered the other end's address.
    pub resolved_name: Option<Arc<str>>,
    /// What its first messages tell of the programs at both ends.
    pub fingerprints: Fingerprints,
    /// Some place of a stream was sent with different bytes.
    pub is_ambiguous: bool,
    /// Payload bytes out and in, as of the last burst or the end.
    pub bytes: [u64; 2],
    /// Segments with payload out and in.
    pub packets: [u64; 2],
    /// The other end's flow, when that is an agent's on this node too.
    pub peer: Option<FlowId>,
    /// Id of the first event that told of it.
    pub event: Option<Arc<str>>,
    /// Nanoseconds since boot of its end. A last burst may be told of later.
    pub closed: Option<u64>,
    /// What became of it, once it is over.
    pub result: Option<Outcome>,
    /// Segments sent again, once it is over.
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time in microseconds, once it is over.
    pub rtt_us: Option<u32>,
}

impl Flow {
    /// A flow of `agent` of which nothing is known.
    #[cfg(test)]
    pub(crate) fn unknown(agent: u64) -> Self {
        Self {
            id: FlowId::default(),
            agent,
            owner: ProcessKey::default(),
            connector: None,
            cause: None,
            transport: Transport::Tcp,
            is_datagrams: false,
            direction: None,
            local: None,
            remote: None,
            begun: 0,
            established: None,
            is_found: false,
            protocol: None,
            server_name: None,
            leads_to: None,
            resolved_name: None,
            fingerprints: Fingerprints::default(),
            is_ambiguous: false,
            bytes: [0; 2],
            packets: [0; 2],
            peer: None,
            event: None,
            closed: None,
            result: None,
            retransmits: None,
            rtt_us: None,
        }
    }

    /// Whether the other end is this machine or a private network.
    pub fn is_inside(&self) -> bool {
        match (self.remote, self.local) {
            (Some(remote), local) => {
                address::is_inside(remote.ip) || local.is_some_and(|local| local.ip == remote.ip)
            }
            (None, _) => false,
        }
    }

    /// Keeps what a parser noticed of names and programs; the first of each stays.
    fn learn(&mut self, fact: &Fact) {
        if let Some(name) = fact.server_name() {
            let is_proxied = matches!(
                fact,
                Fact::Socks(_) | Fact::Http(http::Fact::Connect { .. })
            );
            let known = self.server_name.get_or_insert_with(|| name.into());
            if is_proxied && **known != *name {
                self.leads_to = Some(name.into());
            }
        }
        let known = &mut self.fingerprints;
        match fact {
            Fact::Ssh(ssh::Fact::Kex {
                hassh,
                hassh_server,
                ..
            }) => {
                known.hassh.get_or_insert_with(|| hassh.as_str().into());
                known
                    .hassh_server
                    .get_or_insert_with(|| hassh_server.as_str().into());
            }
            Fact::Tls(tls) => {
                known.ja4.get_or_insert_with(|| tls.ja4.as_str().into());
            }
            _ => {}
        }
    }

    /// What the other end is called.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.server_name.as_ref().or(self.resolved_name.as_ref())
    }

    /// Whether the agent began it; an unknown direction is guessed from the
    /// ports: servers have the lower one.
    pub fn is_outbound(&self) -> bool {
        match (self.direction, self.local, self.remote) {
            (Some(direction), _, _) => direction == Direction::Outbound,
            (None, Some(local), Some(remote)) => remote.port <= local.port,
            (None, ..) => true,
        }
    }

    /// Which flow it is, as evidence.
    pub fn in_words(&self) -> String {
        let address =
            |end: Option<Address>| end.map_or_else(|| "?".to_owned(), |it| it.to_string());
        let (local, remote) = (address(self.local), address(self.remote));
        let arrow = if self.is_outbound() { "→" } else { "←" };
        let id = id_text(self.id);
        let mut words = format!("flow {id}: {} {local} {arrow} {remote}", self.transport);
        if let Some(name) = &self.server_name {
            words += &format!(", asked for as {name}");
        }
        if let Some(name) = &self.leads_to {
            words += &format!(", and through it {name}");
        }
        let known = &self.fingerprints;
        for (what, fingerprint) in [
            ("HASSH of the client", &known.hassh),
            ("HASSH of the server", &known.hassh_server),
            ("JA4", &known.ja4),
        ] {
            if let Some(fingerprint) = fingerprint {
                words += &format!(", {what} {fingerprint}");
            }
        }
        words
    }

    /// The agent's end, in terms of who began the flow.
    pub fn agent_side(&self) -> Side {
        if self.is_outbound() {
            Side::Initiator
        } else {
            Side::Responder
        }
    }
}

/// What a record changed.
#[derive(Debug)]
pub enum Change {
    /// connect() was called.
    Attempted,
    /// A datagram went to a new peer.
    Sent,
    /// The handshake is complete.
    Opened,
    /// It was open before the watch began.
    Found,
    /// A parser found its protocol.
    Identified,
    /// A parser noticed something.
    Fact(Fact),
    /// Some place of a stream came again with other bytes.
    Ambiguous,
    /// A burst ended.
    Burst(Burst),
    /// It never was established.
    Failed,
    /// It is over.
    Closed,
    /// It is no longer followed: it was quiet for long, or there were too many.
    Evicted,
}

/// A flow's id as text: the socket's cookie and how often it had been connected
/// before, `1f-0`; or the cookie and who the peer is, `1f-p11cb0071010035`, for one
/// peer of a datagram socket that is not connected to it. Readers should take it
/// as opaque: it is the same wherever one flow is meant, and of no other.
pub fn id_text(id: FlowId) -> String {
    match id.generation & PEER_FLOW {
        0 => format!("{:x}-{}", id.cookie, id.generation),
        _ => format!("{:x}-p{:x}", id.cookie, id.generation & !PEER_FLOW),
    }
}
