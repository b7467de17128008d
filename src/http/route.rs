//! The route table.
//!
//! * `GET /api/{org}/events` -- the member stream; `HEAD` shows its head
//! * `POST /api/{org}/events` -- publish to one org
//! * `DELETE /api/{org}/events` -- end the member streams of an org
//! * `GET /api/{org}/public/events` -- the public stream; `HEAD` shows its head
//! * `GET /api/{org}/position` -- where its views are
//! * `GET /api/{org}/topics/{topic}/events` -- the stream of a topic; `HEAD` shows its head
//! * `POST /api/{org}/topics/{topic}/events` -- publish to a topic
//! * `DELETE /api/{org}/topics/{topic}/events` -- close a topic
//! * `POST /api/events` -- publish to many orgs
//! * `POST /api/{org}/reread`, `POST /api/reread` -- have the clients of one org, or of all, re-read everything
//! * `GET /livez`, `GET /readyz`, `GET /metrics` -- operations
//! * `GET /ops`, `GET /ops/orgs`, `GET /ops/topics`, `GET /ops/nodes` -- the page for operators, and what it shows
//! * `GET /nudged.js`, `GET /nudged-adapters.js` -- the browser client; the same with its version in the name

use http::Method;
use percent_encoding::percent_decode_str;

use super::auth::{Permission, Scope};
use super::ops::Ops;
use super::reject::Reject;
use super::scripts::{self, Script};
use crate::hub::View;
use crate::ids::{InvalidOrgName, InvalidTopicName, OrgName, Topic, TopicName};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Stream { org: OrgName, view: View },
    StreamHead { org: OrgName, view: View },
    Publish { org: OrgName },
    PublishBatch,
    EndMembers { org: OrgName },
    Reread { org: OrgName },
    RereadAll,
    Position { org: OrgName },
    TopicStream { topic: Topic },
    TopicStreamHead { topic: Topic },
    PublishMessage { topic: Topic },
    CloseTopic { topic: Topic },
    Live,
    Ready,
    Metrics,
    Ops(Ops),
    Script(Script),
}

const STREAM_METHODS: &str = "GET, HEAD, POST, DELETE";

// ===== impl Route =====

impl Route {
    /// Whether it is about the stream of a topic.
    pub(super) fn is_of_topic_stream(&self) -> bool {
        matches!(self, Self::TopicStream { .. } | Self::TopicStreamHead { .. })
    }

    /// Whether the response is a stream.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream { .. } | Self::TopicStream { .. })
    }

    /// What a request has to be allowed; `None` if it needs no token.
    pub(super) fn permission(&self) -> Option<Permission<'_>> {
        let (scope, org) = match self {
            Self::Stream { org, view: View::Member | View::Topic }
            | Self::StreamHead { org, view: View::Member | View::Topic } => {
                (Scope::Subscribe, Some(org))
            }
            Self::Publish { org } | Self::EndMembers { org } | Self::Reread { org } => {
                (Scope::Publish, Some(org))
            }
            Self::PublishBatch | Self::RereadAll => (Scope::Publish, None),
            Self::Position { org } => (Scope::Either, Some(org)),
            Self::TopicStream { topic } | Self::TopicStreamHead { topic } => {
                return Some(Permission::for_topic(Scope::Subscribe, topic));
            }
            Self::PublishMessage { topic } | Self::CloseTopic { topic } => {
                return Some(Permission::for_topic(Scope::Publish, topic));
            }
            Self::Stream { view: View::Public, .. }
            | Self::StreamHead { view: View::Public, .. } => return None,
            // What they show is of every org.
            Self::Ops(Ops::Orgs | Ops::Topics | Ops::Nodes) => (Scope::Ops, None),
            Self::Live | Self::Ready | Self::Metrics | Self::Ops(Ops::Page) | Self::Script(_) => {
                return None;
            }
        };
        Some(Permission { scope, org, topic: None, is_exclusive: false })
    }
}

/// Finds the route of a request.
///
/// # Errors
/// There is none, it has other methods, or the name of the org or the topic is invalid.
pub(crate) fn route(method: &Method, path: &str) -> Result<Route, Reject> {
    let path = path.strip_prefix('/').ok_or(Reject::NotFound)?;
    if let Some(rest) = path.strip_prefix("api/") {
        return match rest.split_once('/') {
            None if rest == "events" => post(method, || Ok(Route::PublishBatch)),
            None if rest == "reread" => post(method, || Ok(Route::RereadAll)),
            Some((org, "events")) => org_events(method, org),
            Some((org, "reread")) => post(method, || Ok(Route::Reread { org: parse_org(org)? })),
            Some((org, "public/events")) => stream(method, org, View::Public, "GET, HEAD"),
            Some((org, "position")) => match *method {
                Method::GET | Method::HEAD => Ok(Route::Position { org: parse_org(org)? }),
                _ => Err(Reject::Method { allow: "GET, HEAD" }),
            },
            Some((org, rest)) => match topic_segment(rest) {
                Some(topic) => topic_events(method, org, topic),
                None => Err(Reject::NotFound),
            },
            None => Err(Reject::NotFound),
        };
    }
    let route = match path {
        "livez" => Route::Live,
        "readyz" => Route::Ready,
        "metrics" => Route::Metrics,
        "ops" => Route::Ops(Ops::Page),
        "ops/orgs" => Route::Ops(Ops::Orgs),
        "ops/topics" => Route::Ops(Ops::Topics),
        "ops/nodes" => Route::Ops(Ops::Nodes),
        name => Route::Script(scripts::find(name).ok_or(Reject::NotFound)??),
    };
    match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(Reject::Method { allow: "GET, HEAD" }),
    }
}

fn org_events(method: &Method, org: &str) -> Result<Route, Reject> {
    match *method {
        Method::POST => Ok(Route::Publish { org: parse_org(org)? }),
        Method::DELETE => Ok(Route::EndMembers { org: parse_org(org)? }),
        _ => stream(method, org, View::Member, STREAM_METHODS),
    }
}

/// The name in `topics/{topic}/events`, as it is written.
fn topic_segment(rest: &str) -> Option<&str> {
    let topic = rest.strip_prefix("topics/")?.strip_suffix("/events")?;
    (!topic.contains('/')).then_some(topic)
}

fn topic_events(method: &Method, org: &str, topic: &str) -> Result<Route, Reject> {
    let route: fn(Topic) -> Route = match *method {
        Method::GET => |topic| Route::TopicStream { topic },
        Method::HEAD => |topic| Route::TopicStreamHead { topic },
        Method::POST => |topic| Route::PublishMessage { topic },
        Method::DELETE => |topic| Route::CloseTopic { topic },
        _ => return Err(Reject::Method { allow: STREAM_METHODS }),
    };
    Ok(route(Topic { org: parse_org(org)?, name: parse_topic(topic)? }))
}

fn post(method: &Method, route: impl FnOnce() -> Result<Route, Reject>) -> Result<Route, Reject> {
    if *method == Method::POST { route() } else { Err(Reject::Method { allow: "POST" }) }
}

fn stream(method: &Method, org: &str, view: View, allow: &'static str) -> Result<Route, Reject> {
    match *method {
        Method::GET => Ok(Route::Stream { org: parse_org(org)?, view }),
        Method::HEAD => Ok(Route::StreamHead { org: parse_org(org)?, view }),
        _ => Err(Reject::Method { allow }),
    }
}

/// Decodes one path segment (RFC 3986, 2.1) and parses it as an org's name.
fn parse_org(segment: &str) -> Result<OrgName, Reject> {
    let text =
        percent_decode_str(segment).decode_utf8().map_err(|_| Reject::Org(InvalidOrgName))?;
    text.parse().map_err(Reject::Org)
}

/// The same for a topic's name.
fn parse_topic(segment: &str) -> Result<TopicName, Reject> {
    let text =
        percent_decode_str(segment).decode_utf8().map_err(|_| Reject::Topic(InvalidTopicName))?;
    text.parse().map_err(Reject::Topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org() -> OrgName {
        "acme".parse().expect("a name")
    }

    fn topic(name: &str) -> Topic {
        Topic { org: org(), name: name.parse().expect("a name") }
    }

    fn script(name: &str) -> Route {
        Route::Script(scripts::find(name).expect("a name").expect("this version"))
    }

    #[test]
    fn every_route_of_the_table_is_found() {
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
            (Method::DELETE, "/api/acme/events", Route::EndMembers { org: org() }),
            (Method::POST, "/api/acme/reread", Route::Reread { org: org() }),
            (Method::POST, "/api/reread", Route::RereadAll),
            (
                Method::GET,
                "/api/reread/events",
                Route::Stream { org: "reread".parse().expect("a name"), view: View::Member },
            ),
            (Method::GET, "/api/acme/position", Route::Position { org: org() }),
            (Method::HEAD, "/api/acme/position", Route::Position { org: org() }),
            (
                Method::GET,
                "/api/acme/topics/run-7/events",
                Route::TopicStream { topic: topic("run-7") },
            ),
            (
                Method::HEAD,
                "/api/%61cme/topics/%72un-7/events",
                Route::TopicStreamHead { topic: topic("run-7") },
            ),
            (
                Method::POST,
                "/api/acme/topics/events/events",
                Route::PublishMessage { topic: topic("events") },
            ),
            (
                Method::DELETE,
                "/api/acme/topics/topics/events",
                Route::CloseTopic { topic: topic("topics") },
            ),
            (Method::GET, "/livez", Route::Live),
            (Method::HEAD, "/readyz", Route::Ready),
            (Method::GET, "/metrics", Route::Metrics),
            (Method::GET, "/ops", Route::Ops(Ops::Page)),
            (Method::HEAD, "/ops/orgs", Route::Ops(Ops::Orgs)),
            (Method::GET, "/ops/topics", Route::Ops(Ops::Topics)),
            (Method::GET, "/ops/nodes", Route::Ops(Ops::Nodes)),
            (Method::GET, "/nudged.js", script("nudged.js")),
            (Method::HEAD, "/nudged-adapters.js", script("nudged-adapters.js")),
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
            "/api/acme/public/position",
            "/api/acme/topics",
            "/api/acme/topics/",
            "/api/acme/topics/events",
            "/api/acme/topics/run",
            "/api/acme/topics/run/",
            "/api/acme/topics/run/events/",
            "/api/acme/topics/run/step/events",
            "/api/acme/topics/run/reread",
            "/api/acme/public/topics/run/events",
            "/api/topics/run/events",
            "/api/acme/Topics/run/events",
            "/api/position",
            "/API/acme/events",
            "/livez/",
            "/ops/",
            "/ops/orgs/",
            "/ops/org",
            "/ops.html",
            "/Ops",
            "/api/ops",
            "/nudged",
            "/nudged.js/",
            "/api/nudged.js",
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
    fn a_topic_is_checked_after_decoding() {
        for path in [
            "/api/acme/topics//events",
            "/api/acme/topics/%2e/events",
            "/api/acme/topics/a%2Fb/events",
            "/api/acme/topics/%ff/events",
            "/api/acme/topics/a%0a/events",
            "/api/acme/topics/a*/events",
            &format!("/api/acme/topics/{}/events", "a".repeat(129)),
        ] {
            for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
                assert!(matches!(route(&method, path), Err(Reject::Topic(_))), "{path}");
            }
        }
        let longest = format!("/api/acme/topics/{}/events", "a".repeat(128));
        assert!(matches!(route(&Method::GET, &longest), Ok(Route::TopicStream { .. })));
        let refused = route(&Method::GET, "/api/a b/topics/a b/events");
        assert!(matches!(refused, Err(Reject::Org(_))), "{refused:?}");
    }

    #[test]
    fn another_method_is_refused_with_the_allowed_ones() {
        for (path, expected) in [
            ("/api/acme/events", "GET, HEAD, POST, DELETE"),
            ("/api/acme/reread", "POST"),
            ("/api/reread", "POST"),
            ("/api/acme/public/events", "GET, HEAD"),
            ("/api/acme/position", "GET, HEAD"),
            ("/api/acme/topics/run/events", "GET, HEAD, POST, DELETE"),
            ("/livez", "GET, HEAD"),
            ("/ops", "GET, HEAD"),
            ("/ops/nodes", "GET, HEAD"),
            ("/nudged.js", "GET, HEAD"),
        ] {
            let refused = route(&Method::PUT, path);
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
