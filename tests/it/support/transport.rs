//! The transports that a server offers.

use super::programs::OPENSSL;

/// How a test reaches its server. The clients of tests use HTTP/1 on cleartext; for every other transport a
/// [`Bridge`](super::bridge::Bridge) translates between them and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTP/1 on cleartext.
    Http1,
    /// HTTP/1 within TLS, byte for byte.
    Tls,
    /// HTTP/2 within TLS, one connection for each connection of a client.
    H2,
    /// HTTP/2 on cleartext, the same.
    H2c,
}

// ===== impl Transport =====

impl Transport {
    /// Every transport that can be tested here.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        available([Self::Http1, Self::Tls, Self::H2, Self::H2c])
    }

    /// Those that carry HTTP/1 unchanged: one stream per connection, chunks, resets.
    pub(crate) fn http1() -> impl Iterator<Item = Self> {
        available([Self::Http1, Self::Tls])
    }

    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::H2)
    }
}

/// Leaves out TLS without `openssl`, which makes the certificate.
fn available<const N: usize>(transports: [Transport; N]) -> impl Iterator<Item = Transport> {
    let secure = OPENSSL.is_available_for("TLS in ");
    transports.into_iter().filter(move |transport| secure || !transport.is_secure())
}
