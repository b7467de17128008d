//! TLS 1.2 and 1.3: what a handshake needs, and how a certificate is replaced without touching what is
//! open: only new handshakes see it.

use std::error::Error;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::sync::Mutex;

/// The certificate in use. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tls {
    files: TlsFiles,
    current: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// Of the files as they were last read, whatever was in them.
    stamps: [Option<Stamp>; 2],
}

/// What tells a file from what it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

/// Why a certificate cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// A file could not be read, or is not PEM.
    Unreadable {
        /// Which.
        file: PathBuf,
        /// What was wrong.
        why: pem::Error,
    },
    /// The certificate file has no `CERTIFICATE`.
    NoCertificate {
        /// Which.
        file: PathBuf,
    },
    /// The key is not the certificate's, or of a kind that cannot be used.
    Unfit {
        /// The two of them.
        files: TlsFiles,
        /// What was wrong.
        why: rustls::Error,
    },
}

/// How often it is looked whether the files have changed.
const CHECK: Duration = Duration::from_secs(5);

/// A client resumes its session with it once; a browser asks for one more with every connection.
const TICKETS: usize = 1;

/// The protocols that are spoken, the preferred one first (RFC 7301).
const ALPN: [&[u8]; 2] = [HTTP2, b"http/1.1"];
pub(super) const HTTP2: &[u8] = b"h2";

// ===== impl Tls =====

impl Tls {
    pub(super) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let config = Arc::new(load(&files)?);
        let current = Arc::new(Mutex::new(Current { config, stamps }));
        Ok(Self { files, current })
    }

    /// Reads the files again. New handshakes use what is in them.
    ///
    /// # Errors
    /// [`TlsError`]: they cannot be used, so what was in use before stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.files);
        let loaded = load(&self.files);
        let mut current = self.current.lock();
        current.stamps = stamps;
        current.config = Arc::new(loaded?);
        Ok(())
    }

    /// The same, saying in the log how it went.
    pub fn reload_and_tell(&self) {
        match self.reload() {
            Ok(()) => tracing::info!("the certificate was read again; new connections use it"),
            Err(why) => tracing::error!(%why, "the certificate in use stays"),
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.lock().config.clone().into()
    }

    /// Reads the files again whenever they have changed.
    pub(super) async fn watch(self) {
        loop {
            #[expect(clippy::disallowed_methods, reason = "not in the serving path")]
            tokio::time::sleep(CHECK).await;
            if stamps(&self.files) != self.current.lock().stamps {
                self.reload_and_tell();
            }
        }
    }
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let unreadable = |file: &Path| {
        let file = file.to_owned();
        move |why| TlsError::Unreadable { file, why }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(&files.certificate))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { file: files.certificate.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(unreadable(&files.key))?;
    let unfit = |why| TlsError::Unfit { files: files.clone(), why };
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    config.alpn_protocols = ALPN.map(Vec::from).into();
    // PermitTable keep a session with its client; the server remembers none.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(unfit)?;
    config.send_tls13_tickets = TICKETS;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn stamps(files: &TlsFiles) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|file| fs::metadata(file).ok().map(Stamp::from))
}

// ===== impl Stamp =====

impl From<fs::Metadata> for Stamp {
    fn from(file: fs::Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

// ===== impl TlsError =====

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, why: pem::Error::NoItemsFound } => {
                write!(f, "{}: no PEM section of a private key in it", file.display())
            }
            Self::Unreadable { file, why: pem::Error::Io(why) } => {
                write!(f, "{}: {why}", file.display())
            }
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
