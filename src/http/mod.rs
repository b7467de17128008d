//! What a request means: [`route`] names it, [`service`] answers it. Knows no sockets.

mod answer;
mod auth;
mod cors;
mod forwarded;
mod head;
mod ops;
mod parking;
mod publish;
mod rates;
mod reject;
mod route;
mod service;
mod strict;

use http::Uri;

pub(crate) use answer::Dressed;
pub(crate) use parking::{Departing, Parking};
pub(crate) use reject::Reject;
pub(crate) use service::{App, Host, Service};
#[cfg(all(any(test, fuzzing), not(nudged_loom)))]
pub(crate) use {
    auth::Orgs,
    publish::{Desk, publish_batch, publish_one},
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
