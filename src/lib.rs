//! nudged tells browsers that what they hold is stale.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
mod http;
pub mod hub;
pub mod ids;
pub mod metrics;
pub mod server;
pub mod stream;
mod sync;
pub mod wire;
