//! Several servers that share a log, as an operator and the clients of an application see them: real processes, a real
//! broker, and what can happen to each of them and to the network between.
//!
//! ```text
//! cargo test --all-features --test cluster                       what continuous integration runs
//! NUDGED_TEST_LONG=1 cargo test --all-features --test cluster    the sizes of a release, as .ci/run long
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

mod harness;
#[allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "this binary uses a part of the support of tests/it"
)]
#[path = "../it/support/mod.rs"]
mod support;

mod broker;
mod clocks;
mod commands;
mod delivery;
mod foreign;
mod forgotten;
mod guide;
mod herd;
mod network;
mod nodes;
mod oracle;
mod pages;
mod redis_log;
mod redis_server;
mod replicas;
mod sentinels;
mod topics;
