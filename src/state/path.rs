//! Where the state is kept: a file, and beside it the temporary file in which it is written. Knows what may be there.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, OFlags};
use rustix::io::Errno;

use super::error::StateError;
use super::sealed::MAGIC;

/// The names of both files, and of the folder that they are in.
#[derive(Clone, Debug)]
pub(super) struct StatePath {
    pub(super) file: PathBuf,
    /// Its name with `.tmp` at the end. It is there while a server runs, empty and locked: which keeps another one from
    /// the same path, and shows that a file can be created.
    pub(super) temporary: PathBuf,
    folder: PathBuf,
}

/// Only the user of the server reads and writes it: it has the payloads of events.
const MODE: u32 = 0o600;

// ===== impl StatePath =====

impl StatePath {
    pub(super) fn new(file: &Path) -> Result<Self, StateError> {
        let name = file.file_name().filter(|_| !file.as_os_str().as_bytes().ends_with(b"/"));
        let Some(name) = name else { return Err(StateError::NoName { file: file.to_owned() }) };
        let mut temporary = name.to_owned();
        temporary.push(".tmp");
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let temporary = file.with_file_name(temporary);
        Ok(Self { file: file.to_owned(), temporary, folder: folder.to_owned() })
    }

    /// Opens the file if there is one. Fails if it is not one of ours.
    pub(super) fn open(&self) -> Result<Option<File>, StateError> {
        let Some(file) = open_own(&self.file)? else { return Ok(None) };
        match begins_with_magic(&file).map_err(StateError::refused("read", &self.file))? {
            true => Ok(Some(file)),
            false => Err(StateError::Foreign { file: self.file.clone() }),
        }
    }

    /// Creates and locks the temporary file. `None` if there is one.
    pub(super) fn create(&self) -> Result<Option<File>, StateError> {
        let mut options = OpenOptions::new();
        let created =
            options.read(true).write(true).create_new(true).mode(MODE).open(&self.temporary);
        let file = match created {
            Ok(file) => file,
            Err(why) if why.kind() == ErrorKind::AlreadyExists => return Ok(None),
            Err(why) => return Err(StateError::refused("create", &self.temporary)(why)),
        };
        // Whatever the umask takes away.
        file.set_permissions(Permissions::from_mode(MODE))
            .map_err(StateError::refused("change the mode of", &self.temporary))?;
        // Another server may have taken it for a leftover before it was locked.
        Ok((self.lock(&file)? && self.names(&file)).then_some(file))
    }

    /// Removes a temporary file that a server which was killed has left behind. Fails if its server runs, or if it is not
    /// one of ours.
    pub(super) fn remove_leftover(&self) -> Result<(), StateError> {
        let Some(file) = self.leftover()? else { return Ok(()) };
        if !self.lock(&file)? {
            return Err(StateError::InUse { file: self.temporary.clone() });
        }
        match self.names(&file) {
            true => self.remove_temporary(),
            false => Ok(()),
        }
    }

    /// Opens the temporary file, if there is one. Fails if it is not one of ours.
    pub(super) fn leftover(&self) -> Result<Option<File>, StateError> {
        let refused = || StateError::refused("read", &self.temporary);
        let Some(file) = open_own(&self.temporary)? else { return Ok(None) };
        let is_empty = file.metadata().map_err(refused())?.len() == 0;
        match is_empty || begins_with_magic(&file).map_err(refused())? {
            true => Ok(Some(file)),
            false => Err(StateError::Foreign { file: self.temporary.clone() }),
        }
    }

    /// Whether the temporary file is this one.
    pub(super) fn names(&self, file: &File) -> bool {
        let there = fs::symlink_metadata(&self.temporary);
        let is_one = |there: &Metadata, file: &Metadata| {
            (there.dev(), there.ino()) == (file.dev(), file.ino())
        };
        there.is_ok_and(|there| file.metadata().is_ok_and(|file| is_one(&there, &file)))
    }

    pub(super) fn remove_temporary(&self) -> Result<(), StateError> {
        fs::remove_file(&self.temporary).map_err(StateError::refused("remove", &self.temporary))
    }

    /// Removes the file, for good: also after a power cut.
    pub(super) fn remove(&self) -> Result<(), StateError> {
        fs::remove_file(&self.file).map_err(StateError::refused("remove", &self.file))?;
        self.sync()
    }

    /// Makes the temporary file the file, for good. The old one, if there is one, is one of ours.
    pub(super) fn rename(&self) -> Result<(), StateError> {
        drop(self.open()?);
        fs::rename(&self.temporary, &self.file)
            .map_err(StateError::refused("write", &self.file))?;
        self.sync()
    }

    /// Writes the folder to its disk, if its file system can.
    fn sync(&self) -> Result<(), StateError> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        match synced {
            Err(why) if !matches!(why.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                Err(StateError::refused("write to the disk of", &self.folder)(why))
            }
            _ => Ok(()),
        }
    }

    /// Whether a file could be created, without creating one.
    pub(super) fn check_folder(&self) -> Result<(), StateError> {
        let needed = Access::WRITE_OK | Access::EXEC_OK;
        let is_folder = fs::metadata(&self.folder).and_then(|folder| match folder.is_dir() {
            true => Ok(()),
            false => Err(ErrorKind::NotADirectory.into()),
        });
        let can = is_folder
            .and_then(|()| Ok(rustix::fs::accessat(CWD, &self.folder, needed, AtFlags::EACCESS)?));
        can.map_err(StateError::refused("create", &self.temporary))
    }

    /// Locks the temporary file until it is closed. Whether no other process has.
    fn lock(&self, file: &File) -> Result<bool, StateError> {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(why) => Err(StateError::refused("lock", &self.temporary)(why.into())),
        }
    }
}

/// Opens a file of this user for reading; `None` if there is nothing. Whatever else is there is not touched.
fn open_own(path: &Path) -> Result<Option<File>, StateError> {
    let seen = match fs::symlink_metadata(path) {
        Ok(seen) => seen,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(StateError::refused("look at", path)(why)),
    };
    check_own(path, &seen)?;
    // Not even if it has become a link or a pipe by now.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(StateError::refused("read", path))?;
    check_own(path, &file.metadata().map_err(StateError::refused("read", path))?)?;
    Ok(Some(file))
}

fn check_own(path: &Path, seen: &Metadata) -> Result<(), StateError> {
    let (file, kind) = (path.to_owned(), seen.file_type());
    let irregular = [
        (kind.is_symlink(), "a symbolic link"),
        (kind.is_dir(), "a folder"),
        (kind.is_fifo(), "a pipe"),
        (kind.is_socket(), "a socket"),
        (!kind.is_file(), "a device"),
    ];
    if let Some((_, kind)) = irregular.into_iter().find(|(is, _)| *is) {
        return Err(StateError::Irregular { file, kind });
    }
    let (uid, own) = (seen.uid(), rustix::process::geteuid().as_raw());
    if uid == own { Ok(()) } else { Err(StateError::Owner { file, uid, own }) }
}

fn begins_with_magic(file: &File) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == *MAGIC),
        Err(why) if why.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(why) => Err(why),
    }
}
