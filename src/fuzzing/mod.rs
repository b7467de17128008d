//! The assertions of the fuzz targets in `fuzz/`. Compiled for `cargo fuzz`, which sets
//! `cfg(fuzzing)`, and for the tests, which replay the committed corpora.

#[cfg(all(feature = "server", feature = "tls"))]
mod connection;
mod heartbeat;
#[cfg(feature = "server")]
mod http;
mod ops;
#[cfg(feature = "server")]
mod proxy_protocol;
#[cfg(feature = "server")]
mod publish;
mod readers;
#[cfg(feature = "server")]
mod record;
mod sse;
#[cfg(feature = "server")]
pub(crate) mod state;
#[cfg(test)]
mod tests;
#[cfg(all(feature = "server", feature = "tls"))]
pub(crate) mod tls_opener;
mod topic;

#[cfg(all(feature = "server", feature = "tls"))]
pub use self::connection::http_bytes;
pub use self::heartbeat::heartbeat;
#[cfg(feature = "server")]
pub use self::http::{last_event_id, route};
pub use self::ops::{hub_ops, wheel_ops};
#[cfg(feature = "server")]
pub use self::proxy_protocol::proxy_protocol;
#[cfg(feature = "server")]
pub use self::publish::{publish_json, publish_ndjson};
#[cfg(feature = "server")]
pub use self::record::record;
pub use self::sse::{sse_parse, sse_roundtrip};
#[cfg(feature = "server")]
pub use self::state::state;
#[cfg(all(feature = "server", feature = "tls"))]
pub use self::tls_opener::tls_opener;
pub use self::topic::topic_json;

/// A target takes any bytes, and panics if an assertion fails.
pub type Target = fn(&[u8]);

/// Every target, by the name of its file and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("heartbeat", heartbeat),
    #[cfg(all(feature = "server", feature = "tls"))]
    ("http_bytes", http_bytes),
    ("hub_ops", hub_ops),
    #[cfg(feature = "server")]
    ("last_event_id", last_event_id),
    #[cfg(feature = "server")]
    ("proxy_protocol", proxy_protocol),
    #[cfg(feature = "server")]
    ("publish_json", publish_json),
    #[cfg(feature = "server")]
    ("publish_ndjson", publish_ndjson),
    #[cfg(feature = "server")]
    ("record", record),
    #[cfg(feature = "server")]
    ("route", route),
    ("sse_parse", sse_parse),
    ("sse_roundtrip", sse_roundtrip),
    #[cfg(feature = "server")]
    ("state", state),
    #[cfg(all(feature = "server", feature = "tls"))]
    ("tls_opener", tls_opener),
    ("topic_json", topic_json),
    ("wheel_ops", wheel_ops),
];
