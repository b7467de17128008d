//! The metrics that processes have in general, under the names that they have elsewhere. What `/proc` does not say is
//! missing.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::encode;

/// Reads them at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    /// When the machine was started, in seconds since 1970.
    booted: Option<u64>,
}

/// What `/proc/self/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// Ticks that were used in user mode, and in the kernel.
    used: u64,
    /// The tick after the start of the machine at which the process began.
    began: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

// ===== impl ProcessCollector =====

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let stat = fs::read_to_string("/proc/stat").ok();
        Self { booted: stat.as_deref().and_then(booted) }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let stat = fs::read_to_string("/proc/self/stat").ok();
        if let Some(stat) = stat.as_deref().and_then(Stat::parse) {
            let Stat { used, began, virtual_bytes, resident_pages } = stat;
            let help = "Processor time that was used, in user mode and in the kernel";
            encode(encoder, "process_cpu_seconds", help, &ConstCounter::new(seconds(used)))?;
            let help = "Bytes of memory that the process has in use";
            let resident = resident_pages.saturating_mul(page_bytes());
            encode(encoder, "process_resident_memory_bytes", help, &gauge(resident))?;
            let help = "Bytes of addresses that the process has reserved";
            encode(encoder, "process_virtual_memory_bytes", help, &gauge(virtual_bytes))?;
            if let Some(booted) = self.booted {
                let help = "The time at which the process began";
                let began = ConstGauge::new(booted as f64 + seconds(began));
                encode(encoder, "process_start_time_seconds", help, &began)?;
            }
        }
        if let Some(open) = open_descriptors() {
            let help = "File descriptors that are open";
            encode(encoder, "process_open_fds", help, &gauge(open))?;
            if let Ok((max, _)) = rlimit::Resource::NOFILE.get() {
                let help = "File descriptors that may be open";
                encode(encoder, "process_max_fds", help, &gauge(max))?;
            }
        }
        Ok(())
    }
}

// ===== impl Stat =====

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name may have spaces and parentheses.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        // proc_pid_stat(5) counts from 1, and the name is the second.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            used: field(14)?.saturating_add(field(15)?),
            began: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was started, from `/proc/stat`.
fn booted(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The open descriptors. To list a million of them would need a gigabyte of the kernel's memory; since Linux 6.2 it has
/// their number. Without that there is none, if they are many.
fn open_descriptors() -> Option<u64> {
    match fs::metadata(DESCRIPTORS).ok()?.len() {
        0 => listed_descriptors(LISTED_MAX),
        open => Some(open),
    }
}

/// The same, listed; `None` if there are more than that.
fn listed_descriptors(max: usize) -> Option<u64> {
    // One of them reads the folder.
    let listed = fs::read_dir(DESCRIPTORS).ok()?.take(max + 2).count().saturating_sub(1);
    (listed <= max).then_some(listed as u64)
}

const DESCRIPTORS: &str = "/proc/self/fd";

/// Descriptors that are listed at most to be counted.
const LISTED_MAX: usize = 4_096;

fn gauge(value: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// Ticks of the kernel's clock in seconds.
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// proc_pid_stat(5). A program chooses its name.
    #[test]
    fn the_name_of_a_process_is_no_field() {
        for name in ["nudged", "a b) S 1 2 3", ") ", "", "((", "1 2 3 4 5"] {
            let numbers: Vec<_> = (4..=52).map(|n| n.to_string()).collect();
            let text = format!("7 ({name}) S {}\n", numbers.join(" "));
            let stat = Stat { used: 14 + 15, began: 22, virtual_bytes: 23, resident_pages: 24 };
            assert_eq!(Stat::parse(&text), Some(stat), "{name:?}");
        }
        for broken in ["", "7 (nudged) S 1 2 3", "7 nudged S"] {
            assert_eq!(Stat::parse(broken), None);
        }
        assert_eq!(booted("cpu 1 2\nbtime 1700000000\nctxt 9\n"), Some(1_700_000_000));
        assert_eq!(booted("cpu 1 2\n"), None);
    }

    /// Other tests open some meanwhile.
    #[test]
    fn a_few_descriptors_are_counted_where_the_kernel_does_not() {
        assert_eq!(listed_descriptors(2), None);
        assert!(listed_descriptors(100_000).is_some_and(|open| open > 2));
    }
}
