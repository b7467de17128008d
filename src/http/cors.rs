//! CORS (Fetch, 3.3): which pages of other origins may read responses, and the preflight that a browser sends
//! before a request that a form could not make.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::reject::Reject;
use crate::config::CorsPolicy;
use crate::http::fields::Fields;

/// The response to a permitted preflight. Browsers cache it for two hours at most.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, DELETE"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, last-event-id, cache-control",
    ),
    (header::ACCESS_CONTROL_MAX_AGE, "7200"),
];

// ===== impl CorsPolicy =====

impl CorsPolicy {
    /// Adds the header fields of every response to this request, stream or not.
    pub(super) fn add_to(&self, fields: &mut Fields, headers: &HeaderMap) {
        match self {
            Self::SameOrigin => {}
            Self::Any => {
                let any = HeaderValue::from_static("*");
                fields.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            }
            Self::Listed(origins) => {
                let requested = headers.get(header::ORIGIN);
                let allowed = origins.iter().find(|origin| Some(origin.value()) == requested);
                if let Some(origin) = allowed {
                    fields.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.value().clone());
                    let with_cookies = HeaderValue::from_static("true");
                    fields.push(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, with_cookies);
                }
                // In each case: a cache must not serve it to a page of another origin.
                fields.push(header::VARY, HeaderValue::from_static("origin"));
            }
        }
    }

    /// The response to a preflight; `None` if the request is not one.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?;
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let allowed = match self {
            Self::SameOrigin => return None,
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|listed| listed.value() == origin),
        };
        if !is_preflight {
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
