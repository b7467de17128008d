//! A TLS session without its socket. rustls gets one whole record at a time: what it has read beyond a record could not
//! be had back for a stream that goes on without it.

use std::io::{self, BufRead as _, ErrorKind, IoSlice, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::HTTP2;
use super::record_header::{HEADER_BYTES, record_bytes};
use super::record_layer::{RecordLayer, flush};
use super::sealed::SealedTransport;
use super::secrets::{TrafficSecrets, catching};
use crate::config::{TLS_KEY_UPDATES_MAX, TLS_OVERHEAD_MAX, TLS_OVERHEAD_PER_BYTE};
use crate::server::reactor::Transport;

/// A session, and what was read from its socket that rustls has not got yet: at most what one read brought, and an
/// incomplete record before it.
#[derive(Debug)]
pub(crate) struct TlsSession {
    rustls: ServerConnection,
    input: Vec<u8>,
    /// The first so many bytes of `input` have been processed.
    processed: usize,
    /// Bytes that were read, less those that the data in them accounts for.
    overhead: usize,
    /// Records without data since the handshake; a client that updates its keys sends one each time.
    empty_records: u32,
    /// The first traffic secrets, if the session may be released.
    secrets: Option<Box<TrafficSecrets>>,
}

/// Bytes of records that rustls buffers for a full socket.
const BUFFER: usize = 16 * 1024;

// ===== impl TlsSession =====

impl TlsSession {
    /// A session whose client has sent nothing.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut rustls = ServerConnection::new(config)?;
        rustls.set_buffer_limit(Some(BUFFER));
        Ok(Self {
            rustls,
            input: Vec::new(),
            processed: 0,
            overhead: 0,
            empty_records: 0,
            secrets: None,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.rustls.is_handshaking()
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.rustls.alpn_protocol() == Some(HTTP2)
    }

    /// Takes what was read from the socket; nothing at its end.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            self.rustls.read_tls(&mut io::empty())?;
        }
        self.input.extend_from_slice(bytes);
        self.overhead += bytes.len();
        Ok(())
    }

    /// Whether the next record may be processed: what it follows from has been sent, and its data has been taken.
    fn accepts_record(&self) -> bool {
        self.rustls.wants_read()
    }

    /// Processes the next record, if it is whole. Returns whether it was.
    ///
    /// # Errors
    /// The client broke the protocol, for which an alert is [to be written](Self::write_to), or has sent too many bytes
    /// without data.
    pub(super) fn process_record(&mut self) -> io::Result<bool> {
        if !self.accepts_record() {
            return Ok(false);
        }
        let input = &self.input[self.processed..];
        let length = match input.first_chunk::<HEADER_BYTES>().map(record_bytes) {
            // rustls refuses it for its header.
            Some(None) => HEADER_BYTES,
            Some(Some(length)) if length <= input.len() => length,
            Some(Some(_)) | None => {
                self.tidy();
                return self.check_overhead().map(|()| false);
            }
        };
        let was_handshaking = self.rustls.is_handshaking();
        let mut record = &input[..length];
        // rustls takes 4 KiB at a time; nothing after the end of the session.
        while !record.is_empty() && self.rustls.read_tls(&mut record)? > 0 {
            let (processed, caught) = catching(|| self.rustls.process_new_packets());
            processed.map_err(|why| io::Error::new(ErrorKind::InvalidData, why))?;
            if caught.is_some() && !self.speaks_http2() {
                self.secrets = caught;
            }
        }
        self.processed += length;
        if self.processed == self.input.len() {
            self.tidy();
        }
        self.account_for_data(was_handshaking);
        Ok(true)
    }

    fn account_for_data(&mut self, was_handshaking: bool) {
        let data = self.data().map_or(0, <[u8]>::len);
        self.overhead = self.overhead.saturating_sub(data.saturating_mul(TLS_OVERHEAD_PER_BYTE));
        if data == 0 && !was_handshaking {
            self.empty_records = self.empty_records.saturating_add(1);
        }
    }

    fn check_overhead(&self) -> io::Result<()> {
        if self.overhead > TLS_OVERHEAD_MAX {
            let why = "too many TLS records without data";
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        Ok(())
    }

    /// Keeps what has not been processed, and no memory if that is nothing.
    fn tidy(&mut self) {
        if self.processed == self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..self.processed);
        }
        self.processed = 0;
    }

    /// The data of the last record, as far as it was not [consumed](Self::consume): nothing at the end.
    ///
    /// # Errors
    /// `WouldBlock`: there is none. `UnexpectedEof`: the connection ended without close_notify (RFC 8446, 6.1).
    pub(super) fn data(&mut self) -> io::Result<&[u8]> {
        self.rustls.reader().into_first_chunk()
    }

    /// Discards the first bytes of [`Self::data`].
    pub(super) fn consume(&mut self, length: usize) {
        self.rustls.reader().consume(length);
    }

    /// Encrypts as much as there is room for. Returns the number of bytes.
    pub(super) fn encrypt(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.rustls.writer().write_vectored(parts)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.rustls.wants_write()
    }

    /// Writes some of the records that have to be sent.
    pub(super) fn write_to(&mut self, socket: &mut dyn Write) -> io::Result<usize> {
        match self.rustls.write_tls(socket)? {
            0 => Err(ErrorKind::WriteZero.into()),
            length => Ok(length),
        }
    }

    pub(super) fn close(&mut self) {
        self.rustls.send_close_notify();
    }

    /// Processes the records that are whole, and discards their data, for a session whose stream begins.
    ///
    /// # Errors
    /// Those of [`Self::process_record`].
    fn discard_received(&mut self) -> io::Result<()> {
        loop {
            while let Ok(length @ 1..) = self.data().map(<[u8]>::len) {
                self.consume(length);
            }
            if !self.process_record()? {
                return Ok(());
            }
        }
    }

    /// What a stream writes to. What was received after its request has been discarded. The session is released, if it
    /// may be and its client has not ended it, which rustls knows.
    ///
    /// # Errors
    /// The client has broken the protocol meanwhile.
    pub(super) fn into_transport(mut self, mut socket: TcpStream) -> io::Result<Transport> {
        if let Err(why) = self.discard_received() {
            // The alert, if the socket takes it.
            while self.wants_write() && self.write_to(&mut socket).is_ok() {}
            return Err(why);
        }
        let partial = self.input.split_off(self.processed);
        let is_open = matches!(self.data(), Err(why) if why.kind() == ErrorKind::WouldBlock);
        let secrets = self.secrets.take();
        match secrets.filter(|_| is_open && self.empty_records <= TLS_KEY_UPDATES_MAX) {
            Some(secrets) => self.release(socket, &secrets, partial),
            None => self.keep(socket, &partial),
        }
    }

    /// Leaves the session to rustls, with the beginning of a record.
    fn keep(mut self, socket: TcpStream, mut partial: &[u8]) -> io::Result<Transport> {
        while !partial.is_empty() && self.rustls.read_tls(&mut partial)? > 0 {}
        Ok(Transport::tls(socket, self.rustls))
    }

    /// Gives the session to a record layer.
    fn release(
        mut self,
        socket: TcpStream,
        secrets: &TrafficSecrets,
        partial: Vec<u8>,
    ) -> io::Result<Transport> {
        let mut pending = Vec::new();
        flush(&mut self.rustls, &mut pending)?;
        let layer = RecordLayer::take_over(self.rustls, secrets, self.empty_records);
        let layer = layer.map_err(|why| {
            tracing::error!(%why, "a TLS session could not be released");
            io::Error::other(why)
        })?;
        Ok(Transport::Sealed(Box::new(SealedTransport::new(socket, layer, pending, partial))))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use rustls::version::TLS13;

    use super::super::release_sessions;
    use super::super::test_sessions::{client, configs_of, records};
    use super::*;

    /// Of more, a record layer would have to derive every key.
    #[test]
    fn a_session_of_many_key_updates_is_kept() {
        let max = TLS_KEY_UPDATES_MAX;
        for (updates, is_released) in [(0, true), (max, true), (max + 1, false)] {
            let (mut config, trusting) = configs_of(&[&TLS13]);
            release_sessions(Arc::make_mut(&mut config));
            let mut server = TlsSession::new(config).expect("a session");
            let mut client = client(trusting);
            while client.is_handshaking() || client.wants_write() {
                server.receive(&records(&mut client)).expect("memory");
                let mut wire = Vec::new();
                while server.process_record().expect("a handshake") || server.wants_write() {
                    flush(&mut server.rustls, &mut wire).expect("memory");
                }
                client.read_tls(&mut &wire[..]).expect("memory");
                client.process_new_packets().expect("a handshake");
            }
            for update in 0..updates {
                // rustls accepts 32 of them without data in between.
                if update % 30 == 0 {
                    client.writer().write_all(b"data").expect("a session");
                }
                client.refresh_traffic_keys().expect("TLS 1.3");
                server.receive(&records(&mut client)).expect("memory");
                server.discard_received().expect("records");
            }
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let socket = std::net::TcpStream::connect(listener.local_addr().expect("bound"));
            let transport = server.into_transport(TcpStream::from_std(socket.expect("it listens")));
            let is_sealed = matches!(transport.expect("a session"), Transport::Sealed(_));
            assert_eq!(is_sealed, is_released, "{updates}");
        }
    }
}
