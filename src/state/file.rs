//! The file in which a server's state outlives it: written whole or not at all, at the end of a drain, and taken once, at
//! the next start. It is never from before a crash, since every start removes it.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::{StateError, Unusable};
use super::hub_record::Record;
use super::path::StatePath;
use super::sealed::{self, Taken};

/// The place where a state will be written. While it is held, no other server has it; it is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: StatePath,
    /// Empty and locked until it is written.
    temporary: File,
}

/// What there was at a start. Whatever it was, the file has been removed.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Unusable(Unusable),
    State(Taken),
}

/// Attempts to create the temporary file, which others may do at the same time.
const ATTEMPTS: usize = 4;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Checks what can be checked without changing anything. It may be called while a server runs that keeps its state there.
pub(crate) fn check(file: &Path) -> Result<(), StateError> {
    let path = StatePath::new(file)?;
    path.check_folder()?;
    path.open()?;
    path.leftover().map(drop)
}

// ===== impl StateFile =====

impl StateFile {
    /// Makes sure that a state can be written there: creates the temporary file, and keeps it. What is at the path is not
    /// changed.
    pub(crate) fn reserve(file: &Path) -> Result<Self, StateError> {
        let path = StatePath::new(file)?;
        path.open()?;
        for _ in 0..ATTEMPTS {
            if let Some(temporary) = path.create()? {
                return Ok(Self { path, temporary });
            }
            path.remove_leftover()?;
        }
        Err(StateError::InUse { file: path.temporary })
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path.file
    }

    /// Takes what is there: it is removed from the disk before anything of it is used. `age_max` is how long anything in it
    /// is kept.
    pub(crate) fn take(&self, now: SystemTime, age_max: Duration) -> Result<Found, StateError> {
        let Some(file) = self.path.open()? else { return Ok(Found::Nothing) };
        let found = Taken::from_file(&file, now, age_max);
        self.path.remove()?;
        Ok(found.map_or_else(Found::Unusable, Found::State))
    }

    /// Writes a state, whose records come from `save`. Returns its length in bytes.
    pub(crate) fn write(
        self,
        now: SystemTime,
        save: impl FnOnce(&mut dyn FnMut(Record) -> io::Result<()>) -> io::Result<()>,
    ) -> Result<u64, StateError> {
        // Folders of temporary files are swept.
        let this = match self.path.names(&self.temporary) {
            true => self,
            false => Self::reserve(&self.path.file)?,
        };
        let written = this.write_temporary(now, save);
        let len = written.map_err(StateError::refused("write", &this.path.temporary))?;
        this.path.rename()?;
        Ok(len)
    }

    fn write_temporary(
        &self,
        now: SystemTime,
        save: impl FnOnce(&mut dyn FnMut(Record) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut to = BufWriter::with_capacity(WRITE_BYTES, &self.temporary);
        sealed::write(&mut to, &self.temporary.metadata()?, now, save)?;
        self.temporary.sync_all()?;
        Ok(self.temporary.metadata()?.len())
    }
}

impl Drop for StateFile {
    /// Nothing half written stays. Once it was renamed, the name is not its own any more.
    fn drop(&mut self) {
        if self.path.names(&self.temporary) {
            _ = self.path.remove_temporary();
        }
    }
}
