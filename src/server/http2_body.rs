//! The body of a response over HTTP/2. hyper and h2 take an ordinary body at once and forget it, however long its
//! client leaves the flow-control window shut. So its end is withheld until its bytes are written: as long as that
//! takes, the request is open, and can be reset.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};

use crate::http::ResponseBody;
use crate::stream::MonitoredBytes;
use crate::sync::Mutex;

/// A body whose end follows once its bytes are written, if it is not that of a stream.
#[derive(Debug)]
pub(super) struct Http2Body {
    body: ResponseBody,
    /// The bytes that are being written.
    unwritten: Option<Arc<Mutex<Unwritten>>>,
}

/// Bytes that notify the body when they have been written or discarded.
#[derive(Debug)]
pub(super) struct Http2Bytes {
    bytes: MonitoredBytes,
    _written: Option<Written>,
}

#[derive(Debug, Default)]
struct Unwritten {
    over: bool,
    /// Of the request, which waits for the end of the body.
    waker: Option<Waker>,
}

/// Notifies the body once this is dropped.
#[derive(Debug)]
struct Written(Arc<Mutex<Unwritten>>);

// ===== impl Http2Body =====

impl From<ResponseBody> for Http2Body {
    fn from(body: ResponseBody) -> Self {
        Self { body, unwritten: None }
    }
}

impl Body for Http2Body {
    type Data = Http2Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Http2Bytes>, Infallible>>> {
        let Self { body, unwritten } = self.get_mut();
        if let Some(unwritten) = unwritten {
            let mut unwritten = unwritten.lock();
            if !unwritten.over {
                let before = unwritten.waker.replace(cx.waker().clone());
                drop(unwritten);
                drop(before);
                return Poll::Pending;
            }
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        Poll::Ready(frame.map(|Ok(frame)| {
            Ok(frame.map_data(|bytes| {
                let written = (!body.is_stream()).then(|| {
                    let shared = unwritten.insert(Arc::default());
                    Written(shared.clone())
                });
                Http2Bytes { bytes, _written: written }
            }))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.unwritten.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// ===== impl Http2Bytes =====

impl Buf for Http2Bytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

// ===== impl Written =====

impl Drop for Written {
    /// h2 may hold a lock of its own here, as it does where it wakes requests itself: they are only queued.
    fn drop(&mut self) {
        let waker = {
            let mut unwritten = self.0.lock();
            unwritten.over = true;
            unwritten.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}
