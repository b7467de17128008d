//! A server process and raw clients for tests on the wire. Every wait has a bound, and running into it
//! is a failure that says what was waited for.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "every test binary uses its part; tests have a clock"
)]

pub mod bridge;
pub mod client;
pub mod faulty;
pub mod folder;
pub mod frames;
pub mod front;
pub mod large;
pub mod proxy;
pub mod script;
pub mod server;
pub mod tls;

use std::time::{Duration, Instant};

pub use self::client::{Answer, Client, Stream, header};
pub use self::server::Server;

/// Longer than anything that works takes, and shorter than anyone wants to wait for what does not.
pub const BOUND: Duration = Duration::from_secs(20);

/// The ways in which a stream of cleartext HTTP/1 is held: parked, and polled by hyper.
pub const PLAIN_PATHS: [&[&str]; 2] = [&["--park", "on"], &["--park", "off"]];

/// Those, and the same within TLS.
pub const PATHS: [&[&str]; 4] =
    [&["--park", "on"], &["--park", "off"], &[OVER, "tls"], &[OVER, "tls", "--park", "off"]];

/// Those, and HTTP/2 within TLS and without.
pub const ALL_PATHS: [&[&str]; 6] =
    [PATHS[0], PATHS[1], PATHS[2], PATHS[3], &[OVER, "h2"], &[OVER, "h2c"]];

/// Puts a bridge between the server and its clients: `tls`, `h2`, or `h2c`. Not a flag of the server.
const OVER: &str = "--over";

/// Asks until it is so. A generous bound, not a hope: what never comes about fails here.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < BOUND, "did not come about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
