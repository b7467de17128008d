//! How much is read of what clients send, at once, and in total of what no request needs. Request heads and bodies
//! have limits of their own in [`Config`](super::Config).

use std::time::Duration;

/// Bytes that a client may send on a stream of HTTP/1 in [`STREAM_INPUT_WINDOW`], counted as they arrive at the socket,
/// so behind TLS in records. They are discarded; more end the stream.
pub const STREAM_INPUT_MAX: usize = 64 * 1024;

/// The time after which the bytes of a client are counted anew, so that a client may update its TLS keys now and then on
/// a stream that is open for weeks.
pub const STREAM_INPUT_WINDOW: Duration = Duration::from_secs(60);

/// Bytes that a worker reads from all of its HTTP/1 streams together before it goes on with its deliveries. Behind
/// TLS they cost it a millisecond at most: a key update of 27 bytes takes 1 µs, 3.5 µs with SHA-384, and 8 µs in a
/// session that rustls keeps.
pub const STREAM_INPUT_PER_TURN: usize = 4 * 1024;

/// Reads of one connection that may succeed in a row before the other tasks of its worker run; one, if it brings
/// records without data. A read behind TLS is of 4 KiB, any other as large as hyper's buffer has room for.
pub const READS_PER_TURN: u32 = 2;

/// Bytes of TLS records that bring no data: the handshake, key updates, empty records, a record whose rest is
/// missing. More end a connection that is no stream of HTTP/1. The largest record has 16,645 bytes.
pub const TLS_OVERHEAD_MAX: usize = 20 * 1024;

/// Bytes of TLS records that one byte of data accounts for: as many as the records have that carry one byte each
/// (22 to 30).
pub const TLS_OVERHEAD_PER_BYTE: usize = 32;

/// Records without data that a client may send between its handshake and its stream, if its TLS session is to be released:
/// each may have updated its keys, which are derived again, one after the other, at 1 to 3 µs.
pub const TLS_KEY_UPDATES_MAX: u32 = 64;

/// Bytes of the header with which a proxy of [`Config::proxy_protocol_from`](super::Config::proxy_protocol_from) begins a
/// connection. With an address of IPv6 they are 52; what proxies add of TLS, certificates among it, may be some 2,000.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * 1024;
