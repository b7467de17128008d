//! A TLS session between hyper and its socket, with a bound on what the client may send without any data in it.
//! rustls has none: it accepts 32 key updates after each record, which may be empty.

use std::future::{Future as _, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::HTTP2;
use crate::config::{TLS_OVERHEAD_MAX, TLS_OVERHEAD_PER_BYTE};
use crate::server::reactor::Transport;
use crate::server::socket::Socket;

/// The socket below a TLS session.
#[derive(Debug)]
struct Wire {
    socket: TokioIo<Socket>,
    /// Bytes that were read, less those that the data in them accounts for.
    overhead: usize,
    /// There was a read in this turn. The next has to wait for the other tasks, unless this one brought data.
    has_read: AtomicBool,
}

/// A TLS session after its handshake.
#[derive(Debug)]
pub(super) struct Session(TlsStream<Wire>);

/// Bytes of records that rustls buffers for a full socket.
const BUFFER: usize = 16 * 1024;

/// Bytes of one read. rustls would read 17 KiB at once after a large record.
const READ: usize = 4 * 1024;

// ===== impl Wire =====

impl Wire {
    fn new(socket: Socket) -> Self {
        Self { socket: TokioIo::new(socket), overhead: 0, has_read: AtomicBool::new(false) }
    }

    /// Allows another read. tokio-rustls goes on with a handshake after a read that had to wait, so each poll of it has
    /// to begin a turn first; and in a handshake it gives access to the socket by a shared reference only.
    fn begin_turn(&self) {
        self.has_read.store(false, Ordering::Relaxed);
    }

    fn socket(&mut self) -> &mut Socket {
        self.socket.inner_mut()
    }

    fn account_for(&mut self, data: usize) {
        self.overhead = self.overhead.saturating_sub(data.saturating_mul(TLS_OVERHEAD_PER_BYTE));
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.overhead > TLS_OVERHEAD_MAX {
            let why = "too many TLS records without data";
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, why)));
        }
        if *self.has_read.get_mut() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = buf.remaining().min(READ);
        let mut some = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut some))?;
        let read = some.filled().len();
        buf.advance(read);
        self.overhead += read;
        *self.has_read.get_mut() = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

// ===== impl Session =====

impl Session {
    /// Performs the handshake on a socket, as far as each turn of its task allows.
    pub(super) async fn accept(socket: Socket, acceptor: TlsAcceptor) -> io::Result<Self> {
        let wire = Wire::new(socket);
        let mut handshake =
            acceptor.accept_with(wire, |session| session.set_buffer_limit(Some(BUFFER)));
        let tls = poll_fn(|cx| {
            handshake.get_ref().into_iter().for_each(Wire::begin_turn);
            Pin::new(&mut handshake).poll(cx)
        });
        tls.await.map(Self)
    }

    pub(super) fn speaks_http2(&self) -> bool {
        self.0.get_ref().1.alpn_protocol() == Some(HTTP2)
    }

    pub(super) fn socket(&mut self) -> &mut Socket {
        self.0.get_mut().0.socket()
    }

    /// What the reactor writes to, which the runtime no longer watches.
    pub(super) fn into_transport(self) -> io::Result<Transport> {
        let (wire, session) = self.0.into_inner();
        Ok(Transport::tls(wire.socket.into_inner().into_inner()?, session))
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        self.0.get_ref().0.begin_turn();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        let data = buf.filled().len() - before;
        self.0.get_mut().0.account_for(data);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;

    use super::super::test_sessions::{client, configs, key_updates, records};
    use super::*;
    use crate::config::READS_PER_TURN;

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
        let handshake = Session::accept(socket, configs().0.into());
        let ended = assert_gives_way(&server, 1, handshake).await;
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
        let mut session = Session::accept(socket, config.into()).await.expect("a handshake");
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
