//! Records: each a kind (one byte), a length (four, little-endian) and CBOR; the last one says how many there are and has
//! a checksum over all bytes before it.
//!
//! A kind from 128 on may be skipped by a version that does not know it, any other must be known. What a file or a lane
//! has is the reader's choice: it names the type of its records, see [`Recorded`].

use std::fmt;
use std::io::{self, Read, Write};
use std::marker::PhantomData;

use minicbor::{Decode, Encode, decode};

/// One of the records that a sequence may have.
pub(crate) trait Recorded: Sized {
    /// Its kind, one of [`kinds`] or from 128 on, and never [`kinds::END`].
    fn kind(&self) -> u8;

    /// Appends its CBOR.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads one of this kind; `None` if the kind is unknown here.
    fn decode(kind: u8, body: &[u8]) -> Option<Result<Self, decode::Error>>;
}

/// The kinds that there are. Each has one meaning for ever.
pub(crate) mod kinds {
    pub(crate) const END: u8 = 0;
    pub(crate) const ORG: u8 = 1;
    pub(crate) const TOPIC: u8 = 2;
    pub(crate) const COUNTERS: u8 = 3;
    pub(crate) const LOG: u8 = 4;
    pub(crate) const NEWER_ORG: u8 = 5;
    pub(crate) const NEWER_TOPIC: u8 = 6;
    pub(crate) const GONE: u8 = 7;
    /// A stream with its connection.
    pub(crate) const STREAM: u8 = 16;
    /// The same behind TLS, with its keys.
    pub(crate) const SEALED_STREAM: u8 = 17;
    /// What a file says of itself.
    pub(crate) const FILE: u8 = 32;
    /// From here on a kind may be skipped.
    pub(crate) const OPTIONAL: u8 = 128;
}

/// Writes records. What it writes is whole once [`Self::finish`] has returned.
#[derive(Debug)]
pub(crate) struct RecordWriter<W> {
    to: W,
    checksum: crc32fast::Hasher,
    count: u64,
    bytes: u64,
    /// One record with its head, used again.
    buffer: Vec<u8>,
}

/// Reads records of this type up to the last one.
#[derive(Debug)]
pub(crate) struct RecordReader<R, T> {
    from: R,
    checksum: crc32fast::Hasher,
    count: u64,
    /// The CBOR of one record, used again.
    buffer: Vec<u8>,
    over: bool,
    of: PhantomData<fn() -> T>,
}

/// Why a sequence of records cannot be used.
#[derive(Debug)]
pub(crate) enum InvalidRecords {
    /// Reading failed.
    Io(io::Error),
    /// It ends in the middle of a record, or without the last one.
    Truncated,
    /// A kind below 128 that this version does not know.
    Kind(u8),
    /// A record of this kind claims this length.
    TooLong(u8, u32),
    /// A record of this kind is no CBOR of its type.
    Cbor(u8, decode::Error),
    /// The bytes are not those that were written.
    Checksum,
    /// There are so many records, and the last one says so many.
    Count(u64, u64),
    /// Bytes follow the last record.
    Excess,
}

/// The last record.
#[derive(Debug, Encode, Decode)]
#[cbor(array)]
struct End {
    /// Records before it, those that are skipped too.
    #[n(0)]
    count: u64,
    /// CRC-32 (ISO-HDLC) of all bytes before it.
    #[n(1)]
    checksum: u32,
}

/// The longest CBOR of a record, in bytes.
pub(crate) const RECORD_BYTES_MAX: u32 = 1 << 30;

const HEAD: usize = 5;

// ===== impl RecordWriter =====

impl<W: Write> RecordWriter<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, checksum: crc32fast::Hasher::new(), count: 0, bytes: 0, buffer: Vec::new() }
    }

    /// How many bytes were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a record.
    ///
    /// # Errors
    /// Writing failed, or the record is longer than [`RECORD_BYTES_MAX`].
    pub(crate) fn write(&mut self, record: &impl Recorded) -> io::Result<()> {
        self.put(record.kind(), |out| record.encode(out))?;
        self.count += 1;
        Ok(())
    }

    /// Appends the last record. Returns what was written to, which has not been flushed or synchronised.
    ///
    /// # Errors
    /// Writing failed.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let end = End { count: self.count, checksum: self.checksum.clone().finalize() };
        self.put(kinds::END, |out| append(&end, out))?;
        Ok(self.to)
    }

    fn put(&mut self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[kind, 0, 0, 0, 0]);
        encode(&mut self.buffer);
        let length = self.buffer.len() - HEAD;
        let length = u32::try_from(length).ok().filter(|length| *length <= RECORD_BYTES_MAX);
        let Some(length) = length else {
            let why = format!("a record of kind {kind} is longer than {RECORD_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        };
        self.buffer[1..HEAD].copy_from_slice(&length.to_le_bytes());
        self.checksum.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.to.write_all(&self.buffer)
    }
}

/// Appends CBOR.
pub(crate) fn append(value: &impl Encode<()>, out: &mut Vec<u8>) {
    minicbor::encode(value, out).expect("writing to memory does not fail");
}

// ===== impl RecordReader =====

impl<R: Read, T: Recorded> RecordReader<R, T> {
    /// It reads in small pieces: what is read from should have a buffer, or be memory.
    pub(crate) fn new(from: R) -> Self {
        let (checksum, buffer) = (crc32fast::Hasher::new(), Vec::new());
        Self { from, checksum, count: 0, buffer, over: false, of: PhantomData }
    }

    /// The next record; `None` behind the last one, and then all of them have been what was written. It never holds more
    /// memory than is there to read.
    ///
    /// # Errors
    /// [`InvalidRecords`]. Nothing more can be read then.
    pub(crate) fn next(&mut self) -> Result<Option<T>, InvalidRecords> {
        while !self.over {
            let mut head = [0; HEAD];
            self.from.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            self.read_body(kind, u32::from_le_bytes(length))?;
            if kind == kinds::END {
                self.end()?;
                continue;
            }
            self.checksum.update(&head);
            self.checksum.update(&self.buffer);
            self.count += 1;
            match T::decode(kind, &self.buffer) {
                Some(record) => {
                    return record.map(Some).map_err(|why| InvalidRecords::Cbor(kind, why));
                }
                None if kind < kinds::OPTIONAL => return Err(InvalidRecords::Kind(kind)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Reads the CBOR of a record. Its memory grows with what is there, whatever the length claims.
    fn read_body(&mut self, kind: u8, length: u32) -> Result<(), InvalidRecords> {
        if length > RECORD_BYTES_MAX {
            return Err(InvalidRecords::TooLong(kind, length));
        }
        self.buffer.clear();
        let read = (&mut self.from).take(length.into()).read_to_end(&mut self.buffer)?;
        if read < length as usize { Err(InvalidRecords::Truncated) } else { Ok(()) }
    }

    /// Checks the last record, and that nothing follows.
    fn end(&mut self) -> Result<(), InvalidRecords> {
        let End { count, checksum } =
            decode(&self.buffer).map_err(|why| InvalidRecords::Cbor(kinds::END, why))?;
        if self.checksum.clone().finalize() != checksum {
            return Err(InvalidRecords::Checksum);
        }
        if self.count != count {
            return Err(InvalidRecords::Count(self.count, count));
        }
        match self.from.read_exact(&mut [0]) {
            Ok(()) => return Err(InvalidRecords::Excess),
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(why) => return Err(why.into()),
        }
        self.over = true;
        Ok(())
    }
}

// ===== impl InvalidRecords =====

impl From<io::Error> for InvalidRecords {
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Io(why),
        }
    }
}

impl fmt::Display for InvalidRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(why) => write!(f, "it cannot be read: {why}"),
            Self::Truncated => f.write_str("it is torn: its end is missing"),
            Self::Kind(kind) => {
                write!(f, "it has a record of kind {kind}, which this version does not know")
            }
            Self::TooLong(kind, length) => write!(
                f,
                "a record of kind {kind} has {length} bytes; at most {RECORD_BYTES_MAX} are allowed"
            ),
            Self::Cbor(kind, why) => {
                write!(f, "a record of kind {kind} is not of its type: {why}")
            }
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Count(count, says) => write!(f, "it has {count} records, and should have {says}"),
            Self::Excess => f.write_str("something follows its last record"),
        }
    }
}

impl std::error::Error for InvalidRecords {}

#[cfg(test)]
mod tests;
