//! Protocols of datagrams, each of which is a message.

use super::{Answer, Fact, Side, dns, quic, tool};

/// Follows one flow of datagrams.
pub trait DatagramParser: Send {
    /// Takes what was captured of one datagram of `len` bytes, and adds what it
    /// noticed to `facts`. Datagrams come as the network delivered them: some are
    /// missing, some come twice or late.
    fn datagram(&mut self, side: Side, bytes: &[u8], len: u32, facts: &mut Vec<Fact>) -> Answer;

    /// Bytes of memory that an unfinished message takes.
    fn held(&self) -> usize {
        0
    }

    /// Whether it reads every datagram, not only those of the captured head.
    fn wants_all(&self) -> bool {
        false
    }
}

/// One entry of the registry.
pub struct DatagramProtocol {
    /// Name, as in the `protocol` member of `flow` events.
    pub name: &'static str,
    /// Whether it is in what ICMP's echoes carry, and not in UDP.
    pub is_in_echoes: bool,
    /// Makes a parser for a new flow.
    pub parser: fn() -> Box<dyn DatagramParser>,
}

/// Every protocol, tried together on each flow; the first found wins.
pub static DATAGRAM_PROTOCOLS: &[DatagramProtocol] = &[
    DatagramProtocol {
        name: dns::NAME,
        is_in_echoes: false,
        parser: || Box::new(dns::OverDatagrams::default()),
    },
    DatagramProtocol {
        name: quic::NAME,
        is_in_echoes: false,
        parser: || Box::new(quic::Quic::default()),
    },
    DatagramProtocol {
        name: "tunnel-tool",
        is_in_echoes: false,
        parser: || Box::new(tool::datagrams::OverDatagrams::default()),
    },
    DatagramProtocol {
        name: "icmp-tunnel",
        is_in_echoes: true,
        parser: || Box::new(tool::icmp::Echoes::default()),
    },
];
