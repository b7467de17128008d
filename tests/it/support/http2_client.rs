//! A client that writes HTTP/2 frame by frame (RFC 9113), including frames that no library would send.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::BOUND;

/// A connection on cleartext with prior knowledge (3.3).
pub(crate) struct Http2Client {
    socket: TcpStream,
    /// Bytes read and not yet parsed.
    buffer: VecDeque<u8>,
    next_stream: u32,
    streams: BTreeMap<u32, Received>,
    /// The error code of the last GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// PINGs that were answered.
    pongs: usize,
    /// The bytes that may still be sent on a stream, and on the connection (0), since the window it began with (6.9.1).
    windows: BTreeMap<u32, i64>,
    answers_pings: bool,
    /// The last PING that was not answered.
    unanswered: Option<Vec<u8>>,
    /// Whether the connection has ended.
    pub(crate) closed: bool,
}

/// What was received on one stream.
#[derive(Debug, Default)]
struct Received {
    status: Option<u16>,
    data: Vec<u8>,
    /// Length of the part that was searched for the end of an event.
    searched: usize,
    end: Option<End>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Stream,
    /// It was reset, with this error code.
    Reset(u32),
    /// Its connection ended.
    Connection,
}

/// Kinds of frames (section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Error codes (section 7).
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0;
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const REFUSED_STREAM: u32 = 7;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// Flags of frames; of SETTINGS and PING, the first is ACK.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// As large as a window can be.
pub(crate) const WIDE: u32 = (1 << 31) - 1;

// ===== impl Http2Client =====

impl Http2Client {
    /// Connects, with this window for each stream, and the largest for the connection.
    pub(crate) fn connect(address: SocketAddr, window: u32) -> Self {
        Self::on(TcpStream::connect(address).expect("the server listens"), window)
    }

    /// The same on an existing connection.
    pub(crate) fn on(socket: TcpStream, window: u32) -> Self {
        let mut client = Self::silent(socket);
        client.send_bytes(PREFACE);
        // No dynamic table (1), so that responses can be decoded without one; the window (4).
        let settings = [&[0, 1][..], &0_u32.to_be_bytes(), &[0, 4], &window.to_be_bytes()].concat();
        client.send(kind::SETTINGS, 0, 0, &settings);
        client.grant(0, WIDE - 65_535);
        client
    }

    /// A connection on which nothing has been sent yet.
    pub(crate) fn silent(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(BOUND)).expect("a socket");
        socket.set_write_timeout(Some(BOUND)).expect("a socket");
        socket.set_nodelay(true).expect("a socket");
        Self {
            socket,
            buffer: VecDeque::new(),
            next_stream: 1,
            streams: BTreeMap::new(),
            goaway: None,
            pongs: 0,
            windows: BTreeMap::new(),
            answers_pings: true,
            unanswered: None,
            closed: false,
        }
    }

    /// From now on no PING is answered, as if only the client's kernel were alive.
    pub(crate) fn ignore_pings(&mut self) {
        self.answers_pings = false;
    }

    /// Waits for a PING and does not answer it.
    pub(crate) fn hold_ping(&mut self) {
        self.ignore_pings();
        self.until("a PING", |client| client.unanswered.as_ref().map(|_| ()));
    }

    /// Answers the PING that was held, and all after it.
    pub(crate) fn answer_ping(&mut self) {
        self.answers_pings = true;
        let payload = self.unanswered.take().expect("a PING");
        self.send(kind::PING, ACK, 0, &payload);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("the server reads");
    }

    /// The same, where the server may have closed the connection.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_bytes(&frame(kind, flags, stream, payload));
    }

    /// Sends data, once there is a window for it, unless there is a response before.
    pub(crate) fn send_data(&mut self, stream: u32, data: &[u8]) {
        let length = i64::try_from(data.len()).expect("short");
        let open = self.until("a window", |client| {
            let has_room = |at| 65_535 + client.windows.get(at).copied().unwrap_or(0) >= length;
            let open = [0, stream].iter().all(has_room);
            (open || client.has_status(stream)).then_some(open)
        });
        if open {
            [0, stream].iter().for_each(|at| *self.windows.entry(*at).or_default() -= length);
            self.send(kind::DATA, 0, stream, data);
        }
    }

    /// Whether the status of a response has arrived.
    pub(crate) fn has_status(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|received| received.status.is_some())
    }

    /// Sends a GET, and returns the number of its stream.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        let stream = self.take_stream();
        self.send(kind::HEADERS, END_STREAM | END_HEADERS, stream, &request("GET", path));
        stream
    }

    /// The number of the next stream that this client may open.
    pub(crate) fn take_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    pub(crate) fn reset(&mut self, stream: u32) {
        self.send(kind::RST_STREAM, 0, stream, &code::CANCEL.to_be_bytes());
    }

    /// Enlarges the window of a stream, or of the connection (0).
    pub(crate) fn grant(&mut self, stream: u32, bytes: u32) {
        self.send(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    /// Returns once the server has processed all that was sent before.
    pub(crate) fn ping(&mut self) {
        let pongs = self.pongs;
        self.send(kind::PING, 0, 0, &[7; 8]);
        self.until("a PING is answered", |client| (client.pongs > pongs).then_some(()));
    }

    /// The same, where the server may close the connection instead.
    pub(crate) fn ping_or_close(&mut self) {
        let pongs = self.pongs;
        if self.try_send_bytes(&frame(kind::PING, 0, 0, &[7; 8])).is_err() {
            self.closing();
        }
        self.until("a PING is answered, or the end", |client| {
            (client.pongs > pongs || client.closed).then_some(())
        });
    }

    /// Reads what has arrived, without waiting.
    pub(crate) fn read_available(&mut self) {
        self.socket.set_nonblocking(true).expect("a socket");
        let mut bytes = [0; 16 * 1024];
        while let Ok(n @ 1..) = self.socket.read(&mut bytes) {
            self.buffer.extend(&bytes[..n]);
        }
        self.socket.set_nonblocking(false).expect("a socket");
    }

    /// From now on a write fails if the server reads nothing for a second.
    pub(crate) fn shorten_write_timeout(&self) {
        self.socket.set_write_timeout(Some(Duration::from_secs(1))).expect("a socket");
    }

    /// The status of a response, or the error code with which its stream was reset or its connection ended.
    pub(crate) fn outcome(&mut self, stream: u32) -> Result<u16, u32> {
        self.until(&format!("the outcome of {stream}"), |client| {
            if client.closed {
                return client.goaway.map(Err);
            }
            match client.streams.get(&stream)? {
                Received { end: Some(End::Reset(code)), status: None, .. } => Some(Err(*code)),
                Received { status, .. } => status.map(Ok),
            }
        })
    }

    /// The status of a response.
    pub(crate) fn status(&mut self, stream: u32) -> u16 {
        self.until("a status", |client| client.streams.get(&stream)?.status)
    }

    /// The next event of a stream, with the comments before it.
    pub(crate) fn event(&mut self, stream: u32) -> String {
        self.take_until(stream, b"\n\n")
    }

    /// The next line of a stream.
    pub(crate) fn line(&mut self, stream: u32) -> String {
        self.take_until(stream, b"\n")
    }

    /// The data of a stream up to and including `end`.
    fn take_until(&mut self, stream: u32, end: &[u8]) -> String {
        let text = self.until(&format!("{end:?} on {stream}"), |client| {
            let Received { data, searched, .. } = client.streams.get_mut(&stream)?;
            let from = std::mem::replace(searched, (data.len() + 1).saturating_sub(end.len()));
            let found = data[from..].windows(end.len()).position(|window| window == end)?;
            *searched = 0;
            Some(data.drain(..from + found + end.len()).collect())
        });
        String::from_utf8(text).expect("UTF-8")
    }

    /// Waits for the end of a stream; returns how it ended, and the data before that.
    pub(crate) fn end(&mut self, stream: u32) -> (End, String) {
        let end = self.until(&format!("the end of {stream}"), |client| {
            let lost = client.closed.then_some(End::Connection);
            client.streams.get(&stream).and_then(|received| received.end).or(lost)
        });
        let data = self.streams.remove(&stream).unwrap_or_default().data;
        (end, String::from_utf8(data).expect("UTF-8"))
    }

    /// Number of bytes of a stream that were received and not consumed.
    pub(crate) fn received(&self, stream: u32) -> usize {
        self.streams.get(&stream).map_or(0, |received| received.data.len())
    }

    /// Reads up to the end of the connection, and returns the code of the GOAWAY before it.
    pub(crate) fn closing(&mut self) -> Option<u32> {
        self.until("the connection ends", |client| client.closed.then_some(client.goaway))
    }

    /// Ends the connection with FIN.
    pub(crate) fn close(self) {
        // The server may have closed it already.
        _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Ends the connection with RST.
    pub(crate) fn abort(self) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Reads frames until the condition holds.
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            assert!(start.elapsed() < BOUND, "not in time: {what}");
            let Self { closed, goaway, .. } = self;
            assert!(!*closed, "the connection ended (GOAWAY {goaway:?}) before: {what}");
            self.read_frame(what);
        }
    }

    fn read_frame(&mut self, what: &str) {
        let Some(head) = self.read_exact(9, what) else { return };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some(payload) = self.read_exact(length as usize, what) else { return };
        self.take(head[3], head[4], stream, &payload);
    }

    /// `None` once the connection has ended.
    fn read_exact(&mut self, length: usize, what: &str) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            let mut bytes = [0; 16 * 1024];
            match self.socket.read(&mut bytes) {
                Ok(0) => self.closed = true,
                Ok(n) => self.buffer.extend(&bytes[..n]),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => panic!("not in time: {what}"),
                Err(_) => self.closed = true,
            }
            if self.closed {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let code = || u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
        match kind {
            // The connection may have ended meanwhile.
            kind::SETTINGS if flags & ACK == 0 => {
                _ = self.try_send_bytes(&frame(kind::SETTINGS, ACK, 0, &[]));
            }
            kind::PING if flags & ACK != 0 => self.pongs += 1,
            kind::PING if self.answers_pings => {
                _ = self.try_send_bytes(&frame(kind::PING, ACK, 0, payload));
            }
            kind::PING => self.unanswered = Some(payload.to_vec()),
            kind::GOAWAY => {
                self.goaway = Some(u32::from_be_bytes(payload[4..8].try_into().expect("a code")));
            }
            kind::DATA | kind::HEADERS | kind::RST_STREAM => {
                let received = self.streams.entry(stream).or_default();
                match kind {
                    kind::DATA => received.data.extend(payload),
                    kind::HEADERS => received.status = Some(status(payload)),
                    _ => _ = received.end.get_or_insert_with(|| End::Reset(code())),
                }
                if kind != kind::RST_STREAM && flags & END_STREAM != 0 {
                    received.end = Some(End::Stream);
                }
            }
            kind::WINDOW_UPDATE => *self.windows.entry(stream).or_default() += i64::from(code()),
            _ => {}
        }
    }
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of a request.
pub(crate) fn request(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("accept", "text/event-stream"),
        ("content-type", "application/json"),
    ];
    block(&fields)
}

/// A header block (RFC 7541, 6.2.2: literal fields without indexing, and without Huffman's code).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of 7 bits (RFC 7541, 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return block.push(value as u8);
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The status, which is the first field: from the static table, or three digits of Huffman's code.
pub(crate) fn status(block: &[u8]) -> u16 {
    // A change of the dynamic table's size may come first (RFC 7541, 6.3).
    let at = block.iter().position(|byte| byte >> 5 != 1).expect("a field");
    match &block[at..] {
        [first @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)],
        // A literal whose name is the eighth of the table.
        [0x48 | 0x08, length, value @ ..] if length & 0x80 != 0 => digits(value),
        [0x48 | 0x08, 3, value @ ..] => {
            std::str::from_utf8(&value[..3]).expect("digits").parse().expect("a number")
        }
        other => panic!("no status: {other:x?}"),
    }
}

/// Three digits: 0, 1 and 2 take five bits, the others six (RFC 7541, appendix B).
fn digits(code: &[u8]) -> u16 {
    let mut bits = code.iter().take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    bits <<= 8 * (4 - code.len().min(3));
    (0..3).fold(0, |status, _| {
        let (digit, length) = match bits >> 27 {
            short @ 0..=2 => (short, 5),
            _ => ((bits >> 26) - 0x19 + 3, 6),
        };
        bits <<= length;
        status * 10 + digit as u16
    })
}
