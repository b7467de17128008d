//! Several servers as one: each follows the same log, whole, and a publish counts once its record has come back from
//! there. It knows the hub and brokers, and no HTTP.
//!
//! ```text
//! publishes ─► queue ─► one record at a time ─► broker ─► Follower ─► Hub::apply ─► the publish is acknowledged
//!                                                            │ in doubt: the log is opened again
//!                                                            └ cut: what was before is unknown, clients re-read
//! ```
//!
//! [`follower`] decides, without I/O and without a clock; [`runner`] is the thread that does what it decides.

#[cfg(all(test, any(feature = "nats", feature = "redis")))]
mod any_log;
mod attempts;
#[cfg(any(feature = "redis", feature = "postgres"))]
pub(crate) mod bounded;
pub(crate) mod broker;
pub(crate) mod counters;
pub(crate) mod follower;
mod handle;
#[cfg(feature = "nats")]
pub(crate) mod nats;
pub(crate) mod outage;
pub(crate) mod payload;
mod queue;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod runner;
#[cfg(all(test, not(nudged_loom)))]
mod scripted;
#[cfg(all(test, any(feature = "nats", feature = "redis")))]
mod servers;
#[cfg(all(test, not(nudged_loom)))]
mod simulation;
#[cfg(all(test, not(nudged_loom)))]
mod tests;
#[cfg(any(feature = "nats", feature = "redis"))]
pub(crate) mod tls;
pub(crate) mod wait;
mod warnings;

pub(crate) use self::follower::Node;
pub(crate) use self::handle::{AppendError, Appended, Backplane, Status};
