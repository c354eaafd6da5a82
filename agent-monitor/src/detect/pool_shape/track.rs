//! What one flow carried, message by message.

use std::collections::VecDeque;

use super::Limits;
use crate::decode::{Burst, Way};

/// Messages of a kind that are kept.
const KEPT: usize = 32;
/// A program's answer to what came in takes at most this part of the quiet after which
/// nothing is an answer: 200 ms of a second. A person takes longer.
const REPLY: u64 = 5;
/// A share, with the 22 bytes that TLS 1.3 adds: 102 for Ethereum (`tests/data/stratum`), 2,854
/// for Equihash's solutions.
const SUBMIT: std::ops::RangeInclusive<u64> = 80..=4_096;
/// A job, alike: 98 for Kaspa; Bitcoin's with all its branches have some 3,000.
const PUSH: std::ops::RangeInclusive<u64> = 90..=8_192;
/// Of five messages, how many must be near the median.
const NEAR: u64 = 4;
/// Of five neighbours in the row of pushes and submissions, at most so many may
/// differ: who answers each job in turn has five.
const TURNS: u64 = 4;

/// Sizes of the last messages of a kind.
#[derive(Default)]
struct Sizes {
    kept: VecDeque<u32>,
    seen: u64,
}

impl Sizes {
    fn add(&mut self, bytes: u64) {
        self.seen += 1;
        self.kept
            .push_back(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// The median, if most are within `spread` percent of it.
    fn median(&self, spread: u64) -> Option<u64> {
        let mut sorted: Vec<u64> = self.kept.iter().map(|it| u64::from(*it)).collect();
        sorted.sort_unstable();
        let median = *sorted.get(sorted.len() / 2)?;
        let near = sorted
            .iter()
            .filter(|it| it.abs_diff(median) * 100 <= median * spread);
        (near.count() as u64 * 5 >= sorted.len() as u64 * NEAR).then_some(median)
    }
}

/// What the last message was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Push,
    Submit,
    Other,
}

/// A flow's messages so far.
pub(super) struct Track {
    begun: u64,
    /// When something last was sent, and by whom.
    at: u64,
    way: Option<Way>,
    last: Last,
    bytes: u64,
    /// Comes with the first message that nobody asked for: most flows have none.
    seen: Option<Box<Seen>>,
    told: bool,
}

#[derive(Default)]
struct Seen {
    pushes: Sizes,
    submits: Sizes,
    answers: Sizes,
    /// Pushes that were answered at once.
    replies: u64,
    /// Whether the last unasked message was a push, and how often that changed.
    push: Option<bool>,
    neighbours: u64,
    turns: u64,
}

/// A flow that looks like a miner's.
pub(super) struct Shape {
    pub age: u64,
    pub pushes: u64,
    pub push: u64,
    pub submits: u64,
    pub submit: u64,
    pub answer: u64,
    pub replies: u64,
}

impl Track {
    pub fn new(begun: u64) -> Self {
        Self {
            begun,
            at: begun,
            way: None,
            last: Last::Other,
            bytes: 0,
            seen: None,
            told: false,
        }
    }

    /// Takes a burst; gives the shape when the flow has it for the first time.
    pub fn burst(&mut self, burst: &Burst, limits: &Limits) -> Option<Shape> {
        let gap = burst.first.saturating_sub(self.at);
        let before = self.way.replace(burst.way);
        self.at = self.at.max(burst.last);
        self.bytes += burst.bytes;
        let turned = before.is_some_and(|before| before != burst.way);
        let was = self.last;
        let quiet = gap > limits.quiet;
        self.last = match burst.way {
            Way::In if quiet => Last::Push,
            Way::Out if quiet || (turned && gap > limits.quiet / REPLY) => Last::Submit,
            // The rest of one, or an answer.
            _ if !turned => was,
            _ => Last::Other,
        };
        if self.last == Last::Other && self.seen.is_none() || before.is_none() {
            return None;
        }
        let seen = self.seen.get_or_insert_default();
        match (burst.way, was, self.last) {
            (Way::In, _, Last::Push) if quiet => seen.unasked(true, burst.bytes),
            (Way::Out, _, Last::Submit) if quiet || turned => seen.unasked(false, burst.bytes),
            (Way::In, Last::Submit, _) if turned => seen.answers.add(burst.bytes),
            (Way::Out, Last::Push, _) if turned => seen.replies += 1,
            _ => return None,
        }
        if self.told {
            return None;
        }
        let age = burst.last.saturating_sub(self.begun);
        if self.bytes / (age / 1_000_000_000).max(1) > limits.volume {
            return None;
        }
        let shape = seen.shape(age, limits)?;
        self.told = true;
        Some(shape)
    }
}

impl Seen {
    fn unasked(&mut self, push: bool, bytes: u64) {
        if let Some(before) = self.push.replace(push) {
            self.neighbours += 1;
            self.turns += u64::from(before != push);
        }
        match push {
            true => self.pushes.add(bytes),
            false => self.submits.add(bytes),
        }
    }

    fn shape(&self, age: u64, limits: &Limits) -> Option<Shape> {
        let enough = self.pushes.seen >= limits.pushes
            && self.submits.seen >= limits.submits
            && self.answers.seen * 5 >= self.submits.seen * NEAR
            && age >= limits.age;
        let free =
            self.replies * 5 <= self.pushes.seen && self.turns * 5 <= self.neighbours * TURNS;
        if !enough || !free {
            return None;
        }
        let push = self.pushes.median(limits.spread)?;
        let submit = self.submits.median(limits.spread)?;
        let answer = self.answers.median(limits.spread)?;
        let sized =
            PUSH.contains(&push) && SUBMIT.contains(&submit) && answer < submit && answer < push;
        sized.then_some(Shape {
            age,
            pushes: self.pushes.seen,
            push,
            submits: self.submits.seen,
            submit,
            answer,
            replies: self.replies,
        })
    }
}
