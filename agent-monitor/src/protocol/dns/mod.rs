//! DNS over datagrams and over TCP: what is asked, and what is answered.
//!
//! A message is recognised by its form: a header whose counts and reserved bits
//! fit, and a question of a known class. Ports do not matter.

mod message;
mod name;
mod stream;
mod types;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::datagram::DatagramParser;
use super::{Answer as Verdict, Side};
pub use stream::OverTcp;
pub use types::{Code, Type};

/// The protocol's name in `flow` events.
pub const NAME: &str = "dns";

/// Datagrams that may come before the first message: who puts something else
/// first is not let go at once.
const MAX_OTHERS: u32 = 16;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// They end too early.
    Short,
    /// They contradict themselves.
    Malformed,
}

/// A message, and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Who sent it.
    pub side: Side,
    /// Bytes of the message.
    pub bytes: u32,
    /// What it says.
    pub message: Message,
}

/// A question, or its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Joins an answer to its question.
    pub id: u16,
    /// It is an answer.
    pub is_response: bool,
    /// What became of the question.
    pub code: Code,
    /// Part of it is missing: it was too long for a datagram, or for us.
    pub is_truncated: bool,
    /// What is asked; an answer repeats it. Nothing in what is told unasked.
    pub question: Option<Question>,
    /// Records of the answer section, at most thirty-two.
    pub answers: Vec<Answer>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Name in printable ASCII, without its last dot; other bytes as `\DDD`.
    pub name: String,
    /// Type of record.
    pub kind: Type,
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose record it is, as [`Question::name`].
    pub name: String,
    /// Type of record.
    pub kind: Type,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    /// The address, if it is one.
    pub ip: Option<IpAddr>,
    /// What it says, in the form of zone files, in printable ASCII.
    pub data: String,
}

impl Message {
    /// Addresses that were answered, each with the name that was asked for:
    /// what the program that asked will connect to, and the seconds to live.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &str, u32)> {
        let is_answer = self.is_response && self.code == Code::NOERROR;
        let asked = self.question.as_ref().filter(|_| is_answer);
        self.answers
            .iter()
            .filter_map(move |answer| Some((answer.ip?, asked?.name.as_str(), answer.ttl)))
    }
}

/// Follows datagrams, each a message.
#[derive(Default)]
pub struct OverDatagrams {
    found: bool,
    others: u32,
}

impl DatagramParser for OverDatagrams {
    fn datagram(
        &mut self,
        side: Side,
        bytes: &[u8],
        len: u32,
        facts: &mut Vec<super::Fact>,
    ) -> Verdict {
        let is_whole = u32::try_from(bytes.len()) == Ok(len);
        match message::read(bytes, is_whole) {
            Ok(messages) => {
                self.found = true;
                for message in messages {
                    facts.extend(super::tool::by_dns(&message).map(super::Fact::Tool));
                    facts.push(fact(side, len, message));
                }
            }
            Err(_) => self.others += 1,
        }
        match self.found {
            true => Verdict::Found,
            false if self.others > MAX_OTHERS => Verdict::NotThis,
            false => Verdict::NeedMore,
        }
    }

    fn wants_all(&self) -> bool {
        self.found
    }
}

fn fact(side: Side, bytes: u32, message: Message) -> super::Fact {
    super::Fact::Dns(Fact {
        side,
        bytes,
        message,
    })
}
