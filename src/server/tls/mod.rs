//! TLS: the certificate, and the session of a connection.

mod certificate;
mod conn;
#[cfg_attr(not(test), expect(dead_code, reason = "until streams leave their sessions"))]
mod record_layer;
mod sealed;
#[cfg_attr(not(test), expect(dead_code, reason = "until streams leave their sessions"))]
mod secrets;
mod session;
#[cfg(test)]
pub(super) mod test_sealed;
#[cfg(test)]
pub(super) mod test_sessions;
mod traffic_keys;
mod validity;

pub use self::certificate::{Tls, TlsError};
#[cfg(target_os = "linux")]
pub(super) use self::sealed::SealedState;
pub(super) use self::sealed::SealedTransport;
