//! The marker that identifies a published event in the stream of any server.

use std::fmt;

/// `N-` run `-` sequence: only letters, digits and dashes, which no encoding changes. The first byte
/// occurs only once, so that a failed match needs no backtracking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker {
    prefix: [u8; PREFIX],
}

/// The state of the search in one stream, between two reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    matched: u8,
    value: u32,
}

/// A marker with its sequence number, as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marked {
    marker: Marker,
    sequence: u32,
}

const PREFIX: usize = 11;
const DIGITS: usize = 10;
const FIRST: u8 = b'N';

// ===== impl Marker =====

impl Marker {
    /// The marker of a run. Runs with different numbers ignore each other's events.
    pub(crate) fn new(run: u32) -> Self {
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(format!("N-{run:08x}-").as_bytes());
        Self { prefix }
    }

    /// The marker of the event with this sequence number.
    pub(crate) fn of(self, sequence: u32) -> Marked {
        Marked { marker: self, sequence }
    }
}

// ===== impl Marked =====

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.marker.prefix {
            write!(f, "{}", char::from(byte))?;
        }
        write!(f, "{:0DIGITS$}", self.sequence)
    }
}

// ===== impl Scan =====

impl Scan {
    /// Calls `found` for every marker that ends within `bytes`.
    pub(crate) fn read(&mut self, marker: &Marker, bytes: &[u8], mut found: impl FnMut(u32)) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.matched == 0 {
                let Some(at) = rest.iter().position(|byte| *byte == FIRST) else { return };
                rest = &rest[at..];
            }
            if let Some(sequence) = self.step(marker, rest[0]) {
                found(sequence);
            }
            rest = &rest[1..];
        }
    }

    fn step(&mut self, marker: &Marker, byte: u8) -> Option<u32> {
        let at = usize::from(self.matched);
        let fits = match marker.prefix.get(at) {
            Some(expected) => byte == *expected,
            None => byte.is_ascii_digit(),
        };
        if !fits {
            *self = Self { matched: u8::from(byte == FIRST), value: 0 };
            return None;
        }
        if at >= PREFIX {
            self.value = self.value.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
        }
        self.matched += 1;
        if at + 1 < PREFIX + DIGITS {
            return None;
        }
        Some(std::mem::take(self).value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(parts: &[&str]) -> Vec<u32> {
        let (mut scan, mut all) = (Scan::default(), Vec::new());
        for part in parts {
            scan.read(&Marker::new(0xabc), part.as_bytes(), |sequence| all.push(sequence));
        }
        all
    }

    #[test]
    fn a_marker_is_found_wherever_the_reads_are_split() {
        let text = format!("id: 1\ndata: {{\"keys\":[\"{}\"]}}\n\n", Marker::new(0xabc).of(42));
        for cut in 0..text.len() {
            assert_eq!(found(&[&text[..cut], &text[cut..]]), [42], "cut at {cut}");
        }
    }

    #[test]
    fn an_incomplete_marker_does_not_hide_the_next_one() {
        assert_eq!(found(&["NN-00000abcN-00000abc-0000000007"]), [7]);
    }

    #[test]
    fn all_adjacent_markers_of_this_run_are_found() {
        let (ours, other) = (Marker::new(0xabc), Marker::new(0xabd));
        let text = format!("{}{}{}", ours.of(0), other.of(1), ours.of(u32::MAX));
        assert_eq!(found(&[&text]), [0, u32::MAX]);
    }
}
