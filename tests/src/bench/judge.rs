//! Measurements with their uncertainty, and what they say of a budget.

use std::fmt;

/// Quantiles of Student's t for a 95 % interval, by degrees of freedom from 1 on.
const T: [f64; 15] = [
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
];

/// A mean and half of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the interval's width; infinite when there is only one sample.
    pub half: f64,
    /// The least sample: on a busy machine the nearest to what the work costs.
    pub least: f64,
}

impl Estimate {
    /// Of samples that are taken for independent; nothing for none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let least = samples.iter().copied().reduce(f64::min)?;
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let half = if samples.len() < 2 {
            f64::INFINITY
        } else {
            let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
            let t = T.get(samples.len() - 2).copied().unwrap_or(1.96);
            t * (squares / (n - 1.0) / n).sqrt()
        };
        Some(Self { mean, half, least })
    }

    /// Whether it is at most `budget`: an interval that spans it says nothing.
    pub fn at_most(&self, budget: f64) -> Verdict {
        if self.mean + self.half <= budget {
            Verdict::Met
        } else if self.mean - self.half > budget {
            Verdict::Missed
        } else {
            Verdict::Inconclusive
        }
    }
}

/// `mean ± half (least …)`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} ± {:.0} (least {:.0})",
            self.mean, self.half, self.least
        )
    }
}

/// What a measurement says of its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept.
    Met,
    /// It is not, or what it is about does not exist.
    Missed,
    /// The measurement is too uncertain to tell.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// A line of the table of budgets.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is measured.
    pub what: String,
    /// What it may be.
    pub budget: String,
    /// What it is.
    pub figure: String,
    /// What follows.
    pub verdict: Verdict,
}

impl Row {
    /// A row of a measurement.
    pub fn new(what: &str, budget: &str, figure: String, verdict: Verdict) -> Self {
        Self {
            what: what.to_owned(),
            budget: budget.to_owned(),
            figure,
            verdict,
        }
    }

    /// A row whose estimate is to be at most `most`.
    pub fn at_most(what: &str, budget: &str, most: f64, unit: &str, of: Option<Estimate>) -> Self {
        match of {
            Some(estimate) => Self::new(
                what,
                budget,
                format!("{estimate} {unit}"),
                estimate.at_most(most),
            ),
            None => Self::new(
                what,
                budget,
                "not measured".to_owned(),
                Verdict::Inconclusive,
            ),
        }
    }

    /// A row of something that does not exist: missed.
    pub fn not_built(what: &str, budget: &str, why: &str) -> Self {
        Self::new(what, budget, format!("not built: {why}"), Verdict::Missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_spans_the_budget_is_inconclusive() {
        let estimate = Estimate::of(&[90.0, 110.0, 100.0]).unwrap();
        assert_eq!(estimate.mean, 100.0);
        assert!((estimate.half - 24.8).abs() < 0.1, "{estimate:?}");
        assert_eq!(estimate.at_most(100.0), Verdict::Inconclusive);
        assert_eq!(estimate.at_most(130.0), Verdict::Met);
        assert_eq!(estimate.at_most(70.0), Verdict::Missed);
    }

    #[test]
    fn one_sample_decides_nothing() {
        let estimate = Estimate::of(&[1.0]).unwrap();
        assert_eq!(estimate.at_most(1_000_000.0), Verdict::Inconclusive);
        assert_eq!(Estimate::of(&[]), None);
    }
}
