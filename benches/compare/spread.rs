//! Medians of the runs, and multiples of another server's figures in the same runs.

use std::fmt;

/// The median of some values, and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// The median; of an even number of values the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (upper, lower) = (sorted.len() / 2, sorted.len().checked_sub(1)? / 2);
    Some(f64::midpoint(sorted[lower], sorted[upper]))
}

/// A figure as multiples of another one, run by run. Runs that lack one of them, or whose divisor is not above zero,
/// are left out.
pub(crate) fn multiples(of: &[Option<f64>], against: &[Option<f64>]) -> Vec<f64> {
    let pairs = of.iter().zip(against);
    let multiple = |(of, against): (&Option<f64>, &Option<f64>)| {
        let against = against.filter(|against| *against > 0.0)?;
        Some((*of)? / against)
    };
    pairs.filter_map(multiple).collect()
}

// ===== impl Spread =====

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let lowest = values.iter().copied().min_by(f64::total_cmp)?;
        let highest = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values)?, lowest, highest })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, lowest, highest } = self;
        write!(f, "{median:.3} ({lowest:.2}–{highest:.2})")
    }
}
