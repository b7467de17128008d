//! What a client received, and whether a server may send it.

use std::time::Duration;

use super::STREAMS_MAX;
use super::check::{check_answers, check_frames};
use super::tls::{self, Session};

/// What a client received, and what it did to receive it.
#[derive(Default)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) session: Option<Box<Session>>,
    pub(super) is_tls: bool,
    /// The first bytes that were sent in cleartext.
    pub(super) first: Vec<u8>,
    /// The end of the connection was received, after all bytes that the server had sent.
    pub(super) is_complete: bool,
    /// The client has kept the server from sending, or from noticing its end: it did not read, cut or reset something.
    pub(super) is_hindered: bool,
    pub(super) sent: usize,
    /// Bytes of the published events, about.
    pub(super) published: usize,
    pub(super) paused: Duration,
}

/// What a client received, within its session if it has one.
pub(super) enum Data {
    Http1(Vec<u8>),
    Http2(Vec<u8>),
    /// Of a handshake that is not done.
    Records(Vec<u8>),
}

/// The connection preface of an HTTP/2 client (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest response to a short request is `/metrics`.
const ANSWER_LEN_MAX: usize = 16 * 1024;

// ===== impl Received =====

impl Received {
    /// What was received is what a server may send, as far as it was received, and not too much.
    pub(super) fn check(self) {
        let len = self.bytes.len();
        let events = self.published + 64 * self.paused.as_secs() as usize;
        // A request has 8 bytes at least, with HPACK.
        let bound = (1 + self.sent / 8) * ANSWER_LEN_MAX + STREAMS_MAX * events;
        assert!(len <= bound, "{len} bytes, at most {bound}");

        // The server closes a connection whose client has closed its half.
        assert!(self.is_complete || self.is_hindered, "the connection has not ended");

        let anywhere = self.is_hindered || self.is_tls;
        match self.into_data() {
            Data::Http1(data) => check_answers(&data, anywhere),
            Data::Http2(data) => check_frames(&data),
            Data::Records(records) => tls::check_records(&records),
        }
    }

    pub(super) fn into_data(self) -> Data {
        match self.session {
            Some(session) if session.is_http2 => Data::Http2(session.decrypt(self.bytes)),
            Some(session) => Data::Http1(session.decrypt(self.bytes)),
            // Otherwise it is the answer to a client that speaks HTTP in cleartext.
            None if self.is_tls && !self.bytes.starts_with(b"HTTP/") => Data::Records(self.bytes),
            None if self.first == PREFACE => Data::Http2(self.bytes),
            None => Data::Http1(self.bytes),
        }
    }
}
