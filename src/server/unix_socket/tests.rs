//! Files of Unix sockets, in folders of their own.

use std::os::unix::net::UnixStream;
use std::sync::Barrier;

use super::*;

/// A folder that is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nudged-{name}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// SCENARIO: several servers start at the path of one that was killed.
/// BUG: each finds a stale file. The second one removes that with which the first one has replaced it, so both
/// serve, and no client reaches the first.
/// FIX: they look, remove and bind one after the other.
#[test]
fn of_servers_that_replace_a_stale_file_together_exactly_one_does() {
    let folder = Folder::new("together");
    let path = folder.0.join("socket");
    for round in 0..100 {
        _ = fs::remove_file(&path);
        drop(UnixListener::bind(&path).expect("a socket"));
        let barrier = Barrier::new(4);
        let start = || {
            barrier.wait();
            listen(&path, 0o600)
        };
        let started: Vec<_> = thread::scope(|scope| {
            #[expect(clippy::needless_collect, reason = "they have to run at the same time")]
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let (started, refused): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!(started.len(), 1, "round {round}");
        let in_use =
            |why: &io::Result<_>| why.as_ref().is_err_and(|why| why.kind() == ErrorKind::AddrInUse);
        assert!(refused.iter().all(in_use), "{refused:?}");
        assert!(UnixStream::connect(&path).is_ok());
    }
}

/// SCENARIO: a server that drains has closed its socket, and another one starts at its path. The file system gives the
/// new file the number of the old one, as ext4 does.
/// BUG: the first server takes the new file for its own at its end, and removes it.
/// FIX: it keeps a descriptor of its file, so that its number stays its own.
#[test]
fn the_file_of_another_server_is_kept() {
    let folder = Folder::new("another");
    let path = folder.0.join("socket");
    for _ in 0..8 {
        let mut first = SocketFiles::default();
        let (socket, file) = listen(&path, 0o600).expect("a socket");
        first.push(file);
        drop(socket);
        let mut second = SocketFiles::default();
        let (_socket, file) = listen(&path, 0o600).expect("it is stale");
        second.push(file);
        drop(first);
        assert!(UnixStream::connect(&path).is_ok(), "it was removed");
        drop(second);
        assert!(!fs::exists(&path).expect("a folder"));
    }
}

#[test]
fn a_file_that_is_lent_is_kept() {
    let folder = Folder::new("lent");
    let path = folder.0.join("socket");
    let mut files = SocketFiles::default();
    let (_socket, file) = listen(&path, 0o600).expect("a socket");
    files.push(file);
    #[cfg(target_os = "linux")]
    {
        let id = files.id(&path).expect("it is one of these");
        files.lend(true);
        drop(files);
        assert!(path.exists());
        let left = SocketFile::left(&path, id).expect("it is there");
        assert!(SocketFile::left(&path, FileId { inode: id.inode + 1, ..id }).is_none());
        left.remove();
        assert!(!path.exists());
    }
}

/// SCENARIO: another user may read the folder, as all may those in /run, locks it, and keeps the lock.
/// BUG: no server started there, and one that ended left its file.
/// FIX: a lock that is held for so long is that of no server, and is not waited for.
#[test]
fn a_folder_that_stays_locked_keeps_no_server_out_and_no_file_behind() {
    let folder = Folder::new("locked");
    let path = folder.0.join("socket");
    drop(UnixListener::bind(&path).expect("a stale socket"));
    let lock = lock_folder(&path).expect("a folder").expect("free");
    let (socket, file) = listen(&path, 0o600).expect("it is not waited for");
    assert!(UnixStream::connect(&path).is_ok());
    let why = listen(&path, 0o600).expect_err("it listens");
    assert_eq!(why.kind(), ErrorKind::AddrInUse);
    drop(socket);
    file.remove();
    assert!(!fs::exists(&path).expect("a folder"));
    drop(lock);
    assert!(lock_folder(&path).expect("a folder").is_some(), "it is free again");
}

/// SCENARIO: the folder may be written to, but not be read.
/// BUG: `--check` found nothing wrong, and the server did not start: it could not open the folder to lock it.
/// FIX: both need the same permissions.
#[test]
fn a_check_finds_a_folder_that_may_not_be_read() {
    let folder = Folder::new("unreadable");
    let path = folder.0.join("socket");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o300)).expect("a folder");
    let (checked, opened) = (can_listen(&path).is_ok(), listen(&path, 0o600).is_ok());
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).expect("a folder");
    // For root everything is.
    assert_eq!(checked, opened);
}
