//! The files of the certificate and its key.

use std::path::PathBuf;

/// A certificate and its key, both PEM. The files are read at startup, and again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain: the server's own certificate first, then the intermediate ones.
    pub certificate: PathBuf,
    /// The private key (PKCS #8, PKCS #1 or SEC1).
    pub key: PathBuf,
}
