//! Keeps an event stream of any origin open: [`Heartbeat`], a body around its body.

mod edge;
mod pulse;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use self::edge::{BOM, Edge};
use self::pulse::Beat;
pub use self::pulse::Pulse;

pin_project! {
    /// The body of an event stream that a server of any kind sends, kept open: while the stream is silent, a comment
    /// (`: ping`) goes out each [period](Pulse::new), so that no proxy on the way and no client ends it as idle. Clients
    /// ignore comments (WHATWG HTML, 9.2.6).
    ///
    /// * **Between events only**, wherever the bytes are cut: at the beginning, behind an empty line, and behind comments
    ///   that follow it. A stream that is silent inside an event gets none, nor does one whose last line ended with a CR,
    ///   because its LF may come next. A byte order mark behind a ping is left out.
    /// * A ping is `: ping` and an empty line. Once the stream has given an `id`, the empty line is left out: some decoders
    ///   dispatch an event at any empty line then.
    /// * The inner body is polled first, and only when the server has room. A client that does not read gets no pings, and
    ///   nothing is held for it.
    /// * Errors and trailers pass through; no ping follows them.
    /// * **Dropping it drops the inner body at once**, which ends the request to an upstream whose client has gone;
    ///   [`Pulse::cancelled`] counts that.
    ///
    /// There is no timer and no task of a stream, and a ping allocates nothing. Compression has to be added around it: what
    /// is compressed already passes through.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::time::Duration;
    ///
    /// use axum::body::Body;
    /// use axum::extract::{Request, State};
    /// use axum::middleware::{Next, from_fn_with_state};
    /// use axum::response::Response;
    /// use axum::{Router, routing::get};
    /// use nudged::stream::{Heartbeat, Pulse};
    ///
    /// /// Whatever event streams the routes have, of whatever library.
    /// async fn heartbeats(State(pulse): State<Pulse>, request: Request, next: Next) -> Response {
    ///     Heartbeat::around(next.run(request).await, &pulse).map(Body::new)
    /// }
    ///
    /// let pulse = Pulse::new(Duration::from_secs(15));
    /// tokio::spawn(pulse.drive());
    ///
    /// let app: Router = Router::new()
    ///     .route("/tool", get(|| async { "an event stream, or anything else" }))
    ///     .layer(from_fn_with_state(pulse.clone(), heartbeats));
    /// # _ = app;
    /// assert_eq!((pulse.open(), pulse.pings(), pulse.cancelled()), (0, 0, 0));
    /// # }
    /// ```
    #[derive(Debug)]
    pub struct Heartbeat<B> {
        #[pin]
        inner: B,
        // None if the body passes through, and once it is over.
        live: Option<Live>,
    }
}

/// A stream that has not ended.
#[derive(Debug)]
struct Live {
    beat: Arc<Beat>,
    edge: Edge,
    /// The first ping came before any byte: a byte order mark behind it would be text.
    begins_with_ping: bool,
    ended: bool,
}

/// As most servers send it. A decoder that reads block by block gets one of its own.
const BLOCK: &[u8] = b": ping\n\n";

/// For a stream with ids: there are decoders that dispatch an event at any empty line once they know an id.
const LINE: &[u8] = b": ping\n";

// ===== impl Heartbeat =====

impl<B: Body<Data = Bytes>> Heartbeat<B> {
    /// Puts a heartbeat around the body of an event stream: a response with status 200, of media type
    /// `text/event-stream` with any parameters, without a `content-encoding`, and of unknown length. The body of any other
    /// passes through unchanged, and so do all header fields: a response with a `content-length` is complete already, or
    /// responds to a HEAD request.
    pub fn around(response: Response<B>, pulse: &Pulse) -> Response<Self> {
        let live = is_event_stream(&response).then(|| Live::new(pulse));
        response.map(|inner| Self { inner, live })
    }
}

/// One of known length has nothing to wait for, and a ping would falsify the length.
fn is_event_stream<B: Body>(response: &Response<B>) -> bool {
    let (fields, body) = (response.headers(), response.body());
    let of_a_stream = |value: &http::HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    response.status() == StatusCode::OK
        && fields.get(header::CONTENT_TYPE).is_some_and(of_a_stream)
        && !fields.contains_key(header::CONTENT_ENCODING)
        && !fields.contains_key(header::CONTENT_LENGTH)
        && body.size_hint().exact().is_none()
        && !body.is_end_stream()
}

impl<B: Body<Data = Bytes>> Body for Heartbeat<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        loop {
            let polled = this.inner.as_mut().poll_frame(cx);
            let Some(live) = this.live else { return polled };
            let frame = match polled {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Pending => {
                    return live.poll_ping(cx.waker()).map(|ping| Some(Ok(Frame::data(ping))));
                }
                over @ Poll::Ready(None | Some(Err(_))) => {
                    end(this.live);
                    return over;
                }
            };
            let passed = match frame.into_data() {
                Ok(data) => live.pass(data).map(Frame::data),
                Err(other) => {
                    live.ended |= other.is_trailers();
                    Some(other)
                }
            };
            if live.ended || this.inner.is_end_stream() {
                end(this.live);
            }
            if let Some(frame) = passed {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// Nothing is known of a stream that is kept open.
    fn size_hint(&self) -> SizeHint {
        if self.live.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}

/// The stream has ended by itself.
fn end(live: &mut Option<Live>) {
    if let Some(mut live) = live.take() {
        live.ended = true;
    }
}

// ===== impl Live =====

impl Live {
    fn new(pulse: &Pulse) -> Self {
        Self { beat: pulse.beat(), edge: Edge::default(), begins_with_ping: false, ended: false }
    }

    /// The next bytes of the stream, as they go on; `None` if nothing of them does yet.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        if data.is_empty() {
            return Some(data);
        }
        let passed = match self.edge.beginning() {
            Some(part) if self.begins_with_ping => without_bom(part, &data),
            _ => Some(data.clone()),
        };
        self.edge.read(&data);
        if passed.is_some() {
            self.beat.touch();
        }
        passed
    }

    fn poll_ping(&mut self, waker: &Waker) -> Poll<Bytes> {
        if !self.edge.is_here() || !self.beat.poll_due(waker) {
            return Poll::Pending;
        }
        self.begins_with_ping |= self.edge.beginning().is_some();
        let ping = if self.edge.has_id() { LINE } else { BLOCK };
        Poll::Ready(Bytes::from_static(ping))
    }
}

/// Drops a byte order mark at the beginning of a stream, of which so many bytes have been withheld: behind a ping it
/// would become part of the first line. Bytes that prove to be no mark go on.
fn without_bom(withheld: usize, data: &Bytes) -> Option<Bytes> {
    let same =
        data.iter().zip(&BOM[withheld..]).take_while(|(byte, of_bom)| byte == of_bom).count();
    if withheld + same == BOM.len() {
        let rest = data.slice(same..);
        return (!rest.is_empty()).then_some(rest);
    }
    if same == data.len() {
        return None;
    }
    if withheld == 0 {
        return Some(data.clone());
    }
    let mut whole = BytesMut::with_capacity(withheld + data.len());
    whole.extend_from_slice(&BOM[..withheld]);
    whole.extend_from_slice(data);
    Some(whole.freeze())
}

impl Drop for Live {
    fn drop(&mut self) {
        self.beat.end(!self.ended);
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests;
