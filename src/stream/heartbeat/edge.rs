//! Where in an event stream a comment may be put, found out in one pass over its bytes, however they are cut.

/// What it has to remember of the bytes so far: a few bytes, for a stream of any length.
#[derive(Debug, Default)]
pub(super) struct Edge {
    line: Line,
    /// Since the last empty line, or the beginning, there was a line that is no comment.
    in_event: bool,
    /// The last byte was a CR: a following LF belongs to it.
    after_cr: bool,
    has_id: bool,
    /// How many bytes of [`BOM`] the stream has begun with, as long as all of its bytes are of it; else
    /// [`Self::BEGUN`].
    bom: u8,
}

/// The line that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    Comment,
    /// `i`
    I,
    /// `id`
    Id,
    Field,
}

/// The byte order mark, which counts only as the stream's first character.
pub(super) const BOM: &[u8] = "\u{feff}".as_bytes();

// ===== impl Line =====

impl Line {
    fn and(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Empty, b':') | (Self::Comment, _) => Self::Comment,
            (Self::Empty, b'i') => Self::I,
            (Self::I, b'd') => Self::Id,
            _ => Self::Field,
        }
    }
}

// ===== impl Edge =====

impl Edge {
    const BEGUN: u8 = 3;

    /// Whether a comment may come next: no event has begun, and whatever comes begins a line. After a CR it is not
    /// known whether it does: that may be its LF.
    pub(super) fn is_here(&self) -> bool {
        self.line == Line::Empty
            && !self.in_event
            && !self.after_cr
            && matches!(self.bom, 0 | Self::BEGUN)
    }

    /// Whether the stream has given an id.
    pub(super) fn has_id(&self) -> bool {
        self.has_id
    }

    /// While the stream may still begin with a [`BOM`]: how many bytes of it have come.
    pub(super) fn beginning(&self) -> Option<usize> {
        (self.bom < Self::BEGUN).then_some(self.bom.into())
    }

    /// Reads the next bytes of the stream.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let mut rest = self.read_beginning(bytes);
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            self.read_byte(*first);
            if matches!(self.line, Line::Comment | Line::Field) {
                let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                rest = &rest[end.unwrap_or(rest.len())..];
            }
        }
    }

    /// Returns what is not part of a byte order mark.
    fn read_beginning<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let (Some(part), Some((first, tail))) = (self.beginning(), bytes.split_first()) {
            if BOM[part] == *first {
                self.bom += 1;
                bytes = tail;
                continue;
            }
            if part > 0 {
                self.line = Line::Field;
            }
            self.bom = Self::BEGUN;
        }
        bytes
    }

    fn read_byte(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match byte {
            b'\n' if after_cr => {}
            b'\r' | b'\n' => self.end_line(),
            _ => {
                self.has_id |= self.line == Line::Id && byte == b':';
                self.line = self.line.and(byte);
            }
        }
    }

    fn end_line(&mut self) {
        self.has_id |= self.line == Line::Id;
        match std::mem::take(&mut self.line) {
            Line::Empty => self.in_event = false,
            Line::Comment => {}
            Line::I | Line::Id | Line::Field => self.in_event = true,
        }
    }
}
