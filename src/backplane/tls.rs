//! TLS with a broker.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// The largest file of authorities that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The authorities in this PEM file.
///
/// # Errors
/// It cannot be read, has none, or something in it is broken.
pub(crate) fn authorities(file: &Path) -> io::Result<RootCertStore> {
    // To open a pipe could block.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut pem = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|why| match why {
            Error::Io(why) => why,
            _ => io::Error::other("it is no valid PEM"),
        })?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other("it has no certificate in PEM"));
    }
    Ok(roots)
}

/// Trusts the authorities of this PEM file, or those of the system.
///
/// # Errors
/// Why there are none, in words.
pub(super) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let roots = match ca {
        Some(file) => authorities(file)
            .map_err(|why| format!("the authorities in {}: {why}", file.display()))?,
        None => {
            let (found, mut roots) =
                (rustls_native_certs::load_native_certs(), RootCertStore::empty());
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("this machine has no root certificates (ca-certificates)".into());
            }
            roots
        }
    };
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| why.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Why there is no TLS. `cleartext` is the scheme of a URL without it.
pub(super) fn in_words(why: &rustls::Error, cleartext: &str) -> String {
    match why {
        rustls::Error::InvalidMessage(_) => {
            format!("it does not speak TLS; without TLS the URL is {cleartext}")
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("TLS: {why}; --backplane-ca names the file of its authority")
        }
        _ => format!("TLS: {why}"),
    }
}
