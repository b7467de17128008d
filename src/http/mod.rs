//! What a request means: [`route`] names it, [`service`] answers it. Knows no sockets.

mod ops;
mod parking;
mod publish;
mod reject;
mod route;
mod service;

pub(crate) use parking::{Departing, Parking};
pub(crate) use service::{App, Service};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    publish::{publish_batch, publish_one},
    reject::Reject,
    route::{Route, route},
};
