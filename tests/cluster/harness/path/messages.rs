//! What a broker sends, cut into its messages.

use std::io::{self, BufRead, Read};

/// How a broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Nats,
    Redis,
    /// Whatever comes at once is a message.
    Bytes,
}

pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// It acknowledges a record.
    pub(super) is_ack: bool,
    /// It is a record with lines.
    pub(super) has_lines: bool,
}

// ===== impl Protocol =====

impl Protocol {
    /// Whether each answer is for the oldest request that has none.
    pub(super) const fn is_in_order(self) -> bool {
        !matches!(self, Self::Nats)
    }

    /// The next message; none at the end.
    pub(super) fn read(self, broker: &mut impl BufRead) -> io::Result<Option<Message>> {
        if self == Self::Bytes {
            let bytes = broker.fill_buf()?.to_vec();
            broker.consume(bytes.len());
            let message = Message { bytes, is_ack: false, has_lines: false };
            return Ok(Some(message).filter(|message| !message.bytes.is_empty()));
        }
        let mut bytes = Vec::new();
        if broker.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        let (is_ack, has_lines) = match self {
            Self::Nats => read_nats(&mut bytes, broker)?,
            Self::Redis | Self::Bytes => {
                let payload_at = bytes.len();
                read_redis(&mut bytes, 0, broker)?;
                // The id of a new entry. No other answer is a text like it.
                (bytes[0] == b'$' && bytes[payload_at..].starts_with(b"0-"), false)
            }
        };
        Ok(Some(Message { bytes, is_ack, has_lines }))
    }

    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis | Self::Bytes => "redis",
        }
    }
}

/// Reads on after the first line. Returns whether it is an acknowledgement, or a record with lines.
fn read_nats(message: &mut Vec<u8>, broker: &mut impl Read) -> io::Result<(bool, bool)> {
    const LINES: &[u8] = b"Nudged: 1 lines ";
    let payload_at = message.len();
    if !message.starts_with(b"MSG ") && !message.starts_with(b"HMSG ") {
        return Ok((false, false));
    }
    let line = String::from_utf8_lossy(message);
    let length = line.trim_end().rsplit(' ').next().unwrap_or_default();
    let length: usize = length.parse().map_err(io::Error::other)?;
    message.resize(payload_at + length + 2, 0);
    broker.read_exact(&mut message[payload_at..])?;
    let payload = &message[payload_at..];
    let has_lines = payload.windows(LINES.len()).any(|part| part == LINES);
    Ok((payload.starts_with(b"{\"stream\":"), has_lines))
}

/// Reads on after a line that begins at `line_at`: a text that follows it, or the parts of an array.
fn read_redis(reply: &mut Vec<u8>, line_at: usize, broker: &mut impl BufRead) -> io::Result<()> {
    let line = String::from_utf8_lossy(&reply[line_at..]).into_owned();
    let number = || line[1..].trim_end().parse::<i64>().map_err(io::Error::other);
    match line.as_bytes()[0] {
        b'$' => {
            if let Ok(length) = usize::try_from(number()?) {
                let at = reply.len();
                reply.resize(at + length + 2, 0);
                broker.read_exact(&mut reply[at..])?;
            }
        }
        b'*' => {
            for _ in 0..number()? {
                let at = reply.len();
                if broker.read_until(b'\n', reply)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                read_redis(reply, at, broker)?;
            }
        }
        _ => {}
    }
    Ok(())
}
