//! The log against real servers of Redis.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

mod connecting;
mod faults;
mod foreign;
mod hostile;
mod races;
mod reading;
mod sentinels;
mod settings;
mod support;
