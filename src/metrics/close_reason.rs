//! Why streams end.

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed the connection, or hyper dropped the stream.
    Client,
    /// The client reset the connection.
    Reset,
    /// The peer did not acknowledge data in time (`TCP_USER_TIMEOUT`).
    Timeout,
    /// Reading from or writing to the socket failed in another way.
    Error,
    /// The client sent more than the limit on an open stream.
    Excess,
    /// The server is shutting down.
    Drained,
    /// Pending bytes made no progress for too long.
    Stalled,
    /// The client's token expired.
    Expired,
    /// The stream reached its maximum age.
    MaxAge,
    /// A backend requested the member streams of the org to end.
    Removed,
    /// A backend closed the topic.
    Closed,
    /// An exclusive stream of the topic took its place.
    Replaced,
    /// The keys of the stream's TLS session have protected as many records as they may.
    TlsRecords,
}

// ===== impl CloseReason =====

impl CloseReason {
    pub(crate) const ALL: [Self; 13] = [
        Self::Client,
        Self::Reset,
        Self::Timeout,
        Self::Error,
        Self::Excess,
        Self::Drained,
        Self::Stalled,
        Self::Expired,
        Self::MaxAge,
        Self::Removed,
        Self::Closed,
        Self::Replaced,
        Self::TlsRecords,
    ];

    /// The reason with this label.
    #[cfg(feature = "server")]
    pub(crate) fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

    /// The label in `nudged_streams_closed_total{reason="…"}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Excess => "excess",
            Self::Drained => "drained",
            Self::Stalled => "stalled",
            Self::Expired => "expired",
            Self::MaxAge => "max_age",
            Self::Removed => "removed",
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::TlsRecords => "tls_records",
        }
    }
}
