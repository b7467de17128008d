//! What `/metrics` says of the process is what the kernel says.

use std::fs;

use super::metrics;
use crate::support::Server;

/// What the kernel says of a process.
struct Process {
    /// Its fields of `/proc/PID/stat`, from the third on.
    stat: Vec<u64>,
    pid: u32,
}

// ===== impl Process =====

impl Process {
    fn read(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("its name");
        // Its state is a letter, and some fields may be negative.
        let stat = fields.split(' ').map(|field| field.trim().parse().unwrap_or_default());
        Self { stat: stat.collect(), pid }
    }

    /// A field, counted from 1 as in its manual page.
    fn field(&self, number: usize) -> f64 {
        self.stat[number - 3] as f64
    }

    fn cpu(&self) -> f64 {
        (self.field(14) + self.field(15)) / rustix::param::clock_ticks_per_second() as f64
    }

    /// The soft limit of descriptors.
    fn descriptors_max(&self) -> f64 {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.pid)).expect("it runs");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let soft = line.expect("the limit").split_whitespace().next().expect("a number");
        soft.parse().expect("a number")
    }
}

#[test]
fn the_process_is_as_the_kernel_has_it() {
    let server = Server::start(&["--workers", "1"]);
    let open = server.streams("acme", 20);
    let before = Process::read(server.pid());
    let now = metrics(&server);
    let after = Process::read(server.pid());
    let metric = |name: &str| now.samples[&format!("process_{name}")];

    let cpu = metric("cpu_seconds_total");
    assert!((before.cpu()..=after.cpu()).contains(&cpu), "{cpu}");
    for (name, field, unit) in [
        ("virtual_memory_bytes", 23, 1.0),
        ("resident_memory_bytes", 24, rustix::param::page_size() as f64),
    ] {
        let (least, most) = (before.field(field) * unit, after.field(field) * unit);
        // The scrape needs some itself.
        let slack = 1_000_000.0;
        assert!((least - slack..=most + slack).contains(&metric(name)), "{name}");
    }
    assert_eq!(metric("max_fds"), before.descriptors_max());

    // The scrape has a connection of its own.
    let descriptors = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count();
    let expected = descriptors as f64 + 1.0;
    assert!((expected - 1.0..=expected).contains(&metric("open_fds")), "{expected}");

    let stat = fs::read_to_string("/proc/stat").expect("Linux");
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")).expect("a time");
    let ticks = before.field(22) / rustix::param::clock_ticks_per_second() as f64;
    let began = boot.parse::<f64>().expect("a number") + ticks;
    // The time of the boot moves with the clock.
    assert!((metric("start_time_seconds") - began).abs() <= 1.01, "{began}");
    drop(open);
}
