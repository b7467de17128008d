//! The file on a real disk: what is written is taken once, whatever else is there is left as it is.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::error::Unusable;
use super::file::{Found, StateFile, check};
use super::hub_record::Record;
use super::sealed::MAGIC;
use crate::hub::state::{CountersState, EventState, FeedState, OrgState};
use crate::state::StateError;

/// A folder of its own, removed when this is dropped.
struct Folder(PathBuf);

const AGE_MAX: Duration = Duration::from_secs(300);

// ===== impl Folder =====

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("nudged-state-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state")
    }

    fn temporary(&self) -> PathBuf {
        self.0.join("state.tmp")
    }

    /// The names of what is in it.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    fn reserve(&self) -> StateFile {
        StateFile::reserve(&self.file()).expect("a place")
    }

    /// Writes a state as a server that ends.
    fn write(&self, now: SystemTime) -> Vec<Record> {
        let records = records();
        let len =
            self.reserve().write(now, |write| records.clone().into_iter().try_for_each(write));
        assert_eq!(len.expect("written"), fs::metadata(self.file()).expect("a file").len());
        assert_eq!(self.names(), ["state"]);
        records
    }

    /// What a server that starts finds, and why it does not use it.
    fn unusable(&self, now: SystemTime) -> String {
        let place = self.reserve();
        let found = place.take(now, AGE_MAX).expect("taken");
        let Found::Unusable(why) = found else { panic!("{found:?}") };
        assert_eq!(self.names(), ["state.tmp"], "it is removed: {why}");
        why.to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn records() -> Vec<Record> {
    let event = |text: &str| EventState { age_ms: 7, text: text.into() };
    let events = vec![event("data: one\n\n"), event("data: two\n\n")];
    let member = FeedState { epoch: 1, head: 2, events };
    vec![
        Record::Org(OrgState {
            org: "acme".into(),
            member,
            public: None,
            in_use: true,
            idle_ms: 0,
            window_ms: 0,
        }),
        Record::Counters(CountersState { published: 2, ..CountersState::default() }),
    ]
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn all(mut state: super::Taken) -> Vec<Record> {
    std::iter::from_fn(|| state.next().expect("a whole file")).collect()
}

/// Fails to reserve the path, and to check it, with this text; what is there stays as it is.
#[track_caller]
fn expect_refused(path: &Path, text: &str) {
    for refused in [StateFile::reserve(path).map(drop), check(path)] {
        assert_eq!(refused.expect_err("refused").to_string(), text);
    }
}

#[test]
fn what_is_written_is_taken_once() {
    let folder = Folder::new();
    let written = folder.write(now());
    let place = folder.reserve();
    assert_eq!(folder.names(), ["state", "state.tmp"]);
    let later = now() + Duration::from_millis(1_234);
    let Found::State(state) = place.take(later, AGE_MAX).expect("taken") else { panic!("unused") };
    assert_eq!(folder.names(), ["state.tmp"], "it is gone before it is used");
    assert_eq!(state.age, Duration::from_millis(1_234));
    assert_eq!(all(state), written);
    assert!(matches!(place.take(later, AGE_MAX), Ok(Found::Nothing)));
    drop(place);
    assert!(folder.names().is_empty());
}

#[test]
fn a_file_is_taken_up_to_its_greatest_age_and_from_clocks_that_were_set_back_a_little() {
    let folder = Folder::new();
    let just = Duration::from_millis(1);
    for (at, age) in [
        (now() + AGE_MAX, AGE_MAX),
        (now() - Duration::from_secs(60), Duration::ZERO),
        (now(), Duration::ZERO),
    ] {
        folder.write(now());
        let found = folder.reserve().take(at, AGE_MAX).expect("taken");
        let Found::State(state) = found else { panic!("{found:?}") };
        assert_eq!(state.age, age);
    }
    folder.write(now());
    assert_eq!(
        folder.unusable(now() + AGE_MAX + just),
        "it was written 300 s ago, and nothing in it is kept for more than 300 s (--history-age, --topic-age)"
    );
    folder.write(now());
    assert_eq!(
        folder.unusable(now() - Duration::from_secs(3_600)),
        "it was written 3600 s from now: the clock was set back, so its age is not known"
    );
}

/// A file that is shorter than what every version begins with could be anyone's.
#[test]
fn a_torn_file_is_removed_unused_at_every_length() {
    let folder = Folder::new();
    folder.write(now());
    let whole = fs::read(folder.file()).expect("a file");
    for len in MAGIC.len()..whole.len() {
        // In its own file: the inode is right.
        folder.write(now());
        let file = File::options().write(true).open(folder.file()).expect("a file");
        file.set_len(len as u64).expect("cut");
        assert_eq!(folder.unusable(now()), "it is torn: its end is missing", "{len}");
    }
    for len in 0..MAGIC.len() {
        fs::write(folder.file(), &whole[..len]).expect("written");
        let file = folder.file();
        let text = format!(
            "--state: {} is no state of nudged, and would be overwritten; remove it, or name another file",
            file.display()
        );
        expect_refused(&file, &text);
        assert_eq!(fs::read(&file).expect("it is there"), whole[..len]);
    }
}

#[test]
fn a_file_with_one_wrong_bit_is_not_used() {
    let folder = Folder::new();
    folder.write(now());
    let len = fs::metadata(folder.file()).expect("a file").len();
    for at in MAGIC.len() as u64..len {
        folder.write(now());
        let file = File::options().write(true).read(true).open(folder.file()).expect("a file");
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).expect("a byte");
        let wrong = [byte[0] ^ 1 << (at % 8)];
        std::os::unix::fs::FileExt::write_all_at(&file, &wrong, at).expect("written");
        let why = folder.unusable(now());
        if at < 20 {
            assert!(why.contains("of another nudged; this one reads version 1"), "{why}");
        }
    }
}

#[test]
fn a_file_with_something_behind_its_end_is_not_used() {
    let folder = Folder::new();
    folder.write(now());
    let mut file = File::options().append(true).open(folder.file()).expect("a file");
    io::Write::write_all(&mut file, b"x").expect("written");
    assert_eq!(folder.unusable(now()), "something follows its last record");
}

/// A copy could be put back when its events have been followed by others.
#[test]
fn a_copy_is_removed_unused() {
    const COPIED: &str =
        "it is a copy, or there is another name for it, so it may be from an earlier stop";
    let folder = Folder::new();
    folder.write(now());
    let copy = folder.0.join("copy");
    fs::copy(folder.file(), &copy).expect("copied");
    fs::rename(&copy, folder.file()).expect("moved");
    assert_eq!(folder.unusable(now()), COPIED);

    // As one that is kept for later.
    folder.write(now());
    let link = folder.0.join("link");
    fs::hard_link(folder.file(), &link).expect("linked");
    let place = folder.reserve();
    let found = place.take(now(), AGE_MAX).expect("taken");
    assert!(matches!(found, Found::Unusable(Unusable::Copied)), "{found:?}");
    assert_eq!(folder.names(), ["link", "state.tmp"]);
}

#[test]
fn what_nudged_has_not_written_is_left_as_it_is() {
    let folder = Folder::new();
    let file = folder.file();
    let shown = file.display();
    let irregular = |kind: &str| {
        format!("--state: {shown} is {kind}, and has to be a regular file, or nothing")
    };

    fs::write(&file, "a diary of some length").expect("written");
    let foreign = format!(
        "--state: {shown} is no state of nudged, and would be overwritten; remove it, or name another file"
    );
    expect_refused(&file, &foreign);
    assert_eq!(fs::read_to_string(&file).expect("text"), "a diary of some length");

    // To a state of ours.
    let target = folder.0.join("target");
    fs::write(&target, MAGIC).expect("written");
    fs::remove_file(&file).expect("removed");
    symlink(&target, &file).expect("linked");
    expect_refused(&file, &irregular("a symbolic link"));
    assert!(fs::symlink_metadata(&file).expect("there").is_symlink());

    fs::remove_file(&file).expect("removed");
    symlink("nothing", &file).expect("linked");
    expect_refused(&file, &irregular("a symbolic link"));

    fs::remove_file(&file).expect("removed");
    fs::create_dir(&file).expect("a folder");
    expect_refused(&file, &irregular("a folder"));
    expect_refused(
        &file.join("none/state"),
        &format!(
            "--state: cannot create {shown}/none/state.tmp: No such file or directory (os error 2)"
        ),
    );
    fs::remove_dir(&file).expect("removed");

    let pipe = rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    );
    pipe.expect("a pipe");
    expect_refused(&file, &irregular("a pipe"));
    assert!(fs::metadata(&file).expect("there").file_type().is_fifo());
    fs::remove_file(&file).expect("removed");

    drop(std::os::unix::net::UnixListener::bind(&file).expect("a socket"));
    expect_refused(&file, &irregular("a socket"));
    expect_refused(
        Path::new("/dev/null"),
        "--state: /dev/null is a device, and has to be a regular file, or nothing",
    );
    assert_eq!(folder.names(), ["state", "target"]);
}

#[test]
fn a_path_without_the_name_of_a_file_is_refused() {
    let folder = Folder::new();
    let slash = format!("{}/", folder.0.display());
    for path in ["", "/", "..", "a/..", &slash] {
        let text = format!("--state {path}: the path does not end in the name of a file");
        expect_refused(Path::new(path), &text);
    }
}

/// The first user that is not this one.
#[test]
fn the_file_of_another_user_is_left_as_it_is() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.write(now());
    std::os::unix::fs::chown(folder.file(), Some(1), None).expect("root may");
    let file = folder.file();
    let text = format!(
        "--state: {} belongs to the user 1, and this server runs as the user 0; remove it, or name another file",
        file.display()
    );
    expect_refused(&file, &text);
    assert_eq!(fs::metadata(&file).expect("there").uid(), 1);
}

#[test]
fn what_a_killed_server_left_is_replaced_and_nothing_else_is() {
    let folder = Folder::new();
    for leftover in ["", "nudged state\r\n\x1a\nwith a half record"] {
        fs::write(folder.temporary(), leftover).expect("written");
        check(&folder.file()).expect("as if nothing was there");
        assert_eq!(fs::read_to_string(folder.temporary()).expect("text"), leftover);
        folder.write(now());
        assert_eq!(folder.names(), ["state"]);
    }
    fs::write(folder.temporary(), "a diary").expect("written");
    let text = format!(
        "--state: {} is no state of nudged, and would be overwritten; remove it, or name another file",
        folder.temporary().display()
    );
    expect_refused(&folder.file(), &text);
    assert_eq!(fs::read_to_string(folder.temporary()).expect("text"), "a diary");
    assert_eq!(folder.names(), ["state", "state.tmp"]);
}

#[test]
fn one_server_has_a_path() {
    let folder = Folder::new();
    let first = folder.reserve();
    let refused = StateFile::reserve(&folder.file()).expect_err("it is held");
    let text = format!(
        "--state: another server is running that keeps its state there (it has locked {}); stop it first, or \
         name another file",
        folder.temporary().display()
    );
    assert_eq!(refused.to_string(), text);
    check(&folder.file()).expect("a check is run beside a server");
    drop(first);
    drop(folder.reserve());
    assert!(folder.names().is_empty());
}

/// Folders of temporary files are swept, and so are those of users.
#[test]
fn a_place_that_was_removed_is_taken_again_when_it_is_needed() {
    let folder = Folder::new();
    let (place, records) = (folder.reserve(), records());
    fs::remove_file(folder.temporary()).expect("there");
    place.write(now(), |write| records.clone().into_iter().try_for_each(write)).expect("written");
    assert_eq!(folder.names(), ["state"]);

    let place = folder.reserve();
    fs::remove_file(folder.temporary()).expect("there");
    let other = folder.reserve();
    let refused = place.write(now(), |_| Ok(())).expect_err("another server has it");
    assert!(matches!(refused, StateError::InUse { .. }), "{refused}");
    assert_eq!(folder.names(), ["state", "state.tmp"], "that of the other one");
    drop(other);
    assert_eq!(folder.names(), ["state"]);
}

#[test]
fn what_fails_halfway_leaves_nothing() {
    let folder = Folder::new();
    let place = folder.reserve();
    let failed = place.write(now(), |write| {
        records().into_iter().try_for_each(write)?;
        Err(io::ErrorKind::StorageFull.into())
    });
    let text = format!("--state: cannot write {}: no storage space", folder.temporary().display());
    assert_eq!(failed.expect_err("it is full").to_string(), text);
    assert!(folder.names().is_empty());
}

/// It came while the server ran.
#[test]
fn what_is_there_when_the_state_is_written_is_left_as_it_is() {
    let folder = Folder::new();
    let place = folder.reserve();
    fs::write(folder.file(), "a diary of some length").expect("written");
    let failed = place.write(now(), |_| Ok(())).expect_err("it is no state");
    assert!(matches!(failed, StateError::Foreign { .. }), "{failed}");
    assert_eq!(folder.names(), ["state"]);
    assert_eq!(fs::read_to_string(folder.file()).expect("text"), "a diary of some length");
}

#[test]
fn only_its_user_reads_it() {
    let folder = Folder::new();
    let place = folder.reserve();
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&folder.temporary()), 0o600);
    place.write(now(), |_| Ok(())).expect("written");
    assert_eq!(mode(&folder.file()), 0o600);
}
