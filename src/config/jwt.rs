//! Keys that tokens are verified with (JWT, JWK), validated at startup or when a published set is fetched.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

use super::InvalidKey;
use crate::client::url::HttpUrl;

/// A published set of keys (RFC 7517), and how it is fetched.
#[derive(Clone, Debug)]
pub struct JwksConfig {
    /// Where it is published.
    pub url: JwksUrl,
    /// The least time from one fetch to the next, however many tokens no key verifies.
    pub interval: Duration,
    /// The age at which the set is fetched again even if it has the key of every token.
    pub refresh: Duration,
    /// How long a fetch may take.
    pub timeout: Duration,
}

/// A key that tokens are verified with, for one algorithm only.
#[derive(Clone, Debug)]
pub struct TokenKey {
    pub(crate) algorithm: Algorithm,
    /// Its name in the published set (`kid`).
    pub(crate) id: Option<String>,
    pub(crate) key: DecodingKey,
    /// From when on it verifies nothing; `None` for never.
    pub(crate) until: Option<SystemTime>,
}

/// `https://…`, or `http://…` to a loopback address: otherwise the keys could be replaced in transit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl(HttpUrl);

/// The longest token that is accepted, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How far the issuer's clock may be ahead of the server's (`nbf`).
pub const TOKEN_SKEW: Duration = Duration::from_secs(5);

/// The largest published set of keys, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;

/// The most keys that are used of one published set.
pub const JWKS_KEYS_MAX: usize = 32;

/// The most published keys that one token is tried with. If more of its algorithm could have signed it, because it
/// names none of them (`kid`) or they share a name, it is refused.
pub const TOKEN_KEYS_MAX: usize = 4;

/// The shortest secret for HS256, in bytes.
const SECRET_BYTES_MIN: usize = 32;

/// How DER in base64 begins, without the armour of PEM: a public key for EdDSA, ES256 and (2,048 to 4,096 bits) RS256.
/// No random secret begins like this.
const DER_PREFIXES: [&str; 7] = [
    "MCowBQYDK2Vw",
    "MFkwEwYHKoZIzj0",
    "MIIBIjANBgkqhkiG9w0BAQ",
    "MIIBojANBgkqhkiG9w0BAQ",
    "MIICIjANBgkqhkiG9w0BAQ",
    "MIIBCgKCAQEA",
    "MIICCgKCAgEA",
];

/// The shortest RSA modulus, in bytes.
const RSA_BYTES_MIN: usize = 256;

// ===== impl JwksConfig =====

impl JwksConfig {
    /// The default of [`JwksConfig::interval`].
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// The default of [`JwksConfig::refresh`].
    pub const REFRESH: Duration = Duration::from_secs(10 * 60);
    /// The default of [`JwksConfig::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// The set at this URL, fetched at the default times.
    pub fn new(url: JwksUrl) -> Self {
        let (interval, refresh, timeout) = (Self::INTERVAL, Self::REFRESH, Self::TIMEOUT);
        Self { url, interval, refresh, timeout }
    }
}

// ===== impl TokenKey =====

impl TokenKey {
    /// A secret that the server shares with the issuer, for HS256.
    ///
    /// # Errors
    /// It has less than 32 bytes, or the form of a key or a certificate: then everybody may have it.
    pub fn from_secret(secret: &str) -> Result<Self, InvalidKey> {
        if is_key_document(secret) {
            return Err(InvalidKey::KeyAsSecret);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(InvalidKey::ShortSecret);
        }
        let key = DecodingKey::from_secret(secret.as_bytes());
        Ok(Self { algorithm: Algorithm::HS256, id: None, key, until: None })
    }

    /// A public key in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
    ///
    /// # Errors
    /// It is private, too short, or of another kind.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(InvalidKey::Private);
        }
        if !pem.contains("PUBLIC KEY-----") || pem.matches("-----BEGIN").count() != 1 {
            return Err(InvalidKey::Unsupported);
        }
        let pem = pem.as_bytes();
        let (algorithm, key) = DecodingKey::from_ec_pem(pem)
            .map(|key| (Algorithm::ES256, key))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)))
            .or_else(|_| DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key)))
            .map_err(|_| InvalidKey::Unsupported)?;
        // PEM does not check the curve or the length of the modulus; `from_jwk` does.
        let jwk =
            Jwk::from_decoding_key(&key, Some(algorithm)).map_err(|_| InvalidKey::Unsupported)?;
        Self::from_jwk(&jwk)
    }

    /// A key of a published set, from which only public keys are accepted that may verify signatures (RFC 7517, 4.2 to
    /// 4.4).
    ///
    /// # Errors
    /// It is too short, or of another kind, algorithm or use.
    pub(crate) fn from_jwk(jwk: &Jwk) -> Result<Self, InvalidKey> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return Err(InvalidKey::Unsupported),
        };
        let named = jwk.common.key_algorithm;
        let used = jwk.common.public_key_use.as_ref();
        let operations = jwk.common.key_operations.as_ref();
        if named.is_some_and(|named| named != KeyAlgorithm::from(algorithm))
            || used.is_some_and(|used| *used != PublicKeyUse::Signature)
            || operations.is_some_and(|may| !may.contains(&KeyOperations::Verify))
        {
            return Err(InvalidKey::Unsupported);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| InvalidKey::Unsupported)?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind()
            && n.iter().skip_while(|byte| **byte == 0).count() < RSA_BYTES_MIN
        {
            return Err(InvalidKey::WeakRsa);
        }
        Ok(Self { algorithm, id: jwk.common.key_id.clone(), key, until: None })
    }

    /// Whether it verifies what the other one does. In no constant time, so for public keys only.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        self.algorithm == other.algorithm
            && match (self.key.kind(), other.key.kind()) {
                (SecretOrDer(ours), SecretOrDer(theirs)) => ours == theirs,
                (RsaModulusExponent { n, e }, RsaModulusExponent { n: other_n, e: other_e }) => {
                    (n, e) == (other_n, other_e)
                }
                _ => false,
            }
    }
}

/// Whether this has the form of an asymmetric key or a certificate: PEM, DER in base64, a JWK or a set of them, a key
/// of SSH.
pub(super) fn is_key_document(text: &str) -> bool {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let is_json = text.starts_with('{') && (text.contains("\"kty\"") || text.contains("\"keys\""));
    let is_ssh = ["ssh-", "ecdsa-sha2-", "sk-ssh-"].iter().any(|kind| text.starts_with(kind));
    let is_der = DER_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
    text.contains("-----BEGIN ") || is_json || is_ssh || is_der
}

// ===== impl JwksUrl =====

impl JwksUrl {
    pub(crate) fn as_url(&self) -> &HttpUrl {
        &self.0
    }
}

impl FromStr for JwksUrl {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let url: HttpUrl = text.parse().map_err(|_| InvalidKey::Url)?;
        let host = url.host();
        let is_loopback = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !url.is_secure && !is_loopback {
            return Err(InvalidKey::Url);
        }
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_over_tls_or_from_loopback() {
        for good in [
            "https://id.example/keys",
            "http://127.0.0.1:1/k",
            "http://[::1]/k",
            "http://localhost/k",
        ] {
            assert!(good.parse::<JwksUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/keys",
            "id.example",
            "http://id.example/keys",
            "http://127.0.0.1.example/",
            "http://127.0.0.1@evil.example/",
            "https://me:pw@id.example/",
            "ftp://127.0.0.1/",
        ] {
            assert_eq!(bad.parse::<JwksUrl>(), Err(InvalidKey::Url), "{bad}");
        }
    }

    #[test]
    fn short_secrets_are_refused_and_debug_shows_none() {
        let secret = "0123456789abcdef0123456789abcdef";
        assert_eq!(TokenKey::from_secret(&secret[1..]).err(), Some(InvalidKey::ShortSecret));
        let key = TokenKey::from_secret(secret).expect("32 bytes");
        assert!(!format!("{key:?}").contains("0123"), "{key:?}");
    }
}
