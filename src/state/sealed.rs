//! What is in the file: how every version begins it, and then records, of which the first says which file it is, and
//! when it was written.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use minicbor::{Decode, Encode, decode};

use super::error::Unusable;
use super::hub_record::Record;
use super::records::{InvalidRecords, RecordReader, RecordWriter, Recorded, append, kinds};

/// How every version's file begins.
pub(super) const MAGIC: &[u8; 16] = b"nudged state\r\n\x1a\n";

/// The version that is written and read, as four bytes (little-endian) behind [`MAGIC`].
pub(super) const VERSION: u32 = 1;

/// How far the clock may have been set back since a file was written.
const FUTURE_MAX: Duration = Duration::from_secs(60);

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct FileState {
    /// By the wall clock, in milliseconds since 1970.
    #[n(0)]
    written_ms: u64,
    #[n(1)]
    device: u64,
    #[n(2)]
    inode: u64,
    /// When it was created, in nanoseconds since 1970, if its file system knows. With the inode it makes out a copy; the
    /// device's number may change from mount to mount.
    #[n(3)]
    born_ns: Option<u64>,
}

#[derive(Debug)]
enum FileRecord {
    File(FileState),
    Hub(Record),
}

/// The records of a file that is whole and not too old.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Since it was written.
    pub(crate) age: Duration,
    records: RecordReader<BufReader<File>, FileRecord>,
}

/// Writes all of a file, which is empty. The records come from `save`.
pub(super) fn write(
    to: &mut impl Write,
    file: &Metadata,
    now: SystemTime,
    save: impl FnOnce(&mut dyn FnMut(Record) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    let mut records = RecordWriter::new(&mut *to);
    records.write(&FileRecord::File(FileState::of(file, now)))?;
    save(&mut |record| records.write(&record))?;
    records.finish()?.flush()
}

// ===== impl Taken =====

impl Taken {
    /// Checks all of a file that begins with [`MAGIC`] before anything of it is used. `age_max` is how long anything in it
    /// is kept.
    pub(super) fn from_file(
        file: &File,
        now: SystemTime,
        age_max: Duration,
    ) -> Result<Self, Unusable> {
        let metadata = file.metadata().map_err(InvalidRecords::from)?;
        let (state, mut all) = open(file)?;
        while all.next()?.is_some() {}
        drop(all);
        if !state.is(&FileState::of(&metadata, now)) || metadata.nlink() > 1 {
            return Err(Unusable::Copied);
        }
        let age = match now.duration_since(state.written()) {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= FUTURE_MAX => Duration::ZERO,
            Err(ahead) => return Err(Unusable::Future(ahead.duration())),
        };
        if age > age_max {
            return Err(Unusable::Stale { age, max: age_max });
        }
        Ok(Self { age, records: open(file)?.1 })
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, InvalidRecords> {
        match self.records.next()? {
            Some(FileRecord::Hub(record)) => Ok(Some(record)),
            Some(FileRecord::File(_)) => Err(InvalidRecords::Kind(kinds::FILE)),
            None => Ok(None),
        }
    }
}

/// Reads a file from its beginning, up to its first record.
fn open(file: &File) -> Result<(FileState, RecordReader<BufReader<File>, FileRecord>), Unusable> {
    let mut file = file.try_clone().map_err(InvalidRecords::from)?;
    file.seek(SeekFrom::Start(MAGIC.len() as u64)).map_err(InvalidRecords::from)?;
    let mut file = BufReader::with_capacity(READ_BYTES, file);
    let mut version = [0; 4];
    file.read_exact(&mut version).map_err(InvalidRecords::from)?;
    let version = u32::from_le_bytes(version);
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let mut records = RecordReader::new(file);
    match records.next()? {
        Some(FileRecord::File(state)) => Ok((state, records)),
        Some(FileRecord::Hub(record)) => Err(InvalidRecords::Kind(record.kind()).into()),
        None => Err(InvalidRecords::Truncated.into()),
    }
}

// ===== impl FileState =====

impl FileState {
    /// That of a file which is written now.
    fn of(file: &Metadata, now: SystemTime) -> Self {
        let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let born = file.created().ok().map(since);
        Self {
            written_ms: u64::try_from(since(now).as_millis()).unwrap_or(u64::MAX),
            device: file.dev(),
            inode: file.ino(),
            born_ns: born.and_then(|born| u64::try_from(born.as_nanos()).ok()),
        }
    }

    fn written(&self) -> SystemTime {
        let written = UNIX_EPOCH.checked_add(Duration::from_millis(self.written_ms));
        written.unwrap_or(UNIX_EPOCH)
    }

    /// Whether both are of one file.
    fn is(&self, other: &Self) -> bool {
        let is_born_with = match (self.born_ns, other.born_ns) {
            (Some(one), Some(other)) => one == other,
            _ => self.device == other.device,
        };
        is_born_with && self.inode == other.inode
    }
}

// ===== impl FileRecord =====

impl Recorded for FileRecord {
    fn kind(&self) -> u8 {
        match self {
            Self::File(_) => kinds::FILE,
            Self::Hub(record) => record.kind(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::File(state) => append(state, out),
            Self::Hub(record) => record.encode(out),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Result<Self, decode::Error>> {
        match kind {
            kinds::FILE => Some(decode(body).map(Self::File)),
            _ => Some(Record::decode(kind, body)?.map(Self::Hub)),
        }
    }
}
