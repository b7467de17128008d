//! `nudged listen`: follows a stream as a browser's `EventSource` does (WHATWG HTML 9.2.2 and 9.2.3).

use std::fmt;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::{Error, OneLine, Server, Trust, exchange};
use crate::ids::OrgName;
use crate::wire::{Event, Parser};

/// Which stream to follow.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The server that has it.
    pub server: Server,
    /// Whose stream it is.
    pub org: OrgName,
    /// The public stream in place of the members'.
    pub public: bool,
    /// Where to go on, as an earlier event said.
    pub last_event_id: Option<String>,
}

/// A listener between and during its connections.
struct Listener<'a, E, N> {
    listen: &'a Listen,
    events: &'a mut E,
    notes: &'a mut N,
    last_event_id: String,
    pause: Pause,
}

/// How long to wait before the next connection.
struct Pause {
    /// What the stream said last.
    retry: Duration,
    /// Connections that did not come about since the last that did.
    failures: u32,
}

/// An event as one line: `invalidate {"keys":["posts"]}  id=…`.
struct Line<'a>(&'a Event);

/// Until the stream says otherwise; what the browsers use (Chromium 3 s, Firefox 5 s).
const RETRY_DEFAULT: Duration = Duration::from_secs(3);

/// The shortest pause, so that `retry: 0` does not become a busy loop.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Where doubling the pause ends, unless `retry:` itself is longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

const LAST_EVENT_ID: &str = "last-event-id";

/// Writes every event to `events` as it comes, one line each, and what happens to the connection to
/// `notes`. Comes back after the stream ended or the network failed, with `Last-Event-ID`, after the
/// last `retry:` of the stream (3 s if there was none), doubled for every connection in a row that
/// failed, up to 60 s.
///
/// Returns when the server answered `204`, which tells a client not to come back; goes on for ever
/// otherwise, until the future is dropped.
///
/// # Errors
/// Any other status than 200, another content type than `text/event-stream`, an event beyond
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
    let pause = Pause { retry: RETRY_DEFAULT, failures: 0 };
    Listener { listen, events, notes, last_event_id, pause }.run().await
}

// ===== impl Listener =====

impl<E: Write, N: Write> Listener<'_, E, N> {
    async fn run(mut self) -> Result<(), Error> {
        loop {
            let end = match exchange::send(&self.listen.server, self.request()).await {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => {
                    return self.note("the server answered 204 No Content: it has no more for us");
                }
                Ok(response) => self.follow(response).await?,
                Err(why) if why.is_network() => {
                    self.pause.failures = self.pause.failures.saturating_add(1);
                    why.to_string()
                }
                Err(why) => return Err(why),
            };
            let pause = self.pause.length();
            self.note(format_args!("{end}; trying again in {pause:?}"))?;
            #[expect(clippy::disallowed_methods, reason = "waiting is what the standard asks for")]
            tokio::time::sleep(pause).await;
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let Listen { server, org, public, .. } = self.listen;
        let path = format!("/api/{org}{}/events", if *public { "/public" } else { "" });
        let mut request = exchange::request(server, Method::GET, &path)
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-cache");
        // An id that no header field can carry is not sent: the server then says `connected`.
        if let Ok(id) = HeaderValue::from_bytes(self.last_event_id.as_bytes())
            && !id.is_empty()
        {
            request = request.header(LAST_EVENT_ID, id);
        }
        request.body(Full::default()).expect("every part was checked when it was parsed")
    }

    /// Follows one connection to its end, and says how it ended.
    async fn follow(&mut self, response: Response<Incoming>) -> Result<String, Error> {
        if response.status() != StatusCode::OK {
            return Err(exchange::refused(&self.listen.server, response).await);
        }
        let content_type = exchange::content_type(response.headers());
        if !content_type.eq_ignore_ascii_case("text/event-stream") {
            return Err(Error::ContentType(content_type.to_owned()));
        }
        self.pause.failures = 0;
        let Listen { server, org, .. } = self.listen;
        let unchecked = match server.trust {
            Trust::Anybody if server.url.is_secure => " (its certificate is not checked)",
            _ => "",
        };
        self.note(format_args!("listening to {org} at {}{unchecked}", server.url))?;

        let mut parser = Parser::resume(std::mem::take(&mut self.last_event_id));
        let end = self.write_events(&mut parser, response.into_body()).await;
        self.last_event_id = parser.last_event_id().to_owned();
        if let Some(ms) = parser.retry_ms() {
            self.pause.retry = Duration::from_millis(ms);
        }
        end
    }

    async fn write_events(
        &mut self,
        parser: &mut Parser,
        mut body: Incoming,
    ) -> Result<String, Error> {
        while let Some(frame) = body.frame().await {
            let bytes = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(why) => return Ok(Error::from(why).to_string()),
            };
            let mut written = Ok(());
            let parsed = parser.push(&bytes, |event| {
                if written.is_ok() {
                    written = writeln!(self.events, "{}", Line(&event));
                }
            });
            written.and_then(|()| self.events.flush()).map_err(Error::Output)?;
            parsed.map_err(Error::TooLarge)?;
        }
        Ok("the stream ended".to_owned())
    }

    fn note(&mut self, what: impl fmt::Display) -> Result<(), Error> {
        writeln!(self.notes, "{what}").and_then(|()| self.notes.flush()).map_err(Error::Output)
    }
}

// ===== impl Pause =====

impl Pause {
    fn length(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let doubled = self.retry.max(PAUSE_MIN).saturating_mul(1 << doublings);
        doubled.min(PAUSE_MAX.max(self.retry))
    }
}

// ===== impl Line =====

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { name, data, id } = self.0;
        write!(f, "{} {}", OneLine(name), OneLine(data))?;
        if id.is_empty() { Ok(()) } else { write!(f, "  id={}", OneLine(id)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_with_each_failure_in_a_row() {
        let pauses = |retry_ms: u64| {
            let retry = Duration::from_millis(retry_ms);
            [0, 1, 2, 3, 5, 6, u32::MAX]
                .map(|failures| Pause { retry, failures }.length().as_millis())
        };
        assert_eq!(pauses(3_000), [3_000, 3_000, 6_000, 12_000, 48_000, 60_000, 60_000]);
        assert_eq!(pauses(0), [10, 10, 20, 40, 160, 320, 60_000], "never a busy loop");
        assert_eq!(pauses(90_000), [90_000; 7], "the server's own wish is not cut short");
        assert_eq!(pauses(u64::MAX), [u128::from(u64::MAX); 7]);
    }
}
