//! One message (RFC 1035, 4): what is asked and what is answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name;
use super::types::{Code, Type};
use super::{Answer, Message, Question, Refused};

/// Bytes of a header.
pub const HEADER: usize = 12;
/// Questions of a message that are kept; all but mDNS ask one.
const MAX_QUESTIONS: usize = 8;
/// Answers of a message that are kept.
const MAX_ANSWERS: usize = 32;
/// Bytes of a record's data that are shown where its type has no text form here.
const MAX_OPAQUE: usize = 64;

/// Records in a query: EDNS, a signature, what a secondary server has of a zone.
const MAX_BESIDE_QUESTION: u32 = 4;

/// High bit of the header's flags: an answer.
const RESPONSE: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
/// Reserved: zero in every message.
const ZERO: u16 = 0x0040;
/// Standard query. Transfers, notices and updates are other numbers.
const QUERY: u16 = 0;
/// IN, CH, HS, NONE and ANY.
const CLASSES: [u16; 5] = [1, 3, 4, 254, 255];
/// A high bit of the class that mDNS uses (RFC 6762, 5.4 and 10.2).
const MDNS: u16 = 0x8000;

/// The header, if bytes can be a message's at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    flags: u16,
    /// Questions, answers, authorities, additional records.
    counts: [u16; 4],
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// There are too few bytes, or it contradicts itself.
    pub fn read(bytes: &[u8]) -> Result<Self, Refused> {
        let mut fields = [0; 6];
        for (field, pair) in fields.iter_mut().zip(bytes.chunks_exact(2)) {
            *field = u16::from_be_bytes([pair[0], pair[1]]);
        }
        if bytes.len() < HEADER {
            return Err(Refused::Short);
        }
        let [id, flags, counts @ ..] = fields;
        let header = Self { id, flags, counts };
        let [questions, answers, authorities, additional] = counts;
        let beside = u32::from(answers) + u32::from(authorities) + u32::from(additional);
        let asks = questions == 1 && beside <= MAX_BESIDE_QUESTION;
        let plausible = match header.is_response() {
            _ if flags & ZERO != 0 || header.opcode() != QUERY => false,
            true => questions <= 1 && u32::from(questions) + u32::from(answers) > 0,
            // mDNS asks several at once, and says what it knows.
            false => header.code() == Code::NOERROR && (asks || (id == 0 && questions > 0)),
        };
        if plausible {
            Ok(header)
        } else {
            Err(Refused::Malformed)
        }
    }

    fn is_response(self) -> bool {
        self.flags & RESPONSE != 0
    }

    fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    fn code(self) -> Code {
        Code(self.flags.to_be_bytes()[1] & 0xf)
    }
}

/// Reads a message of which `bytes` are there, all of it if `is_whole`. Gives it
/// once for each of its questions: multicast DNS asks several at once.
///
/// # Errors
/// It is none, or so little of it is there that no question can be read.
pub fn read(bytes: &[u8], is_whole: bool) -> Result<Vec<Message>, Refused> {
    let header = Header::read(bytes)?;
    let mut message = Message {
        id: header.id,
        is_response: header.is_response(),
        code: header.code(),
        is_truncated: header.flags & TRUNCATED != 0 || !is_whole,
        question: None,
        answers: Vec::new(),
    };
    let mut questions = Vec::new();
    match records(bytes, header, &mut questions, &mut message.answers) {
        // Without a question only a message that fits its length to the byte is one.
        Ok(end) if header.counts[0] == 0 && end != bytes.len() => Err(Refused::Malformed),
        // The question can be all that a tunnel needs, and what was cut off by the
        // network or by the capture says nothing against what is there.
        Err(Refused::Short) if message.is_truncated && !questions.is_empty() => Ok(()),
        end => end.map(drop),
    }?;
    let mut questions = questions.into_iter();
    message.question = questions.next();
    let others = questions.map(|question| Message {
        question: Some(question),
        answers: Vec::new(),
        ..message
    });
    let others: Vec<_> = others.collect();
    Ok(std::iter::once(message).chain(others).collect())
}

/// Reads what follows the header; gives the place after it.
fn records(
    bytes: &[u8],
    header: Header,
    questions: &mut Vec<Question>,
    answers: &mut Vec<Answer>,
) -> Result<usize, Refused> {
    let [asked, answered, authorities, additional] = header.counts;
    let mut at = HEADER;
    for _ in 0..asked {
        let (name, after) = name::read(bytes, at)?;
        let [kind, class] = numbers(bytes, after)?;
        if !CLASSES.contains(&(class & !MDNS)) {
            return Err(Refused::Malformed);
        }
        at = after + 4;
        if questions.len() < MAX_QUESTIONS {
            questions.push(Question {
                name,
                kind: Type(kind),
            });
        }
    }
    for _ in 0..answered {
        let record = Record::read(bytes, at)?;
        if answers.len() < MAX_ANSWERS && record.kind != Type::OPT {
            answers.push(record.answer(bytes)?);
        }
        at = record.end;
    }
    for _ in 0..u32::from(authorities) + u32::from(additional) {
        at = Record::read(bytes, at)?.end;
    }
    Ok(at)
}

fn numbers<const N: usize>(bytes: &[u8], at: usize) -> Result<[u16; N], Refused> {
    let bytes = bytes.get(at..at + 2 * N).ok_or(Refused::Short)?;
    let mut numbers = [0; N];
    for (number, pair) in numbers.iter_mut().zip(bytes.chunks_exact(2)) {
        *number = u16::from_be_bytes([pair[0], pair[1]]);
    }
    Ok(numbers)
}

/// Where the parts of a resource record are.
struct Record {
    at: usize,
    kind: Type,
    ttl: u32,
    data: usize,
    end: usize,
}

impl Record {
    fn read(bytes: &[u8], at: usize) -> Result<Self, Refused> {
        let after = name::skip(bytes, at)?;
        let [kind, _class, high, low, len] = numbers(bytes, after)?;
        let data = after + 10;
        let end = data + usize::from(len);
        if end > bytes.len() {
            return Err(Refused::Short);
        }
        Ok(Self {
            at,
            kind: Type(kind),
            ttl: u32::from(high) << 16 | u32::from(low),
            data,
            end,
        })
    }

    fn answer(&self, message: &[u8]) -> Result<Answer, Refused> {
        let data = &message[self.data..self.end];
        let (name, _) = name::read(message, self.at)?;
        Ok(Answer {
            name,
            kind: self.kind,
            ttl: self.ttl,
            ip: address(self.kind, data),
            data: self.text(message, data),
        })
    }

    /// The data as zone files have it; what does not fit its type as hex.
    fn text(&self, message: &[u8], data: &[u8]) -> String {
        if let Some(ip) = address(self.kind, data) {
            return ip.to_string();
        }
        let name = |skip: usize| match name::read(message, self.data + skip) {
            // A name may point to before its record, not run out of it.
            Ok((name, after)) if after <= self.end => Some(name),
            _ => None,
        };
        let text = match (self.kind, numbers::<3>(data, 0), numbers::<1>(data, 0)) {
            (Type::CNAME | Type::DNAME | Type::NS | Type::PTR | Type::SOA, ..) => name(0),
            (Type::MX, _, Ok([preference])) => name(2).map(|name| format!("{preference} {name}")),
            (Type::SRV, Ok([priority, weight, port]), _) => {
                name(6).map(|name| format!("{priority} {weight} {port} {name}"))
            }
            (Type::TXT, ..) => strings(data),
            _ => None,
        };
        text.unwrap_or_else(|| opaque(data))
    }
}

fn address(kind: Type, data: &[u8]) -> Option<IpAddr> {
    match kind {
        Type::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
        Type::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
        _ => None,
    }
}

/// Character strings, quoted, each a byte of length and so many bytes.
fn strings(mut data: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length))?;
        if !text.is_empty() {
            text.push(' ');
        }
        text.push('"');
        for byte in string {
            match byte {
                b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
                b' '..=b'~' => text.push(char::from(*byte)),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
        text.push('"');
        data = rest;
    }
    Some(text)
}

/// Data of any type (RFC 3597, 5): its length, and the first bytes in hex.
fn opaque(data: &[u8]) -> String {
    let shown = &data[..data.len().min(MAX_OPAQUE)];
    let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let more = if shown.len() < data.len() { "…" } else { "" };
    format!("\\# {} {hex}{more}", data.len())
        .trim_end()
        .to_owned()
}
