//! One connection: hyper parses its requests and answers them, until one of them opens a stream. Then
//! the socket leaves hyper and is parked; what hyper needed is freed.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::{Parking, Service};

/// A socket that tells, through the worker's [`Parking`], when it took no more.
#[derive(Debug)]
struct Socket {
    inner: TokioIo<TcpStream>,
    parking: Option<Parking>,
}

/// Serves one connection until it ends, until it is parked, or until `draining` and what it has in
/// flight has ended.
pub(crate) async fn serve(
    stream: TcpStream,
    service: Service,
    mut draining: watch::Receiver<bool>,
) {
    let config = service.config();
    let parking = service.parking().cloned();
    let socket = Socket { inner: TokioIo::new(stream), parking: parking.clone() };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(config.head_bytes_max)
        .serve_connection(socket, service);
    let mut drain = pin!(draining.wait_for(|draining| *draining));
    let mut told = false;
    let mut departing = None;
    let departed = poll_fn(|cx| {
        if !told && drain.as_mut().poll(cx).is_ready() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        let Some(parking) = &parking else {
            return Pin::new(&mut connection).poll(cx).map_ok(|()| None);
        };
        // Connections are polled one at a time, so what this poll left behind is this one's.
        parking.arm();
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended.map(|()| None));
        }
        let (stream, blocked) = parking.disarm();
        departing = departing.take().or(stream);
        // An earlier response may still be on its way (pipelining): the socket stays until it is out.
        if blocked {
            Poll::Pending
        } else {
            departing.take().map_or(Poll::Pending, |d| Poll::Ready(Ok(Some(d))))
        }
    });
    match departed.await {
        Ok(None) => {}
        Ok(Some(departing)) => {
            let parts = connection.into_parts();
            match parts.io.inner.into_inner().into_std() {
                Ok(socket) => parts.service.park(socket, departing, parts.read_buf.len()),
                Err(why) => tracing::warn!(%why, "a socket could not be taken out of the runtime"),
            }
        }
        Err(why) => tracing::debug!(%why, "connection"),
    }
}

// ===== impl Socket =====

impl Socket {
    fn note<T>(&self, wrote: Poll<T>) -> Poll<T> {
        if let (Poll::Pending, Some(parking)) = (&wrote, &self.parking) {
            parking.note_blocked();
        }
        wrote
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.note(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
