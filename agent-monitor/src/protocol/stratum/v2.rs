//! Stratum V2: its encrypted handshake by sizes, its cleartext by its first message.
//!
//! Noise_NX on secp256k1: the miner sends 64 bytes, the pool 234, both as good
//! as random, then the miner an encrypted header of 22 bytes and what it is the
//! header of. Other protocols could have the same sizes: a weak sign. Without
//! encryption, as in a local network, the first message says what it is.

use super::super::{Answer, Input, Parser, Side, Wants, text};
use super::{Fact, Meaning, Weight, shape};

/// Sizes of the handshake's two messages, and of the first encrypted header.
const FIRST: usize = 64;
const SECOND: usize = 234;
const HEADER: usize = 22;
/// Of 64 random bytes at least that many differ, but for one time in billions: 57 are expected.
const DIFFERENT_MIN: usize = 40;
/// SetupConnection.Success' header: extension 0, message 1, length 6.
const SUCCESS: [u8; 6] = [0, 0, 1, 6, 0, 0];
/// Longest SetupConnection: a header of 6, 9 bytes, five strings of 255 and a port.
const SETUP_MAX: usize = 6 + 9 + 5 * 256 + 2;

/// Follows one flow.
#[derive(Default)]
pub struct StratumV2 {
    first: Vec<u8>,
    second: usize,
    found: bool,
    /// What was answered to a SetupConnection in clear, until that is known.
    answer: Option<Vec<u8>>,
}

impl Parser for StratumV2 {
    fn feed(
        &mut self,
        side: Side,
        input: Input<'_>,
        facts: &mut Vec<super::super::Fact>,
    ) -> Answer {
        if self.found {
            self.answered(side, input, facts);
            return Answer::Found;
        }
        let bytes = match input {
            Input::Bytes(bytes) => bytes,
            Input::Skipped(0) => &[],
            Input::Skipped(_) | Input::Gap => return Answer::NotThis,
        };
        match side {
            Side::Responder => {
                self.second += bytes.len();
                // The pool has its say after the miner's first message.
                match self.second <= SECOND && self.first.len() == FIRST {
                    true => Answer::NeedMore,
                    false => Answer::NotThis,
                }
            }
            Side::Initiator if self.second == 0 => self.first_message(bytes, facts),
            Side::Initiator if self.second == SECOND && bytes.len() >= HEADER => {
                let meaning = Meaning::new(
                    false,
                    Weight::Weak,
                    "stratum-v2",
                    &format!("handshake of {FIRST} and {SECOND} bytes"),
                );
                let fact = meaning.into_fact(side, true, &[]);
                self.tell(fact, facts)
            }
            Side::Initiator => Answer::NotThis,
        }
    }

    fn wants(&self) -> Wants {
        match self.answer {
            Some(_) => Wants::Head,
            None => Wants::Nothing,
        }
    }
}

impl StratumV2 {
    fn first_message(&mut self, bytes: &[u8], facts: &mut Vec<super::super::Fact>) -> Answer {
        let room = SETUP_MAX + 1 - self.first.len();
        self.first
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        match setup(&self.first) {
            Some(Ok(mut meaning)) => {
                meaning.coin = Some("Bitcoin and its kin");
                let fact = meaning.into_fact(Side::Initiator, true, &self.first);
                self.answer = Some(Vec::new());
                self.tell(fact, facts)
            }
            // No message of this form is as long as the handshake's and random too.
            None => Answer::NeedMore,
            Some(Err(())) if self.first.len() < FIRST => match is_text(&self.first) {
                true => Answer::NotThis,
                false => Answer::NeedMore,
            },
            Some(Err(())) if self.first.len() == FIRST && is_random(&self.first) => {
                Answer::NeedMore
            }
            Some(Err(())) => Answer::NotThis,
        }
    }

    /// Looks at the pool's answer to a SetupConnection in clear.
    fn answered(&mut self, side: Side, input: Input<'_>, facts: &mut Vec<super::super::Fact>) {
        let (Some(answer), Side::Responder) = (&mut self.answer, side) else {
            return;
        };
        let Input::Bytes(bytes) = input else {
            self.answer = None;
            return;
        };
        let missing = SUCCESS.len() - answer.len();
        answer.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        if answer.len() < SUCCESS.len() {
            return;
        }
        if *answer == SUCCESS {
            let said = "SetupConnection.Success";
            let meaning = Meaning::new(true, Weight::Strong, "stratum-v2", said);
            let fact = meaning.into_fact(side, true, answer);
            facts.push(super::super::Fact::Mining(fact));
        }
        self.answer = None;
    }

    fn tell(&mut self, fact: Fact, facts: &mut Vec<super::super::Fact>) -> Answer {
        facts.push(super::super::Fact::Mining(fact));
        self.found = true;
        Answer::Found
    }
}

fn is_random(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    // A TLS record, whose client's random bytes are as good.
    let is_tls = bytes.starts_with(&[22, 3]);
    seen.iter().filter(|seen| **seen).count() >= DIFFERENT_MIN && !is_text(bytes) && !is_tls
}

fn is_text(bytes: &[u8]) -> bool {
    (bytes.iter()).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

/// Reads SetupConnection in clear: nothing if it is not whole.
fn setup(bytes: &[u8]) -> Option<Result<Meaning, ()>> {
    // Extension 0, message 0, then u24 length; protocol 0 to 3.
    let (header, rest) = bytes.split_at(bytes.len().min(3));
    if !header.iter().all(|byte| *byte == 0) {
        return Some(Err(()));
    }
    let (length, rest) = rest.split_first_chunk::<3>()?;
    let length = u32::from_le_bytes([length[0], length[1], length[2], 0]) as usize;
    if !(9 + 5 + 2..=SETUP_MAX).contains(&length) || rest.len() > length {
        return Some(Err(()));
    }
    if rest.first().is_some_and(|protocol| *protocol > 3) {
        return Some(Err(()));
    }
    let mut rest = rest.get(..length)?.get(9..)?;
    let (Some(host), Some((port, after))) = (string(&mut rest), rest.split_first_chunk::<2>())
    else {
        return Some(Err(()));
    };
    rest = after;
    let mut next = || string(&mut rest);
    let [Some(vendor), Some(_), Some(_), Some(device)] = [next(), next(), next(), next()] else {
        return Some(Err(()));
    };
    if !rest.is_empty() || !is_text(host) {
        return Some(Err(()));
    }
    let mut meaning = Meaning::new(false, Weight::Strong, "stratum-v2", "SetupConnection");
    let of = |bytes: &[u8]| Some(text(bytes, 64)).filter(|text| !text.is_empty());
    meaning.agent = of(vendor);
    meaning.pool = of(host).map(|host| format!("{host}:{}", u16::from_le_bytes(*port)));
    meaning.identity = of(device).as_deref().map(shape::shortened);
    Some(Ok(meaning))
}

/// Takes a string with a byte of length in front.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first()?;
    let (text, after) = after.split_at_checked(usize::from(*length))?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::super::super::Fact as AnyFact;
    use super::*;
    use Side::{Initiator, Responder};

    fn run(inputs: &[(Side, &[u8])]) -> (Vec<AnyFact>, Answer) {
        let mut parser = StratumV2::default();
        let mut facts = Vec::new();
        let mut answer = Answer::NeedMore;
        for (side, bytes) in inputs {
            answer = parser.feed(*side, Input::Bytes(bytes), &mut facts);
            if answer != Answer::NeedMore {
                break;
            }
        }
        (facts, answer)
    }

    /// Bytes without a pattern.
    fn random(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    fn setup_connection() -> Vec<u8> {
        let mut payload = vec![0, 2, 0, 2, 0, 0, 0, 0, 0];
        let string = |text: &str, payload: &mut Vec<u8>| {
            payload.push(u8::try_from(text.len()).unwrap());
            payload.extend_from_slice(text.as_bytes());
        };
        string("pool.example", &mut payload);
        payload.extend_from_slice(&3336u16.to_le_bytes());
        for text in ["Maker", "S9", "1.0", "rig-7"] {
            string(text, &mut payload);
        }
        let mut message = vec![0, 0, 0, u8::try_from(payload.len()).unwrap(), 0, 0];
        message.extend(payload);
        message
    }

    #[test]
    fn the_sizes_of_its_handshake_are_a_weak_sign() {
        let bytes = random(FIRST + SECOND + 40);
        let (first, rest) = bytes.split_at(FIRST);
        let (second, third) = rest.split_at(SECOND);
        for cut in 1..FIRST {
            let (a, b) = first.split_at(cut);
            let said = [
                (Initiator, a),
                (Initiator, b),
                (Responder, second),
                (Initiator, third),
            ];
            let (facts, answer) = run(&said);
            assert_eq!(answer, Answer::Found);
            let [AnyFact::Mining(fact)] = facts.as_slice() else {
                panic!("{facts:?}");
            };
            assert_eq!(fact.weight, Weight::Weak);
        }
    }

    #[test]
    fn the_reference_implementation_is_told_at_its_first_encrypted_message() {
        let session = super::super::super::captured::session("stratum-v2/stratum-apps");
        let said: Vec<(Side, u8)> = session
            .iter()
            .flat_map(|(side, bytes)| bytes.iter().map(|byte| (*side, *byte)))
            .collect();
        let whole: Vec<(Side, &[u8])> = (session.iter())
            .map(|(side, bytes)| (*side, bytes.as_slice()))
            .collect();
        for end in 0..=FIRST + SECOND {
            let single: Vec<(Side, &[u8])> = (said[..end].iter())
                .map(|(side, byte)| (*side, std::slice::from_ref(byte)))
                .collect();
            assert_eq!(run(&single), (Vec::new(), Answer::NeedMore), "{end}");
        }
        assert_eq!(run(&whole[..2]).1, Answer::NeedMore);
        let (facts, answer) = run(&whole[..3]);
        assert_eq!(answer, Answer::Found);
        let [AnyFact::Mining(fact)] = facts.as_slice() else {
            panic!("{facts:?}");
        };
        assert_eq!((fact.weight, fact.side), (Weight::Weak, Initiator));
    }

    #[test]
    fn other_sizes_and_other_bytes_are_not_it() {
        let bytes = random(FIRST + SECOND + 40);
        let (first, rest) = bytes.split_at(FIRST);
        let (second, third) = rest.split_at(SECOND);
        let tls = [&[22, 3, 1][..], &first[3..]].concat();
        let text = [b'x'; FIRST];
        let zeroes = [0x80; FIRST];
        let cases: [&[(Side, &[u8])]; 7] = [
            &[(Initiator, &first[1..]), (Responder, second)],
            &[(Initiator, &bytes[..65])],
            &[(Initiator, first), (Responder, &rest[..235])],
            &[
                (Initiator, first),
                (Responder, &second[1..]),
                (Initiator, third),
            ],
            &[(Initiator, &tls)],
            &[(Initiator, &text)],
            &[(Initiator, &zeroes)],
        ];
        for case in cases {
            assert_eq!(run(case).1, Answer::NotThis, "{case:?}");
        }
        let few = [
            (Initiator, first),
            (Responder, second),
            (Initiator, &third[..21]),
        ];
        assert_eq!(run(&few).1, Answer::NotThis);
    }

    #[test]
    fn setup_connection_in_clear_tells_pool_maker_and_device() {
        let message = setup_connection();
        for cut in 0..message.len() {
            let (a, b) = message.split_at(cut);
            assert_eq!(run(&[(Initiator, a)]).1, Answer::NeedMore, "{cut}");
            let (facts, answer) = run(&[(Initiator, a), (Initiator, b)]);
            assert_eq!(answer, Answer::Found);
            let [AnyFact::Mining(fact)] = facts.as_slice() else {
                panic!("{facts:?}");
            };
            assert_eq!(fact.weight, Weight::Strong);
            assert_eq!(fact.pool.as_deref(), Some("pool.example:3336"));
            assert_eq!(fact.agent.as_deref(), Some("Maker"));
            assert_eq!(fact.identity.as_deref(), Some("rig-7"));
        }
    }

    #[test]
    fn a_pool_that_accepts_setup_connection_in_clear_is_told() {
        let setup = setup_connection();
        for cut in 0..SUCCESS.len() {
            let (a, b) = SUCCESS.split_at(cut);
            let mut parser = StratumV2::default();
            let mut facts = Vec::new();
            for (side, bytes) in [(Initiator, setup.as_slice()), (Responder, a)] {
                parser.feed(side, Input::Bytes(bytes), &mut facts);
            }
            assert_eq!((facts.len(), parser.wants()), (1, Wants::Head), "{cut}");
            parser.feed(Responder, Input::Bytes(b), &mut facts);
            let [_, AnyFact::Mining(fact)] = facts.as_slice() else {
                panic!("{facts:?}");
            };
            assert!(fact.from_pool && fact.weight == Weight::Strong);
            assert_eq!(parser.wants(), Wants::Nothing);
        }
        let mut parser = StratumV2::default();
        let mut facts = Vec::new();
        // Message 2 is an error.
        for (side, bytes) in [(Initiator, &setup[..]), (Responder, &[0, 0, 2, 6, 0, 0])] {
            parser.feed(side, Input::Bytes(bytes), &mut facts);
        }
        assert_eq!(facts.len(), 1);
    }

    #[test]
    fn a_message_that_only_begins_like_it_is_not_it() {
        let mut longer = setup_connection();
        longer[3] += 1;
        longer.resize(80, 0);
        assert_eq!(run(&[(Initiator, &longer)]).1, Answer::NotThis);
        let mut torn = setup_connection();
        torn[15] = 255;
        torn.resize(80, 0);
        assert_eq!(run(&[(Initiator, &torn)]).1, Answer::NotThis);
    }
}
