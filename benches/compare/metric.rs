//! The figures of a comparison: their names, units, and how each is read from a run.

use super::measure::Sample;

/// One column of a table.
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    /// Over its column and its bars.
    pub(crate) title: &'static str,
    /// What exactly is measured.
    pub(crate) meaning: &'static str,
    pub(crate) place: Place,
    pub(crate) unit: &'static str,
    pub(crate) digits: usize,
    /// Whether it is also shown as a multiple of the raw loop's.
    pub(crate) ratio: bool,
    pub(crate) read: fn(&Sample) -> Option<f64>,
}

/// Where it is shown. All of them in one table would be too wide for a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// The first table, and the chart.
    First,
    Second,
}

const KIB: f64 = 1024.0;

pub(crate) const METRICS: [Metric; 12] = [
    Metric {
        key: "pss_slope_kib",
        title: "user memory a subscriber",
        meaning: "PSS for each of the last two thirds of the subscribers, which are idle",
        place: Place::First,
        unit: "KiB",
        digits: 2,
        ratio: false,
        read: |sample| Some(sample.slope / KIB),
    },
    Metric {
        key: "pss_total_mib",
        title: "user memory of the process",
        meaning: "PSS with all of them",
        place: Place::First,
        unit: "MiB",
        digits: 1,
        ratio: false,
        read: |sample| Some(sample.pss[2] as f64 / KIB / KIB),
    },
    Metric {
        key: "connect_cpu_us",
        title: "CPU a connect",
        meaning: "in a burst, with up to 128 connects pending, with Pushpin 16",
        place: Place::First,
        unit: "µs",
        digits: 1,
        ratio: true,
        read: |sample| Some(sample.connect_us),
    },
    Metric {
        key: "connect_single_us",
        title: "CPU a connect, one at a time",
        meaning: "each begins when the one before has its response",
        place: Place::Second,
        unit: "µs",
        digits: 1,
        ratio: true,
        read: |sample| sample.connect_single_us,
    },
    Metric {
        key: "connects_per_second",
        title: "connects",
        meaning: "in the burst; the generator takes its part of the processors",
        place: Place::Second,
        unit: "/s",
        digits: 0,
        ratio: false,
        read: |sample| Some(sample.connects_per_second),
    },
    Metric {
        key: "idle_cpu_ms_per_s",
        title: "CPU while idle",
        meaning: "all are held, and nothing is published",
        place: Place::Second,
        unit: "ms/s",
        digits: 3,
        ratio: true,
        read: |sample| sample.idle_ms,
    },
    Metric {
        key: "delivery_cpu_us",
        title: "CPU a delivery",
        meaning: "of one event to one subscriber; the next is published when it has reached all",
        place: Place::First,
        unit: "µs",
        digits: 2,
        ratio: true,
        read: |sample| sample.delivery_us,
    },
    Metric {
        key: "delivery_other_core_us",
        title: "CPU a delivery, received on the other core",
        meaning: "the same without the receivers' half of TCP",
        place: Place::Second,
        unit: "µs",
        digits: 2,
        ratio: true,
        read: |sample| sample.other_core.clone()?.ok(),
    },
    Metric {
        key: "last_reached_p50_ms",
        title: "last one reached, median",
        meaning: "from a publish until the event has reached the last subscriber",
        place: Place::Second,
        unit: "ms",
        digits: 1,
        ratio: true,
        read: |sample| sample.last_p50_ms,
    },
    Metric {
        key: "last_reached_p99_ms",
        title: "last one reached, p99",
        meaning: "from a publish until the event has reached the last subscriber, p99 of the events",
        place: Place::First,
        unit: "ms",
        digits: 1,
        ratio: true,
        read: |sample| sample.last_p99_ms,
    },
    Metric {
        key: "flood_cpu_us",
        title: "CPU a delivery in a flood",
        meaning: "of one event to one subscriber; the events are published back to back",
        place: Place::First,
        unit: "µs",
        digits: 2,
        ratio: true,
        read: |sample| sample.flood_us,
    },
    Metric {
        key: "flood_events_per_second",
        title: "deliveries in a flood",
        meaning: "to all subscribers together",
        place: Place::Second,
        unit: "/s",
        digits: 0,
        ratio: false,
        read: |sample| sample.flood_per_second,
    },
];

// ===== impl Metric =====

impl Metric {
    /// The title over a column or a panel.
    pub(crate) fn heading(&self) -> String {
        format!("{} ({})", self.title, self.unit)
    }
}
