//! The certificate and its key, and what becomes of TLS sessions.

use std::path::PathBuf;

/// A certificate and its key, both PEM. The files are read at startup, and again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain: the server's own certificate first, then the intermediate ones.
    pub certificate: PathBuf,
    /// The private key (PKCS #8, PKCS #1 or SEC1).
    pub key: PathBuf,
}

/// What becomes of the TLS 1.3 session of a connection when its HTTP/1 stream begins. Sessions of TLS 1.2, and those that
/// carry HTTP/2, stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsSessions {
    /// It is released: the server takes its keys, and protects the records of the stream itself (RFC 8446, section 5).
    /// The stream needs 0.3 KiB, and an upgrade hands it over.
    #[default]
    Release,
    /// It is kept, with 7.7 KiB of buffers, and protects the records. An upgrade ends the stream, whose client resumes.
    Keep,
}

/// When something happens because of the records that were protected with one key, on streams whose session was released.
/// Tests have it happen early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsRecords {
    /// After so many the stream ends, and its client resumes; at most [`TLS_RECORDS_MAX`].
    pub end_after: u64,
    /// After so many the server updates its key and requests the same of the client (RFC 8446, 4.6.3), again and again.
    pub request_update_after: Option<u64>,
}

/// Records that one key may protect. AES-GCM allows 2^24.5 (RFC 8446, 5.5); what is below 2^24 is room for those that end
/// the stream.
pub const TLS_RECORDS_MAX: u64 = (1 << 24) - (1 << 16);

// ===== impl TlsRecords =====

impl Default for TlsRecords {
    fn default() -> Self {
        Self { end_after: TLS_RECORDS_MAX, request_update_after: None }
    }
}
