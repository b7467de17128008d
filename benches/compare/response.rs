//! A response as a client reads it: its head, the chunked coding (RFC 9112, section 7.1), and the events of its stream.

use std::io::{self, ErrorKind};

use nudged::wire::{Event, Parser};

/// What has arrived of one response.
#[derive(Debug, Default)]
pub(crate) struct Response {
    head: Option<Head>,
    /// Bytes of a head or of a chunk's line that is not complete.
    pending: Vec<u8>,
    /// Bytes of the current chunk that are still to come, with its line end.
    left: usize,
    is_complete: bool,
    events: Parser,
}

/// Status and fields of a response.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

const HEAD_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;
const CRLF: usize = 2;

// ===== impl Response =====

impl Response {
    /// The response to a request that resumes at this id, or at none.
    pub(crate) fn resume(last_event_id: &str) -> Self {
        Self { events: Parser::resume(last_event_id.to_owned()), ..Self::default() }
    }

    /// Takes the next bytes, and passes on every event that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], mut event: impl FnMut(Event)) -> io::Result<()> {
        let mut bytes = self.take_head(bytes)?;
        let Some(head) = &self.head else { return Ok(()) };
        if !head.is_chunked() {
            return parse(&mut self.events, &bytes, &mut event);
        }
        while !bytes.is_empty() && !self.is_complete {
            bytes = self.take_chunk(bytes, &mut event)?;
        }
        Ok(())
    }

    /// Once it has arrived.
    pub(crate) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether its last chunk has arrived: an end in good order.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What a browser would send as `Last-Event-ID`.
    pub(crate) fn last_event_id(&self) -> &str {
        self.events.last_event_id()
    }

    /// How long a browser would wait before it reconnects, if the server said so.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.events.retry_ms()
    }

    /// Returns what follows the head.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        if self.head.is_some() {
            return Ok(bytes.to_owned());
        }
        self.pending.extend_from_slice(bytes);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        match parsed.parse(&self.pending).map_err(io::Error::other)? {
            httparse::Status::Complete(length) => {
                let status = parsed.code.unwrap_or_default();
                let field = |field: &httparse::Header<'_>| {
                    let value = String::from_utf8_lossy(field.value).into_owned();
                    (field.name.to_ascii_lowercase(), value)
                };
                let fields = parsed.headers.iter().map(field).collect();
                self.head = Some(Head { status, fields });
                let rest = self.pending.split_off(length);
                self.pending.clear();
                Ok(rest)
            }
            httparse::Status::Partial if self.pending.len() > HEAD_MAX => {
                Err(io::Error::new(ErrorKind::InvalidData, "a head of more than 16 KiB"))
            }
            httparse::Status::Partial => Ok(Vec::new()),
        }
    }

    /// Takes a part of the chunked coding, and returns the rest.
    fn take_chunk(&mut self, bytes: Vec<u8>, event: &mut impl FnMut(Event)) -> io::Result<Vec<u8>> {
        if self.left == 0 {
            self.pending.extend_from_slice(&bytes);
            let parsed = httparse::parse_chunk_size(&self.pending);
            return match parsed.map_err(|_| io::Error::other("a chunk without a valid size"))? {
                httparse::Status::Complete((length, 0)) => {
                    self.is_complete = true;
                    Ok(self.pending.split_off(length))
                }
                httparse::Status::Complete((length, size)) => {
                    self.left = usize::try_from(size).map_err(io::Error::other)? + CRLF;
                    let rest = self.pending.split_off(length);
                    self.pending.clear();
                    Ok(rest)
                }
                httparse::Status::Partial => Ok(Vec::new()),
            };
        }
        let taken = bytes.len().min(self.left);
        let data = taken.min(self.left.saturating_sub(CRLF));
        self.left -= taken;
        parse(&mut self.events, &bytes[..data], event)?;
        Ok(bytes[taken..].to_owned())
    }
}

fn parse(events: &mut Parser, bytes: &[u8], event: impl FnMut(Event)) -> io::Result<()> {
    events
        .push(bytes, event)
        .map_err(|why| io::Error::new(ErrorKind::InvalidData, format!("{why:?}")))
}

// ===== impl Head =====

impl Head {
    /// The first field with this name, which is in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}
