//! What a request means: [`route`] names it, [`service`] answers it. Knows no sockets.

mod forwarded;
mod ops;
mod parking;
mod publish;
mod rates;
mod reject;
mod route;
mod service;

pub(crate) use parking::Parking;
pub(crate) use service::{App, Host, Service};
