//! nudged tells browsers that what they hold is stale.
#![forbid(unsafe_code)]

pub mod ids;
mod sync;
pub mod wire;
