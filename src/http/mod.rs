//! What a request means: [`route`] names it, [`service`] answers it. Knows no sockets.

mod ops;
mod parking;
mod publish;
mod reject;
mod route;
mod service;

pub(crate) use parking::{Departing, Parking};
pub(crate) use service::{App, Service};
