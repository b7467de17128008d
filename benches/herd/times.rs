//! How often something happened, by the times at which it did.

/// The most of these times that are within `window` seconds.
pub(crate) fn most(times: &[f64], window: f64) -> usize {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let from = |first: usize| times.partition_point(|time| *time < times[first] + window) - first;
    (0..times.len()).map(from).max().unwrap_or(0)
}

/// From the first to the last.
pub(crate) fn length(times: &[f64]) -> f64 {
    let first = times.iter().copied().fold(f64::INFINITY, f64::min);
    let last = times.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if times.is_empty() { 0.0 } else { last - first }
}

/// How many of these times are in each part of `width` seconds, from 0 on.
pub(crate) fn counts(times: &[f64], width: f64) -> Vec<usize> {
    let mut counts = Vec::new();
    for time in times {
        let part = (time / width) as usize;
        counts.resize(counts.len().max(part + 1), 0);
        counts[part] += 1;
    }
    counts
}
