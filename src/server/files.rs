//! What is known of a file beside its content: whether it changes, and which users may read it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

/// The permission of all users to read a file.
const ALL_MAY_READ: u32 = 0o004;

// ===== impl Stamp =====

impl Stamp {
    /// That of a file as it is now; `None` if there is none.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let file = fs::metadata(file).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// Whether there is such a file, and to open it could block: a pipe, or a device.
pub(super) fn is_irregular(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| !file.is_file())
}

/// Logs a warning if every user of the machine may read a file with a secret. Folders may keep them out; the file
/// itself does not.
pub(super) fn warn_if_all_may_read(secret: &Path) {
    let Ok(metadata) = fs::metadata(secret) else { return };
    if metadata.permissions().mode() & ALL_MAY_READ != 0 {
        let file = secret.display();
        tracing::warn!("{file}: every user may read this secret; chmod o-r takes that away");
    }
}
