//! `nudged listen`: follows a stream as a browser's `EventSource` does (WHATWG HTML 9.2.2 and 9.2.3).

use std::fmt;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::event_line::EventLine;
use super::url::HttpUrl;
use super::{Endpoint, Error, InvalidRedirect, OneLine, Since, Verify, exchange, topic};
use crate::ids::{OrgName, Topic, TopicName};
use crate::wire::{Event, Parser};

/// Which stream to follow.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The server.
    pub server: Endpoint,
    /// The organisation of the stream.
    pub org: OrgName,
    /// Which of its streams.
    pub stream: StreamKind,
    /// The keys whose events it is to receive, as [`Filter::new`](crate::hub::Filter::new) has them; none for all. The
    /// server refuses them for a topic, and a key with a comma counts as two.
    pub keys: Vec<String>,
    /// The id of the event to resume after.
    pub last_event_id: Option<String>,
    /// Keepalives that are events, `ping`, are written too. Their ids count in any case.
    pub pings: bool,
}

/// A stream of an organisation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum StreamKind {
    /// The stream of its members.
    #[default]
    Members,
    /// The public stream.
    Public,
    /// A stream of one of its topics.
    Topic {
        /// The topic.
        name: TopicName,
        /// Where it begins, unless it resumes after an event.
        since: Since,
        /// Ends all other streams of the topic, which takes the scope `exclusive`, on each connection: also when it
        /// reconnects after the network failed.
        exclusive: bool,
    },
}

/// How a connection, or an attempt to make one, ended.
enum End {
    /// For good, for this reason.
    Over(String),
    /// For this one, and another connection follows.
    Cut(String),
}

/// The data of `closed`.
#[derive(Deserialize)]
struct Closed {
    reason: String,
}

/// Follows a stream across connections.
struct Listener<'a, E, N> {
    listen: &'a Listen,
    events: &'a mut E,
    notes: &'a mut N,
    last_event_id: String,
    delay: ReconnectDelay,
}

/// The time to wait before the next connection.
struct ReconnectDelay {
    /// The last `retry:` of the stream.
    retry: Duration,
    /// Connections that failed since the last that succeeded.
    failures: u32,
}

/// Before the first `retry:`; as in browsers (Chromium 3 s, Firefox 5 s).
const RETRY_DEFAULT: Duration = Duration::from_secs(3);

/// The shortest delay, so that `retry: 0` does not become a busy loop.
const DELAY_MIN: Duration = Duration::from_millis(10);

/// The bound of the doubled delay, unless `retry:` itself is longer.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// Redirects in a row that are followed, as many as browsers do (Fetch, 4.4).
pub const REDIRECTS_MAX: u32 = 20;

const LAST_EVENT_ID: &str = "last-event-id";

/// What is escaped in the value of a parameter; the rest is as people write a filter, `posts,feed:*`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b',')
    .remove(b':')
    .remove(b'*');

/// Writes every event to `events` as it arrives, one line each, but keepalives (`ping`) only on demand, and the state of
/// the connection to `notes`. Reconnects with `Last-Event-ID` when the stream ends or the network fails, after the last
/// `retry:` of the stream (3 s if there was none), doubled for every failed connection in a row, up to 60 s.
///
/// Follows redirects (301, 302, 303, 307, 308), at most [`REDIRECTS_MAX`] in a row, from the configured URL anew for
/// each connection. Like a browser it sends the token to no other origin than the first, and follows none from https to
/// http.
///
/// Returns when the server answers `204`, which forbids a client to reconnect, and when a stream of a topic has the event
/// `closed`, whose reason it writes to `notes`: the topic is over, or (`replaced`) another exclusive stream has its place.
/// Two clients that came back then would end each other for ever. Otherwise it continues until the future is dropped.
///
/// # Errors
/// Any other status than 200, a redirect that cannot be followed, another content type than `text/event-stream`, an event beyond
/// [`EVENT_LEN_MAX`](crate::wire::EVENT_LEN_MAX), or output that cannot be written.
pub async fn listen(
    listen: &Listen,
    events: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), Error> {
    let last_event_id = listen.last_event_id.clone().unwrap_or_default();
    if HeaderValue::from_bytes(last_event_id.as_bytes()).is_err() {
        return Err(Error::LastEventId);
    }
    let delay = ReconnectDelay { retry: RETRY_DEFAULT, failures: 0 };
    Listener { listen, events, notes, last_event_id, delay }.run().await
}

// ===== impl Listener =====

impl<E: Write, N: Write> Listener<'_, E, N> {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let end = match self.connect().await {
                Ok((_, response)) if response.status() == StatusCode::NO_CONTENT => {
                    End::Over("the server answered 204 No Content: the stream is over".to_owned())
                }
                Ok((url, response)) => self.follow(&url, response).await?,
                Err(why) if why.is_network() => {
                    self.delay.failures = self.delay.failures.saturating_add(1);
                    End::Cut(why.to_string())
                }
                Err(why) => return Err(why),
            };
            let why = match end {
                End::Over(why) => return self.note(why),
                End::Cut(why) => why,
            };
            let delay = self.delay.length();
            self.note(format_args!("{why}; trying again in {delay:?}"))?;
            #[expect(clippy::disallowed_methods, reason = "the standard prescribes the delay")]
            tokio::time::sleep(delay).await;
        }
    }

    /// Sends the request, and follows redirects. Returns the last URL, with its response.
    async fn connect(&self) -> Result<(HttpUrl, Response<Incoming>), Error> {
        let server = &self.listen.server;
        let mut url = server.url.at(&self.listen.target());
        let mut token = server.token.as_ref();
        for _ in 0..=REDIRECTS_MAX {
            let request = self.request(exchange::request(&url, token, Method::GET));
            let connection = exchange::open(&url, &server.verify).await?;
            let response = exchange::send(connection, request).await?;
            let Some(next) = redirect(&url, &response).map_err(Error::Redirect)? else {
                return Ok((url, response));
            };
            // For good, even if a later redirect leads back.
            token = token.filter(|_| next.is_same_origin(&url));
            url = next;
        }
        Err(Error::Redirect(InvalidRedirect::TooMany))
    }

    fn request(&self, request: request::Builder) -> Request<Full<Bytes>> {
        let mut request = request
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-cache");
        // An id that no header field can carry is not sent; the server then sends `connected`.
        if let Ok(id) = HeaderValue::from_bytes(self.last_event_id.as_bytes())
            && !id.is_empty()
        {
            request = request.header(LAST_EVENT_ID, id);
        }
        request.body(Full::default()).expect("every part was checked when it was parsed")
    }

    /// Follows one connection to its end, and returns why it ended.
    async fn follow(&mut self, url: &HttpUrl, response: Response<Incoming>) -> Result<End, Error> {
        if response.status() != StatusCode::OK {
            return Err(exchange::refusal(&self.listen.server, response).await);
        }
        let content_type = exchange::content_type(response.headers());
        if !content_type.eq_ignore_ascii_case("text/event-stream") {
            return Err(Error::ContentType(content_type.to_owned()));
        }
        self.delay.failures = 0;
        let Listen { server, org, stream, .. } = self.listen;
        let topic = match stream {
            StreamKind::Topic { name, .. } => format!("{name} of "),
            _ => String::new(),
        };
        let redirected = match url.is_same_origin(server.url.as_url()) {
            true => String::new(),
            false => format!(", redirected to {}", url.origin()),
        };
        let unverified = match server.verify {
            Verify::None if url.is_secure => " (its certificate is not checked)",
            _ => "",
        };
        self.note(format_args!(
            "listening to {topic}{org} at {}{redirected}{unverified}",
            server.url
        ))?;

        let mut parser = Parser::resume(std::mem::take(&mut self.last_event_id));
        let end = self.write_events(&mut parser, response.into_body()).await;
        self.last_event_id = parser.last_event_id().to_owned();
        if let Some(ms) = parser.retry_ms() {
            self.delay.retry = Duration::from_millis(ms);
        }
        end
    }

    async fn write_events(
        &mut self,
        parser: &mut Parser,
        mut body: Incoming,
    ) -> Result<End, Error> {
        while let Some(frame) = body.frame().await {
            let bytes = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(why) => return Ok(End::Cut(Error::broken(why).to_string())),
            };
            let mut written = Ok(());
            let mut over = None;
            let parsed = parser.push(&bytes, |event| {
                if written.is_ok() && over.is_none() {
                    if self.listen.pings || event.name != "ping" {
                        written = writeln!(self.events, "{}", EventLine(&event));
                    }
                    over = self.listen.stream.closed(&event);
                }
            });
            written.and_then(|()| self.events.flush()).map_err(Error::Output)?;
            if let Some(why) = over {
                return Ok(End::Over(why));
            }
            parsed.map_err(Error::TooLarge)?;
        }
        Ok(End::Cut("the stream ended".to_owned()))
    }

    fn note(&mut self, what: impl fmt::Display) -> Result<(), Error> {
        writeln!(self.notes, "{what}").and_then(|()| self.notes.flush()).map_err(Error::Output)
    }
}

/// Where this response to a request to this URL leads, if it does: without a `location` it does not.
fn redirect<B>(url: &HttpUrl, response: &Response<B>) -> Result<Option<HttpUrl>, InvalidRedirect> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = response.headers().get(header::LOCATION).filter(|_| is_redirect) else {
        return Ok(None);
    };
    // As browsers read it: a name in UTF-8 stands for its percent-encoding.
    let ascii = location.as_bytes().iter().fold(String::new(), |text, byte| match byte {
        0x80.. => format!("{text}%{byte:02X}"),
        byte => text + char::from(*byte).encode_utf8(&mut [0; 4]),
    });
    let next = url.join(&ascii).map_err(InvalidRedirect::Location)?;
    match url.is_secure && !next.is_secure {
        true => Err(InvalidRedirect::Insecure),
        false => Ok(Some(next)),
    }
}

// ===== impl Listen =====

impl Listen {
    /// The path and the query of its requests.
    fn target(&self) -> String {
        let path = self.stream.path(&self.org);
        let mut query = self.stream.query();
        if !self.keys.is_empty() {
            let keys = self.keys.join(",");
            query.push(format!("keys={}", utf8_percent_encode(&keys, ESCAPED)));
        }
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }
}

// ===== impl StreamKind =====

impl StreamKind {
    fn path(&self, org: &OrgName) -> String {
        match self {
            Self::Members => format!("/api/{org}/events"),
            Self::Public => format!("/api/{org}/public/events"),
            Self::Topic { name, .. } => {
                topic::path(&Topic { org: org.clone(), name: name.clone() })
            }
        }
    }

    /// The parameters that only a topic's stream has.
    fn query(&self) -> Vec<String> {
        let Self::Topic { since, exclusive, .. } = self else { return Vec::new() };
        let since = (*since != Since::All).then(|| format!("since={since}"));
        let exclusive = exclusive.then(|| "exclusive".to_owned());
        since.into_iter().chain(exclusive).collect()
    }

    /// What is said of the event after which this stream is over; `None` for any other.
    fn closed(&self, event: &Event) -> Option<String> {
        if !matches!(self, Self::Topic { .. }) || event.name != "closed" {
            return None;
        }
        Some(match serde_json::from_str(&event.data) {
            Ok(Closed { reason }) => format!("the stream is closed: {}", OneLine(&reason)),
            Err(_) => "the stream is closed".to_owned(),
        })
    }
}

// ===== impl ReconnectDelay =====

impl ReconnectDelay {
    fn length(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let doubled = self.retry.max(DELAY_MIN).saturating_mul(1 << doublings);
        doubled.min(DELAY_MAX.max(self.retry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_redirect_leads_from_https_to_http() {
        let to = |url: &str, location: &str| {
            let response = Response::builder().status(307).header(header::LOCATION, location);
            redirect(&url.parse().expect("a URL"), &response.body(()).expect("a response"))
        };
        assert!(matches!(to("https://a/b", "http://a/b"), Err(InvalidRedirect::Insecure)));
        for (url, location, expected) in
            [("https://a/b", "//c/d", "https://c/d"), ("http://a/b", "https://a/b", "https://a/b")]
        {
            let next = to(url, location).expect("allowed").expect("a redirect");
            assert_eq!(next.to_string(), expected);
        }
    }

    #[test]
    fn the_delay_doubles_with_each_failure_in_a_row() {
        let delays = |retry_ms: u64| {
            let retry = Duration::from_millis(retry_ms);
            [0, 1, 2, 3, 5, 6, u32::MAX]
                .map(|failures| ReconnectDelay { retry, failures }.length().as_millis())
        };
        assert_eq!(delays(3_000), [3_000, 3_000, 6_000, 12_000, 48_000, 60_000, 60_000]);
        assert_eq!(delays(0), [10, 10, 20, 40, 160, 320, 60_000], "never a busy loop");
        assert_eq!(delays(90_000), [90_000; 7], "the server's retry is never shortened");
        assert_eq!(delays(u64::MAX), [u128::from(u64::MAX); 7]);
    }
}
