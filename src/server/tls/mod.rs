//! TLS: the certificate, the handshake and the session of a connection, and the record layer of a stream.

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
