//! What a request means: [`route`] names it, [`service`] answers it. Knows no sockets.

mod ops;
mod publish;
mod reject;
mod route;
mod service;

pub(crate) use service::{Answer, App, Service};
