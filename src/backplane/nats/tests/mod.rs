//! The log against real servers of NATS.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

mod cluster;
mod connecting;
mod faults;
mod figures;
mod foreign;
mod headers;
mod hostile;
mod reading;
mod settings;
mod support;
