//! The route table.
//!
//! * `GET /api/{org}/events` -- the member stream; `HEAD` shows its head
//! * `POST /api/{org}/events` -- publish to one org
//! * `GET /api/{org}/public/events` -- the public stream; `HEAD` shows its head
//! * `POST /api/events` -- publish to many orgs
//! * `GET /livez`, `GET /readyz`, `GET /metrics` -- operations

use http::Method;
use percent_encoding::percent_decode_str;

use super::reject::Reject;
use crate::hub::View;
use crate::ids::{InvalidOrgName, OrgName};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Stream { org: OrgName, view: View },
    StreamHead { org: OrgName, view: View },
    Publish { org: OrgName },
    PublishBatch,
    Live,
    Ready,
    Metrics,
}

// ===== impl Route =====

impl Route {
    /// Whether it is for those only who are allowed to.
    pub(crate) fn needs_token(&self) -> bool {
        match self {
            Self::Stream { view, .. } | Self::StreamHead { view, .. } => *view == View::Member,
            Self::Publish { .. } | Self::PublishBatch => true,
            Self::Live | Self::Ready | Self::Metrics => false,
        }
    }
}

/// Names what a request asks for.
pub(crate) fn route(method: &Method, path: &str) -> Result<Route, Reject> {
    let path = path.strip_prefix('/').ok_or(Reject::NotFound)?;
    if let Some(rest) = path.strip_prefix("api/") {
        return match rest.split_once('/') {
            None if rest == "events" => match *method {
                Method::POST => Ok(Route::PublishBatch),
                _ => Err(Reject::Method { allow: "POST" }),
            },
            Some((org, "events")) => org_events(method, org),
            Some((org, "public/events")) => stream(method, org, View::Public, "GET, HEAD"),
            _ => Err(Reject::NotFound),
        };
    }
    let route = match path {
        "livez" => Route::Live,
        "readyz" => Route::Ready,
        "metrics" => Route::Metrics,
        _ => return Err(Reject::NotFound),
    };
    match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(Reject::Method { allow: "GET, HEAD" }),
    }
}

fn org_events(method: &Method, org: &str) -> Result<Route, Reject> {
    match *method {
        Method::POST => Ok(Route::Publish { org: parse_org(org)? }),
        _ => stream(method, org, View::Member, "GET, HEAD, POST"),
    }
}

fn stream(method: &Method, org: &str, view: View, allow: &'static str) -> Result<Route, Reject> {
    match *method {
        Method::GET => Ok(Route::Stream { org: parse_org(org)?, view }),
        Method::HEAD => Ok(Route::StreamHead { org: parse_org(org)?, view }),
        _ => Err(Reject::Method { allow }),
    }
}

/// One path segment, percent-decoded (RFC 3986, 2.1).
fn parse_org(segment: &str) -> Result<OrgName, Reject> {
    let text =
        percent_decode_str(segment).decode_utf8().map_err(|_| Reject::Org(InvalidOrgName))?;
    text.parse().map_err(Reject::Org)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org() -> OrgName {
        "acme".parse().expect("a name")
    }

    #[test]
    fn every_row_of_the_table() {
        let rows = [
            (Method::GET, "/api/acme/events", Route::Stream { org: org(), view: View::Member }),
            (
                Method::HEAD,
                "/api/acme/events",
                Route::StreamHead { org: org(), view: View::Member },
            ),
            (Method::POST, "/api/acme/events", Route::Publish { org: org() }),
            (
                Method::GET,
                "/api/%61cme/public/events",
                Route::Stream { org: org(), view: View::Public },
            ),
            (Method::POST, "/api/events", Route::PublishBatch),
            (Method::GET, "/livez", Route::Live),
            (Method::HEAD, "/readyz", Route::Ready),
            (Method::GET, "/metrics", Route::Metrics),
        ];
        for (method, path, expected) in rows {
            assert_eq!(route(&method, path).expect(path), expected);
        }
    }

    #[test]
    fn a_path_outside_the_table_is_not_found() {
        for path in [
            "",
            "*",
            "/",
            "/api",
            "/api/",
            "/api/acme",
            "/api/acme/",
            "/api/a/b/events",
            "/api/acme/events/",
            "/api/acme/public",
            "/API/acme/events",
            "/livez/",
        ] {
            assert!(matches!(route(&Method::GET, path), Err(Reject::NotFound)), "{path}");
        }
    }

    #[test]
    fn an_org_is_checked_after_decoding() {
        for path in [
            "/api//events",
            "/api/%2e/events",
            "/api/a%2Fb/events",
            "/api/%ff/events",
            "/api/a%0a/events",
        ] {
            assert!(matches!(route(&Method::GET, path), Err(Reject::Org(_))), "{path}");
        }
    }

    #[test]
    fn other_methods_are_told_which_ones_there_are() {
        for (path, expected) in [
            ("/api/acme/events", "GET, HEAD, POST"),
            ("/api/acme/public/events", "GET, HEAD"),
            ("/livez", "GET, HEAD"),
        ] {
            let refused = route(&Method::DELETE, path);
            assert!(
                matches!(refused, Err(Reject::Method { allow }) if allow == expected),
                "{path}"
            );
        }
        assert!(matches!(
            route(&Method::GET, "/api/events"),
            Err(Reject::Method { allow: "POST" })
        ));
    }
}
