//! Events of a mebibyte: a few of them fill every buffer between a server and a client that does not read. The kernel
//! buffers a part of them: the client's receive window, and what the server's socket holds unsent
//! (`TCP_NOTSENT_LOWAT`).

use super::{Server, Stream};

/// Flags with which a server accepts such events.
#[rustfmt::skip]
pub(crate) const LARGE: &[&str] = &[
    "--coalesce", "0", "--publish-bytes", "2000000", "--key-bytes", "65536", "--keys", "16", "--event-bytes", "1048576",
];

/// The keys of event number `n`.
pub(crate) fn keys(n: u64) -> Vec<String> {
    (0..16).map(|k| format!("{n}-{k}-{}", "x".repeat(65_000))).collect()
}

/// Publishes `count` events from number 1, each once the one before has reached the stream that is read.
pub(crate) fn publish(server: &Server, count: u64, reads: &mut Stream) {
    for n in 1..=count {
        let keys = keys(n);
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let id = server.publish("acme", &keys).expect("subscribed");
        reads.expect_invalidate(&id, &keys);
    }
}
