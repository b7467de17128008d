//! TLS: the certificate, and the session of a connection.

mod certificate;
mod conn;
mod session;
#[cfg(test)]
pub(super) mod test_sessions;
mod validity;

pub use self::certificate::{Tls, TlsError};
