//! Threshold random walk: Jung, Paxson, Berger, Balakrishnan, "Fast Portscan
//! Detection Using Sequential Hypothesis Testing", 2004.
//!
//! With success rates of 0.8 for the honest and 0.2 for scanners, each failed
//! first contact multiplies the likelihood ratio by four and each success divides
//! it by four, so that a count of steps is all there is to keep.

/// How far the honest can get ahead: their bound with one scanner in a hundred
/// missed, `log4(0.01)`, so that a long good time does not excuse a scan.
const LEAST: i32 = -3;

/// First contacts that failed, less those that succeeded.
#[derive(Default)]
pub struct Walk {
    steps: i32,
    last: u64,
}

impl Walk {
    /// Takes a first contact; begins anew if the last one was before `since`.
    pub fn step(&mut self, failed: bool, now: u64, since: u64) {
        if self.last < since {
            self.steps = 0;
        }
        self.last = now;
        self.steps = (self.steps + if failed { 1 } else { -1 }).max(LEAST);
    }

    /// A failed step did not count after all.
    pub fn take_back(&mut self) {
        self.steps = (self.steps - 1).max(LEAST);
    }

    /// By how many failures are ahead.
    pub fn ahead(&self) -> i32 {
        self.steps
    }
}
