//! What a request is answered with, and how its answer comes about.

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
use crate::admission::AddressGuard;
use crate::stream::{EventStream, MonitoredBytes, StreamMonitor};

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    Full(Full<Bytes>),
    /// With the line that carries it, and the client for whom a proxy opened it, if it is counted.
    Stream {
        stream: EventStream,
        monitor: StreamMonitor,
        _client: Option<AddressGuard>,
    },
    /// The head of a stream, for `HEAD`.
    NoStream,
}

/// A publish waits for its body, everything else is answered at once. An open stream keeps this
/// future's memory, so what waits is boxed.
pub(crate) enum ResponseState {
    Now(Option<Response<ResponseBody>>),
    Waiting(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
    /// The keys are fetched that the request's token may be signed with; then it is answered.
    Later(Pin<Box<dyn Future<Output = Self> + Send>>),
    /// The stream has left; the connection takes its socket after it.
    Never,
}

/// An answer, and the header fields that it has because of who asks.
pub(crate) struct ResponseFuture {
    pub(super) answering: ResponseState,
    pub(super) fields: Fields,
    /// Whether the request came with a body in chunks.
    pub(super) chunked: bool,
}

/// What a browser must not do with anything that is not a stream.
const SECURITY: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

// ===== impl ResponseFuture =====

impl ResponseFuture {
    /// A refusal of whoever asks, whatever it is.
    pub(crate) fn refusal(reject: Reject) -> Self {
        let answer = reject.into_response().map(ResponseBody::Full);
        Self {
            answering: ResponseState::Now(Some(answer)),
            fields: Fields::default(),
            chunked: false,
        }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answering, fields, chunked } = self.get_mut();
        Pin::new(answering).poll(cx).map_ok(|mut response| {
            let full = matches!(response.body(), ResponseBody::Full(_));
            let headers = response.headers_mut();
            for (name, value) in SECURITY.into_iter().filter(|_| full) {
                headers.insert(name, HeaderValue::from_static(value));
            }
            mem::take(fields).add_to(headers);
            // hyper loses its place after malformed trailers, and would take what follows for a request. A
            // publish that was accepted had none.
            if *chunked && response.status() != StatusCode::ACCEPTED {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        })
    }
}

// ===== impl ResponseState =====

impl Future for ResponseState {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(answer) => Poll::Ready(Ok(answer.take().expect("polled after it was ready"))),
            Self::Waiting(publish) => {
                publish.as_mut().poll(cx).map(|answer| Ok(answer.map(ResponseBody::Full)))
            }
            Self::Later(later) => {
                let answering = ready!(later.as_mut().poll(cx));
                *self = answering;
                self.poll(cx)
            }
            Self::Never => Poll::Pending,
        }
    }
}

// ===== impl ResponseBody =====

impl Body for ResponseBody {
    type Data = MonitoredBytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<MonitoredBytes>, Infallible>>> {
        let (polled, monitor) = match self.get_mut() {
            Self::Full(body) => (Pin::new(body).poll_frame(cx), None),
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
