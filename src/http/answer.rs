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

use super::reject::Reject;
use crate::admission::AddressGuard;
use crate::stream::{EventStream, Fields, Line, Piece};

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Full(Full<Bytes>),
    /// With the line that carries it, and the client for whom a proxy opened it, if it is counted.
    Stream {
        stream: EventStream,
        line: Option<Line>,
        _client: Option<AddressGuard>,
    },
    /// The head of a stream, for `HEAD`.
    NoStream,
}

/// A publish waits for its body, everything else is answered at once. An open stream keeps this
/// future's memory, so what waits is boxed.
pub(crate) enum Answering {
    Now(Option<Response<Answer>>),
    Waiting(Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>),
    /// The keys are fetched that the request's token may be signed with; then it is answered.
    Later(Pin<Box<dyn Future<Output = Self> + Send>>),
    /// The stream has left; the connection takes its socket after it.
    Never,
}

/// An answer, and the header fields that it has because of who asks.
pub(crate) struct Dressed {
    pub(super) answering: Answering,
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

// ===== impl Dressed =====

impl Dressed {
    /// A refusal of whoever asks, whatever it is.
    pub(crate) fn refusal(reject: Reject) -> Self {
        let answer = reject.into_response().map(Answer::Full);
        Self { answering: Answering::Now(Some(answer)), fields: Fields::default(), chunked: false }
    }
}

impl Future for Dressed {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answering, fields, chunked } = self.get_mut();
        Pin::new(answering).poll(cx).map_ok(|mut response| {
            let full = matches!(response.body(), Answer::Full(_));
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

// ===== impl Answering =====

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(answer) => Poll::Ready(Ok(answer.take().expect("polled after it was ready"))),
            Self::Waiting(publish) => {
                publish.as_mut().poll(cx).map(|answer| Ok(answer.map(Answer::Full)))
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

// ===== impl Answer =====

impl Body for Answer {
    type Data = Piece;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
        let (polled, line) = match self.get_mut() {
            Self::Full(body) => (Pin::new(body).poll_frame(cx), None),
            Self::Stream { stream, line, .. } => (Pin::new(stream).poll_frame(cx), line.as_ref()),
            Self::NoStream => (Poll::Ready(None), None),
        };
        polled.map_ok(|frame| frame.map_data(|bytes| Piece::new(bytes, line)))
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
