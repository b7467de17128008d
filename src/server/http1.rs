//! One HTTP/1 connection: hyper parses and answers its requests until one of them opens a stream. The socket
//! then leaves hyper for the reactor, with its TLS session if it has one, and what hyper needed is freed.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Weak;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use mio::net::TcpStream;

use super::conn_context::ConnContext;
use super::head_clock::HeadClock;
use super::http2;
use super::http2_conn::Http2Conn;
use super::passed_connection::PassedConnection;
use super::reactor::Transport;
use super::socket::{Observer, Socket};
use crate::admission::Admitted;
use crate::http::{Handoff, HandoffSlot, Polled, Service, Sleep, Timer};

/// A connection that hyper serves.
#[derive(Debug)]
pub(crate) struct Connection<I = Socket> {
    hyper: http1::Connection<I, Service>,
    context: ConnContext,
    slot: HandoffSlot,
    /// Its limits, of which a request that waits is an owner too.
    admitted: Weak<Admitted>,
    /// It will close after the requests that it has in flight.
    closing: bool,
    clock: HeadClock,
    /// No request is in flight, and all is written.
    idle: bool,
    /// A stream that leaves once the response before it is written.
    handoff: Option<Handoff>,
    /// Runs while the connection is held by its client: it takes no response, or completes no request in a drain.
    patience: Option<Sleep>,
    timer: Timer,
}

/// What is between hyper and a socket.
pub(crate) trait HyperIo {
    /// A connection that is between two requests can go on in another process.
    const IS_PLAIN: bool;

    fn socket(&mut self) -> &mut Socket;

    /// What the reactor writes to, which the runtime no longer watches.
    fn into_transport(self) -> io::Result<Transport>;
}

/// How a connection ends for hyper.
#[derive(Debug)]
pub(super) enum End {
    Closed,
    /// The client held it for too long.
    Held,
    HandsOff(Handoff),
    /// It goes on in another process.
    PassesOn,
    /// Its first bytes were the preface of HTTP/2 (RFC 9113, 3.3).
    IsHttp2,
}

// ===== impl Connection, cleartext =====

impl Connection {
    /// A connection from which these bytes have been read. Inside a runtime.
    pub(super) fn cleartext(
        socket: TcpStream,
        first: Bytes,
        service: Service,
        context: ConnContext,
    ) -> io::Result<Self> {
        Ok(Self::new(Socket::new(socket, first)?, service, context))
    }

    /// Serves until the connection ends, a stream leaves it, or the worker drains and the requests in flight
    /// have ended.
    pub(crate) async fn serve(mut self) {
        match self.run().await {
            End::Closed => {}
            End::Held => self.reset(),
            End::HandsOff(handoff) => self.hand_off(handoff),
            End::PassesOn => self.pass_on(),
            // Boxed, because most connections have no need for its memory.
            End::IsHttp2 => Box::pin(self.serve_http2()).await,
        }
    }

    /// Gives the connection to the successor, with what has been read after the last request.
    fn pass_on(self) {
        let http1::Parts { io, read_buf, service, .. } = self.hyper.into_parts();
        match io.into_passed() {
            Ok((socket, held)) => {
                let first =
                    if held.is_empty() { read_buf } else { [read_buf, held].concat().into() };
                let connection = PassedConnection::of(service.admitted(), first, false);
                self.context.pass_on_socket(socket, connection);
            }
            Err(why) => tracing::warn!(%why, "a socket could not be taken out of the runtime"),
        }
    }

    async fn serve_http2(self) {
        let http1::Parts { mut io, read_buf, service, .. } = self.hyper.into_parts();
        if io.has_written() {
            // What follows other requests is no preface, and PRI no method of ours (RFC 9113, 3.4).
            return tracing::debug!("the preface of HTTP/2 after requests of HTTP/1");
        }
        let conn = Http2Conn::new(service.config().body_timeout, service.timer());
        io.observe(Observer::Http2(conn.clone()));
        io.unread(read_buf);
        http2::serve(TokioIo::new(io), conn, service, self.context.draining).await;
    }
}

// ===== impl Connection =====

impl<I: HyperIo + Read + Write + Unpin> Connection<I> {
    pub(super) fn new(mut io: I, service: Service, context: ConnContext) -> Self {
        let slot = service.handoff_slot().clone();
        let config = service.config();
        let (admitted, timer) = (service.watch_admitted(), service.timer());
        let clock = HeadClock::new(service.closer(), timer.clone(), config);
        io.socket().observe(Observer::Http1(slot.clone(), clock.clone()));
        let hyper = http1::Builder::new()
            .timer(clock.clone())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.head_bytes_max)
            // A request that is complete is answered, although its client will send no more.
            .half_close(true)
            .serve_connection(io, service);
        Self {
            hyper,
            context,
            slot,
            admitted,
            closing: false,
            clock,
            idle: true,
            handoff: None,
            patience: None,
            timer,
        }
    }

    /// Closes the connection, and has the kernel discard what its client has not read.
    pub(super) fn reset(self) {
        self.hyper.into_parts().io.socket().discard_unsent();
    }

    pub(super) fn hand_off(self, mut handoff: Handoff) {
        let parts = self.hyper.into_parts();
        handoff.surplus = parts.read_buf.len();
        let handoff = handoff.complete(parts.service.admitted());
        match parts.io.into_transport() {
            Ok(transport) => self.context.reactor.hand_off(transport, handoff),
            Err(why) => tracing::warn!(%why, "a socket could not be taken out of the runtime"),
        }
    }

    /// Runs the connection to its end.
    pub(super) async fn run(&mut self) -> End {
        let mut draining = self.context.draining.clone();
        let mut drain = pin!(draining.wait_for(|draining| *draining));
        poll_fn(|cx| {
            // Before hyper reads: a request that has arrived by now is the successor's. This task is woken when there is
            // one, by the channel below.
            if self.passes_on() {
                return Poll::Ready(End::PassesOn);
            }
            if !self.closing && drain.as_mut().poll(cx).is_ready() {
                (self.closing, self.patience) = (true, None);
                Pin::new(&mut self.hyper).graceful_shutdown();
            }
            match self.poll_end(cx) {
                Poll::Pending if self.passes_on() => Poll::Ready(End::PassesOn),
                polled => polled,
            }
        })
        .await
    }

    fn passes_on(&self) -> bool {
        I::IS_PLAIN && self.idle && self.context.passes_on()
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let poll = || Pin::new(&mut self.hyper).poll(cx);
        let (ended, Polled { handoff, blocked, progressed }) = self.slot.during(poll);
        if let Poll::Ready(ended) = ended {
            return Poll::Ready(ended.into());
        }
        self.idle = self.clock.waits() && !blocked;
        self.handoff = self.handoff.take().or(handoff);
        // An earlier response may still have to be written (pipelining): the socket stays until it is.
        if let Some(handoff) = self.handoff.take_if(|_| !blocked) {
            return Poll::Ready(End::HandsOff(handoff));
        }
        let waits_for_request = self.closing && self.admitted.strong_count() == 1;
        if progressed || !(blocked || waits_for_request) {
            self.patience = None;
        }
        if !(blocked || waits_for_request) {
            return Poll::Pending;
        }
        self.poll_patience(cx)
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let config = self.context.factory.config();
        let limit = if self.closing { config.hub.drain_grace } else { config.body_timeout };
        let patience = self.patience.get_or_insert_with(|| self.timer.sleep(limit));
        Pin::new(patience).poll(cx).map(|()| End::Held)
    }
}

// ===== impl HyperIo =====

impl HyperIo for Socket {
    const IS_PLAIN: bool = true;

    fn socket(&mut self) -> &mut Socket {
        self
    }

    fn into_transport(self) -> io::Result<Transport> {
        self.into_inner().map(Transport::Plain)
    }
}

// ===== impl End =====

impl From<hyper::Result<()>> for End {
    fn from(ended: hyper::Result<()>) -> Self {
        match ended {
            Err(why) if why.is_parse_version_h2() => Self::IsHttp2,
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
    use tokio::sync::watch;

    use crate::admission::{Admission, Entrance};
    use crate::config::Config;
    use crate::http::{App, ServiceFactory};
    use crate::hub::Hub;
    use crate::metrics::read;
    use crate::server::reactor::Handle;
    use crate::stream::Clock;

    /// A socket that panics when it is flushed after a read, which hyper does while it waits for a response.
    struct Bomb {
        socket: Socket,
        was_read: bool,
    }

    impl HyperIo for Bomb {
        const IS_PLAIN: bool = false;

        fn socket(&mut self) -> &mut Socket {
            &mut self.socket
        }

        fn into_transport(self) -> io::Result<Transport> {
            self.socket.into_transport()
        }
    }

    impl Read for Bomb {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: hyper::rt::ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            let read = Pin::new(&mut self.socket).poll_read(cx, buf);
            self.was_read = read.is_ready();
            read
        }
    }

    impl Write for Bomb {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.socket).poll_write(cx, buf)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            assert!(!self.was_read, "on purpose");
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// SCENARIO: a request opens a stream, and the poll that should hand it over panics.
    /// BUG: the stream stayed in the slot that the worker's connections share, and kept its seat, until the next
    /// connection was polled.
    /// FIX: a poll that ends without a handoff empties the slot.
    #[tokio::test]
    async fn a_panic_frees_the_seat() {
        let config = Config::default();
        let hub = Hub::new(config.hub.clone());
        let admission = Admission::new(&config, 1_024);
        let app = Arc::new(App::new(config, hub.clone(), Clock::start(), admission));
        let factory = ServiceFactory::new(app, hub.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        client
            .write_all(b"GET /api/acme/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .expect("a socket");
        let (socket, _) = listener.accept().expect("a connection");
        socket.set_nonblocking(true).expect("a socket");
        let socket = Socket::new(TcpStream::from_std(socket), Bytes::new()).expect("a runtime");
        let admitted = factory.admit(Some(Ipv4Addr::LOCALHOST.into()), Entrance::Public).await;
        let (_draining, draining) = watch::channel(false);
        let service = factory.service(admitted);
        let context =
            ConnContext { factory: factory.clone(), reactor: Handle::new(hub.clone()), draining };
        let bomb = Bomb { socket, was_read: false };
        let mut connection = Connection::new(bomb, service, context);
        let served = tokio::spawn(async move { connection.run().await }).await;
        assert!(served.expect_err("it panics").is_panic());
        let opened: u64 = hub.counters().map(|counters| read(&counters.opened[0])).sum();
        assert_eq!((opened, hub.seats()), (1, 0));
        drop(factory);
    }
}
