//! The log that several servers share: where it is, and how it is used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::broker_url::BackplaneUrl;

/// The log that several servers share. All servers of one log must be configured alike.
#[derive(Clone, Debug)]
pub struct BackplaneConfig {
    /// The broker that has the log.
    pub url: BackplaneUrl,
    /// A file with the certificates, in PEM, of the authorities that the broker's certificate may be from; `None` for
    /// those of the system.
    pub ca: Option<PathBuf>,
    /// The name of the log. Each set of servers has a log of its own.
    pub log: LogName,
    /// Copies of the log that a cluster of brokers keeps, if the server has to create it: 1, 3 or 5.
    pub replicas: u8,
    /// How long publishes are collected for one record, from the first of them on. Zero appends at once what there is.
    pub linger: Duration,
    /// Bytes of memory for the last records of the log, from which streams resume; at least [`Self::TAIL_BYTES_MIN`]. A
    /// log that this server creates keeps four times as much.
    pub tail_bytes: usize,
    /// How long a publish waits until its record is in the log and has come back. A request to the broker may take as
    /// long, and at least 3 s.
    pub timeout: Duration,
    /// A restart of the broker loses nothing: its disk has every record that it acknowledged. After a power cut that is
    /// so with NATS only if `sync_interval` is `always`, which 2.9 does not know.
    pub trust_disk: bool,
    /// `/readyz` responds 503 while the broker cannot be reached.
    pub unready_when_cut_off: bool,
}

/// The name of a log: `[A-Za-z0-9][A-Za-z0-9_-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName(String);

/// Why a text is not a [`LogName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLogName;

/// The lines of the largest record that a log takes, in bytes: 512 KiB less 256 for its headers.
pub const RECORD_BYTES_MAX: usize = 512 * 1024 - 256;

/// What a record has beside the body of a publish, at most: the names of an organisation and of a topic, as JSON.
pub(crate) const RECORD_OVERHEAD_MAX: usize = 256;

// ===== impl BackplaneConfig =====

impl BackplaneConfig {
    /// The default of [`Self::replicas`].
    pub const REPLICAS: u8 = 1;
    /// The default of [`Self::linger`].
    pub const LINGER: Duration = Duration::from_millis(5);
    /// The default of [`Self::tail_bytes`].
    pub const TAIL_BYTES: usize = 64 * 1024 * 1024;
    /// The least value of [`Self::tail_bytes`].
    pub const TAIL_BYTES_MIN: usize = 1024 * 1024;
    /// The default of [`Self::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// The largest body of a publish that one record holds, in bytes.
    pub const PUBLISH_BYTES_MAX: usize = RECORD_BYTES_MAX - RECORD_OVERHEAD_MAX;

    /// The defaults, with this broker.
    pub fn new(url: BackplaneUrl) -> Self {
        Self {
            url,
            ca: None,
            log: LogName::default(),
            replicas: Self::REPLICAS,
            linger: Self::LINGER,
            tail_bytes: Self::TAIL_BYTES,
            timeout: Self::TIMEOUT,
            trust_disk: false,
            unready_when_cut_off: false,
        }
    }
}

// ===== impl LogName =====

impl Default for LogName {
    fn default() -> Self {
        Self("nudged".into())
    }
}

impl LogName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogName {
    type Err = InvalidLogName;

    fn from_str(text: &str) -> Result<Self, InvalidLogName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let valid = starts_well && text.len() <= 32 && text.bytes().all(allowed);
        valid.then(|| Self(text.into())).ok_or(InvalidLogName)
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidLogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log's name is 1 to 32 of A-Z a-z 0-9 _ - and starts with a letter or digit")
    }
}

impl std::error::Error for InvalidLogName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_plain_name() {
        for good in ["nudged", "A-1_b"] {
            assert_eq!(good.parse().as_ref().map(LogName::as_str), Ok(good));
        }
        for bad in ["", "a.b", "-a", "a b", "a*", &"a".repeat(33)] {
            assert_eq!(bad.parse::<LogName>(), Err(InvalidLogName), "{bad:?}");
        }
    }
}
