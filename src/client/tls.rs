//! TLS towards a server, and what to do when it does not come about.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trust::Trust;

/// How to speak TLS with one server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// What ALPN calls HTTP/1.1 (RFC 7301, 6).
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// And HTTP/2.
pub(crate) const HTTP_2: &[u8] = b"h2";

// ===== impl Tls =====

impl Tls {
    /// `host` is a name, or an address without brackets.
    pub(crate) fn new(trust: &Trust, host: &str, protocol: &[u8]) -> Result<Self, String> {
        let wrong = |why: InvalidDnsNameError| format!("host {host}: {why}");
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        Ok(Self { config: Arc::new(trust.config(protocol)?), name })
    }

    pub(crate) async fn connect(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.config.clone()).connect(self.name.clone(), socket).await
    }
}

/// Whether TLS cannot come about with this server however often it is tried, and what to do then.
pub(crate) fn hopeless(why: &io::Error) -> Option<String> {
    let why = why.get_ref()?.downcast_ref::<Error>()?;
    let advice = match why {
        Error::InvalidCertificate(why) => advice(why),
        Error::InvalidMessage(_) => "if it does not speak TLS, write http://",
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "it does not speak this version of HTTP"
        }
        _ => return None,
    };
    Some(format!("{why}; {advice}"))
}

fn advice(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "write one of its names, or have nothing checked with --insecure"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "--insecure has nothing checked",
        CertificateError::Other(_) => {
            "name this certificate itself with --ca FILE, or have nothing checked with --insecure"
        }
        // Also where an authority of the same name is known, which has another key.
        _ => "name its authority with --ca FILE, or have nothing checked with --insecure",
    }
}
