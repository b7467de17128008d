//! A server process, raw clients, and proxies. Every wait is bounded, and its failure names what it waited for.

pub(crate) mod bench_server;
pub(crate) mod bridge;
pub(crate) mod broker_process;
pub(crate) mod certificate;
pub(crate) mod chromium;
pub(crate) mod client;
pub(crate) mod event_source;
pub(crate) mod exclusive;
pub(crate) mod firefox;
pub(crate) mod http2_client;
pub(crate) mod killed;
pub(crate) mod large;
pub(crate) mod log;
pub(crate) mod markdown;
pub(crate) mod nats;
pub(crate) mod nats_client;
pub(crate) mod peer;
pub(crate) mod port;
pub(crate) mod postgres;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod recipe;
pub(crate) mod redis;
pub(crate) mod redis_client;
pub(crate) mod relay;
pub(crate) mod scripted_server;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod stream_bytes;
pub(crate) mod systemd;
pub(crate) mod temp_dir;
pub(crate) mod terminal;
pub(crate) mod tls_proxy;
pub(crate) mod topic;
pub(crate) mod transport;

use std::time::{Duration, Instant};

pub(crate) use self::client::{Answer, Client, Stream, header};
pub(crate) use self::nats_client::NatsClient;
pub(crate) use self::server::Server;
pub(crate) use self::transport::Transport;

/// The bound of every wait, which a working program meets even on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// The id of the event that is `count` events after the position `id`, in the same view.
pub(crate) fn after(id: &str, count: u64) -> String {
    let (epoch, seq) = id.split_once('-').expect("<epoch>-<seq>");
    format!("{epoch}-{}", seq.parse::<u64>().expect("a number") + count)
}

/// Polls until the condition holds, and fails at [`BOUND`].
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
