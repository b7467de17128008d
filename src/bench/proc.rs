//! The memory and processor time of processes, from proc(5).

use std::fs;
use std::io;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

/// The memory and processor time of processes at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// User memory in bytes: the proportional set size of `/proc/PID/smaps_rollup`. The kernel's
    /// memory for sockets is not part of it.
    pub pss: u64,
    /// Processor time of all threads that are alive, since they started.
    pub cpu: Duration,
}

/// `/proc/PID/stat` counts in hundredths of a second (`USER_HZ`) on every common architecture.
const TICK: Duration = Duration::from_millis(10);

// ===== impl Cost =====

impl Cost {
    /// Measures these processes and all their descendants (nginx's workers, say). Fails if one of the
    /// named processes has ended or may not be read.
    pub fn of(processes: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for process in family(processes)? {
            let one = pss(process).and_then(|pss| Ok(Self { pss, cpu: cpu(process)? }));
            match one {
                Ok(cost) => sum = Self { pss: sum.pss + cost.pss, cpu: sum.cpu + cost.cpu },
                Err(why) if processes.contains(&process) => {
                    return Err(io::Error::new(why.kind(), format!("process {process}: {why}")));
                }
                // A descendant that has ended meanwhile.
                Err(_) => {}
            }
        }
        Ok(sum)
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            pss: self.pss.saturating_sub(earlier.pss),
            cpu: self.cpu.saturating_sub(earlier.cpu),
        }
    }
}

fn family(roots: &[u32]) -> io::Result<Vec<u32>> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(process).ok().and_then(|stat| stat[1].parse().ok()) {
            parents.push((process, parent));
        }
    }
    let mut all = roots.to_vec();
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        let children = parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child);
        let new: Vec<u32> = children.filter(|child| !all.contains(child)).collect();
        all.extend(new);
        at += 1;
    }
    Ok(all)
}

/// The fields of `/proc/PID/stat` after the name, which may contain spaces and parentheses.
fn stat(process: u32) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    Ok(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn pss(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or(io::ErrorKind::InvalidData)? * 1024)
}

/// In nanoseconds if the kernel keeps scheduler statistics, else in steps of 10 ms.
fn cpu(process: u32) -> io::Result<Duration> {
    let mut precise = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        precise += Duration::from_nanos(run_time(&task?.path()).unwrap_or(0));
    }
    if precise > Duration::ZERO {
        return Ok(precise);
    }
    let fields = stat(process)?;
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
    let both = ticks(11).zip(ticks(12)).ok_or(io::ErrorKind::InvalidData)?;
    Ok(TICK * (both.0 + both.1))
}

fn run_time(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_memory_and_time() {
        let cost = Cost::of(&[std::process::id()]).unwrap();
        assert!(cost.pss > 100 * 1024, "{cost:?}");
        assert!(cost.cpu > Duration::ZERO, "{cost:?}");
    }

    #[test]
    fn a_process_that_has_ended_is_an_error_with_its_number() {
        let why = Cost::of(&[u32::MAX]).unwrap_err().to_string();
        assert!(why.contains("4294967295"), "{why}");
    }
}
