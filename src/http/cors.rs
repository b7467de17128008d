//! CORS (Fetch, 3.3): which pages of other origins may read responses, and the preflight that a browser sends
//! before a request that a form could not make.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::reject::Reject;
use crate::config::{Config, CorsPolicy};
use crate::http::fields::Fields;

/// The policy, and the header fields of the response to a permitted preflight.
#[derive(Debug)]
pub(super) struct Cors {
    policy: CorsPolicy,
    /// The header fields that a page may send.
    allowed: HeaderValue,
}

/// Beside those of [`REQUEST_FIELDS`] and of the configuration. Browsers cache it for two hours at most.
const PREFLIGHT: [(HeaderName, &str); 2] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE"),
    (header::ACCESS_CONTROL_MAX_AGE, "7200"),
];

/// What nudged reads, what clients of SSE set, and what tracing and frameworks add to every request of a page: one
/// field that is missing here fails the request.
const REQUEST_FIELDS: [&str; 9] = [
    "authorization",
    "content-type",
    "last-event-id",
    "cache-control",
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
    "x-requested-with",
];

/// What a page may read of a response beside what Fetch always shows: when to come back, and what is allowed.
const RESPONSE_FIELDS: HeaderValue = HeaderValue::from_static("retry-after, allow");

// ===== impl Cors =====

impl Cors {
    pub(super) fn new(config: &Config) -> Self {
        let more = config.cors_headers.iter().map(HeaderName::as_str);
        let names = REQUEST_FIELDS.into_iter().chain(more).collect::<Vec<_>>().join(", ");
        let allowed = HeaderValue::try_from(names).expect("names of fields are ASCII");
        Self { policy: config.cors.clone(), allowed }
    }

    /// Adds the header fields of every response to this request, stream or not.
    pub(super) fn add_to(&self, fields: &mut Fields, headers: &HeaderMap) {
        let origin = match &self.policy {
            CorsPolicy::SameOrigin => return,
            CorsPolicy::Any => HeaderValue::from_static("*"),
            CorsPolicy::Listed(_) => {
                // In each case: a cache must not serve it to a page of another origin.
                fields.push(header::VARY, HeaderValue::from_static("origin"));
                let origin = headers.get(header::ORIGIN);
                let Some(origin) = origin.filter(|origin| self.policy.allows(origin)) else {
                    return;
                };
                let with_cookies = HeaderValue::from_static("true");
                fields.push(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, with_cookies);
                origin.clone()
            }
        };
        fields.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        fields.push(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_FIELDS);
    }

    /// The response to a preflight; `None` if the request is not one.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?;
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight || self.policy == CorsPolicy::SameOrigin {
            return None;
        }
        if !self.policy.allows(origin) {
            return Some(Reject::Origin.into_response());
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        for (name, value) in PREFLIGHT {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.allowed.clone());
        Some(response)
    }
}
