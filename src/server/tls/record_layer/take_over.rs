//! The end of a session of rustls: its keys and sequence numbers go to a record layer.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};

use rustls::{ConnectionTrafficSecrets, ProtocolVersion, ServerConnection};

use super::{Layer, RecordLayer};
use crate::server::tls::secrets::TrafficSecrets;
use crate::server::tls::suite::Suite;

/// Why a record layer cannot take a session over.
#[derive(Debug)]
pub(crate) enum TakeOverError {
    /// It has something to send, see [`flush`].
    Unsent,
    /// It is not one of TLS 1.3.
    Version,
    /// Its cipher suite is unknown here, or has other secrets.
    Suite,
    /// Its keys do not come from these secrets by that many updates.
    Keys,
    /// rustls does not give its keys away.
    Rustls(rustls::Error),
}

/// Appends everything that a session still has to send. This is not what `wants_write` says: the answer to a key update
/// is withheld until there is data, though its key is no longer in use.
pub(crate) fn flush(session: &mut ServerConnection, out: &mut Vec<u8>) -> io::Result<()> {
    _ = session.writer().write(&[])?;
    while session.wants_write() {
        session.write_tls(out)?;
    }
    Ok(())
}

// ===== impl RecordLayer =====

impl RecordLayer {
    /// Takes over a session of which everything is [sent](flush) and every byte that was received is processed.
    /// `secrets` were [caught](super::secrets::catching) when it derived them; since then there were key updates, at
    /// most so many of the client's.
    ///
    /// # Errors
    /// [`TakeOverError`]. The session is gone.
    pub(crate) fn take_over(
        mut session: ServerConnection,
        secrets: &TrafficSecrets,
        updates_max: u32,
    ) -> Result<Self, TakeOverError> {
        let mut unsent = Vec::new();
        flush(&mut session, &mut unsent).map_err(|_| TakeOverError::Unsent)?;
        if !unsent.is_empty() {
            return Err(TakeOverError::Unsent);
        }
        if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(TakeOverError::Version);
        }
        let extracted = session.dangerous_extract_secrets().map_err(TakeOverError::Rustls)?;
        // One more: rustls updates its own key before it has sealed too much with it.
        let updates_max = updates_max.saturating_add(1);
        let mut layer = Box::new(Layer::blank());
        let Layer { sealing, opening, .. } = &mut *layer;
        let directions =
            [(sealing, &secrets.server, &extracted.tx), (opening, &secrets.client, &extracted.rx)];
        for (keys, secret, (sequence, extracted)) in directions {
            let (suite, key, iv) = parts(extracted).ok_or(TakeOverError::Suite)?;
            if !keys.begin(suite, secret) {
                return Err(TakeOverError::Suite);
            }
            if !keys.find(key, iv, *sequence, updates_max) {
                return Err(TakeOverError::Keys);
            }
        }
        Ok(Self(layer))
    }
}

/// What rustls gives away.
fn parts(extracted: &ConnectionTrafficSecrets) -> Option<(Suite, &[u8], &[u8])> {
    let (suite, key, iv) = match extracted {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128GcmSha256, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256GcmSha384, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Suite::Chacha20Poly1305Sha256, key, iv)
        }
        _ => return None,
    };
    Some((suite, key.as_ref(), iv.as_ref()))
}

// ===== impl TakeOverError =====

impl fmt::Display for TakeOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("the session has records to send"),
            Self::Version => f.write_str("the session is not one of TLS 1.3"),
            Self::Suite => {
                f.write_str("the session's cipher suite is not known, or its secrets are not")
            }
            Self::Keys => {
                f.write_str("the session's keys do not come from its first traffic secrets")
            }
            Self::Rustls(why) => write!(f, "the session's keys cannot be extracted: {why}"),
        }
    }
}

impl Error for TakeOverError {}
