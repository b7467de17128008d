//! The file of a Unix socket: how it is made, so that of several servers one has it, and how it is removed.
//!
//! bind(2) makes the file, and fails if there is one, such as that of a server that was killed. It is removed then, and what
//! is removed must still be that file. So a server that looks at a path, and then binds to it or removes it, holds a lock on
//! its folder (flock(2)) meanwhile, which leaves nothing behind. Every user that may read the folder can hold such a lock,
//! and servers hold it for moments: one that is held for longer is another's, and keeps no server from going on.

#[cfg(all(test, not(nudged_loom)))]
mod tests;

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use minicbor::{Decode, Encode};
use rustix::fs::Access;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::Instant;

use super::exclusive::BACKLOG;

/// The files of this server's Unix sockets, which are removed when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct SocketFiles {
    files: Vec<SocketFile>,
    /// They are, or may be, another process's, which removes them.
    is_lent: bool,
}

/// The file of a Unix socket that was bound.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: FileId,
    /// While this is open, no other file gets the number of this one. It does not keep the socket open.
    #[cfg(target_os = "linux")]
    _pin: File,
}

/// The numbers of a file system, and of a file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct FileId {
    #[n(0)]
    pub(crate) device: u64,
    #[n(1)]
    pub(crate) inode: u64,
}

/// What is at a path.
enum Found {
    Nothing,
    /// A socket on which nothing listens any more.
    Stale,
}

/// The longest path, in bytes: that of `sockaddr_un` (unix(7)), which ends with a 0.
pub(crate) const PATH_BYTES_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// How long a folder is tried again that another process has locked: far longer than a server holds it.
const LOCK_MAX: Duration = Duration::from_secs(2);

/// Between two tries to lock it.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// A socket that listens at this path, of which only what `mode` allows can connect. The file of a server that has ended
/// is replaced.
///
/// # Errors
/// [`ErrorKind::AddrInUse`] if a server listens there; any other file is kept too.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    check_path(path)?;
    let _lock = lock_folder(path)?;
    if let Found::Stale = look(path)? {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file gets the permissions of the socket, less the umask.
    #[cfg(target_os = "linux")]
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let listening = SocketFile::made(path, mode).and_then(|file| {
        // Only now can anything connect.
        socket.listen(BACKLOG)?;
        Ok(file)
    });
    match listening {
        Ok(file) => Ok((UnixListener::from(std::os::fd::OwnedFd::from(socket)), file)),
        Err(why) => {
            _ = fs::remove_file(path);
            Err(why)
        }
    }
}

/// Whether a server could listen at this path, or another one does already.
///
/// # Errors
/// Those of [`listen`], as far as they can be known.
pub(crate) fn can_listen(path: &Path) -> io::Result<()> {
    check_path(path)?;
    match look(path) {
        Err(why) if why.kind() == ErrorKind::AddrInUse => return Ok(()),
        found => found?,
    };
    let folder = folder(path);
    if !fs::metadata(folder).map_err(|why| no_folder(folder, why))?.is_dir() {
        return Err(io::Error::other(format!("{} is no folder", folder.display())));
    }
    // It is read to be locked.
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(folder, access).map_err(|why| no_folder(folder, why.into()))
}

fn check_path(path: &Path) -> io::Result<()> {
    let bytes = path.as_os_str().as_bytes();
    let why = match bytes {
        [] => "the path is empty".into(),
        [b'@', ..] => "an abstract name has no permissions, so that every process could connect; \
             write ./@… for a file with such a name"
            .into(),
        _ if bytes.contains(&0) => "the path has a 0 byte".into(),
        _ if bytes.len() > PATH_BYTES_MAX => format!(
            "the path has {} bytes, and that of a socket has {PATH_BYTES_MAX} at most",
            bytes.len()
        ),
        _ => return Ok(()),
    };
    Err(io::Error::new(ErrorKind::InvalidInput, why))
}

/// What is at the path; an error if it stays.
fn look(path: &Path) -> io::Result<Found> {
    let file = match fs::symlink_metadata(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        file => file?,
    };
    if !file.file_type().is_socket() {
        let why = "there is a file that is no socket, and is kept";
        return Err(io::Error::new(ErrorKind::AlreadyExists, why));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(why) if why.kind() == ErrorKind::ConnectionRefused => Ok(Found::Stale),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(why) if why.kind() == ErrorKind::PermissionDenied => Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "there is a socket to which this user may not connect, so it cannot be known whether a server listens",
        )),
        // It listens, or its queue is full, or it is a socket of another type.
        Ok(()) | Err(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn no_folder(folder: &Path, why: io::Error) -> io::Error {
    let text = match why.kind() {
        ErrorKind::NotFound => format!("the folder {} does not exist", folder.display()),
        _ => format!("the folder {}: {why}", folder.display()),
    };
    io::Error::new(why.kind(), text)
}

/// Locks the folder of this path until what is returned is dropped; `None` if another process holds a lock on it, and goes
/// on to.
fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = folder(path);
    let file = File::open(folder).map_err(|why| no_folder(folder, why))?;
    let until = Instant::now() + LOCK_MAX;
    while Instant::now() < until {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
            Err(TryLockError::Error(why)) => return Err(no_folder(folder, why)),
        }
    }
    let folder = folder.display();
    tracing::warn!(%folder, "another process holds a lock on the folder of a socket; going on without it");
    Ok(None)
}

// ===== impl SocketFiles =====

impl SocketFiles {
    pub(crate) fn push(&mut self, file: SocketFile) {
        self.files.push(file);
    }

    /// The number of the file at this path, if it is one of these.
    #[cfg(target_os = "linux")]
    pub(crate) fn id(&self, path: &Path) -> Option<FileId> {
        let path = absolute(path);
        self.files.iter().find(|file| file.path == path).map(|file| file.id)
    }

    /// Leaves them to another process, or takes them back.
    #[cfg(target_os = "linux")]
    pub(crate) fn lend(&mut self, is_lent: bool) {
        self.is_lent = is_lent;
    }

    /// Removes them, if they are this process's.
    pub(crate) fn remove(&mut self) {
        for file in self.files.drain(..).filter(|_| !self.is_lent) {
            file.remove();
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.remove();
    }
}

// ===== impl SocketFile =====

impl SocketFile {
    /// The file that bind(2) has made, which gets these permissions.
    fn made(path: &Path, mode: u32) -> io::Result<Self> {
        let file = Self::at(path)?;
        #[cfg(target_os = "linux")]
        let path = &file.same_file();
        if fs::metadata(path)?.permissions().mode() & 0o777 != mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(file)
    }

    /// The file that another process has made and left to this one, if it is still there.
    #[cfg(target_os = "linux")]
    pub(crate) fn left(path: &Path, id: FileId) -> Option<Self> {
        Self::at(path).ok().filter(|file| file.id == id)
    }

    #[cfg(target_os = "linux")]
    fn at(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, open};
        let pin = File::from(open(
            path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        let metadata = pin.metadata()?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::other("the file was replaced"));
        }
        Ok(Self { path: absolute(path), id: FileId::of(&metadata), _pin: pin })
    }

    #[cfg(not(target_os = "linux"))]
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: absolute(path), id: FileId::of(&fs::symlink_metadata(path)?) })
    }

    /// A path that leads to this file only, whatever is at its own path by now: a link would be followed.
    #[cfg(target_os = "linux")]
    fn same_file(&self) -> PathBuf {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self._pin.as_raw_fd()));
        if path.exists() { path } else { self.path.clone() }
    }

    /// Removes it, if it is still at its path.
    fn remove(&self) {
        let removed =
            lock_folder(&self.path).and_then(|_lock| match fs::symlink_metadata(&self.path) {
                Ok(metadata) if FileId::of(&metadata) == self.id => fs::remove_file(&self.path),
                _ => Ok(()),
            });
        if let Err(why) = removed {
            tracing::warn!(path = %self.path.display(), %why, "the file of a socket could not be removed");
        }
    }
}

/// A path that stays right if the current directory changes.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

// ===== impl FileId =====

impl FileId {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}
