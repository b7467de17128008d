//! One HTTP/1 connection: hyper parses its requests and answers them, until one of them opens a stream. Its
//! socket then leaves hyper and is parked, with its TLS session if it has one; what hyper needed is freed.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use mio::net::TcpStream;
use tokio::sync::watch;

use super::http2;
use super::http2_conn::Http2Conn;
use super::socket::{Observer, Socket};
use crate::http::{Departing, HandoffSlot, Service};
use crate::stream::{StreamMonitor, Transport};

/// A connection that is hyper's.
#[derive(Debug)]
pub(crate) struct Connection<I = Socket> {
    hyper: http1::Connection<I, Service>,
    stay: Stay,
    /// It was told to close once what it has in flight has ended.
    told: bool,
    /// A stream that leaves once the answer before it is out.
    departing: Option<Departing>,
}

/// Whether its streams stay with hyper.
#[derive(Debug)]
enum Stay {
    Leaves(HandoffSlot),
    Stays(StreamMonitor),
}

/// A socket, with what is between it and hyper.
pub(crate) trait HyperIo {
    fn socket(&mut self) -> &mut Socket;

    /// The way to the client, which the runtime no longer watches.
    fn leave(self) -> io::Result<Transport>;
}

/// How it leaves hyper.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    Parks(Departing),
    /// Its first bytes were the preface of HTTP/2 (RFC 9113, 3.3).
    SpeaksHttp2,
}

// ===== impl Connection, cleartext =====

impl Connection {
    /// A connection from which these bytes have been read. Inside a runtime.
    pub(super) fn new(socket: TcpStream, first: Bytes, service: Service) -> io::Result<Self> {
        Ok(Self::on(Socket::new(socket, first)?, service))
    }

    /// Serves until it ends, until it is parked, or until `draining` and what it has in flight has
    /// ended.
    pub(crate) async fn serve(mut self, draining: watch::Receiver<bool>) {
        match self.run(draining.clone()).await {
            End::Closed => {}
            End::Parks(departing) => self.park(departing),
            // Boxed, because most connections have no need for its memory.
            End::SpeaksHttp2 => Box::pin(self.serve_http2(draining)).await,
        }
    }

    async fn serve_http2(self, draining: watch::Receiver<bool>) {
        let http1::Parts { mut io, read_buf, service, .. } = self.hyper.into_parts();
        if io.has_written() {
            // What follows other requests is no preface, and PRI no method of ours (RFC 9113, 3.4).
            return tracing::debug!("the preface of HTTP/2 after requests of HTTP/1");
        }
        let conn = Http2Conn::new();
        io.tell(Observer::Http2Conn(conn.clone()));
        io.unread(read_buf);
        http2::serve(io, conn, service, draining).await;
    }
}

// ===== impl Connection =====

impl<I: HyperIo + Read + Write + Unpin> Connection<I> {
    pub(super) fn on(mut io: I, mut service: Service) -> Self {
        let stay = match service.handoff_slot().cloned() {
            Some(handoff_slot) => Stay::Leaves(handoff_slot),
            None => Stay::Stays(StreamMonitor::new()),
        };
        let observer = match &stay {
            Stay::Leaves(handoff_slot) => Observer::HandoffSlot(handoff_slot.clone()),
            Stay::Stays(monitor) => {
                service = service.with_monitor(monitor.clone());
                Observer::StreamMonitor(monitor.clone())
            }
        };
        io.socket().tell(observer);
        let config = service.config();
        let hyper = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.head_bytes_max)
            .serve_connection(io, service);
        Self { hyper, stay, told: false, departing: None }
    }

    pub(super) fn park(self, departing: Departing) {
        let parts = self.hyper.into_parts();
        match parts.io.leave() {
            Ok(transport) => parts.service.park(transport, departing, parts.read_buf.len()),
            Err(why) => tracing::warn!(%why, "a socket could not be taken out of the runtime"),
        }
    }

    /// Runs it to its end.
    pub(super) async fn run(&mut self, mut draining: watch::Receiver<bool>) -> End {
        let mut drain = pin!(draining.wait_for(|draining| *draining));
        poll_fn(|cx| {
            if !self.told && drain.as_mut().poll(cx).is_ready() {
                self.tell();
            }
            self.poll_end(cx)
        })
        .await
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let handoff_slot = match &self.stay {
            Stay::Leaves(handoff_slot) => handoff_slot,
            Stay::Stays(monitor) => {
                let mut polled = Pin::new(&mut self.hyper).poll(cx);
                if polled.is_pending() && !self.told && monitor.is_over() {
                    // As on the parked path: its client may be better served by another server.
                    self.tell();
                    polled = Pin::new(&mut self.hyper).poll(cx);
                }
                return polled.map(End::from);
            }
        };
        // Connections are polled one at a time, so what this poll leaves behind is this one's.
        handoff_slot.reset();
        if let Poll::Ready(ended) = Pin::new(&mut self.hyper).poll(cx) {
            return Poll::Ready(ended.into());
        }
        let (stream, blocked) = handoff_slot.take();
        self.departing = self.departing.take().or(stream);
        // An earlier response may still be on its way (pipelining): the socket stays until it is out.
        if blocked {
            Poll::Pending
        } else {
            self.departing.take().map_or(Poll::Pending, |stream| Poll::Ready(End::Parks(stream)))
        }
    }

    fn tell(&mut self) {
        self.told = true;
        Pin::new(&mut self.hyper).graceful_shutdown();
    }
}

// ===== impl HyperIo =====

impl HyperIo for Socket {
    fn socket(&mut self) -> &mut Socket {
        self
    }

    fn leave(self) -> io::Result<Transport> {
        self.into_inner().map(Transport::Plain)
    }
}

// ===== impl End =====

impl From<hyper::Result<()>> for End {
    fn from(ended: hyper::Result<()>) -> Self {
        match ended {
            Err(why) if why.is_parse_version_h2() => Self::SpeaksHttp2,
            Err(why) => {
                tracing::debug!(%why, "connection");
                Self::Closed
            }
            Ok(()) => Self::Closed,
        }
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use super::*;
    use crate::admission::Admission;
    use crate::config::Config;
    use crate::http::{App, ServiceFactory};
    use crate::hub::Hub;
    use crate::metrics::read;
    use crate::stream::Clock;

    /// A socket that panics when it is written to.
    struct Bomb(Socket);

    impl HyperIo for Bomb {
        fn socket(&mut self) -> &mut Socket {
            &mut self.0
        }

        fn leave(self) -> io::Result<Transport> {
            self.0.leave()
        }
    }

    impl Read for Bomb {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: hyper::rt::ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl Write for Bomb {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            panic!("on purpose");
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Whatever panics while a connection is served, its seat is free.
    #[tokio::test]
    async fn a_panic_frees_the_seat() {
        let config = Config::default();
        let hub = Hub::new(config.hub.clone());
        let admission = Admission::new(&config, 1_024);
        let app = Arc::new(App::new(config, hub.clone(), Clock::start(), admission));
        let host = ServiceFactory::new(app, hub.clone(), None);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        client.write_all(b"GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n").expect("a socket");
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("a socket");
        let socket = Socket::new(TcpStream::from_std(socket), Bytes::new()).expect("a runtime");
        let admitted = host.admit(Ipv4Addr::LOCALHOST.into()).await.expect("there is room");
        let (_draining, draining) = watch::channel(false);
        let mut connection = Connection::on(Bomb(socket), host.service(admitted));
        let served = tokio::spawn(async move { connection.run(draining).await }).await;
        assert!(served.expect_err("it panics").is_panic());
        let opened: u64 = hub.counters().map(|counters| read(&counters.opened[0])).sum();
        assert_eq!((opened, hub.seats()), (1, 0));
    }
}
