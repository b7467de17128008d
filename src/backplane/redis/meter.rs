//! Counts the values of replies as their bytes come. A value of three bytes takes much more memory once it is read.

use std::io;

use crate::backplane::bounded::Meter;

/// How far a reply has come.
#[derive(Debug, Default)]
pub(super) struct ReplyMeter {
    /// The beginning of a line, of which no more than [`HEAD_BYTES`] count.
    head: Vec<u8>,
    /// Bytes of this line.
    line_bytes: usize,
    /// The line's last byte is a CR.
    ends_with_cr: bool,
    /// Bytes to come of a string that has a length, and of what ends it.
    string_bytes: u64,
}

/// The largest reply, or several that come at once: their bytes, and [`VALUE_BYTES`] for each value. A record has half a
/// MiB, and a read asks for some MiB; programs of others may have appended larger entries. While a reply is read, it takes
/// about three times as much memory: bytes that came, a buffer that grows, and what is made of them.
pub(super) const REPLY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the library makes of a value takes so much memory, however few bytes it came in.
const VALUE_BYTES: usize = 128;

/// What a line with a length has at most: its kind and a number.
const HEAD_BYTES: usize = 32;

/// A line without a length, such as an error. The library looks through it again with each piece that comes.
const LINE_BYTES_MAX: usize = 64 * 1024;

// ===== impl ReplyMeter =====

impl Meter for ReplyMeter {
    fn cost(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len() + self.values_in(bytes)? * VALUE_BYTES)
    }
}

impl ReplyMeter {
    /// The number of values that begin in these bytes, or whose beginning ends here.
    ///
    /// # Errors
    /// A line is too long, or a length is none, which the library would refuse too.
    fn values_in(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let mut values = 0;
        while !bytes.is_empty() {
            if self.string_bytes > 0 {
                let passed =
                    bytes.len().min(usize::try_from(self.string_bytes).unwrap_or(usize::MAX));
                self.string_bytes -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            let (piece, rest) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => bytes.split_at(at + 1),
                None => (bytes, &[][..]),
            };
            bytes = rest;
            values += usize::from(self.take(piece)?);
        }
        Ok(values)
    }

    /// Takes a piece of a line. Returns whether it ends the line.
    fn take(&mut self, piece: &[u8]) -> io::Result<bool> {
        let room = HEAD_BYTES + 1 - self.head.len();
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        self.line_bytes += piece.len();
        if self.line_bytes > LINE_BYTES_MAX {
            return Err(io::Error::other("it sends a line of more than 64 KiB"));
        }
        let before_last = match piece {
            [.., before, _] => *before == b'\r',
            _ => self.ends_with_cr,
        };
        self.ends_with_cr = piece.ends_with(b"\r");
        if !piece.ends_with(b"\n") || !before_last {
            return Ok(false);
        }
        if matches!(self.head.first(), Some(b'$' | b'=' | b'!')) {
            self.string_bytes = length(&self.head)?;
        }
        self.head.clear();
        self.line_bytes = 0;
        Ok(true)
    }
}

/// The bytes that follow a line with a length, as the library counts them.
fn length(line: &[u8]) -> io::Result<u64> {
    let text = line.get(1..).filter(|_| line.len() <= HEAD_BYTES);
    let text = text.and_then(|text| str::from_utf8(text).ok());
    let length = text.and_then(|text| text.trim().parse::<i64>().ok());
    match (line[0], length) {
        (_, None) => Err(io::Error::other("it sends a length that is none")),
        (b'$', Some(..0)) => Ok(0),
        // It waits for what cannot come.
        (_, Some(..0)) => Ok(u64::MAX),
        (_, Some(length)) => Ok(length.unsigned_abs() + 2),
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    /// However the bytes are cut into pieces.
    #[test]
    fn values_are_counted_and_what_is_in_strings_is_not() {
        for (reply, expected) in [
            ("+OK\r\n", 1),
            ("*2\r\n$3\r\na\r\n\r\n:1\r\n", 3),
            ("$12\r\n:1\r\n:1\r\n:1\r\n\r\n_\r\n", 2),
            ("$0\r\n\r\n_\r\n", 2),
            ("$-1\r\n_\r\n", 2),
            ("$ 3 \r\n_\r\n\r\n_\r\n", 2),
            ("+a\n$9\rb\r\n_\r\n", 2),
            ("=7\r\ntxt:_\r\n\r\n_\r\n!3\r\n_\r\n\r\n", 3),
            ("=-1\r\n_\r\n_\r\n", 1),
        ] {
            for size in 1..=reply.len() {
                let mut meter = ReplyMeter::default();
                let pieces = reply.as_bytes().chunks(size);
                let values = pieces.map(|piece| meter.values_in(piece).expect("a reply"));
                assert_eq!(values.sum::<usize>(), expected, "{reply:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_line_has_a_bound() {
        let mut meter = ReplyMeter::default();
        let half = [b'x'; LINE_BYTES_MAX / 2];
        assert_eq!(meter.values_in(b"+").ok(), Some(0));
        assert_eq!(meter.values_in(&half).ok(), Some(0));
        assert!(meter.values_in(&half).is_err());
        for line in ["$x\r\n", "$\r\n", "$99999999999999999999\r\n", "!\u{e9}\r\n"] {
            assert!(ReplyMeter::default().values_in(line.as_bytes()).is_err(), "{line}");
        }
        let padded = format!("${}1\r\n", " ".repeat(HEAD_BYTES));
        assert!(ReplyMeter::default().values_in(padded.as_bytes()).is_err());
    }

    /// What the library makes of a value has to be what is counted for it.
    #[test]
    fn a_value_takes_no_more_than_is_counted() {
        // A vector that grows has room for twice as many, and an allocation has 16 bytes at least.
        assert!(2 * size_of::<redis::Value>() + 16 <= VALUE_BYTES);
    }
}
