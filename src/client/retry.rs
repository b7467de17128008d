//! When a request that failed is sent again.

use std::io::Write;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Endpoint, Error, exchange};

/// A request that has the server do something, with JSON or without a body.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) method: Method,
    pub(super) path: String,
    /// Empty for none.
    pub(super) json: Vec<u8>,
    pub(super) repeat: Repeat,
}

/// When a command that failed for a reason that may pass is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// In any case: to do it twice is no harm.
    Always,
    /// Only if it is certain that it was not done.
    IfUndone,
}

/// Why an attempt failed.
#[derive(Debug)]
struct Failure {
    why: Error,
    /// How long the server asks to wait before the next one.
    asked: Option<Duration>,
    /// Whether it is certain that the command was not done.
    is_undone: bool,
}

/// The pauses between the attempts of one request.
#[derive(Debug)]
pub(super) struct Pauses {
    /// No attempt begins later.
    end: Instant,
    /// The bound of the next pause.
    next: Duration,
}

/// The longest first pause; each further one may take twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// The kind of problem of a server whose log may have taken what was published, or may not.
const UNCLEAR: &str = "backplane-unavailable";

/// The longest pause for which the server did not ask.
const LONGEST: Duration = Duration::from_secs(10);

// ===== impl Pauses =====

impl Pauses {
    /// Of a request that may be sent again for this long from now on.
    pub(super) fn new(time: Duration) -> Self {
        // A time that no clock can show has no end.
        let far = || Instant::now() + Duration::from_secs(86_400 * 365);
        Self { end: Instant::now().checked_add(time).unwrap_or_else(far), next: FIRST }
    }

    /// How long to wait before the next attempt, not less than the server asked for; `None` if that is too long. A half
    /// is random, so that clients that failed together do not come back together.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0).max(asked.unwrap_or_default());
        self.next = (self.next * 2).min(LONGEST);
        let left = self.end.saturating_duration_since(Instant::now());
        (pause < left).then_some(pause)
    }
}

// ===== impl Command =====

impl Command {
    /// Sends it until it is accepted, fails for good, or is too late to be sent again, and parses the body of the
    /// response that accepts it. Writes to `notes` why it is sent again, or why it is not although that might help.
    pub(super) async fn run<T: DeserializeOwned + Default>(
        &self,
        server: &Endpoint,
        time: Duration,
        notes: &mut impl Write,
    ) -> Result<T, Error> {
        let mut pauses = Pauses::new(time);
        loop {
            let Failure { why, asked, is_undone } = match self.attempt(server).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if self.repeat == Repeat::IfUndone && !is_undone {
                let unclear = "it is not known whether this was done, so it is not tried again";
                _ = writeln!(notes, "{unclear}").and_then(|()| notes.flush());
                return Err(why);
            }
            let pause = if why.is_temporary() { pauses.next(asked) } else { None };
            let Some(pause) = pause else { return Err(why) };
            // What is beside the result is not worth an error.
            _ = writeln!(notes, "{why}; trying again in {pause:.1?}").and_then(|()| notes.flush());
            #[expect(clippy::disallowed_methods, reason = "a client's retry, not a stream")]
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T: DeserializeOwned + Default>(
        &self,
        server: &Endpoint,
    ) -> Result<T, Failure> {
        let url = server.url.at(&self.path);
        let failed = |is_undone| move |why| Failure { why, asked: None, is_undone };
        let connection = exchange::open(&url, &server.verify).await.map_err(failed(true))?;
        let mut request = exchange::request(&url, server.token.as_ref(), self.method.clone());
        if !self.json.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = self.json.clone().into();
        let request = request.body(body).expect("every part was checked when it was parsed");
        let response = exchange::send(connection, request).await.map_err(failed(false))?;
        if response.status() != StatusCode::ACCEPTED {
            let asked = retry_after(response.headers(), SystemTime::now());
            let (status, is_undone) = (response.status(), is_undone(&response));
            let problem = exchange::problem(server, response).await;
            let is_undone = is_undone && problem.kind.as_deref() != Some(UNCLEAR);
            let why = Error::Refused { status, detail: problem.shown() };
            return Err(Failure { why, asked, is_undone });
        }
        // By its status it was accepted; a body that is something else, too large or cut off does not change that.
        let body = exchange::read_body(server, response).await.ok().flatten();
        Ok(serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default())
    }
}

/// Whether such a response shows that nothing was done, unless it says otherwise ([`UNCLEAR`]): nudged refuses before it
/// does anything, and its refusals have a problem body. A proxy that answers 502, 503 or 504 may have passed the request
/// on.
fn is_undone<B>(response: &Response<B>) -> bool {
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE => {
            exchange::content_type(response.headers()) == exchange::PROBLEM
        }
        status => status.is_client_error(),
    }
}

/// How long the server asks to wait (RFC 9110, 10.2.3).
pub(super) fn retry_after(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = fields.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse().map(Duration::from_secs) {
        Ok(time) => Some(time),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_within_their_bounds_and_end_in_time() {
        let mut pauses = Pauses::new(Duration::from_secs(60));
        let mut bound = FIRST;
        let mut waited = Duration::ZERO;
        while let Some(pause) = pauses.next(None) {
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} of {bound:?}");
            bound = (bound * 2).min(LONGEST);
            waited += pause;
            tokio::time::advance(pause).await;
        }
        assert!(waited < Duration::from_secs(60) && waited > Duration::from_secs(45), "{waited:?}");
        assert_eq!(Pauses::new(Duration::ZERO).next(None), None, "one attempt");
        assert!(Pauses::new(Duration::MAX).next(None).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_never_shorter_than_the_server_asks_for() {
        let mut pauses = Pauses::new(Duration::from_secs(60));
        let asked = Duration::from_secs(59);
        assert_eq!(pauses.next(Some(asked)), Some(asked));
        assert_eq!(pauses.next(Some(asked * 2)), None, "it would come back too early");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 28 Nov 2026 12:00:00 GMT").expect("a date");
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sat, 28 Nov 2026 12:01:30 GMT", Some(90)),
            ("Sat, 28 Nov 2026 11:00:00 GMT", None),
            ("-1", None),
            ("soon", None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::RETRY_AFTER, text.parse().expect("a value"));
            assert_eq!(retry_after(&fields, now), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
