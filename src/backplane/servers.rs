//! Servers of NATS and of Redis, as the tests of the program start them.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests here use a part of the support of tests/it, which uses the real clock"
)]

#[path = "../../tests/it/support/broker_process.rs"]
pub(super) mod broker_process;
#[path = "../../tests/it/support/certificate.rs"]
pub(super) mod certificate;
#[path = "../../tests/it/support/nats.rs"]
pub(super) mod nats;
#[path = "../../tests/it/support/nats_client.rs"]
pub(super) mod nats_client;
#[path = "../../tests/it/support/port.rs"]
pub(super) mod port;
#[path = "../../tests/it/support/programs.rs"]
pub(super) mod programs;
#[path = "../../tests/it/support/redis.rs"]
pub(super) mod redis;
#[path = "../../tests/it/support/redis_client.rs"]
pub(super) mod redis_client;
#[path = "../../tests/it/support/temp_dir.rs"]
pub(super) mod temp_dir;

use std::time::{Duration, Instant};

/// The bound of every wait.
pub(super) const BOUND: Duration = Duration::from_secs(120);

/// Polls until the condition holds, and fails at [`BOUND`].
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
