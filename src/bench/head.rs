//! The head of an answer over HTTP/1.

/// The status line and the empty line, recognised byte by byte.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    read: u8,
    line_end: u8,
    pub(crate) status: u16,
}

const HEAD_END: &[u8] = b"\r\n\r\n";

// ===== impl Head =====

impl Head {
    /// Where the head ends within `bytes`, if it does.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
