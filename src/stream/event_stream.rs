//! The response body of an event stream.

#[cfg(feature = "server")]
mod state;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};
use http_body::{Body, Frame};

use super::access_record::AccessRecord;
use crate::config::HubConfig;
use crate::hub::{Deadline, Filter, Hub, Start, SubscribeError, Subscription, View};
use crate::ids::{EventId, OrgName, Topic};
use crate::metrics::CloseReason;
use crate::time::Time;
use crate::wire::{self, Greeting, Keepalive};

/// One open stream: an [`http_body::Body`] that does not end by itself, and the guard of a seat, which is freed when
/// this is dropped. Whatever serves it, hyper or the reactor of a worker, and however that ends, this is the only
/// way out.
#[derive(Debug)]
pub struct EventStream {
    subscription: Subscription,
    /// Boxed and freed once the stream has begun, unless it is logged, so that it costs an idle stream nothing.
    extra: Option<Box<Extra>>,
}

/// What not every stream has.
#[derive(Debug)]
struct Extra {
    /// Until it is written.
    opening: Option<Opening>,
    /// If there is an access log.
    record: Option<AccessRecord>,
}

/// What a stream begins with.
#[derive(Debug)]
struct Opening {
    greeting: Greeting,
    last: Last,
    retry_ms: u32,
}

/// The id that the client came with.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// It stated none.
    None,
    /// It stated one that is of no use.
    Unusable,
    Id(EventId),
}

// ===== impl EventStream =====

impl EventStream {
    /// Takes a seat for a subscriber of `org`. `last_event_id` is what the client sent as
    /// `Last-Event-ID`; anything but a covered id of this org counts as none. The stream has a deadline
    /// if the hub's configuration has a [`stream_age_max`](crate::config::HubConfig::stream_age_max).
    ///
    /// # Errors
    /// [`SubscribeError`]: the hub is closing, the org has as many streams as it may have, or the view is
    /// [`View::Topic`], whose streams open with [`Self::open_topic`].
    pub fn open(
        hub: &Hub,
        org: &OrgName,
        view: View,
        last_event_id: Option<&str>,
        now: Time,
    ) -> Result<Self, SubscribeError> {
        let id = last_event_id.and_then(|text| text.parse::<EventId>().ok());
        let (subscription, greeting) = hub.subscribe(org, view, id, now)?;
        let last = match id {
            Some(id) => Last::Id(id),
            None if last_event_id.is_some() => Last::Unusable,
            None => Last::None,
        };
        Ok(Self::begin(hub, subscription, (greeting, last), now))
    }

    /// Takes a seat for a subscriber of a topic, which begins at `start`. An `exclusive` stream ends all others, see
    /// [`Hub::subscribe_topic`]. It has a deadline as any other.
    ///
    /// # Errors
    /// [`SubscribeError`]: the hub is closing, or the topic has as many streams as it may have.
    pub fn open_topic(
        hub: &Hub,
        topic: &Topic,
        start: Start,
        exclusive: bool,
        now: Time,
    ) -> Result<Self, SubscribeError> {
        let (subscription, greeting) = hub.subscribe_topic(topic, start, exclusive, now)?;
        Ok(Self::begin(hub, subscription, (greeting, start.into()), now))
    }

    /// Takes a seat for an exclusive stream that makes this claim, see [`Hub::claim_topic`]. Otherwise it is as
    /// [`Self::open_topic`].
    ///
    /// # Errors
    /// [`SubscribeError`], as of [`Hub::claim_topic`].
    #[cfg(feature = "server")]
    pub(crate) fn claim_topic(
        hub: &Hub,
        topic: &Topic,
        start: Start,
        claim: u64,
        now: Time,
    ) -> Result<Self, SubscribeError> {
        let (subscription, greeting) = hub.claim_topic(topic, start, claim, now)?;
        Ok(Self::begin(hub, subscription, (greeting, start.into()), now))
    }

    fn begin(
        hub: &Hub,
        subscription: Subscription,
        (greeting, last): (Greeting, Last),
        now: Time,
    ) -> Self {
        if let Some(age) = hub.config().stream_age_max {
            let at = now.after(age.mul_f64(1.0 - fastrand::f64() / 5.0));
            subscription.end_at(Deadline { at, reason: CloseReason::MaxAge });
        }
        let retry_ms = retry_ms(hub.config());
        let opening = Opening { greeting, last, retry_ms };
        let extra = Extra { opening: Some(opening), record: None };
        Self { subscription, extra: Some(Box::new(extra)) }
    }

    /// Ready once no stream is left that this exclusive one replaces: [`Subscription::poll_sole`].
    pub fn poll_sole(&self, waker: &Waker) -> Poll<()> {
        self.subscription.poll_sole(waker)
    }

    /// Has those that are left end at once: [`Subscription::end_rivals`].
    pub fn end_rivals(&self) {
        self.subscription.end_rivals();
    }

    /// Ends the stream at `deadline`, or at an earlier one that it has. No event follows; the body ends as a complete
    /// one, unless the client does not read.
    #[must_use]
    pub fn with_deadline(self, deadline: Deadline) -> Self {
        self.subscription.end_at(deadline);
        self
    }

    /// Ends the stream before `expires`, at most 1.2 s, also if the wall clock is set or the machine suspended. That
    /// clock is at `now`.
    #[must_use]
    pub fn with_expiry(self, expires: SystemTime, now: SystemTime) -> Self {
        self.subscription.expire_at(expires, now);
        self
    }

    /// Has the stream kept open by a comment, which is the default, or by an event.
    #[must_use]
    pub fn with_keepalive(mut self, keepalive: Keepalive) -> Self {
        self.subscription.set_keepalive(keepalive);
        self
    }

    /// Has the stream receive only events that may interest it. Its keepalive is then an event with its position.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        if filter != Filter::ALL {
            self.subscription.set_filter(filter);
        }
        self
    }

    /// Counts as that of a client which has stated an id, if one that is of no use.
    #[cfg(feature = "server")]
    pub(crate) fn with_stated_id(mut self) -> Self {
        if let Some(opening) = self.extra.as_mut().and_then(|extra| extra.opening.as_mut()) {
            opening.last = opening.last.stated();
        }
        self
    }

    /// Has the end of the stream logged, which has not begun.
    #[cfg(feature = "server")]
    pub(crate) fn with_record(mut self, record: AccessRecord) -> Self {
        if let Some(extra) = &mut self.extra {
            extra.record = Some(record);
        }
        self
    }

    /// Counts events that were delivered, for the access log.
    #[inline]
    pub(crate) fn count(&mut self, events: usize) {
        if let Some(record) = self.extra.as_mut().and_then(|extra| extra.record.as_mut()) {
            record.count(events as u64);
        }
    }

    /// What it begins with, once.
    fn take_opening(&mut self) -> Option<Opening> {
        let extra = self.extra.as_mut()?;
        let opening = extra.opening.take();
        if extra.record.is_none() {
            self.extra = None;
        }
        opening
    }

    /// Starts the stream, once. Returns the greeting, with its id and the reconnection time.
    fn start(&mut self) -> Option<(Greeting, EventId, u32)> {
        let Opening { greeting, last, retry_ms } = self.take_opening()?;
        let (greeting, id) = self.subscription.begin(greeting, last.id());
        self.subscription.count_greeting(greeting, !matches!(last, Last::None));
        Some((greeting, id, retry_ms))
    }

    /// The response that a browser's `EventSource` expects (WHATWG HTML, 9.2), with header fields that keep caches
    /// from storing it and proxies from buffering or compressing it.
    pub fn into_response(self) -> Response<Self> {
        with_headers(self)
    }

    /// The subscription, for the reactor, which writes the events itself.
    pub(crate) fn subscription(&mut self) -> &mut Subscription {
        &mut self.subscription
    }

    /// The last frame of a stream that ends for this reason: for one that ends with others a reconnection time of its
    /// own. A stream that ends by itself keeps that of its greeting.
    pub(crate) fn farewell(&self, reason: CloseReason) -> Option<wire::Frame> {
        match reason {
            CloseReason::Drained | CloseReason::Removed | CloseReason::TlsRecords => {
                Some(wire::Frame::farewell(retry_ms(self.subscription.config())))
            }
            CloseReason::Replaced => Some(wire::Frame::replaced()),
            _ => None,
        }
    }

    /// Appends the greeting, once, as part of a chunked body or not.
    pub(crate) fn write_greeting(&mut self, out: &mut Vec<u8>, chunked: bool) {
        let Some((greeting, id, retry_ms)) = self.start() else { return };
        let greet = if chunked { wire::greet_chunked } else { wire::greet };
        greet(out, greeting, id, retry_ms, self.subscription.config().keepalive_seconds());
    }

    /// The greeting, once.
    pub(crate) fn greet(&mut self) -> Option<wire::Frame> {
        let (greeting, id, retry_ms) = self.start()?;
        let keepalive_s = self.subscription.config().keepalive_seconds();
        Some(wire::Frame::greeting(greeting, id, retry_ms, keepalive_s))
    }
}

// ===== impl Last =====

impl Last {
    fn id(self) -> Option<EventId> {
        match self {
            Self::Id(id) => Some(id),
            Self::None | Self::Unusable => None,
        }
    }

    /// The same of a client that has stated one, if one that is of no use.
    #[cfg(feature = "server")]
    fn stated(self) -> Self {
        match self {
            Self::None => Self::Unusable,
            stated => stated,
        }
    }
}

impl From<Start> for Last {
    fn from(start: Start) -> Self {
        start.last_id().map_or(Self::None, Self::Id)
    }
}

/// A random reconnection time, so that many clients do not reconnect at once.
pub(crate) fn retry_ms(config: &HubConfig) -> u32 {
    let (min, max) = config.retry_ms;
    fastrand::u32(min..=max.max(min))
}

/// The header fields of every event stream.
pub(crate) const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// A response with the header fields of an event stream.
pub(crate) fn with_headers<B>(body: B) -> Response<B> {
    let mut response = Response::new(body);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Drop for EventStream {
    fn drop(&mut self) {
        if let Some(record) = self.extra.as_ref().and_then(|extra| extra.record.as_ref()) {
            let subscription = &self.subscription;
            record.end(subscription);
        }
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = self.get_mut();
        let over = stream.subscription.is_over();
        let next = match stream.greet() {
            Some(greeting) => {
                // The client may have no room even for the greeting.
                stream.subscription.set_busy(cx.waker());
                Some(greeting)
            }
            None => {
                let next = ready!(stream.subscription.poll_next(cx.waker()));
                let is_logged = stream.extra.is_some();
                stream.count(usize::from(
                    is_logged && next.as_ref().is_some_and(wire::Frame::is_published),
                ));
                next
            }
        };
        let farewell = || stream.farewell(stream.subscription.reason()).filter(|_| !over);
        let next = next.or_else(farewell);
        Poll::Ready(next.map(|frame| Ok(Frame::data(frame.payload()))))
    }
}
