//! The response body of an event stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame};

use crate::config::HubConfig;
use crate::hub::{Deadline, Hub, NotTakenIn, Subscription, View};
use crate::ids::{EventId, OrgName, Time};
use crate::metrics::CloseReason;
use crate::wire::{self, Greeting};

/// One open stream: an [`http_body::Body`] that never ends by itself, and holds the seat that dropping
/// it frees. Whatever serves it, hyper or the parking lot of a worker, and however that ends, this is
/// the one way out.
#[derive(Debug)]
pub struct EventStream {
    subscription: Subscription,
    /// What it has to say first.
    greeting: Option<Greeting>,
    retry_ms: u32,
    /// Its last words are said.
    ended: bool,
}

// ===== impl EventStream =====

impl EventStream {
    /// Takes a seat for a subscriber of `org`. `last_event_id` is what the client sent as
    /// `Last-Event-ID`; anything but a covered id of this org counts as none. The stream has a deadline
    /// if the hub's configuration has a [`stream_age_max`](crate::config::HubConfig::stream_age_max).
    ///
    /// # Errors
    /// [`NotTakenIn`]: the hub was told to close, or the org has as many streams as it may have.
    pub fn open(
        hub: &Hub,
        org: &OrgName,
        view: View,
        last_event_id: Option<&str>,
        now: Time,
    ) -> Result<Self, NotTakenIn> {
        let id = last_event_id.and_then(|text| text.parse::<EventId>().ok());
        let (subscription, greeting) = hub.subscribe(org, view, id, now)?;
        if let Some(age) = hub.config().stream_age_max {
            let at = now.after(age.mul_f64(1.0 - fastrand::f64() / 5.0));
            subscription.end_at(Deadline { at, reason: CloseReason::MaxAge });
        }
        let retry_ms = retry_ms(hub.config());
        Ok(Self { subscription, greeting: Some(greeting), retry_ms, ended: false })
    }

    /// The same stream, which ends at `deadline`, or at an earlier one that it has. From then on it is
    /// handed nothing more; its body ends as one that is complete, unless its client takes nothing.
    #[must_use]
    pub fn with_deadline(self, deadline: Deadline) -> Self {
        self.subscription.end_at(deadline);
        self
    }

    /// The response that a browser's `EventSource` expects (WHATWG HTML 9.2), which no cache keeps
    /// and no proxy buffers or compresses.
    pub fn into_response(self) -> Response<Self> {
        with_headers(self)
    }

    /// The subscription, for the parking lot, which writes what the stream says by itself.
    pub(crate) fn subscription(&mut self) -> &mut Subscription {
        &mut self.subscription
    }

    /// What the stream says last: a reconnection time of its own.
    pub(crate) fn farewell(&self) -> wire::Frame {
        wire::Frame::farewell(retry_ms(self.subscription.config()))
    }

    /// What the stream says first, once.
    pub(crate) fn greet(&mut self) -> Option<wire::Frame> {
        let greeting = self.greeting.take()?;
        Some(wire::Frame::greeting(greeting, self.subscription.position(), self.retry_ms))
    }
}

/// A reconnection time, drawn anew each time so that a herd does not come back as one.
pub(crate) fn retry_ms(config: &HubConfig) -> u32 {
    let (min, max) = config.retry_ms;
    fastrand::u32(min..=max.max(min))
}

/// The header fields of every event stream.
pub(crate) const HEADERS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
    (header::HeaderName::from_static("x-accel-buffering"), "no"),
];

/// A response with the header fields of an event stream.
pub(crate) fn with_headers<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = self.get_mut();
        if stream.ended {
            return Poll::Ready(None);
        }
        let next = match stream.greet() {
            Some(greeting) => Some(greeting),
            None => ready!(stream.subscription.poll_next(cx.waker())),
        };
        stream.ended = next.is_none();
        // A herd is told when to come back; who ends alone was told at its start.
        let next = next.or_else(|| stream.subscription.is_drained().then(|| stream.farewell()));
        Poll::Ready(next.map(|frame| Ok(Frame::data(frame.payload()))))
    }
}
