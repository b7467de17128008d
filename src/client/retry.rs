//! When a request that failed is sent again.

use std::io::Write;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Endpoint, Error, exchange};

/// Why an attempt failed, and how long the server asks to wait before the next.
pub(super) type Failure = (Error, Option<Duration>);

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

/// Makes attempts until one succeeds, fails for good, or is too late to be followed by another. Writes to `notes` why
/// there is another.
pub(super) async fn repeat<T, F>(
    time: Duration,
    notes: &mut impl Write,
    attempt: impl Fn() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pauses = Pauses::new(time);
    loop {
        let (why, retry_after) = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let pause = if why.is_temporary() { pauses.next(retry_after) } else { None };
        let Some(pause) = pause else { return Err(why) };
        // What is beside the result is not worth an error.
        _ = writeln!(notes, "{why}; trying again in {pause:.1?}").and_then(|()| notes.flush());
        #[expect(clippy::disallowed_methods, reason = "a client's retry, not a stream")]
        tokio::time::sleep(pause).await;
    }
}

/// Sends JSON, or nothing, and parses the body of a response that accepts it.
pub(super) async fn post<T: DeserializeOwned + Default>(
    server: &Endpoint,
    path: &str,
    json: Vec<u8>,
) -> Result<T, Failure> {
    let url = server.url.at(path);
    let mut request = exchange::request(&url, server.token.as_ref(), Method::POST);
    if !json.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(json.into()).expect("every part was checked when it was parsed");
    let sent = exchange::send(&url, &server.verify, request).await;
    let response = sent.map_err(|why| (why, None))?;
    if response.status() != StatusCode::ACCEPTED {
        let retry_after = retry_after(response.headers(), SystemTime::now());
        return Err((exchange::refusal(server, response).await, retry_after));
    }
    let body = exchange::read_body(server, response).await.map_err(|why| (why, None))?;
    // By its status it was accepted; a body that is something else, or too large, does not change that.
    Ok(serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default())
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
