//! Memory and processor time of one process.

use std::fs;
use std::time::Duration;

use crate::Outcome;

/// In MiB, of `smaps_rollup` (proc_pid_smaps(5)).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
    /// Heap, stacks, and what else is no file.
    pub(crate) anonymous: f64,
}

/// `/proc/PID/stat` counts in hundredths of a second (`USER_HZ`) on every common architecture.
const TICK: Duration = Duration::from_millis(10);

// ===== impl Memory =====

impl Memory {
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let value = |name: &str| -> Outcome<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let line = line.ok_or_else(|| format!("no {name} of process {pid}"))?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Self { rss: value("Rss:")?, pss: value("Pss:")?, anonymous: value("Anonymous:")? })
    }
}

/// What the process has used since its start.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").ok_or("no name")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(TICK * ticks)
}
