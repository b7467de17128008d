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
use crate::stream::Arrival;

/// A connection that is hyper's.
#[derive(Debug)]
pub(crate) struct Connection {
    hyper: http1::Connection<Socket, Service>,
    parking: Option<Parking>,
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
        let config = service.config();
        let hyper = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_buf_size(config.head_bytes_max)
            .serve_connection(Socket::new(socket, parking.clone()), service);
        Self { hyper, parking, departing: None }
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
        let mut told = false;
        let end = poll_fn(|cx| {
            if !told && drain.as_mut().poll(cx).is_ready() {
                told = true;
                Pin::new(&mut self.hyper).graceful_shutdown();
            }
            self.poll_end(cx)
        });
        let end = end.await;
        self.leave(end);
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(parking) = &self.parking else {
            return Pin::new(&mut self.hyper).poll(cx).map(End::Closed);
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

    fn leave(self, end: End) {
        let Departing { stream, chunked } = match end {
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
            Ok(socket) => {
                let heard = parts.read_buf.len();
                parts.service.park(Arrival { socket, stream, chunked, heard });
            }
            Err(why) => tracing::warn!(%why, "a socket could not be taken out of the runtime"),
        }
    }
}
