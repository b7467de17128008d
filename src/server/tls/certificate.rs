//! The certificate and key of TLS 1.2 and 1.3, and their replacement while the server runs: new handshakes use
//! the new pair, open connections are not affected.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

use super::handshake::Handshake;
use super::secrets::SecretLog;
use super::validity;
use crate::config::{Config, TlsFiles, TlsSessions};
use crate::server::BindError;
use crate::server::files::{Stamp, is_irregular, warn_if_all_may_read};
use crate::sync::Mutex;

/// The certificate in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    files: TlsFiles,
    sessions: TlsSessions,
    current: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    /// Of the files when they were last read, valid or not.
    stamps: [Option<Stamp>; 2],
}

/// Why a certificate cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read, has more than 1 MiB, or is not PEM.
    Unreadable {
        /// Its path.
        file: PathBuf,
        /// The cause.
        why: String,
    },
    /// The certificate file has no `CERTIFICATE`.
    NoCertificate {
        /// Its path.
        file: PathBuf,
    },
    /// The key does not belong to the certificate, or is of an unsupported kind.
    Unfit {
        /// Both paths.
        files: TlsFiles,
        /// The cause.
        why: String,
    },
}

/// The largest file of a chain or a key, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Session tickets per TLS 1.3 handshake. Each resumes one session; a browser gets another with each connection.
const TICKETS: usize = 1;

/// Application protocols, the preferred one first (RFC 7301). Some clients offer HTTP/1.0 alone, and without it would get no
/// connection.
const ALPN: [&[u8]; 3] = [HTTP2, b"http/1.1", b"http/1.0"];
pub(super) const HTTP2: &[u8] = b"h2";

// ===== impl Tls =====

impl Tls {
    pub(in crate::server) fn is_configured(config: &Config) -> bool {
        config.tls.is_some()
    }

    /// Loads the files of the configuration, if it names any.
    pub(in crate::server) fn load(config: &Config) -> Result<Option<Self>, BindError> {
        let read = |files| Self::read(files, config.tls_sessions);
        config.tls.clone().map(read).transpose().map_err(BindError::Tls)
    }

    pub(crate) fn read(files: TlsFiles, sessions: TlsSessions) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let (config, chain) = load(&files, sessions)?;
        validity::warn(&chain);
        let current = Current { config: Arc::new(config), chain, stamps };
        let current = Arc::new(Mutex::new(current));
        Ok(Self { files, sessions, current })
    }

    /// Reads the files again, if they are regular ones: to open a pipe could block for ever. New handshakes use the new
    /// pair.
    ///
    /// # Errors
    /// [`TlsError`]: the pair cannot be used. The one before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.files);
        let loaded = check_regular(&self.files).and_then(|()| load(&self.files, self.sessions));
        {
            let mut current = self.current.lock();
            current.stamps = stamps;
            let (config, chain) = loaded?;
            (current.config, current.chain) = (Arc::new(config), chain);
        }
        self.warn_if_invalid();
        Ok(())
    }

    /// Reloads, and logs the result.
    pub(in crate::server) fn reload_and_log(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("the certificate was read again; new connections use it"),
            Err(why) => tracing::error!(%why, "the certificate in use stays"),
        }
    }

    /// A connection whose client has sent nothing. Its handshake is done with the certificate of now.
    pub(in crate::server) fn begin(&self) -> Handshake {
        Handshake::Silent(self.current.lock().config.clone())
    }

    /// Whether a file has changed since they were last read, valid or not.
    pub(in crate::server) fn has_changed(&self) -> bool {
        stamps(&self.files) != self.current.lock().stamps
    }

    /// When the certificate in use expires; `None` if it does not say so.
    pub(in crate::server) fn expires(&self) -> Option<SystemTime> {
        // Read without the lock, which handshakes wait for.
        let own = self.current.lock().chain.first()?.clone();
        validity::expires(&own)
    }

    /// Logs a warning if the certificate in use has expired, or is not valid yet.
    pub(in crate::server) fn warn_if_invalid(&self) {
        let chain = self.current.lock().chain.clone();
        validity::warn(&chain);
    }
}

/// Loads the pair, and returns the certificates too. Warns of a key that all users may read.
fn load(
    files: &TlsFiles,
    sessions: TlsSessions,
) -> Result<(ServerConfig, Vec<CertificateDer<'static>>), TlsError> {
    warn_if_all_may_read(&files.key);
    let unreadable = |file: &Path| {
        let file = file.to_owned();
        move |why| TlsError::Unreadable { file, why: reason(why) }
    };
    let chain = CertificateDer::pem_slice_iter(&read_limited(&files.certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable(&files.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: files.certificate.clone() });
    }
    let key = PrivateKeyDer::from_pem_slice(&read_limited(&files.key)?)
        .map_err(unreadable(&files.key))?;
    let unfit = |why: rustls::Error| TlsError::Unfit { files: files.clone(), why: why.to_string() };
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .map_err(unfit)?;
    config.alpn_protocols = ALPN.map(Vec::from).into();
    // Tickets keep a session with its client; the server stores none.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unfit)?;
    config.send_tls13_tickets = TICKETS;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if sessions == TlsSessions::Release {
        release_sessions(&mut config);
    }
    Ok((config, chain))
}

/// Has sessions give away their keys, and the secrets from which the next keys are derived.
pub(in crate::server) fn release_sessions(config: &mut ServerConfig) {
    config.enable_secret_extraction = true;
    config.key_log = Arc::new(SecretLog);
}

/// Reads a file, which may have been replaced by anything.
fn read_limited(file: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let why = match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => {
            format!("it has more than {FILE_BYTES_MAX} bytes")
        }
        Ok(_) => return Ok(bytes),
        Err(why) => why.to_string(),
    };
    Err(TlsError::Unreadable { file: file.to_owned(), why })
}

fn check_regular(files: &TlsFiles) -> Result<(), TlsError> {
    match [&files.certificate, &files.key].into_iter().find(|file| is_irregular(file)) {
        Some(file) => {
            Err(TlsError::Unreadable { file: file.clone(), why: "it is no regular file".into() })
        }
        None => Ok(()),
    }
}

fn reason(why: pem::Error) -> String {
    match why {
        pem::Error::NoItemsFound => "no PEM section of a private key in it".into(),
        pem::Error::Io(why) => why.to_string(),
        why => why.to_string(),
    }
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|file| Stamp::of(file))
}

// ===== impl TlsError =====

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, why } => write!(f, "{}: {why}", file.display()),
            Self::NoCertificate { file } => {
                write!(f, "{}: no PEM section CERTIFICATE in it", file.display())
            }
            Self::Unfit { files, why } => write!(
                f,
                "{} and {} cannot be used together: {why}",
                files.certificate.display(),
                files.key.display()
            ),
        }
    }
}

impl Error for TlsError {}
