//! Whether a session has a terminal, by what the server answers to what is asked in it.
//!
//! A shell asks for a terminal first (`pty-req`, RFC 4254, 6.2), a command, a
//! subsystem and git do not. OpenSSH's server answers each request with
//! CHANNEL_SUCCESS (5 bytes), and once the program runs it sends
//! CHANNEL_WINDOW_ADJUST (9 bytes) too:
//!
//! | asked | answers | chacha20 | gcm | etm | e&m |
//! |---|---|---|---|---|---|
//! | terminal, then a program | 5, 9, 5 | 108 | 108 | 156 | 160* |
//! | a program | 9, 5 | 72 | 72 | 104 | 112 |
//!
//! Measured with OpenSSH 9.2p1, paramiko 2.12.0 and PuTTY 0.78 as clients of
//! OpenSSH 9.2p1, but for what is marked `*`.

use super::Side;
use super::sizes::Layout;

/// What was said since the session was opened.
#[derive(Default)]
pub(super) struct Session {
    answered: u32,
    /// The client went on before all was answered.
    in_steps: bool,
}

/// Where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    NotYet,
    /// Whether it has a terminal, and the bytes that the server answered with.
    Terminal(bool, u32),
    /// It cannot be told any more.
    Never,
}

impl Session {
    /// Takes a segment; `to_client` is how long the server's records are.
    pub fn segment(&mut self, client: Side, side: Side, bytes: u32, to_client: Layout) -> Told {
        let (success, adjust) = (to_client.size(5), to_client.size(9));
        if side == client {
            self.in_steps |= self.answered > 0;
            return Told::NotYet;
        }
        self.answered = self.answered.saturating_add(bytes);
        match self.answered {
            all if all == 2 * success + adjust => Told::Terminal(true, all),
            // A client that waits for each answer may have asked for a terminal.
            some if some == success + adjust && !self.in_steps => Told::Terminal(false, some),
            some if some <= success + adjust => Told::NotYet,
            _ => Told::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use Side::{Initiator, Responder};

    use super::*;

    fn told(segments: &[(Side, u32)]) -> Told {
        let layout = Layout::of("chacha20-poly1305@openssh.com", None).unwrap();
        let mut session = Session::default();
        let told = segments
            .iter()
            .map(|(side, bytes)| session.segment(Initiator, *side, *bytes, layout));
        told.last().unwrap()
    }

    #[test]
    fn three_answers_are_a_terminal_and_two_are_none() {
        let asked = (Initiator, 120);
        assert_eq!(told(&[asked, (Responder, 108)]), Told::Terminal(true, 108));
        assert_eq!(told(&[asked, (Responder, 72)]), Told::Terminal(false, 72));
        assert_eq!(told(&[asked, (Responder, 100)]), Told::Never);
        assert_eq!(told(&[asked]), Told::NotYet);
    }

    #[test]
    fn a_client_that_asks_step_by_step_is_waited_for() {
        let steps = [
            (Initiator, 76),
            (Responder, 36),
            (Initiator, 44),
            (Responder, 36),
            (Responder, 36),
        ];
        assert_eq!(told(&steps[..4]), Told::NotYet);
        assert_eq!(told(&steps), Told::Terminal(true, 108));
    }
}
