//! TLS with PostgreSQL, by the mode of its URL.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::{OutboxConfig, PostgresTls, PostgresUrl};

/// Accepts any certificate, whose key the server has to have.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

/// The largest file of authorities that is read.
const AUTHORITIES_BYTES_MAX: u64 = 1024 * 1024;

/// The mode of a URL. Without one it is as libpq has it, but a file of authorities is there to be used.
pub(super) fn mode(url: &PostgresUrl, outbox: &OutboxConfig) -> PostgresTls {
    url.tls().unwrap_or(match outbox.ca {
        None => PostgresTls::Prefer,
        Some(_) => PostgresTls::VerifyFull,
    })
}

/// What a connection in this mode is made with.
///
/// # Errors
/// The authorities cannot be read.
pub(super) fn config(mode: PostgresTls, ca: Option<&Path>) -> Result<ClientConfig, String> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?;
    if mode == PostgresTls::VerifyFull {
        let roots = ca.map_or_else(system_authorities, authorities)?;
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let any = Arc::new(AnyCertificate(provider));
    Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth())
}

/// The certificates in a file.
///
/// # Errors
/// It cannot be read, has none, or something in it is broken.
pub(crate) fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut pem = Vec::new();
    let file = File::open(file).map_err(|why| why.to_string())?;
    file.take(AUTHORITIES_BYTES_MAX).read_to_end(&mut pem).map_err(|why| why.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| "it is no valid PEM".to_owned())?;
        roots.add(certificate).map_err(|why| why.to_string())?;
    }
    if roots.is_empty() {
        return Err("it has no certificate in PEM".into());
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    match added {
        0 => Err("the system has no root certificates; name the authority with --outbox-ca".into()),
        _ => Ok(roots),
    }
}

// ===== impl AnyCertificate =====

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
