//! One subscriber of the load generator: a socket and 28 bytes about what it has seen.

use mio::net::TcpStream;

use super::marker::{Marker, Scan};

/// A stream, from the first packet to its end.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) stream: Option<TcpStream>,
    pub(crate) phase: Phase,
    head: Head,
    scan: Scan,
    record: Record,
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Connecting,
    Asking,
    Open,
    Closed,
}

/// What the bytes of one read meant.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The response head ended within these bytes; its status.
    pub(crate) status: Option<u16>,
    /// The server ended the stream with the last chunk (RFC 9112, section 7.1).
    pub(crate) ended: bool,
}

/// What one event was to one subscriber.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// New; this many before it are missing so far.
    New { missing: u32 },
    /// New, but after a later one.
    Late,
    /// Had been seen before.
    Twice,
}

/// The status line and the empty line, recognised byte by byte.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    read: u8,
    line_end: u8,
    status: u16,
}

/// Which events a subscriber has had: all below `next`, but for the gaps in the 64 before it.
#[derive(Clone, Copy, Debug)]
struct Record {
    next: u32,
    /// Bit 0 is the event before `next`. Two halves, so that the alignment of a `u64` costs nothing.
    window: [u32; 2],
}

const HEAD_END: &[u8] = b"\r\n\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

// ===== impl Subscriber =====

impl Subscriber {
    pub(crate) fn new(stream: TcpStream, next: u32) -> Self {
        Self {
            stream: Some(stream),
            phase: Phase::Connecting,
            head: Head::default(),
            scan: Scan::default(),
            record: Record::new(next),
        }
    }

    /// Takes in one read. Events are reported in their order.
    pub(crate) fn hear(
        &mut self,
        marker: &Marker,
        bytes: &[u8],
        mut event: impl FnMut(u32, Seen),
    ) -> Heard {
        let mut heard = Heard::default();
        let mut body = bytes;
        if self.phase == Phase::Asking {
            let Some(end) = self.head.read(bytes) else { return heard };
            heard.status = Some(self.head.status);
            body = &bytes[end..];
        }
        let record = &mut self.record;
        self.scan.read(marker, body, |sequence| event(sequence, record.note(sequence)));
        heard.ended = body == LAST_CHUNK || body.ends_with(b"\r\n0\r\n\r\n");
        heard
    }

    /// How many of the events below `published` never came, those counted as gaps aside.
    pub(crate) fn behind(&self, published: u32) -> u32 {
        published.saturating_sub(self.record.next)
    }

    /// It is not held to what is published before `next`.
    pub(crate) fn begin_at(&mut self, next: u32) {
        self.record = Record::new(next);
    }
}

// ===== impl Head =====

impl Head {
    /// Where the head ends within `bytes`, if it does.
    fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            // `HTTP/1.1 200`: the status stands at 9 to 11.
            if (9..12).contains(&self.read) {
                let digit = u16::from(byte.wrapping_sub(b'0') % 10);
                self.status = self.status * 10 + digit;
            }
            self.read = self.read.saturating_add(1);
            self.line_end = match *byte == HEAD_END[usize::from(self.line_end)] {
                true => self.line_end + 1,
                false => u8::from(*byte == b'\r'),
            };
            if usize::from(self.line_end) == HEAD_END.len() {
                return Some(at + 1);
            }
        }
        None
    }
}

// ===== impl Record =====

impl Record {
    fn new(next: u32) -> Self {
        Self { next, window: [u32::MAX; 2] }
    }

    fn note(&mut self, sequence: u32) -> Seen {
        let window = u64::from(self.window[0]) | u64::from(self.window[1]) << 32;
        let (window, seen) = match sequence.checked_sub(self.next) {
            Some(missing) => {
                self.next = sequence.wrapping_add(1);
                let moved = missing.checked_add(1).and_then(|by| window.checked_shl(by));
                (moved.unwrap_or(0) | 1, Seen::New { missing })
            }
            None => {
                let bit = 1_u64.checked_shl(self.next - 1 - sequence).unwrap_or(0);
                let new = bit != 0 && window & bit == 0;
                (window | bit, if new { Seen::Late } else { Seen::Twice })
            }
        };
        self.window = [window as u32, (window >> 32) as u32];
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_stays_small() {
        // The socket is four bytes, and more where mio checks its use.
        let ours = size_of::<Subscriber>() - size_of::<TcpStream>();
        assert!(ours <= 32, "{ours} bytes");
    }

    #[test]
    fn gaps_late_events_and_repeats_are_told_apart() {
        let mut record = Record::new(3);
        assert_eq!(record.note(3), Seen::New { missing: 0 });
        assert_eq!(record.note(6), Seen::New { missing: 2 });
        assert_eq!(record.note(5), Seen::Late);
        assert_eq!(record.note(5), Seen::Twice);
        assert_eq!(record.note(6), Seen::Twice);
        assert_eq!(record.note(2), Seen::Twice, "from before it joined");
        assert_eq!(record.note(4), Seen::Late);
        assert_eq!(record.note(200), Seen::New { missing: 193 });
        assert_eq!(record.note(7), Seen::Twice, "too far back to tell");
        assert_eq!(record.note(199), Seen::Late);
    }

    #[test]
    fn the_head_may_come_in_pieces() {
        let text = b"HTTP/1.1 503 No\r\nA: b\r\n\r\nbody";
        for cut in 0..text.len() - 4 {
            let mut head = Head::default();
            let first = head.read(&text[..cut]);
            assert_eq!(first, None, "cut at {cut}");
            assert_eq!(head.read(&text[cut..]), Some(text.len() - 4 - cut), "cut at {cut}");
            assert_eq!(head.status, 503);
        }
    }
}
