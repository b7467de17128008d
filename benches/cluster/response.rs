//! A response with a chunked body that arrives in pieces of any size: proxies cut chunks as they like.

/// What has been read of a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    state: State,
    /// The beginning of a line that continues in the next piece.
    line: Vec<u8>,
    /// 0 before the status line.
    pub(crate) status: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// A chunk's length follows.
    Length,
    /// So many bytes of a chunk.
    Data(usize),
    /// The end of a chunk's line.
    DataEnd,
    End,
}

/// The bytes are no such response.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Bytes of a line of the head, or of the length of a chunk.
const LINE_MAX: usize = 8 * 1024;

// ===== impl Response =====

impl Response {
    /// Passes the body's bytes on. Returns whether the response goes on.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        mut body: impl FnMut(&[u8]),
    ) -> Result<bool, Malformed> {
        while !bytes.is_empty() && self.state != State::End {
            if let State::Data(length) = self.state {
                let (now, rest) = bytes.split_at(length.min(bytes.len()));
                body(now);
                bytes = rest;
                self.state = match length - now.len() {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.extend_from_slice(bytes);
                return if self.line.len() > LINE_MAX { Err(Malformed) } else { Ok(true) };
            };
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.end_line(std::str::from_utf8(&line).map_err(|_| Malformed)?.trim_end())?;
        }
        Ok(self.state != State::End)
    }

    fn end_line(&mut self, line: &str) -> Result<(), Malformed> {
        self.state = match self.state {
            State::Head if self.status == 0 => {
                let status = line.get(9..12).and_then(|status| status.parse().ok());
                self.status = status.ok_or(Malformed)?;
                State::Head
            }
            State::Head if line.is_empty() => State::Length,
            State::Head => State::Head,
            State::DataEnd => State::Length,
            _ => match usize::from_str_radix(line, 16).map_err(|_| Malformed)? {
                0 => State::End,
                length => State::Data(length),
            },
        };
        Ok(())
    }
}
