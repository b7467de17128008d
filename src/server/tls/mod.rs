//! TLS: the certificate, the handshake and the session of a connection, and the record layer of a stream.
//!
//! In the order in which a connection meets them:
//!
//! * `certificate`, `validity`: the configuration of rustls, with the certificate that is read again.
//! * `handshake`: a connection before its first request. The reactor takes it so far (`reactor::handshakes`,
//!   `reactor::waiting`).
//! * `tls_session`, with `record_header`: a session of rustls without its socket, which gets one record at a time;
//!   `secrets`: the first traffic secrets, caught while it does its handshake.
//! * `conn`: the task of what is not a stream's first request; `session`: the session and its socket as the IO of hyper.
//! * `TlsSession::into_transport`: a stream begins. TLS 1.2, and all with `--tls-sessions keep`, stays with rustls
//!   (`reactor::transport`); of TLS 1.3 `record_layer::take_over` takes the keys, and the session is dropped.
//! * `record_layer`, with `traffic_keys` and `suite`: seals and opens records (RFC 8446, section 5), without I/O.
//! * `sealed`: the record layer and its socket, as a transport of the reactor, and its state in an upgrade.

mod certificate;
mod conn;
mod handshake;
mod record_header;
pub(crate) mod record_layer;
mod sealed;
mod secrets;
mod session;
mod suite;
#[cfg(test)]
pub(super) mod test_sealed;
#[cfg(test)]
pub(super) mod test_sessions;
mod tls_session;
mod traffic_keys;
mod validity;

#[cfg(test)]
pub(super) use self::certificate::release_sessions;
pub use self::certificate::{Tls, TlsError};
pub(crate) use self::handshake::{Handshake, Progress};
#[cfg(target_os = "linux")]
pub(super) use self::sealed::SealedState;
pub(super) use self::sealed::SealedTransport;
