//! The meaning of requests: [`route`] names what a request asks for, [`service`] responds. No sockets here.

mod accept;
mod access_log;
mod auth;
mod body_budget;
mod command;
mod conformance;
mod content;
mod cors;
mod exposition;
mod fields;
mod filter;
mod forwarded;
mod handoff;
mod hosts;
mod last_event_id;
mod ops;
mod origin;
mod publish;
mod rate_limit;
mod reject;
mod request_head;
mod response;
mod route;
mod scripts;
mod service;
mod successor;
mod timer;
mod topics;

use http::Uri;

#[cfg(all(test, feature = "jwt"))]
pub(crate) use auth::VERIFICATIONS;
#[cfg(feature = "postgres")]
pub(crate) use exposition::{BatchResult, OutboxCounters};
pub(crate) use fields::Fields;
pub(crate) use handoff::{Handoff, HandoffSlot, Polled};
#[cfg(feature = "postgres")]
pub(crate) use publish::CheckedLine;
pub(crate) use reject::Reject;
pub(crate) use response::{ResponseBody, ResponseFuture};
pub(crate) use service::{App, Service, ServiceFactory, Verdict};
pub(crate) use successor::{Done, NotPassedOn, Operation, OperationSender, Operations};
pub(crate) use timer::{Sleep, Timer};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    auth::Grant,
    publish::{Published, Publisher, publish_batch, publish_message, publish_one},
    route::{Route, route},
};

/// The first value of a query parameter (WHATWG URL, application/x-www-form-urlencoded).
fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// A media type without its parameters (RFC 9110, 8.3.1).
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}
