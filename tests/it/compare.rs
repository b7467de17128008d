//! What `cargo bench --bench compare` reads and computes, how it configures the servers, and the setting of the machine
//! that it makes and restores.

#[path = "../../benches/compare/clients.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod clients;
#[path = "../../benches/compare/configuration.rs"]
mod configuration;
#[path = "../../benches/compare/numbered.rs"]
mod numbered;
#[path = "../../benches/compare/peer.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod peer;
mod peers;
mod positions;
#[path = "../../benches/compare/program.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod program;
#[path = "../../benches/compare/protocol.rs"]
mod protocol;
mod recorded;
#[path = "../../benches/compare/response.rs"]
mod response;
mod responses;
mod returns;
#[path = "../../benches/compare/rps.rs"]
mod rps;
#[path = "../../benches/compare/spread.rs"]
mod spread;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rps::{HELD, LOOPBACK, clear, hold, mask};
use spread::{Spread, median, multiples};

use crate::support::temp_dir::TempDir;

/// The end of standard input, which calls this before it comes.
struct End<F>(F);

/// A folder such as that of an interface's queues, with these values.
fn queues(values: &[&str]) -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new();
    fs::create_dir(folder.path().join("tx-0")).unwrap();
    let queue = |(number, value): (usize, &&str)| {
        let file = folder.path().join(format!("rx-{number}")).join("rps_cpus");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("{value}\n")).unwrap();
        file
    };
    let files = values.iter().enumerate().map(queue).collect();
    (folder, files)
}

fn texts(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// Holds `2`, and returns what was printed, and the values meanwhile if it was held.
fn held(folder: &Path, files: &[PathBuf]) -> (io::Result<()>, String, Vec<String>) {
    let (mut printed, mut meanwhile) = (Vec::new(), Vec::new());
    let done = hold(folder, "2", &mut printed, End(|| meanwhile = texts(files)));
    (done, String::from_utf8(printed).unwrap(), meanwhile)
}

#[test]
fn a_setting_is_held_until_the_input_ends_and_restored_then() {
    let (folder, files) = queues(&["0", "00000000,00000000"]);
    let (done, printed, meanwhile) = held(folder.path(), &files);
    done.unwrap();
    assert_eq!(printed, format!("{HELD}\n"));
    assert_eq!(meanwhile, ["2\n", "2\n"]);
    assert_eq!(texts(&files), ["0\n", "00000000,00000000\n"]);
}

#[test]
fn a_setting_that_is_in_use_is_left_alone() {
    let (folder, files) = queues(&["0", "00000000,00000010"]);
    let (done, printed, meanwhile) = held(folder.path(), &files);
    done.unwrap();
    assert!(printed.ends_with("rx-1/rps_cpus is 00000000,00000010 already, not 0\n"), "{printed}");
    assert!(meanwhile.is_empty(), "{meanwhile:?}");
    assert_eq!(texts(&files), ["0\n", "00000000,00000010\n"]);
}

#[test]
fn what_is_left_of_a_setting_can_be_cleared() {
    let (folder, files) = queues(&["2", "0"]);
    clear(folder.path()).unwrap();
    assert_eq!(texts(&files), ["0\n", "0\n"]);
}

#[test]
fn a_machine_without_the_setting_is_a_reason() {
    let (folder, files) = queues(&[]);
    let (done, printed, _) = held(folder.path(), &files);
    done.unwrap();
    assert!(
        printed.starts_with("no queue in ") && printed.ends_with("has rps_cpus\n"),
        "{printed}"
    );
    let (done, printed, _) = held(&folder.path().join("none"), &files);
    done.unwrap();
    assert!(printed.contains("none: No such file or directory"), "{printed}");
}

#[test]
fn a_queue_that_cannot_be_set_restores_those_before_it() {
    let (folder, files) = queues(&["0"]);
    // It reads 0, and not even root may write to it.
    let fixed = folder.path().join("rx-1/rps_cpus");
    fs::create_dir(fixed.parent().unwrap()).unwrap();
    symlink("/sys/class/net/lo/addr_assign_type", &fixed).unwrap();
    assert_eq!(fs::read_to_string(fixed).unwrap(), "0\n");
    let (done, printed, meanwhile) = held(folder.path(), &files);
    done.unwrap();
    assert!(printed.contains("rx-1/rps_cpus: Permission denied"), "{printed}");
    assert!(meanwhile.is_empty(), "{meanwhile:?}");
    assert_eq!(texts(&files), ["0\n"]);
}

#[test]
fn a_mask_has_a_bit_for_each_processor_and_a_comma_between_groups_of_32() {
    assert!(Path::new(LOOPBACK).is_absolute());
    assert_eq!(mask([]), "0");
    assert_eq!(mask([1]), "2");
    assert_eq!(mask([1, 3, 2]), "e");
    assert_eq!(mask([31]), "80000000");
    assert_eq!(mask([32]), "1,00000000");
    assert_eq!(mask([0, 33, 64]), "1,00000002,00000001");
}

#[test]
fn multiples_are_of_the_same_run() {
    let of = [Some(2.0), None, Some(9.0), Some(4.0), Some(1.0)];
    let against = [Some(1.0), Some(5.0), Some(3.0), None, Some(0.0)];
    assert_eq!(multiples(&of, &against), [2.0, 3.0]);
    assert_eq!(multiples(&of, &[]), [0.0; 0]);
}

#[test]
fn the_median_of_the_ratios_is_shown_with_the_lowest_and_the_highest() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(Spread::of(&[]), None);
    let spread = Spread::of(&[1.1, 1.04, 1.0567]).unwrap();
    assert_eq!(spread.to_string(), "1.057 (1.04–1.10)");
}

// ===== impl End =====

impl<F: FnMut()> Read for End<F> {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        (self.0)();
        Ok(0)
    }
}
