//! TLS with a server, and the advice when it is impossible.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;
use super::url::HttpUrl;
use super::verify::Verify;

/// The TLS settings for one server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    address: String,
}

/// A permanent error of TLS with a server.
#[derive(Debug)]
pub struct TlsError {
    pub(super) why: String,
    /// What to do about it with the flags of the command line; may be empty.
    pub(super) advice: &'static str,
}

/// HTTP/1.1 in ALPN (RFC 7301, 6).
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// HTTP/2 in ALPN.
#[cfg(feature = "bench")]
pub(crate) const HTTP_2: &[u8] = b"h2";

// ===== impl Tls =====

impl Tls {
    /// `None` for a URL of `http://`. Reads the system's root certificates if they are used.
    pub(crate) fn of(
        url: &HttpUrl,
        verify: &Verify,
        protocol: &[u8],
    ) -> Result<Option<Self>, Error> {
        if !url.is_secure {
            return Ok(None);
        }
        let address = url.address.clone();
        let name = ServerName::try_from(url.host().to_owned()).map_err(TlsError::new);
        match name.and_then(|name| Ok((name, verify.config(protocol)?))) {
            Ok((name, config)) => Ok(Some(Self { config: config.into(), name, address })),
            Err(why) => Err(Error::Tls { address, why }),
        }
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let connector = TlsConnector::from(self.config.clone());
        connector.connect(self.name.clone(), socket).await.map_err(|why| {
            let address = self.address.clone();
            match permanent(&why) {
                Some(why) => Error::Tls { address, why },
                None => Error::Handshake { address, why },
            }
        })
    }
}

fn permanent(why: &io::Error) -> Option<TlsError> {
    let why: &rustls::Error = why.get_ref()?.downcast_ref()?;
    let advice = match why {
        rustls::Error::InvalidCertificate(why) => advice(why),
        rustls::Error::InvalidMessage(_) => "if it does not speak TLS, write http://",
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
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

    /// Without the advice.
    pub(crate) fn reason(&self) -> &str {
        &self.why
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
