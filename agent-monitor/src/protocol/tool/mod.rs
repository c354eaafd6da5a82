//! Tunnel programs, by the first bytes of their own protocols.
//!
//! `names` knows them by the servers they talk to, `datagrams` those that speak
//! over UDP. Those that speak HTTP, SSH, TLS or DNS are recognised there and told
//! of with the same fact.

pub mod datagrams;
pub mod icmp;
pub mod names;

#[cfg(test)]
mod tests;

use super::{Answer, Input, Parser, Side, Wants, dns, http, tls};

/// Bytes of each side that are looked at.
const LOOKED_AT: usize = 512;
/// Bytes kept as evidence.
const BYTES_MAX: usize = 64;
/// rathole's hello: u32 kind, u8 version, SHA-256 (src/protocol.rs).
const RATHOLE_HELLO: usize = 4 + 1 + 32;
/// Longest message frp accepts (pkg/msg of its golib, `maxMsgLength`).
const FRP_MAX: u64 = 10_240;
/// Header of a yamux frame: version, type, u16 flags, u32 stream, u32 length.
const YAMUX_HEADER: usize = 12;

/// Cipher suites that Tor offers, as the middle part of JA4 has them: the list is its own
/// (lib/tls/ciphers.inc of its source), measured with 0.4.9.11 and OpenSSL 3.0.19.
const TOR_CIPHERS: &str = "796efca44d18";

/// A tunnel program was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its name.
    pub tool: &'static str,
    /// What shows it, in words.
    pub shown_by: String,
    /// At most 64 bytes that show it.
    pub bytes: Vec<u8>,
}

impl Fact {
    fn new(tool: &'static str, shown_by: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            tool,
            shown_by: shown_by.into(),
            bytes: bytes[..bytes.len().min(BYTES_MAX)].to_vec(),
        }
    }

    /// The fact in a few words.
    pub fn in_words(&self) -> String {
        format!("{} ({})", self.tool, self.shown_by)
    }
}

/// The program whose WebSocket this request asks for.
pub(super) fn by_upgrade(request: &http::Request) -> Option<Fact> {
    let name = request.subprotocol.as_deref()?;
    let tool = if name.starts_with("chisel-v") {
        "chisel"
    } else if request.path().ends_with(b"/events") && name.contains("authorization.bearer.") {
        "wstunnel"
    } else {
        return None;
    };
    // What follows `bearer.` is a credential.
    let shown = name.split(',').next().unwrap_or_default();
    Some(Fact::new(
        tool,
        format!("WebSocket subprotocol {shown}"),
        &[],
    ))
}

/// The program that says this as its SSH identification.
pub(super) fn by_banner(banner: &str) -> Option<Fact> {
    let is_chisel = banner.starts_with("SSH-chisel-");
    is_chisel.then(|| Fact::new("chisel", "SSH identification", banner.as_bytes()))
}

/// The program that says this in a ClientHello.
pub(super) fn by_hello(hello: &tls::Fact) -> Option<Fact> {
    // What cloudflared offers over QUIC (connection/protocol.go of its source).
    if hello.alpn.iter().any(|name| name == "argotunnel") {
        let words = "protocol argotunnel in its ClientHello";
        return Some(Fact::new("cloudflared", words, &[]));
    }
    let name = hello.sni.as_deref()?;
    let is_tor = is_name_of_tor(name) && hello.ja4.split('_').nth(1) == Some(TOR_CIPHERS);
    let words = format!("its cipher suites and a made-up name, {name}, in its ClientHello");
    (is_tor && hello.alpn.is_empty()).then(|| Fact::new("Tor", words, &[]))
}

/// Tor asks relays for a made-up host: 4 to 25 characters of base32
/// (`crypto_random_hostname`, core/or/connection_or.c of its source).
fn is_name_of_tor(name: &str) -> bool {
    let random = name
        .strip_prefix("www.")
        .and_then(|rest| rest.strip_suffix(".com"));
    let is_base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    random.is_some_and(|text| (4..=25).contains(&text.len()) && text.bytes().all(is_base32))
}

/// The program that is answered so in DNS.
pub(super) fn by_dns(message: &dns::Message) -> Option<Fact> {
    let question = message.question.as_ref()?;
    // iodine asks for a version first, with `v`, and is told that it fits
    // (src/iodined.c, `send_version_response`).
    let asks = question.name.starts_with(['v', 'V']) && question.kind == dns::Type::NULL;
    let vack = |answer: &dns::Answer| {
        let data = answer.data.strip_prefix("\\# ");
        let hex = data.and_then(|data| data.split_once(' '));
        hex.is_some_and(|(_, hex)| hex.starts_with("5641434b"))
    };
    let answer = message.answers.iter().find(|answer| vack(answer))?;
    let (asked, answered) = (&question.name, &answer.data);
    asks.then(|| {
        let words = format!("asked for NULL {asked}, answered VACK: {answered}");
        Fact::new("iodine", words, &[])
    })
}

/// Looks at the first bytes of one flow.
#[derive(Default)]
pub struct Tools {
    said: [Vec<u8>; 2],
    found: bool,
}

impl Parser for Tools {
    fn feed(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::Fact>) -> Answer {
        if self.found {
            return Answer::Found;
        }
        let Input::Bytes(bytes) = input else {
            return match input {
                Input::Skipped(0) => Answer::NeedMore,
                _ => Answer::NotThis,
            };
        };
        let said = &mut self.said[side as usize];
        let room = LOOKED_AT - said.len();
        said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let [client, server] = &self.said;
        match recognise(client, server) {
            Look::Is(fact) => {
                facts.push(super::Fact::Tool(fact));
                self.found = true;
                Answer::Found
            }
            Look::MayBe if bytes.len() <= room => Answer::NeedMore,
            Look::MayBe | Look::IsNot => Answer::NotThis,
        }
    }

    fn wants(&self) -> Wants {
        Wants::Nothing
    }
}

/// What first bytes are.
enum Look {
    Is(Fact),
    MayBe,
    IsNot,
}

fn recognise(client: &[u8], server: &[u8]) -> Look {
    let looks = [frp(client), bore(client, server), rathole(client, server)];
    let mut may_be = false;
    for look in looks {
        match look {
            Look::Is(fact) => return Look::Is(fact),
            Look::MayBe => may_be = true,
            Look::IsNot => {}
        }
    }
    match may_be {
        true => Look::MayBe,
        false => Look::IsNot,
    }
}

/// Whether bytes begin so, or may come to.
fn starts(bytes: &[u8], with: &[u8]) -> Option<bool> {
    let both = bytes.len().min(with.len());
    (bytes[..both] == with[..both]).then_some(both == with.len())
}

fn frp(client: &[u8]) -> Look {
    // A byte of its own before TLS, and the second version's magic.
    for (magic, shown_by) in [
        (&b"\x17\x16\x03"[..], "a byte 0x17 before TLS"),
        (b"FRP\x00\x02\r\n", "magic of version 2"),
    ] {
        match starts(client, magic) {
            Some(true) => return Look::Is(Fact::new("frp", shown_by, client)),
            Some(false) => return Look::MayBe,
            None => {}
        }
    }
    // By default all is in one yamux session.
    let mut rest = client;
    while let [0, kind @ 0..=1, 0, 0 | 1, ..] = rest {
        let Some((_, after)) = rest.split_at_checked(YAMUX_HEADER) else {
            return Look::MayBe;
        };
        rest = after;
        if *kind == 0 {
            break;
        }
    }
    let after_header = rest.len() < client.len();
    if (after_header && rest.is_empty()) || (rest.len() < 4 && rest.first() == Some(&0)) {
        return Look::MayBe;
    }
    let [b'o', rest @ ..] = rest else {
        return Look::IsNot;
    };
    let Some((length, json)) = rest.split_first_chunk::<8>() else {
        return match rest.iter().take(6).all(|byte| *byte == 0) {
            true => Look::MayBe,
            false => Look::IsNot,
        };
    };
    if u64::from_be_bytes(*length) > FRP_MAX {
        return Look::IsNot;
    }
    match starts(json, b"{\"version\":\"") {
        Some(true) => Look::Is(Fact::new("frp", "login message", client)),
        Some(false) => Look::MayBe,
        None => Look::IsNot,
    }
}

/// JSON with a NUL behind it (bore's src/shared.rs).
fn bore(client: &[u8], server: &[u8]) -> Look {
    // A server that asks for a secret speaks first; its client answers that.
    let answers = client.is_empty() || starts(client, b"{\"Authenticate\":\"").is_some();
    let server = if answers { server } else { b"-" };
    let mut may_be = false;
    for (said, begin, is_value) in [
        (client, &b"{\"Hello\":"[..], is_port as fn(&[u8]) -> bool),
        (client, b"{\"Accept\":\"", is_uuid),
        (server, b"{\"Challenge\":\"", is_uuid),
    ] {
        match starts(said, begin) {
            Some(true) => match memchr::memchr(0, said) {
                Some(end) if is_value(&said[begin.len()..end]) => {
                    return Look::Is(Fact::new("bore", "its first message", said));
                }
                Some(_) => {}
                None => may_be |= said.len() < 64,
            },
            Some(false) => may_be = true,
            None => {}
        }
    }
    match may_be {
        true => Look::MayBe,
        false => Look::IsNot,
    }
}

fn is_port(value: &[u8]) -> bool {
    match value.split_last() {
        Some((b'}', digits)) => {
            (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

fn is_uuid(value: &[u8]) -> bool {
    let hex = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    value.len() == 38 && value.ends_with(b"\"}") && value[..36].iter().all(hex)
}

/// A hello of 37 bytes; of a control channel it is answered by another.
fn rathole(client: &[u8], server: &[u8]) -> Look {
    let is_hello = |said: &[u8], kind| match starts(said, &[kind, 0, 0, 0, 1]) {
        Some(_) if said.len() < RATHOLE_HELLO => Some(false),
        Some(_) if said.len() == RATHOLE_HELLO && is_digest(&said[5..]) => Some(true),
        _ => None,
    };
    match (
        is_hello(client, 0),
        is_hello(client, 1),
        is_hello(server, 0),
    ) {
        (Some(true), _, Some(true)) => Look::Is(Fact::new(
            "rathole",
            "both sides' control hello of 37 bytes",
            client,
        )),
        // A data channel's server goes on with a command of four bytes.
        (_, Some(true), _) if matches!(server, [0 | 1, 0, 0, 0, ..]) => {
            Look::Is(Fact::new("rathole", "data hello of 37 bytes", client))
        }
        (Some(true), _, None) if server.len() >= RATHOLE_HELLO => Look::IsNot,
        (Some(_), ..) | (_, Some(_), _) => Look::MayBe,
        _ => Look::IsNot,
    }
}

/// 32 bytes of a hash: of random ones 30 differ, and 20 practically always.
fn is_digest(bytes: &[u8]) -> bool {
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    different.len() >= 20
}
