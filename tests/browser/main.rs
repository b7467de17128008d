//! The browser client, `src/browser`, in real browsers and in Node, against the program.
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

mod adapters;
mod backends;
mod example;
mod firefox;
mod herd;
mod inputs;
mod memory;
mod ops;
mod package;
mod parser;
mod proxies;
mod readme;
mod schedules;
mod served;
mod tabs;
