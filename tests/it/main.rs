//! Tests of the program from outside: over its sockets, with its signals and its command line.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the real clock, and loom does not replace their locks"
)]

mod access_log;
mod backplane;
mod bench;
mod bench_secure;
mod browser;
mod bytes;
mod client;
mod client_retries;
mod client_tls;
mod coalescing;
mod command_line;
mod commands;
mod compare;
mod comparison;
mod conformance;
mod connection_ends;
mod deadlines;
mod drain;
mod faults;
mod filters;
mod generate;
mod guide;
mod heartbeat;
mod hosts;
mod http2;
mod http2_abuse;
mod internal;
mod library;
mod limits;
mod listening;
mod log;
mod mcp;
mod metrics;
mod model;
mod model_topics;
mod nats_servers;
mod open_sockets;
mod ops;
mod outbox;
mod pause;
mod places;
mod positions;
mod probe;
mod prometheus;
mod proxies;
mod proxy_protocol;
mod publish;
mod redis_servers;
mod refusals;
mod resume;
mod scripts;
mod seats;
mod settings;
mod soak;
mod stalled;
mod state;
mod streams;
#[allow(dead_code, reason = "tests/browser and tests/cluster use other parts of it")]
mod support;
mod systemd;
mod tls;
mod tokens;
mod top;
mod topics;
mod topics_client;
mod topics_program;
mod units;
mod unix_sockets;
mod untaken;
#[cfg(target_os = "linux")]
mod upgrade;
mod views;
mod wire;
