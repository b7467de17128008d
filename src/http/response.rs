//! Responses: their body, and the future that hyper polls for them.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use super::fields::Fields;
use super::reject::Reject;
use crate::admission::StreamPermit;
use crate::stream::{EventStream, MonitoredBytes, StreamMonitor};

/// The body of a response.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    Full(Full<Bytes>),
    /// `monitor` is its connection's; `_permit` counts the stream.
    Stream {
        stream: EventStream,
        monitor: StreamMonitor,
        _permit: StreamPermit,
    },
    /// The head of a stream, for `HEAD`.
    NoStream,
}

/// How far a response is. hyper keeps this memory for as long as a stream is open, so what waits is boxed.
pub(crate) enum ResponseState {
    /// It is complete; taken by the first poll.
    Now(Option<Response<ResponseBody>>),
    /// A publish, which waits for its body.
    Waiting(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
    /// A request that waits until the keys of its token are fetched.
    Later(Pin<Box<dyn Future<Output = Self> + Send>>),
    /// There will be none from hyper: the stream was handed over, and its connection follows.
    Never,
}

/// A response with its per-request header fields (CORS, referrer policy).
pub(crate) struct ResponseFuture {
    pub(super) state: ResponseState,
    pub(super) fields: Fields,
    /// Whether the request has a chunked body.
    pub(super) chunked: bool,
    /// Whether it is a `HEAD` over HTTP/2, in whose response hyper would send the body (RFC 9110, 9.3.2).
    pub(super) drops_body: bool,
}

/// What keeps a browser from interpreting, embedding or storing a response that is not a stream, unless the response
/// has such a field of its own: one that asks to come back has those of a stream.
const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

// ===== impl ResponseFuture =====

impl ResponseFuture {
    /// An error response to any request.
    pub(crate) fn refusal(reject: Reject) -> Self {
        let response = reject.into_response().map(ResponseBody::Full);
        Self {
            state: ResponseState::Now(Some(response)),
            fields: Fields::default(),
            chunked: false,
            drops_body: false,
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { state, fields, chunked, drops_body } = self.get_mut();
        Pin::new(state).poll(cx).map_ok(|mut response| {
            let full = matches!(response.body(), ResponseBody::Full(_));
            if *drops_body {
                drop_body(&mut response);
            }
            let headers = response.headers_mut();
            for (name, value) in SECURITY.into_iter().filter(|_| full) {
                headers.entry(name).or_insert(HeaderValue::from_static(value));
            }
            mem::take(fields).add_to(headers);
            // After malformed trailers, hyper would parse the rest of them as the next request. Only a publish
            // that was accepted is known to have had none.
            if *chunked && response.status() != StatusCode::ACCEPTED {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        })
    }
}

/// Leaves the head of a response, with the length that its body has.
fn drop_body(response: &mut Response<ResponseBody>) {
    let ResponseBody::Full(body) = response.body_mut() else { return };
    let length = body.size_hint().exact().filter(|length| *length > 0);
    *body = Full::default();
    if let Some(length) = length {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

// ===== impl ResponseState =====

impl Future for ResponseState {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(response) => {
                Poll::Ready(Ok(response.take().expect("polled after it was ready")))
            }
            Self::Waiting(publish) => {
                publish.as_mut().poll(cx).map(|response| Ok(response.map(ResponseBody::Full)))
            }
            Self::Later(later) => {
                *self = ready!(later.as_mut().poll(cx));
                self.poll(cx)
            }
            Self::Never => Poll::Pending,
        }
    }
}

// ===== impl ResponseBody =====

impl ResponseBody {
    /// Whether it goes on until its stream ends.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream { .. })
    }
}

impl Body for ResponseBody {
    type Data = MonitoredBytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<MonitoredBytes>, Infallible>>> {
        let (polled, monitor) = match self.get_mut() {
            Self::Full(body) => (Pin::new(body).poll_frame(cx), None),
            // It is polled again once its connection has room.
            Self::Stream { monitor, .. } if !monitor.has_room() => return Poll::Pending,
            Self::Stream { stream, monitor, .. } => {
                (Pin::new(stream).poll_frame(cx), Some(&*monitor))
            }
            Self::NoStream => (Poll::Ready(None), None),
        };
        polled.map_ok(|frame| frame.map_data(|bytes| MonitoredBytes::new(bytes, monitor)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Stream { .. } | Self::NoStream => SizeHint::default(),
        }
    }
}
