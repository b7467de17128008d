//! Access: the keys that requests are checked with.

use std::fmt;

#[cfg(feature = "jwt")]
use super::{JwksConfig, TokenKey};

/// Which tokens are good. Without any key the server is open.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Keys that tokens may be signed with.
    #[cfg(feature = "jwt")]
    pub keys: Vec<TokenKey>,
    /// Where further keys are published.
    #[cfg(feature = "jwt")]
    pub jwks: Option<JwksConfig>,
    /// Who may have issued a token (`iss`); empty for anyone who has the key.
    #[cfg(feature = "jwt")]
    pub issuers: Vec<String>,
    /// For whom a token may be (`aud`); empty for anyone.
    #[cfg(feature = "jwt")]
    pub audiences: Vec<String>,
    /// What publishers that have no token send as `authorization: Bearer`.
    pub publish_keys: Vec<Secret>,
}

/// Text that is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// Why something is no `TokenKey`, [`Secret`] or `JwksUrl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// A secret for HS256 is too short to withstand guessing (RFC 7518, 3.2).
    ShortSecret,
    /// A publish key is too short to withstand guessing, or not what a header can have.
    PublishKey,
    /// A private key, which a server that only verifies must not have.
    Private,
    /// Not a PEM public key, or not one for RS256, ES256 or EdDSA.
    Unsupported,
    /// An RSA key below 2,048 bits (RFC 7518, 3.3).
    WeakRsa,
    /// Not a URL that keys may be fetched from.
    Url,
}

/// The shortest publish key, in bytes.
const PUBLISH_KEY_BYTES_MIN: usize = 16;

// ===== impl AuthConfig =====

impl AuthConfig {
    /// Whether there is a key that tokens may be signed with.
    pub fn takes_tokens(&self) -> bool {
        #[cfg(feature = "jwt")]
        return !self.keys.is_empty() || self.jwks.is_some();
        #[cfg(not(feature = "jwt"))]
        return false;
    }

    /// Whether whoever reaches the server may subscribe and publish.
    pub fn is_open(&self) -> bool {
        self.publish_keys.is_empty() && !self.takes_tokens()
    }
}

// ===== impl Secret =====

impl Secret {
    /// A key that a publisher sends as it is.
    ///
    /// # Errors
    /// It has less than 16 bytes, or others than visible ASCII.
    pub fn publish_key(text: &str) -> Result<Self, InvalidKey> {
        if text.len() < PUBLISH_KEY_BYTES_MIN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidKey::PublishKey);
        }
        Ok(Self(text.into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

// ===== impl InvalidKey =====

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShortSecret => {
                "a secret for HS256 needs at least 32 bytes; try `openssl rand -hex 32`"
            }
            Self::PublishKey => {
                "a publish key is at least 16 characters of visible ASCII; try `openssl rand -hex 32`"
            }
            Self::Private => {
                "this is a private key; the server verifies only, give it the public one"
            }
            Self::Unsupported => {
                "expected one PEM public key: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)"
            }
            Self::WeakRsa => "an RSA key needs at least 2048 bits",
            Self::Url => "expected https://…, or http://… to a loopback address",
        })
    }
}

impl std::error::Error for InvalidKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_keys_are_long_enough_and_never_shown() {
        let secret = "0123456789abcdef0123456789abcdef";
        assert_eq!(Secret::publish_key(&secret[..15]).err(), Some(InvalidKey::PublishKey));
        assert_eq!(Secret::publish_key("with a space in it").err(), Some(InvalidKey::PublishKey));
        let key = Secret::publish_key(&secret[..16]).expect("16 bytes");
        assert!(!format!("{key:?}").contains("0123"), "{key:?}");
    }
}
