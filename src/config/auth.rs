//! Access: the keys that requests are authorised with, validated at startup: a bad key is a configuration
//! error.

use std::fmt;

#[cfg(feature = "jwt")]
use super::{JwksConfig, KeyFile, TokenKey};

/// The keys that requests are authorised with, and what else a token has to contain. Without any key the
/// server is open: every request is authorised.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Keys that tokens may be signed with.
    #[cfg(feature = "jwt")]
    pub keys: Vec<TokenKey>,
    /// Files with further keys, which are read again when they change, and on a reload.
    #[cfg(feature = "jwt")]
    pub key_files: Vec<KeyFile>,
    /// A URL that publishes further keys.
    #[cfg(feature = "jwt")]
    pub jwks: Option<JwksConfig>,
    /// Accepted issuers (`iss`); empty for any.
    #[cfg(feature = "jwt")]
    pub issuers: Vec<String>,
    /// Accepted audiences (`aud`), one of which a token has to name; empty for any. An issuer that publishes its keys
    /// most often signs tokens for other services too: with `jwks` name yours.
    #[cfg(feature = "jwt")]
    pub audiences: Vec<String>,
    /// Keys that publishers without a token send as `authorization: Bearer`.
    pub publish_keys: Vec<Secret>,
}

/// A key that is compared as it is, and that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// Why a value is not a valid `TokenKey`, [`Secret`] or `JwksUrl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// A secret for HS256 is too short to withstand guessing (RFC 7518, 3.2).
    ShortSecret,
    /// A publish key is too short to withstand guessing, or has characters that a header cannot have.
    PublishKey,
    /// The key is private; a server that only verifies must not have it.
    Private,
    /// The key is not a PEM public key, or not one for RS256, ES256 or EdDSA.
    Unsupported,
    /// An RSA key has less than 2,048 bits (RFC 7518, 3.3).
    WeakRsa,
    /// The URL is neither https nor http to a loopback address, or it has a user.
    Url,
}

/// The shortest publish key, in bytes.
const PUBLISH_KEY_BYTES_MIN: usize = 16;

// ===== impl AuthConfig =====

impl AuthConfig {
    /// Whether there is a key that tokens may be signed with.
    pub fn takes_tokens(&self) -> bool {
        #[cfg(feature = "jwt")]
        return !self.keys.is_empty() || !self.key_files.is_empty() || self.jwks.is_some();
        #[cfg(not(feature = "jwt"))]
        return false;
    }

    /// The keys that tokens may be signed with, without the published ones.
    #[cfg(feature = "jwt")]
    pub(crate) fn token_keys(&self) -> impl Iterator<Item = &TokenKey> {
        self.keys.iter().chain(self.key_files.iter().flat_map(KeyFile::keys))
    }

    /// Whether there is no key, so that every client may subscribe and publish.
    pub fn is_open(&self) -> bool {
        self.publish_keys.is_empty() && !self.takes_tokens()
    }
}

// ===== impl Secret =====

impl Secret {
    /// A key that a publisher sends as it is.
    ///
    /// # Errors
    /// It has less than 16 bytes, or bytes that are not visible ASCII.
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
    fn short_publish_keys_are_refused_and_debug_shows_none() {
        let key = "0123456789abcdef";
        assert_eq!(Secret::publish_key(&key[1..]).err(), Some(InvalidKey::PublishKey));
        assert_eq!(Secret::publish_key("with a space in it").err(), Some(InvalidKey::PublishKey));
        let key = Secret::publish_key(key).expect("16 bytes");
        assert!(!format!("{key:?}").contains("0123"), "{key:?}");
    }
}
