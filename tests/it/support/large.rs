//! Events of a mebibyte, of which a few fill every buffer between a server and a client that does not
//! read. The kernel takes a part of them: the client's window, and what the server's end holds unsent
//! (`TCP_NOTSENT_LOWAT`).

use super::{Server, Stream};

/// Flags with which a server takes them.
#[rustfmt::skip]
pub(crate) const LARGE: &[&str] =
    &["--coalesce", "0", "--publish-bytes", "2000000", "--key-bytes", "65536", "--keys", "16"];

/// The keys of the event of this number.
pub(crate) fn keys(n: u64) -> Vec<String> {
    (0..16).map(|k| format!("{n}-{k}-{}", "x".repeat(65_000))).collect()
}

/// Publishes so many, from number 1, each once the last has reached the client that reads.
pub(crate) fn publish(server: &Server, count: u64, reads: &mut Stream) {
    for n in 1..=count {
        let keys = keys(n);
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let id = server.publish("acme", &keys).expect("subscribed");
        reads.expect_invalidate(&id, &keys);
    }
}
