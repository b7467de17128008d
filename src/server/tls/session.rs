//! A TLS session between hyper and its socket, with a bound on what the client may send without any data in it.
//! rustls has none: it accepts 32 key updates after each record, which may be empty.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read as _, Write as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls_session::TlsSession;
use crate::server::reactor::Transport;
use crate::server::socket::Socket;

/// A TLS session and its socket, which the runtime watches.
#[derive(Debug)]
pub(super) struct Session {
    socket: Socket,
    tls: Box<TlsSession>,
    /// close_notify was sent, or is about to be.
    is_closed: bool,
}

/// A socket to write to in this poll, without waiting.
struct Now<'a, 'b>(&'a mut Socket, &'a mut Context<'b>);

/// Bytes of one read.
const READ: usize = 4 * 1024;

// ===== impl Session =====

impl Session {
    pub(super) fn new(socket: Socket, tls: Box<TlsSession>) -> Self {
        Self { socket, tls, is_closed: false }
    }

    /// Completes the handshake, as far as each turn of its task allows.
    pub(super) async fn complete_handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut has_read = false;
        loop {
            ready!(self.poll_write_records(cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.process_record(cx)? || self.tls.wants_write() {
                continue;
            }
            if ready!(self.poll_receive(&mut has_read, cx))? == 0 {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.tls.speaks_http2()
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// What the reactor writes to, which the runtime no longer watches.
    pub(super) fn into_transport(self) -> io::Result<Transport> {
        self.tls.into_transport(self.socket.into_inner()?)
    }

    fn process_record(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let processed = self.tls.process_record();
        if processed.is_err() {
            // The alert, if the socket takes it.
            _ = self.poll_write_records(cx);
        }
        processed
    }

    /// Reads from the socket, once in a turn: the next read has to wait for the other tasks. Returns the number of
    /// bytes; 0 at the end.
    fn poll_receive(
        &mut self,
        has_read: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if *has_read {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut bytes = [MaybeUninit::uninit(); READ];
        let mut buf = hyper::rt::ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf.unfilled()))?;
        *has_read = true;
        self.tls.receive(buf.filled())?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Writes what rustls has to send.
    fn poll_write_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_to(&mut Now(&mut self.socket, cx)) {
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(why) => return Poll::Ready(Err(why)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut has_read = false;
        loop {
            match self.tls.data() {
                Ok(data) => {
                    let length = data.len().min(buf.remaining());
                    buf.put_slice(&data[..length]);
                    self.tls.consume(length);
                    return Poll::Ready(Ok(()));
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                Err(why) => return Poll::Ready(Err(why)),
            }
            if !self.process_record(cx)? {
                ready!(self.poll_receive(&mut has_read, cx))?;
            }
        }
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Takes what rustls has room for, which is in its buffer for as long as the socket is full.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let taken = self.tls.encrypt(parts)?;
            let written = self.poll_write_records(cx)?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            ready!(written);
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_records(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed {
            self.is_closed = true;
            self.tls.close();
        }
        ready!(self.poll_write_records(cx))?;
        match ready!(Pin::new(&mut self.socket).poll_shutdown(cx)) {
            Err(why) if why.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }
}

// ===== impl Now =====

impl Now<'_, '_> {
    fn wait<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
        match polled {
            Poll::Ready(done) => done,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Write for Now<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::wait(Pin::new(&mut *self.0).poll_write(self.1, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::wait(Pin::new(&mut *self.0).poll_write_vectored(self.1, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use rustls::ServerConfig;
    use tokio::io::AsyncReadExt as _;

    use super::super::test_sessions::{client, configs, key_updates, records};
    use super::*;
    use crate::config::{READS_PER_TURN, TLS_OVERHEAD_MAX};

    fn session(socket: Socket, config: Arc<ServerConfig>) -> Session {
        Session::new(socket, TlsSession::new(config).expect("a session").into())
    }

    /// The two ends of a connection, and the server's as hyper and rustls see it.
    fn connection() -> (TcpStream, TcpStream, Socket) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let client = TcpStream::connect(address).expect("it listens");
        let (server, _) = listener.accept().expect("a connection");
        server.set_nonblocking(true).expect("a socket");
        let socket = mio::net::TcpStream::from_std(server.try_clone().expect("a descriptor"));
        (client, server, Socket::new(socket, Bytes::new()).expect("a runtime"))
    }

    /// Bytes that have arrived and were not read.
    fn unread(server: &TcpStream) -> usize {
        server.peek(&mut [0; 1 << 16]).unwrap_or_default()
    }

    /// Sends a flood and the end of the connection.
    fn send_all(client: &TcpStream, server: &TcpStream, flood: &[u8]) {
        send(client, server, flood);
        client.shutdown(Shutdown::Write).expect("connected");
    }

    /// Sends bytes, which are in the server's buffer when this returns.
    fn send(mut client: &TcpStream, server: &TcpStream, flood: &[u8]) {
        client.write_all(flood).expect("a buffer");
        for _ in 0..20_000 {
            if unread(server) == flood.len() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("{} bytes have arrived of {}", unread(server), flood.len());
    }

    /// Polls to the end. Each poll may read so often from the flood.
    async fn assert_gives_way<T>(
        server: &TcpStream,
        reads: usize,
        act: impl Future<Output = T>,
    ) -> T {
        let mut act = std::pin::pin!(act);
        poll_fn(|cx| {
            let before = unread(server);
            let polled = act.as_mut().poll(cx);
            let read = before - unread(server);
            assert!(read <= reads * READ, "{read} bytes in one poll");
            polled
        })
        .await
    }

    /// A flood may not fill its buffers: it is cut before.
    const FLOOD: usize = TLS_OVERHEAD_MAX + 2 * READ;

    /// SCENARIO: a client sends a hello of 64 KiB in records of one byte.
    /// BUG: the handshake read on as long as there was something to read, and ended at a limit of rustls only.
    /// FIX: it gives way after each read, and ends at a number of bytes.
    #[tokio::test]
    async fn a_handshake_gives_way_and_ends_at_a_number_of_bytes() {
        let (flooder, server, socket) = connection();
        let record = |bytes: &[u8]| [&[22, 3, 1, 0, bytes.len() as u8][..], bytes].concat();
        let begin = record(&[1, 0, 0xff, 0xff]);
        let rest = record(&[0]).repeat(FLOOD / 6);
        send_all(&flooder, &server, &[begin, rest].concat());
        let mut session = session(socket, configs().0);
        let ended = assert_gives_way(&server, 1, session.complete_handshake()).await;
        assert_eq!(ended.expect_err("cut").kind(), ErrorKind::InvalidData);
        assert_ne!(unread(&server), 0, "it was not read to the end");
    }

    /// The same after the handshake, with key updates.
    #[tokio::test]
    async fn a_session_without_data_gives_way_and_ends_at_a_number_of_bytes() {
        let (mut flooder, server, socket) = connection();
        let (config, trusting) = configs();
        let handshake = std::thread::spawn(move || {
            let mut client = client(trusting);
            while client.is_handshaking() {
                client.complete_io(&mut flooder).expect("a handshake");
            }
            (client, flooder)
        });
        let mut session = session(socket, config);
        session.complete_handshake().await.expect("a handshake");
        let (mut client, flooder) = handshake.join().expect("a client");

        // Data accounts for what came before it, in records of any size.
        for size in [1, 1, 100, 16_384] {
            client.writer().write_all(&vec![b'd'; size]).expect("a session");
            send(&flooder, &server, &records(&mut client));
            let mut bytes = vec![0; size];
            session.read_exact(&mut bytes).await.expect("data");
            assert_eq!(bytes, vec![b'd'; size]);
        }
        let mut flood = Vec::new();
        while flood.len() < FLOOD {
            flood.extend(key_updates(&mut client));
        }
        send_all(&flooder, &server, &flood);
        let all = async {
            let mut bytes = [0; 64];
            while session.read(&mut bytes).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let ended = assert_gives_way(&server, READS_PER_TURN as usize, all).await;
        assert_eq!(ended.expect_err("cut").kind(), ErrorKind::InvalidData);
        assert_ne!(unread(&server), 0, "it was not read to the end");
    }
}
