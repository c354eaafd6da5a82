//! HTTP/2 without TLS, by the preface that its client begins with (RFC 9113, 3.4).

use super::{Answer, Fact, Input, Parser, Side, Wants};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether these are the first bytes of a connection.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(PREFACE)
}

/// Follows one connection: its frames are not looked at.
#[derive(Default)]
pub struct Http2 {
    /// Bytes of the preface that were seen.
    seen: usize,
}

impl Parser for Http2 {
    fn feed(&mut self, side: Side, input: Input<'_>, _facts: &mut Vec<Fact>) -> Answer {
        let expected = &PREFACE[self.seen..];
        match input {
            _ if expected.is_empty() => Answer::Found,
            // A server may send its settings before the preface has come.
            Input::Bytes(_) | Input::Skipped(_) | Input::Gap if side == Side::Responder => {
                Answer::NeedMore
            }
            Input::Skipped(0) => Answer::NeedMore,
            Input::Skipped(_) | Input::Gap => Answer::NotThis,
            Input::Bytes(bytes) => {
                let both = expected.len().min(bytes.len());
                if bytes[..both] != expected[..both] {
                    return Answer::NotThis;
                }
                self.seen += both;
                match both == expected.len() {
                    true => Answer::Found,
                    false => Answer::NeedMore,
                }
            }
        }
    }

    fn wants(&self) -> Wants {
        Wants::Nothing
    }
}

#[cfg(test)]
mod tests {
    use Side::{Initiator, Responder};

    use super::super::layers::Layers;
    use super::*;

    fn feed(said: &[(Side, &[u8])]) -> Layers {
        let mut layers = Layers::default();
        for (side, bytes) in said {
            layers.feed(*side, Input::Bytes(bytes), &mut Vec::new());
        }
        layers
    }

    #[test]
    fn the_preface_is_told_at_any_cut() {
        // Settings of both sides, empty.
        let settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
        for cut in 0..PREFACE.len() {
            let (a, b) = PREFACE.split_at(cut);
            let said = [(Initiator, a), (Responder, settings), (Initiator, b)];
            assert_ne!(feed(&said[..2]).protocol(), Some("http2"), "{cut}");
            let layers = feed(&said);
            assert_eq!(layers.protocol(), Some("http2"), "{cut}");
            assert_eq!(layers.wants(), Wants::Nothing, "{cut}");
        }
    }

    #[test]
    fn an_upgraded_connection_is_told_too() {
        let upgrade =
            b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\n\
            Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
        let switched =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        let said = [
            (Initiator, &upgrade[..]),
            (Responder, switched),
            (Initiator, PREFACE),
        ];
        assert_eq!(feed(&said).protocol(), Some("http2"));
    }

    #[test]
    fn other_methods_and_versions_are_not_it() {
        for first in [
            &b"PRI * HTTP/1.1\r\n\r\n"[..],
            b"PRINT x",
            b"GET / HTTP/1.1\r\n",
        ] {
            let answer = Http2::default().feed(Initiator, Input::Bytes(first), &mut Vec::new());
            assert_eq!(answer, Answer::NotThis);
        }
    }
}
