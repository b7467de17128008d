//! Where the certificate is.

use std::path::PathBuf;

/// A certificate and its key, both PEM. The files are read at the start, and again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain: the server's own certificate first, then those that lead to an authority.
    pub certificate: PathBuf,
    /// The private key (PKCS #8, PKCS #1 or SEC1).
    pub key: PathBuf,
}
