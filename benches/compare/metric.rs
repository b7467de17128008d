//! The figures of a comparison: their names, units, and how each is read from a run.

use super::measure::Sample;

/// One row of the table.
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) digits: usize,
    /// Whether it is also shown as a multiple of the raw loop's.
    pub(crate) ratio: bool,
    pub(crate) read: fn(&Sample) -> Option<f64>,
}

const KIB: f64 = 1024.0;

pub(crate) const METRICS: [Metric; 12] = [
    Metric {
        key: "pss_slope_kib",
        title: "user memory a subscriber, by slope",
        unit: "KiB",
        digits: 2,
        ratio: false,
        read: |sample| Some(sample.slope / KIB),
    },
    Metric {
        key: "pss_total_mib",
        title: "user memory of the process with all of them",
        unit: "MiB",
        digits: 1,
        ratio: false,
        read: |sample| Some(sample.pss[2] as f64 / KIB / KIB),
    },
    Metric {
        key: "connect_cpu_us",
        title: "CPU a connect",
        unit: "µs",
        digits: 1,
        ratio: true,
        read: |sample| Some(sample.connect_us),
    },
    Metric {
        key: "connect_single_us",
        title: "CPU a connect, one at a time",
        unit: "µs",
        digits: 1,
        ratio: true,
        read: |sample| sample.connect_single_us,
    },
    Metric {
        key: "connects_per_second",
        title: "connects",
        unit: "/s",
        digits: 0,
        ratio: false,
        read: |sample| Some(sample.connects_per_second),
    },
    Metric {
        key: "idle_cpu_ms_per_s",
        title: "CPU while idle",
        unit: "ms/s",
        digits: 3,
        ratio: true,
        read: |sample| sample.idle_ms,
    },
    Metric {
        key: "delivery_cpu_us",
        title: "CPU a delivery, one event at a time",
        unit: "µs",
        digits: 2,
        ratio: true,
        read: |sample| sample.delivery_us,
    },
    Metric {
        key: "delivery_other_core_us",
        title: "CPU a delivery, receive path on the other core",
        unit: "µs",
        digits: 2,
        ratio: true,
        read: |sample| sample.other_core.clone()?.ok(),
    },
    Metric {
        key: "last_reached_p50_ms",
        title: "last subscriber reached, median",
        unit: "ms",
        digits: 1,
        ratio: true,
        read: |sample| sample.last_p50_ms,
    },
    Metric {
        key: "last_reached_p99_ms",
        title: "last subscriber reached, p99",
        unit: "ms",
        digits: 1,
        ratio: true,
        read: |sample| sample.last_p99_ms,
    },
    Metric {
        key: "flood_cpu_us",
        title: "CPU a delivered event in a flood",
        unit: "µs",
        digits: 2,
        ratio: true,
        read: |sample| sample.flood_us,
    },
    Metric {
        key: "flood_events_per_second",
        title: "events delivered in a flood",
        unit: "/s",
        digits: 0,
        ratio: false,
        read: |sample| sample.flood_per_second,
    },
];
