//! Verifies tokens against the configured and the published keys.

use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::{Algorithm, Header, Validation};
use tokio::sync::watch;

use super::AuthError;
use super::checks::{decode_limited, invalid_claims, validation};
use super::claims::Claims;
use super::jwks::Jwks;
use super::layout::Layout;
use crate::config::{AuthConfig, TOKEN_KEYS_MAX, TokenKey};
use crate::sync::Mutex;
use crate::time::Time;

/// The keys, and what they are to check of a token beside its signature.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The configured keys, which a reload replaces.
    keys: Mutex<Arc<[TokenKey]>>,
    jwks: Option<Arc<Jwks>>,
    /// One for each algorithm: the library accepts several only of one family.
    validations: [Validation; 4],
    layout: Layout,
}

/// What a token is found to be, unless it is refused.
pub(super) enum Verification {
    Valid(Claims),
    /// No known key signed it, but the published keys are being fetched.
    WaitForKeys(Box<PendingToken>),
}

/// A token whose key may be among those that are being fetched.
pub(super) struct PendingToken {
    token: String,
    header: Header,
    /// The published keys that it was verified with before, if there were any.
    tried: Option<Arc<[TokenKey]>>,
    /// Changes when the fetch has ended, successfully or not.
    fetched: watch::Receiver<()>,
}

/// What the claims of a token are found to be that a key has signed.
type Verified = Result<Claims, &'static str>;

const MANY: &str = "too many published keys could have signed it (kid)";

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

#[cfg(test)]
thread_local! {
    /// Signatures that this thread has verified.
    pub(crate) static VERIFICATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

// ===== impl Tokens =====

impl Tokens {
    pub(super) fn new(config: &AuthConfig) -> Self {
        // If the application around us has enabled the library's other provider too, there is no default.
        _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Self {
            keys: Mutex::new(config.token_keys().cloned().collect()),
            jwks: config.jwks.clone().map(|jwks| Arc::new(Jwks::new(jwks))),
            validations: ALGORITHMS.map(|algorithm| validation(algorithm, config)),
            layout: Layout::new(config),
        }
    }

    /// Fetches the published keys before the first token needs them. Inside a runtime.
    pub(super) fn prefetch(&self, now: Time) {
        if let Some(jwks) = &self.jwks {
            jwks.fetch(now);
        }
    }

    /// Whether the published keys were ever fetched, if there are to be any. If not, has them fetched. Inside a
    /// runtime.
    pub(super) fn is_ready(&self, now: Time) -> bool {
        let Some(jwks) = &self.jwks else { return true };
        let has_keys = jwks.has_keys();
        if !has_keys {
            jwks.fetch(now);
        }
        has_keys
    }

    /// Takes the keys of this configuration in place of the configured ones.
    pub(super) fn replace_keys(&self, config: &AuthConfig) {
        let keys = config.token_keys().cloned().collect();
        *self.keys.lock() = keys;
    }

    /// Fetches the published keys again, however new they are. Inside a runtime.
    pub(super) fn refetch(&self, now: Time) {
        if let Some(jwks) = &self.jwks {
            jwks.refetch(now);
        }
    }

    /// Has no request wait for keys any more.
    pub(super) fn close(&self) {
        if let Some(jwks) = &self.jwks {
            jwks.close();
        }
    }

    /// Puts a set in place of one that was fetched.
    #[cfg(test)]
    pub(super) fn publish(&self, keys: Vec<TokenKey>) {
        self.jwks.as_ref().expect("configured").set_keys(keys, Time(0));
    }

    /// Verifies a token. Inside a runtime.
    ///
    /// # Errors
    /// Why it is invalid, or that it cannot be judged yet.
    pub(super) fn verify(&self, token: &str, now: Time) -> Result<Verification, AuthError> {
        self.verify_at(token, now, SystemTime::now())
    }

    /// The same, at this time of the wall clock, which old secrets end by.
    fn verify_at(
        &self,
        token: &str,
        now: Time,
        wall: SystemTime,
    ) -> Result<Verification, AuthError> {
        let header = decode_limited(token).map_err(AuthError::Invalid)?;
        let configured = self.keys.lock().clone();
        let current = || configured.iter().filter(|key| key.is_current(wall));
        if let Some(verified) = self.verify_with(current(), token, &header) {
            return verified.map(Verification::Valid).map_err(AuthError::Invalid);
        }
        // No set publishes secrets.
        let Some(jwks) = self.jwks.as_ref().filter(|_| header.alg != Algorithm::HS256) else {
            return Err(AuthError::Invalid(unverified(current(), &header)));
        };
        jwks.refresh(now);
        let tried = jwks.keys();
        if let Some(published) = &tried
            && let Ok(keys) = candidates(published, &header)
            && let Some(verified) = self.verify_with(keys, token, &header)
        {
            return verified.map(Verification::Valid).map_err(AuthError::Invalid);
        }
        match jwks.fetch(now) {
            Some(fetched) => {
                let pending = PendingToken { token: token.to_owned(), header, tried, fetched };
                Ok(Verification::WaitForKeys(Box::new(pending)))
            }
            // The keys are read again, so a fetch that has ended meanwhile counts.
            None => self.verify_again(token, &header, tried.as_deref()).map(Verification::Valid),
        }
    }

    /// Verifies a token when the fetch that it waits for has ended.
    ///
    /// # Errors
    /// Why it is invalid, or that it cannot be judged yet.
    pub(super) async fn verify_pending(
        &self,
        pending: Box<PendingToken>,
    ) -> Result<Claims, AuthError> {
        let PendingToken { token, header, tried, mut fetched } = *pending;
        _ = fetched.changed().await;
        self.verify_again(&token, &header, tried.as_deref())
    }

    /// Verifies a token with the published keys that there are now, but for those that it was verified with before.
    fn verify_again(
        &self,
        token: &str,
        header: &Header,
        tried: Option<&[TokenKey]>,
    ) -> Result<Claims, AuthError> {
        let published = self.jwks.as_ref().and_then(|jwks| jwks.keys());
        let published = published.ok_or(AuthError::NoKeysYet)?;
        let keys = candidates(&published, header).map_err(AuthError::Invalid)?;
        let tried: Vec<_> = tried
            .and_then(|keys| candidates(keys, header).ok())
            .map_or_else(Vec::new, Iterator::collect);
        let keys = keys.filter(|key| !tried.iter().any(|tried| tried.is_same(key)));
        let verified = self.verify_with(keys, token, header);
        let configured = self.keys.lock().clone();
        verified
            .unwrap_or_else(|| Err(unverified(configured.iter().chain(&*published), header)))
            .map_err(AuthError::Invalid)
    }

    /// The claims, or what is wrong with them; `None` if none of the keys signed the token.
    fn verify_with<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k TokenKey>,
        token: &str,
        header: &Header,
    ) -> Option<Verified> {
        keys.into_iter().filter(|key| key.fits(header)).find_map(|key| {
            let mut validations = self.validations.iter();
            let validation = validations.find(|v| v.algorithms.contains(&key.algorithm));
            #[cfg(test)]
            VERIFICATIONS.set(VERIFICATIONS.get() + 1);
            let validation = validation.expect("keys are of the four");
            match self.layout.decode(token, &key.key, validation) {
                Ok(claims) => Some(Ok(claims)),
                Err(error) => invalid_claims(error.kind()).map(Err),
            }
        })
    }
}

/// The keys of a set that may have signed a token: those that have its `kid`, or else those without one, or else, if it
/// names none, all of its algorithm.
///
/// # Errors
/// There are too many to verify it with each of them.
fn candidates<'k>(
    published: &'k [TokenKey],
    header: &Header,
) -> Result<impl Iterator<Item = &'k TokenKey>, &'static str> {
    let same = |key: &TokenKey| key.fits(header) && key.id == header.kid;
    let is_named = published.iter().any(same);
    let keys = published.iter().filter(move |key| key.fits(header) && (!is_named || same(key)));
    if keys.clone().count() > TOKEN_KEYS_MAX { Err(MANY) } else { Ok(keys) }
}

/// Why a token is invalid that none of the keys has signed.
fn unverified<'k>(keys: impl IntoIterator<Item = &'k TokenKey>, header: &Header) -> &'static str {
    if keys.into_iter().any(|key| key.fits(header)) {
        "its signature does not fit"
    } else {
        "no key is known that it could be signed with"
    }
}

// ===== impl TokenKey =====

impl TokenKey {
    /// A key verifies its own algorithm only, and if both it and the token have a `kid`, only the same.
    pub(super) fn fits(&self, header: &Header) -> bool {
        let named = self.id.as_ref().zip(header.kid.as_ref());
        self.algorithm == header.alg && named.is_none_or(|(ours, theirs)| ours == theirs)
    }
}

#[cfg(test)]
mod tests;
