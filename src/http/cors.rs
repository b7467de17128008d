//! CORS (Fetch, 3.3): which pages of other origins may read answers, and the question that a browser
//! asks before it sends what a form could not.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::reject::Reject;
use crate::config::CorsPolicy;
use crate::http::fields::Fields;

/// What is said to a permitted preflight. Browsers ask again after two hours at the latest.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, last-event-id, cache-control",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "7200"),
];

// ===== impl CorsPolicy =====

impl CorsPolicy {
    /// Adds what every answer to this request says, stream or not.
    pub(super) fn add_to(&self, fields: &mut Fields, headers: &HeaderMap) {
        match self {
            Self::SameOrigin => {}
            Self::Any => {
                let any = HeaderValue::from_static("*");
                fields.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            }
            Self::Listed(origins) => {
                let asked = headers.get(header::ORIGIN);
                let allowed = origins.iter().find(|origin| Some(origin.value()) == asked);
                if let Some(origin) = allowed {
                    fields.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.value().clone());
                    let with_cookies = HeaderValue::from_static("true");
                    fields.push(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, with_cookies);
                }
                // Whatever the answer: a cache must not give it to a page of another origin.
                fields.push(header::VARY, HeaderValue::from_static("origin"));
            }
        }
    }

    /// Answers a preflight; `None` if the request is none.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?;
        let asked = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let allowed = match self {
            Self::SameOrigin => return None,
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|listed| listed.value() == origin),
        };
        if request.method() != Method::OPTIONS || !asked {
            return None;
        }
        if !allowed {
            return Some(Reject::Origin.into_response());
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        for (name, value) in PREFLIGHT {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }
}
