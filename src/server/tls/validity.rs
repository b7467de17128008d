//! The time in which certificates are valid. One that is not is served all the same, since its clients decide, with a
//! warning in the log.

use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

/// Logs a warning for each certificate of a chain that is not valid now.
pub(super) fn warn(chain: &[CertificateDer<'_>]) {
    for line in complaints(chain, UnixTime::now()) {
        tracing::warn!("{line}");
    }
}

/// What is wrong with the times of these certificates, the server's own first.
fn complaints(chain: &[CertificateDer<'_>], now: UnixTime) -> Vec<String> {
    let complaint = |(place, certificate)| {
        let when = state(certificate, now)?;
        Some(match place {
            0 => format!("the certificate {when}; clients refuse it"),
            _ => format!("certificate {} of the chain {when}; clients may refuse it", place + 1),
        })
    };
    chain.iter().enumerate().filter_map(complaint).collect()
}

/// That it has expired, or is not valid yet; `None` if it is valid, or no certificate that clients could check.
fn state(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    match check(certificate, now)? {
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("has expired: it was valid until {}", date(not_after)))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            Some(format!("is not valid yet: it will be from {} on", date(not_before)))
        }
        _ => None,
    }
}

/// When a certificate expires; `None` if it is none that clients could check.
pub(super) fn expires(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    // By then each has expired: X.509 has no later year than 9999.
    let end_of_times = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    match check(certificate, end_of_times)? {
        CertificateError::ExpiredContext { not_after, .. } => Some(time(not_after)),
        _ => None,
    }
}

/// What is wrong with a certificate at a time.
fn check(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<CertificateError> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    // webpki looks at the times before anything else. That no issuer is trusted is an error too, and does not matter.
    let trusted = RootCertStore::empty();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let checked =
        verify_server_cert_signed_by_trust_anchor(&parsed, &trusted, &[], now, algorithms);
    match checked {
        Err(Error::InvalidCertificate(why)) => Some(why),
        _ => None,
    }
}

fn date(at: UnixTime) -> String {
    httpdate::fmt_http_date(time(at))
}

fn time(at: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// A certificate with these extensions that is valid from now on for two days.
    fn certificate(extensions: &[&str]) -> CertificateDer<'static> {
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=tests"])
            .args(extensions.iter().flat_map(|extension| ["-addext", extension]))
            .args(["-keyout", "-", "-out", "-"])
            .output()
            .expect("openssl is installed");
        CertificateDer::from_pem_slice(&output.stdout).expect("a certificate")
    }

    /// SCENARIO: a certificate is not renewed.
    /// BUG: it was served without a word in the log, while every client refused it.
    /// FIX: a warning at the start, whenever it is read, and once a day.
    #[test]
    fn a_certificate_that_is_not_valid_is_noticed() {
        let day = Duration::from_secs(86_400);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let at = UnixTime::since_unix_epoch;
        for extensions in [
            &["basicConstraints=critical,CA:FALSE", "subjectAltName=DNS:localhost"][..],
            // Those that rustls itself would not verify as a server's are served too.
            &["basicConstraints=critical,CA:TRUE"],
            &["extendedKeyUsage=clientAuth"],
        ] {
            let chain = [certificate(extensions), certificate(extensions)];
            assert_eq!(complaints(&chain, at(now + day)), [""; 0], "{extensions:?}");
            for (time, what) in [
                (now + day * 3, "has expired: it was valid until "),
                (now - day, "is not valid yet: it will be from "),
            ] {
                let lines = complaints(&chain, at(time));
                let [own, second] = &lines[..] else { panic!("{lines:?}") };
                assert!(own.starts_with(&format!("the certificate {what}")), "{own}");
                assert!(
                    own.ends_with(" GMT; clients refuse it") || own.contains(" GMT on;"),
                    "{own}"
                );
                assert!(
                    second.starts_with(&format!("certificate 2 of the chain {what}")),
                    "{second}"
                );
            }
        }
    }
}
