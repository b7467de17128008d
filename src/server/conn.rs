//! One connection: hyper parses its requests and answers them, until one of them opens a stream. Then
//! the socket leaves hyper and is parked; what hyper needed is freed.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use mio::net::TcpStream;
use tokio::sync::watch;

use super::socket::Socket;
use crate::http::{Departing, Parking, Service};
use crate::stream::Line;

/// A connection that is hyper's.
#[derive(Debug)]
pub(crate) struct Connection {
    hyper: http1::Connection<Socket, Service>,
    parking: Option<Parking>,
    /// Where its streams stay with hyper.
    line: Option<Line>,
    /// It was told to close once what it has in flight has ended.
    told: bool,
    departing: Option<Departing>,
}

/// How it leaves hyper.
#[derive(Debug)]
enum End {
    Closed(hyper::Result<()>),
    Parks(Departing),
}

// ===== impl Connection =====

impl Connection {
    pub(crate) fn new(socket: TcpStream, service: Service) -> Self {
        let parking = service.parking().cloned();
        let line = parking.is_none().then(Line::new);
        let service = service.on_line(line.clone());
        let config = service.config();
        let hyper = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.head_bytes_max)
            .serve_connection(Socket::new(socket, parking.clone(), line.clone()), service);
        Self { hyper, parking, line, told: false, departing: None }
    }

    /// Serves what is there already. Most requests are when their connection is accepted, and a stream
    /// is parked without a task of its own ever having been made. Returns a connection that waits.
    pub(crate) fn begin(mut self, cx: &mut Context<'_>) -> Option<Self> {
        // A task would contain a panic too.
        let step = catch_unwind(AssertUnwindSafe(|| match self.poll_end(cx) {
            Poll::Pending => Some(self),
            Poll::Ready(end) => {
                self.leave(end);
                None
            }
        }));
        step.unwrap_or(None)
    }

    /// Serves until it ends, until it is parked, or until `draining` and what it has in flight has
    /// ended.
    pub(crate) async fn serve(mut self, mut draining: watch::Receiver<bool>) {
        let mut drain = pin!(draining.wait_for(|draining| *draining));
        let end = poll_fn(|cx| {
            if !self.told && drain.as_mut().poll(cx).is_ready() {
                self.tell();
            }
            self.poll_end(cx)
        });
        let end = end.await;
        self.leave(end);
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(parking) = &self.parking else {
            return self.poll_hyper(cx).map(End::Closed);
        };
        // Connections are polled one at a time, so what this poll leaves behind is this one's.
        parking.arm();
        if let Poll::Ready(ended) = Pin::new(&mut self.hyper).poll(cx) {
            return Poll::Ready(End::Closed(ended));
        }
        let (stream, blocked) = parking.disarm();
        self.departing = self.departing.take().or(stream);
        // An earlier response may still be on its way (pipelining): the socket stays until it is out.
        if blocked {
            Poll::Pending
        } else {
            self.departing.take().map_or(Poll::Pending, |stream| Poll::Ready(End::Parks(stream)))
        }
    }

    /// Polls a connection whose stream stays with hyper.
    fn poll_hyper(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let polled = Pin::new(&mut self.hyper).poll(cx);
        if polled.is_pending() && !self.told && self.line.as_ref().is_some_and(Line::is_over) {
            // As on the parked path: its client may be better served by another server.
            self.tell();
            return Pin::new(&mut self.hyper).poll(cx);
        }
        polled
    }

    fn tell(&mut self) {
        self.told = true;
        Pin::new(&mut self.hyper).graceful_shutdown();
    }

    fn leave(self, end: End) {
        let departing = match end {
            End::Parks(departing) => departing,
            End::Closed(ended) => {
                if let Err(why) = ended {
                    tracing::debug!(%why, "connection");
                }
                return;
            }
        };
        let parts = self.hyper.into_parts();
        match parts.io.into_inner() {
            Ok(socket) => parts.service.park(socket, departing, parts.read_buf.len()),
            Err(why) => tracing::warn!(%why, "a socket could not be taken out of the runtime"),
        }
    }
}
