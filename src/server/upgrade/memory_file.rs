//! Files in memory, by which one process passes to the other what may be long.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

/// The most bytes of one, so that a process that is not the expected one has no memory allocated for it.
pub(crate) const FILE_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// An empty one, at whose end is written.
pub(crate) fn create() -> io::Result<File> {
    Ok(File::from(memfd_create("nudged-upgrade", MemfdFlags::CLOEXEC)?))
}

/// One that the other process has written and passed, from its beginning.
///
/// # Errors
/// It cannot be read, or has more than [`FILE_MAX`] bytes.
pub(crate) fn received(descriptor: OwnedFd) -> io::Result<File> {
    let mut file = File::from(descriptor);
    // Both processes share the position, which is the writer's.
    file.rewind()?;
    match file.metadata()?.len() {
        ..=FILE_MAX => Ok(file),
        length => Err(io::Error::other(format!("a file of {length} bytes"))),
    }
}
