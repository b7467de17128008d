//! Whether a series of measurements rises.
//!
//! A line is fitted (least squares) to the averages of [`BLOCKS`] equal blocks, and not to the
//! measurements themselves: neighbours are correlated, and would make the slope look more certain than
//! it is. Correlation that remains between blocks widens the interval: the standard error is multiplied
//! by √((1+r)/(1−r)), where r is the autocorrelation of the residuals, if it is positive.

/// Few enough that each is longer than a cycle of the load, many enough for a line.
pub(crate) const BLOCKS: usize = 12;

/// The 97.5 % quantile of Student's t with `BLOCKS - 2` degrees of freedom.
const T: f64 = 2.228;

/// Bytes per ended stream that count as no leak. glibc's smallest allocation is 32, so this is one of
/// those in every eighth stream.
pub(crate) const TOLERANCE: f64 = 4.0;
/// Bytes by which a heap may grow while its fragmentation settles, however long that takes.
pub(crate) const SETTLING: f64 = 384.0 * 1024.0;
/// Bytes per ended stream: a leak of this must be detectable, or the verdict is unclear.
pub(crate) const DETECT: f64 = 128.0;

/// Upper bound of r, so that the factor stays finite.
const AUTOCORRELATION_MAX: f64 = 0.9;

/// The line through a series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trend {
    pub(crate) slope: f64,
    /// Half of the 95 % confidence interval of the slope.
    pub(crate) half_width: f64,
    /// A point on the line.
    pub(crate) centre: (f64, f64),
}

/// The slopes between which a verdict is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Memory rises if the whole interval is above this.
    pub(crate) tolerance: f64,
    /// A slope of this must be detectable. If the interval is too wide for that, the verdict is unclear.
    pub(crate) detect: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Flat,
    Rises,
    /// The interval is too wide.
    Unclear,
}

// ===== impl Limits =====

impl Limits {
    /// For bytes per second, over `seconds` in each of which `ended` streams end.
    pub(crate) fn of(ended: f64, seconds: f64) -> Self {
        Self { tolerance: TOLERANCE * ended + SETTLING / seconds, detect: DETECT * ended }
    }
}

// ===== impl Trend =====

impl Trend {
    /// Of `(time, value)` in the order of time; `None` for fewer than two per block.
    pub(crate) fn of(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 2 * BLOCKS {
            return None;
        }
        let bounds = |block: usize| block * points.len() / BLOCKS;
        let average = |block| mean(&points[bounds(block)..bounds(block + 1)]);
        let blocks: Vec<_> = (0..BLOCKS).map(average).collect();
        let centre = mean(&blocks);
        let spread: f64 = blocks.iter().map(|(x, _)| (x - centre.0).powi(2)).sum();
        let joint: f64 = blocks.iter().map(|(x, y)| (x - centre.0) * (y - centre.1)).sum();
        let slope = joint / spread;
        let residual = |(x, y): &(f64, f64)| y - centre.1 - slope * (x - centre.0);
        let residuals: Vec<f64> = blocks.iter().map(residual).collect();
        let squares: f64 = residuals.iter().map(|r| r * r).sum();
        let error = (squares / (BLOCKS - 2) as f64 / spread).sqrt();
        let half_width = T * error * inflation(&residuals, squares);
        Some(Self { slope, half_width, centre })
    }

    pub(crate) fn at(&self, time: f64) -> f64 {
        self.centre.1 + self.slope * (time - self.centre.0)
    }

    pub(crate) fn verdict(&self, limits: Limits) -> Verdict {
        if self.slope - self.half_width > limits.tolerance {
            Verdict::Rises
        } else if self.smallest_found(limits.tolerance) > limits.detect {
            Verdict::Unclear
        } else {
            Verdict::Flat
        }
    }

    /// The smallest true slope whose whole interval would almost always have been above the
    /// tolerance.
    pub(crate) fn smallest_found(&self, tolerance: f64) -> f64 {
        tolerance + 2.0 * self.half_width
    }
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let sum = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
}

fn inflation(residuals: &[f64], squares: f64) -> f64 {
    if squares == 0.0 {
        return 1.0;
    }
    let products: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let r = (products / squares).clamp(0.0, AUTOCORRELATION_MAX);
    ((1.0 + r) / (1.0 - r)).sqrt()
}
