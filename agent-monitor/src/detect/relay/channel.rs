//! A channel that SSH opens for a visitor, as its bursts show it whatever is
//! encrypted, compressed or padded.
//!
//! The server says that somebody has come, the client connects inside and
//! confirms, and only then may the server send what the visitor says (RFC 4254,
//! sections 5.1 and 7.2). So a message comes in, an inside connection is made,
//! a small one goes out *before* anything is sent inside, more comes in, that
//! goes inside, and the answer goes out. A program that connects by its own will sends its request at once.

use super::CAUSE_NS;
use super::pair::LAG_NS;
use super::spans::Spans;
use crate::decode::Way;

/// Most bytes of the message that tells of a visitor: 92 with chacha20 and addresses
/// as digits, 108 with encrypt-then-MAC, and what a name has more.
const OPEN_MAX: u64 = 192;
/// Most bytes of the confirmation: 44 with chacha20, 52 to 68 with encrypt-then-MAC, and as
/// much before it: asyncssh sends a message of 36 bytes that means nothing (measured).
const CONFIRMATION_MAX: u64 = 128;

/// A visitor who was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Bytes that came in before the inside connection was made.
    pub open: u64,
    /// Bytes that confirmed it.
    pub confirmation: u64,
}

/// The channel for which an inside connection was made at `begun`, once it has answered.
pub(super) fn opened(begun: u64, outside: &Spans, inside: &Spans) -> Option<Channel> {
    if inside.forgotten() > 0 {
        return None;
    }
    let mut said = inside.kept();
    let request = said.find(|span| span.way == Way::Out)?;
    let answer = said.find(|span| span.way == Way::In)?;
    let since = begun.saturating_sub(CAUSE_NS);
    let mut around = outside.kept().skip_while(|span| span.first < since);
    // The last that came in before the connection, and what followed it.
    let mut open = around.next()?;
    let confirmation = loop {
        let next = around.next()?;
        if next.first >= begun {
            break next;
        }
        open = next;
    };
    let data = around.next()?;
    let answered = around.find(|span| span.first >= answer.first)?;
    let ways = [open.way, confirmation.way, data.way, answered.way];
    let in_turn = ways == [Way::In, Way::Out, Way::In, Way::Out]
        && open.last <= begun
        && open.bytes <= OPEN_MAX
        && confirmation.bytes <= CONFIRMATION_MAX
        && data.first <= request.first
        && answered.first <= answer.last + LAG_NS;
    in_turn.then_some(Channel {
        open: open.bytes,
        confirmation: confirmation.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Burst;
    use agent_monitor_common::event::FlowId;
    use bytes::Bytes;

    const MS: u64 = 1_000_000;
    /// When the inside connection was made.
    const BEGUN: u64 = 1_000 * MS;

    /// Bursts at milliseconds from [`BEGUN`].
    fn spans(bursts: &[(Way, i64, u64)]) -> Spans {
        let mut spans = Spans::default();
        for &(way, at, bytes) in bursts {
            let at = BEGUN.saturating_add_signed(at * MS as i64);
            spans.push(&Burst {
                flow: FlowId::default(),
                way,
                first: at,
                last: at,
                bytes,
                offset: 0,
                packets: 1,
                data: Bytes::new(),
            });
        }
        spans
    }

    const OUTSIDE: [(Way, i64, u64); 6] = [
        (Way::In, -90, 36),
        (Way::Out, -80, 36),
        (Way::In, -4, 68),
        (Way::Out, 1, 80),
        (Way::In, 2, 108),
        (Way::Out, 6, 216),
    ];
    const INSIDE: [(Way, i64, u64); 2] = [(Way::Out, 3, 88), (Way::In, 5, 3_187)];

    /// What is seen when bursts of the outside flow are as these.
    fn with(change: impl Fn(&mut [(Way, i64, u64); 6])) -> Option<Channel> {
        let mut outside = OUTSIDE;
        change(&mut outside);
        opened(BEGUN, &spans(&outside), &spans(&INSIDE))
    }

    #[test]
    fn a_visitor_is_announced_confirmed_heard_and_answered() {
        let channel = Channel {
            open: 68,
            confirmation: 80,
        };
        assert_eq!(with(|_| {}), Some(channel));
    }

    #[test]
    fn nothing_is_said_before_the_inside_connection_has_answered() {
        for (outside, inside) in (0..6).map(|n| (n, 2)).chain([(6, 0), (6, 1)]) {
            let (outside, inside) = (spans(&OUTSIDE[..outside]), spans(&INSIDE[..inside]));
            assert_eq!(opened(BEGUN, &outside, &inside), None);
        }
    }

    #[test]
    fn a_program_that_sends_its_request_at_once_opens_no_channel() {
        let outside = [(Way::In, -4, 68), (Way::Out, 6, 80), (Way::In, 60, 108)];
        assert_eq!(opened(BEGUN, &spans(&outside), &spans(&INSIDE)), None);
        let request_first = |outside: &mut [(Way, i64, u64); 6]| outside[4].1 = 4;
        assert_eq!(with(request_first), None);
    }

    #[test]
    fn what_is_too_long_or_too_late_opens_no_channel() {
        assert_eq!(with(|outside| outside[2].2 = OPEN_MAX + 1), None);
        assert_eq!(with(|outside| outside[3].2 = CONFIRMATION_MAX + 1), None);
        assert_eq!(with(|outside| outside[5].1 = 300), None);
        let long_before = |outside: &mut [(Way, i64, u64); 6]| {
            for (n, burst) in outside[..3].iter_mut().enumerate() {
                burst.1 = -400 + n as i64;
            }
        };
        assert_eq!(with(long_before), None);
    }
}
