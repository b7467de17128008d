//! A response as a client reads it: its head, the chunked coding (RFC 9112, section 7.1), and the events of its stream.

use std::error::Error;
use std::io::{self, ErrorKind};

use nudged::wire::{Event, Parser};

/// What has arrived of one response.
#[derive(Debug, Default)]
pub(crate) struct Response {
    head: Option<Head>,
    part: Part,
    /// The beginning of a head or of a line that continues in the next bytes.
    pending: Vec<u8>,
    events: Parser,
}

/// Status and fields of a response.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

/// What the next bytes belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// A body until the connection ends.
    Body,
    ChunkSize,
    /// A chunk of which this many bytes are still to come.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    /// Fields behind the last chunk, up to an empty line.
    Trailer,
    Complete,
}

const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;
/// Of the line of a chunk's size, with its extensions, and of a field of the trailer.
const LINE_MAX: usize = 1024;
const LINE_END: &[u8] = b"\r\n";

// ===== impl Response =====

impl Response {
    /// The response to a request that resumes at this id, or at none.
    pub(crate) fn resume(last_event_id: &str) -> Self {
        Self { events: Parser::resume(last_event_id.to_owned()), ..Self::default() }
    }

    /// Takes the next bytes, and passes on every event that they complete. After an error there is nothing to take.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        mut event: impl FnMut(Event),
    ) -> io::Result<()> {
        while !bytes.is_empty() && self.part != Part::Complete {
            bytes = match self.part {
                Part::Head => self.take_head(bytes)?,
                Part::Body => {
                    parse(&mut self.events, bytes, &mut event)?;
                    &[]
                }
                Part::Chunk(left) => {
                    let taken =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (data, rest) = bytes.split_at(taken);
                    parse(&mut self.events, data, &mut event)?;
                    self.part = match left - taken as u64 {
                        0 => Part::ChunkEnd,
                        left => Part::Chunk(left),
                    };
                    rest
                }
                Part::ChunkSize | Part::ChunkEnd | Part::Trailer => self.take_line(bytes)?,
                Part::Complete => &[],
            };
        }
        Ok(())
    }

    /// Once it has arrived.
    pub(crate) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether its last chunk has arrived: an end in good order.
    pub(crate) fn is_complete(&self) -> bool {
        self.part == Part::Complete
    }

    /// What a browser would send as `Last-Event-ID`.
    pub(crate) fn last_event_id(&self) -> &str {
        self.events.last_event_id()
    }

    /// How long a browser would wait before it reconnects, if the stream has a `retry`.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.events.retry_ms()
    }

    /// Returns what follows the head.
    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let held = self.pending.len();
        let part = &bytes[..bytes.len().min(HEAD_MAX + 1 - held)];
        self.pending.extend_from_slice(part);
        // Only whole lines are parsed, so that it makes no difference where the bytes are cut.
        let lines = part.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| held + end + 1);
        let parsed = match lines {
            0 => None,
            _ => Head::parse(&self.pending[..lines])?,
        };
        match parsed {
            Some((head, length)) if length <= HEAD_MAX => {
                self.part = if head.is_chunked() { Part::ChunkSize } else { Part::Body };
                self.head = Some(head);
                self.pending = Vec::new();
                Ok(&bytes[length - held..])
            }
            None if self.pending.len() <= HEAD_MAX => Ok(&[]),
            _ => Err(invalid("a head of more than 16 KiB")),
        }
    }

    /// Takes a line of the chunked coding, or the beginning of one, and returns the rest.
    fn take_line<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let end = bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if self.pending.len() + line.len() > LINE_MAX {
            return Err(invalid("a line of more than 1 KiB between chunks"));
        }
        if end.is_none() {
            self.pending.extend_from_slice(line);
            return Ok(rest);
        }
        self.part = if self.pending.is_empty() {
            self.part.after(line)?
        } else {
            self.pending.extend_from_slice(line);
            let next = self.part.after(&self.pending)?;
            self.pending.clear();
            next
        };
        Ok(rest)
    }
}

// ===== impl Part =====

impl Part {
    /// What follows this line of the chunked coding.
    fn after(self, line: &[u8]) -> io::Result<Self> {
        match self {
            // An empty line is no size, unlike in httparse.
            Self::ChunkSize if line != LINE_END => match httparse::parse_chunk_size(line) {
                Ok(httparse::Status::Complete((_, 0))) => Ok(Self::Trailer),
                Ok(httparse::Status::Complete((_, size))) => Ok(Self::Chunk(size)),
                _ => Err(invalid("a chunk without a valid size")),
            },
            Self::ChunkSize => Err(invalid("a chunk without a valid size")),
            Self::ChunkEnd if line == LINE_END => Ok(Self::ChunkSize),
            Self::ChunkEnd => Err(invalid("a chunk that is longer than its size")),
            Self::Trailer if line != LINE_END => Ok(Self::Trailer),
            _ => Ok(Self::Complete),
        }
    }
}

fn parse(events: &mut Parser, bytes: &[u8], event: impl FnMut(Event)) -> io::Result<()> {
    events.push(bytes, event).map_err(invalid)
}

fn invalid(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

// ===== impl Head =====

impl Head {
    /// A head at the beginning of these bytes, and its length; `None` if it is not complete.
    fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = parsed.parse(bytes).map_err(invalid)? else {
            return Ok(None);
        };
        let field = |field: &httparse::Header<'_>| {
            let value = String::from_utf8_lossy(field.value).into_owned();
            (field.name.to_ascii_lowercase(), value)
        };
        let status = parsed.code.unwrap_or_default();
        let fields = parsed.headers.iter().map(field).collect();
        Ok(Some((Self { status, fields }, length)))
    }

    /// The first field with this name, which is in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}
