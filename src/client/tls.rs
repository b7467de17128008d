//! TLS with a server, and the advice when it is impossible.

use std::sync::Arc;
use std::{fmt, io};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::url::HttpUrl;
use super::verify::Verify;

/// The TLS settings for one server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Why TLS with a server is impossible however often it is tried.
#[derive(Clone, Debug)]
pub(crate) struct TlsError {
    pub(crate) why: String,
    /// What to do about it with the flags of the command line; may be empty.
    pub(crate) advice: &'static str,
}

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Permanent(TlsError),
    Transient(io::Error),
}

/// HTTP/1.1 in ALPN (RFC 7301, 6).
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// HTTP/2 in ALPN.
pub(crate) const HTTP_2: &[u8] = b"h2";

// ===== impl Tls =====

impl Tls {
    /// `None` for a URL of `http://`. Reads the system's root certificates where those are asked for.
    pub(crate) fn of(
        url: &HttpUrl,
        verify: &Verify,
        protocol: &[u8],
    ) -> Result<Option<Self>, TlsError> {
        if !url.is_secure {
            return Ok(None);
        }
        let name = ServerName::try_from(url.host().to_owned());
        let name = name.map_err(|why| TlsError::new(format!("host {}: {why}", url.host())))?;
        Ok(Some(Self { config: Arc::new(verify.config(protocol)?), name }))
    }

    pub(crate) async fn connect(
        &self,
        socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let connector = TlsConnector::from(self.config.clone());
        let connected = connector.connect(self.name.clone(), socket).await;
        connected.map_err(HandshakeError::from)
    }
}

// ===== impl HandshakeError =====

impl From<io::Error> for HandshakeError {
    fn from(why: io::Error) -> Self {
        match why.get_ref().and_then(|why| permanent(why.downcast_ref()?)) {
            Some(why) => Self::Permanent(why),
            None => Self::Transient(why),
        }
    }
}

fn permanent(why: &Error) -> Option<TlsError> {
    let advice = match why {
        Error::InvalidCertificate(why) => advice(why),
        Error::InvalidMessage(_) => "if it does not speak TLS, write http://",
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not speak this version of HTTP"
        }
        _ => return None,
    };
    Some(TlsError { why: why.to_string(), advice })
}

fn advice(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use one of its names, or accept any certificate with --insecure"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "--insecure accepts any certificate",
        CertificateError::Other(_) => {
            "name this certificate itself with --ca FILE, or accept any with --insecure"
        }
        // Also a known authority's name with a different key.
        _ => "name its authority with --ca FILE, or accept any certificate with --insecure",
    }
}

// ===== impl TlsError =====

impl TlsError {
    pub(crate) fn new(why: impl ToString) -> Self {
        Self { why: why.to_string(), advice: "" }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.advice {
            "" => f.write_str(&self.why),
            advice => write!(f, "{}; {advice}", self.why),
        }
    }
}
