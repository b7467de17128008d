//! How a client verifies the certificate of a server.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, SupportedCipherSuite,
};

use super::tls::TlsError;

/// Which certificates are accepted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Verify {
    /// Those signed by one of the system's root certificates.
    #[default]
    System,
    /// Those signed by one of these authorities, and the authorities' own.
    Authorities(Authorities),
    /// Any: the connection is encrypted, but the server may be an impostor.
    None,
}

/// The certificates of certificate authorities, from a file.
#[derive(Clone, Debug)]
pub struct Authorities {
    store: Arc<RootCertStore>,
    certificates: Arc<[CertificateDer<'static>]>,
}

/// Verifies the certificate unless any is accepted, and that the server has its private key.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    anchors: Option<Anchors>,
}

/// Accepts certificates signed by one of the authorities, and the authorities' own: a self-signed
/// certificate is often a server's and an authority's at the same time (`openssl req -x509`).
#[derive(Debug)]
struct Anchors {
    signed: Arc<WebPkiServerVerifier>,
    own: Arc<[CertificateDer<'static>]>,
}

const PROTOCOLS: &str = "aws-lc-rs knows TLS 1.2 and 1.3";

// ===== impl Verify =====

impl Verify {
    /// Accepts certificates signed by the authorities in this PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or has no valid certificate.
    pub fn authorities(file: &Path) -> Result<Self, String> {
        let certificates = CertificateDer::pem_file_iter(file).map_err(|why| why.to_string())?;
        let certificates = certificates.collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|why| why.to_string())?;
        if certificates.is_empty() {
            return Err("it has no certificate in PEM".into());
        }
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|why| why.to_string())?;
        }
        let (store, certificates) = (store.into(), certificates.into());
        Ok(Self::Authorities(Authorities { store, certificates }))
    }

    /// Without session resumption: every connection makes a full handshake, like those of different clients.
    pub(super) fn config(&self, protocol: &[u8]) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(provider());
        let anchors = match self {
            Self::System => Some(Anchors::new(system_authorities()?, &provider)?),
            Self::Authorities(authorities) => Some(Anchors::new(authorities.clone(), &provider)?),
            Self::None => None,
        };
        let verifier = Arc::new(Verifier { provider: provider.clone(), anchors });
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

/// AES-128 with SHA-256 is offered first, as browsers do: a handshake hashes much, and most processors have instructions
/// for SHA-256, but none for SHA-384.
fn provider() -> CryptoProvider {
    let mut provider = default_provider();
    let is_other =
        |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(is_other);
    provider
}

fn system_authorities() -> Result<Authorities, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if !store.is_empty() {
        return Ok(Authorities { store: store.into(), certificates: [].into() });
    }
    let why = found.errors.first().map_or(String::new(), |why| format!(" ({why})"));
    Err(TlsError {
        why: format!("this system has no root certificates{why}"),
        advice: "name the server's authority with --ca FILE",
    })
}

// ===== impl Anchors =====

impl Anchors {
    fn new(authorities: Authorities, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let Authorities { store, certificates } = authorities;
        let signed = WebPkiServerVerifier::builder_with_provider(store, provider.clone()).build();
        Ok(Self { signed: signed.map_err(TlsError::new)?, own: certificates })
    }
}

// ===== impl Verifier =====

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(Anchors { signed, own }) = &self.anchors else {
            return Ok(ServerCertVerified::assertion());
        };
        match signed.verify_server_cert(certificate, others, name, ocsp, now) {
            // When webpki rejects an authority as a server, only the name remains to be checked.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if own.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_offered_in_the_order_of_browsers() {
        let config = Verify::None.config(b"http/1.1").expect("no files");
        let offered = &config.crypto_provider().cipher_suites;
        assert_eq!(offered[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(offered.len(), default_provider().cipher_suites.len());
    }
}
