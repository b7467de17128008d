//! A server hands its listening sockets, its histories and its open streams to a successor, another process, which goes on
//! where it stopped: no client notices. [`message`] has the sequence, [`hand_over`] and [`predecessor`] have its two sides.

pub(crate) mod adopt;
pub(crate) mod control;
pub(crate) mod freeze;
mod hand_over;
mod histories;
pub(crate) mod late;
pub(crate) mod listeners;
pub(crate) mod memory_file;
pub(crate) mod message;
mod predecessor;
mod replace;
mod spawn;
pub(crate) mod stream_records;
pub(crate) mod successor;
mod take_over;
#[cfg(all(test, not(nudged_loom)))]
mod tests;
mod thread;

pub use self::predecessor::Predecessor;
pub(super) use self::replace::{UpgradeParts, replace};
pub(super) use self::take_over::take_over;
