//! A server is replaced by another process, and no client notices (`SIGUSR2`).
//!
//! [`Checker`](checker::Checker) is what clients notice; `controls` shows that it does notice a server that is not
//! replaced in this way.

mod browser;
mod chains;
mod checker;
mod clients;
mod controls;
mod deploys;
mod headers;
mod log;
mod promises;
mod signals;
mod steps;
mod successors;
mod unix_sockets;
mod upgradable;
#[path = "../../../benches/shared"]
#[allow(dead_code, reason = "the benchmarks use the rest")]
mod shared {
    pub(crate) mod crowd;
    pub(crate) mod group;
    pub(crate) mod http;
    pub(crate) mod traffic;
}
