//! TLS towards a server: whom to believe, and what to do when that is not enough.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Those that the system's authorities have signed.
    #[default]
    System,
    /// Those that one of these authorities has signed.
    Authorities(Arc<RootCertStore>),
    /// Anybody's: nobody on the way can listen, but who is at the end is not known.
    Anybody,
}

/// How to speak TLS with one server.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Takes any certificate, but has the server prove that it is its own.
#[derive(Debug)]
struct NotChecked(Arc<CryptoProvider>);

/// What ALPN calls HTTP/1.1 (RFC 7301, 6).
pub(super) const HTTP_1: &[u8] = b"http/1.1";

/// And HTTP/2.
pub(super) const HTTP_2: &[u8] = b"h2";

const PROTOCOLS: &str = "aws-lc-rs knows TLS 1.2 and 1.3";

// ===== impl Trust =====

impl Trust {
    /// Believes those whom the authorities of this file of PEM certificates have signed.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn authorities(file: &Path) -> Result<Self, String> {
        let mut authorities = RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(file).map_err(|why| why.to_string())?;
        for certificate in certificates {
            let certificate = certificate.map_err(|why| why.to_string())?;
            authorities.add(certificate).map_err(|why| why.to_string())?;
        }
        match authorities.is_empty() {
            true => Err("it has no certificate in PEM".into()),
            false => Ok(Self::Authorities(authorities.into())),
        }
    }

    /// Every connection makes a whole handshake, as those of different clients do.
    fn config(&self, protocol: &[u8]) -> Result<ClientConfig, String> {
        let provider = Arc::new(default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::System => verifier(system_authorities()?.into(), &provider)?,
            Self::Authorities(authorities) => verifier(authorities.clone(), &provider)?,
            Self::Anybody => Arc::new(NotChecked(provider.clone())),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect(PROTOCOLS);
        let config = config.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn verifier(
    authorities: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let builder = WebPkiServerVerifier::builder_with_provider(authorities, provider.clone());
    builder.build().map_err(|why| why.to_string())
}

fn system_authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if !authorities.is_empty() {
        return Ok(authorities);
    }
    let why = found.errors.first().map_or(String::new(), |why| format!(" ({why})"));
    Err(format!(
        "this system has no certificate authorities{why}; name the server's with --ca FILE"
    ))
}

// ===== impl Tls =====

impl Tls {
    /// `host` is a name, or an address without brackets.
    pub(super) fn new(trust: &Trust, host: &str, protocol: &[u8]) -> Result<Self, String> {
        let wrong = |why: InvalidDnsNameError| format!("host {host}: {why}");
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        Ok(Self { config: Arc::new(trust.config(protocol)?), name })
    }

    pub(super) async fn connect(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.config.clone()).connect(self.name.clone(), socket).await
    }
}

/// Whether TLS cannot come about with this server however often it is tried, and what to do then.
pub(super) fn hopeless(why: &io::Error) -> Option<String> {
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
            "a certificate that signs itself must be one of a server, not of an authority \
             (openssl req -x509 -addext basicConstraints=critical,CA:FALSE), or have nothing \
             checked with --insecure"
        }
        // Also where an authority of the same name is known, which has another key.
        _ => "name its authority with --ca FILE, or have nothing checked with --insecure",
    }
}

// ===== impl NotChecked =====

impl ServerCertVerifier for NotChecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
