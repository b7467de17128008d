//! What a request means: [`route`] names it, [`service`] answers it. Knows no sockets.

mod forwarded;
mod ops;
mod parking;
mod publish;
mod rates;
mod reject;
mod route;
mod service;

pub(crate) use parking::{Departing, Parking};
pub(crate) use service::{App, Host, Service};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    publish::{Desk, publish_batch, publish_one},
    reject::Reject,
    route::{Route, route},
};
