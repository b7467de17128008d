//! Whose certificates a client believes.

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
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// Whose certificates are believed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Those that the system's authorities have signed.
    #[default]
    System,
    /// Those that one of these authorities has signed, and theirs.
    Authorities(Authorities),
    /// Anybody's: nobody on the way can listen, but who is at the end is not known.
    Anybody,
}

/// The certificates of authorities, from a file.
#[derive(Clone, Debug)]
pub struct Authorities {
    store: Arc<RootCertStore>,
    certificates: Arc<[CertificateDer<'static>]>,
}

/// Checks whose certificate it is, unless anybody's will do, and that it is the server's own.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    listed: Option<Listed>,
}

/// Believes what one of the authorities has signed, and their own certificates: one that signs itself
/// is often both a server's and an authority's (`openssl req -x509` makes such).
#[derive(Debug)]
struct Listed {
    signed: Arc<WebPkiServerVerifier>,
    own: Arc<[CertificateDer<'static>]>,
}

const PROTOCOLS: &str = "aws-lc-rs knows TLS 1.2 and 1.3";

// ===== impl Trust =====

impl Trust {
    /// Believes those whom the authorities of this file of PEM certificates have signed.
    ///
    /// # Errors
    /// Says what is wrong with the file.
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

    /// Every connection makes a whole handshake, as those of different clients do.
    pub(super) fn config(&self, protocol: &[u8]) -> Result<ClientConfig, String> {
        let provider = Arc::new(default_provider());
        let listed = match self {
            Self::System => Some(Listed::new(system_authorities()?, &provider)?),
            Self::Authorities(authorities) => Some(Listed::new(authorities.clone(), &provider)?),
            Self::Anybody => None,
        };
        let verifier = Arc::new(Verifier { provider: provider.clone(), listed });
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

fn system_authorities() -> Result<Authorities, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if !store.is_empty() {
        return Ok(Authorities { store: store.into(), certificates: [].into() });
    }
    let why = found.errors.first().map_or(String::new(), |why| format!(" ({why})"));
    Err(format!(
        "this system has no certificate authorities{why}; name the server's with --ca FILE"
    ))
}

// ===== impl Listed =====

impl Listed {
    fn new(authorities: Authorities, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let Authorities { store, certificates } = authorities;
        let signed = WebPkiServerVerifier::builder_with_provider(store, provider.clone()).build();
        Ok(Self { signed: signed.map_err(|why| why.to_string())?, own: certificates })
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
        let Some(Listed { signed, own }) = &self.listed else {
            return Ok(ServerCertVerified::assertion());
        };
        match signed.verify_server_cert(certificate, others, name, ocsp, now) {
            // That it is an authority's is found last but for its name, after its times.
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
