//! Verifies tokens against the configured and the published keys.

use std::sync::Arc;
use std::time::SystemTime;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use tokio::sync::watch;

use super::AuthError;
use super::claims::Claims;
use super::jwks::Jwks;
use crate::config::{AuthConfig, TOKEN_BYTES_MAX, TOKEN_KEYS_MAX, TOKEN_SKEW, TokenKey};
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
        }
    }

    /// Fetches the published keys before the first token needs them. Inside a runtime.
    pub(super) fn prefetch(&self, now: Time) {
        if let Some(jwks) = &self.jwks {
            jwks.fetch(now);
        }
    }

    /// Whether the published keys were ever fetched, if there are to be any. If not, has them fetched. Inside a runtime.
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
            match decode::<Claims>(token, &key.key, validation.expect("keys are of the four")) {
                Ok(verified) => Some(Ok(verified.claims)),
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

/// What the library checks of the claims, after the signature. `iss` and `aud` are required if they are
/// configured, because the library accepts a token that lacks them.
fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp"];
    validation.validate_nbf = true;
    // The skew applies to `nbf` only: a stream ends at its `exp`, so none may begin after it.
    validation.leeway = TOKEN_SKEW.as_secs();
    // A token is invalid "on or after" its `exp` (RFC 7519, 4.1.4), for the library only after it.
    validation.reject_tokens_expiring_in_less_than = TOKEN_SKEW.as_secs() + 1;
    if !config.issuers.is_empty() {
        validation.set_issuer(&config.issuers);
        required.push("iss");
    }
    validation.validate_aud = !config.audiences.is_empty();
    if validation.validate_aud {
        validation.set_audience(&config.audiences);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Decodes the header of a token, none of which is verified yet.
fn decode_limited(token: &str) -> Result<Header, &'static str> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err("it is longer than 8192 bytes");
    }
    let header = decode_header(token)
        .map_err(|_| "it is not a JWT signed by an algorithm that is allowed")?;
    // An extension that is critical and not understood makes a token invalid (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err("it has critical extensions, of which none is known");
    }
    Ok(header)
}

/// What is wrong with the claims of a token; `None` if its signature is.
fn invalid_claims(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        // The library's error for an `exp` smaller than the time that it subtracts.
        ErrorKind::InvalidToken => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)",
        ErrorKind::InvalidIssuer => "it is from another issuer (iss)",
        ErrorKind::InvalidAudience => "it is for another audience (aud)",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "it has no time at which it expires (exp)",
            "iss" => "it names no issuer (iss)",
            _ => "it names no audience (aud)",
        },
        ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
            "its claims are not of the expected types"
        }
        _ => return None,
    })
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
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::json;

    use super::*;
    use crate::config::JwksConfig;

    const OURS: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    /// Public keys on Ed25519 (RFC 8037, A.2; RFC 8032, 7.1).
    const FIRST: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const SECOND: &str = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";

    fn sign(secret: &str, exp: u64) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::default(), &json!({ "exp": exp }), &key).expect("a token")
    }

    fn refused(verified: Result<Verification, AuthError>) -> AuthError {
        verified.err().expect("it is refused")
    }

    /// A set that cannot be fetched: its address has no listener.
    fn unreachable() -> JwksConfig {
        JwksConfig::new("http://127.0.0.1:1/keys".parse().expect("a URL"))
    }

    #[tokio::test]
    async fn only_a_token_that_a_published_key_may_have_signed_waits_for_the_set() {
        let tokens = Tokens::new(&AuthConfig {
            keys: vec![TokenKey::from_secret(OURS).expect("32 bytes")],
            jwks: Some(unreachable()),
            ..AuthConfig::default()
        });
        let verify = |token: &str| tokens.verify(token, Time(0));
        let invalid = |token: &str| refused(verify(token));
        assert!(matches!(verify(&sign(OURS, 1 << 40)), Ok(Verification::Valid(_))));
        assert_eq!(invalid(&sign(OURS, 1)), AuthError::Invalid("it has expired"));
        assert!(matches!(invalid("no token"), AuthError::Invalid(_)));
        let unfit = AuthError::Invalid("its signature does not fit");
        assert_eq!(invalid(&sign(OTHER, 1 << 40)), unfit, "a set has no secrets");
        let foreign = forged(&json!({"alg": "EdDSA"}));
        let Ok(Verification::WaitForKeys(pending)) = verify(&foreign) else {
            panic!("nothing is fetched");
        };
        assert_eq!(tokens.verify_pending(pending).await.err(), Some(AuthError::NoKeysYet));
        assert_eq!(invalid(&foreign), AuthError::NoKeysYet, "a fetch for each token");
    }

    /// SCENARIO: the keys of an issuer have no names, and clients send forged tokens while they are fetched again.
    #[tokio::test]
    async fn a_token_that_waited_is_verified_with_keys_that_it_was_not_verified_with_before() {
        let tokens = published(vec![None; 4]);
        let before = VERIFICATIONS.get();
        let verifications = || VERIFICATIONS.get() - before;
        let interval = Time(0).after(JwksConfig::INTERVAL);
        let verify = |now| tokens.verify(&forged(&json!({"alg": "EdDSA"})), now);
        let pending = |now| match verify(now) {
            Ok(Verification::WaitForKeys(pending)) => pending,
            _ => panic!("nothing is fetched"),
        };
        let unfit = AuthError::Invalid("its signature does not fit");
        assert_eq!(refused(verify(Time(interval.0 - 1))), unfit, "before the interval has passed");
        assert_eq!(verifications(), 4);
        let waits = pending(interval);
        assert_eq!(tokens.verify_pending(waits).await.err(), Some(unfit));
        assert_eq!(verifications(), 8, "again, with the same keys");
        // This fetch brings one that is new.
        let later = interval.after(JwksConfig::INTERVAL);
        let waits = pending(later);
        let set = [FIRST, FIRST, FIRST, SECOND].map(ed_key).into();
        tokens.jwks.as_ref().expect("configured").set_keys(set, later);
        assert_eq!(tokens.verify_pending(waits).await.err(), Some(unfit));
        assert_eq!(verifications(), 13);
    }

    #[tokio::test]
    async fn an_old_secret_verifies_tokens_before_its_date_only() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let secret = |text| TokenKey::from_secret(text).expect("32 bytes");
        let keys = vec![secret(OURS), secret(OTHER).with_end(at(1_000))];
        let tokens = Tokens::new(&AuthConfig { keys, ..AuthConfig::default() });
        let verify = |secret, wall| tokens.verify_at(&sign(secret, 1 << 40), Time(0), wall);
        for (secret, seconds) in [(OURS, 999), (OURS, 1_000), (OTHER, 999)] {
            assert!(matches!(verify(secret, at(seconds)), Ok(Verification::Valid(_))));
        }
        let unfit = AuthError::Invalid("its signature does not fit");
        assert_eq!(refused(verify(OTHER, at(1_000))), unfit);
        tokens.replace_keys(&AuthConfig { keys: vec![secret(OTHER)], ..AuthConfig::default() });
        assert!(matches!(verify(OTHER, at(1_000)), Ok(Verification::Valid(_))));
        assert_eq!(refused(verify(OURS, at(1_000))), unfit);
    }

    /// A token that no key has signed: its signature is of zeros.
    fn forged(header: &serde_json::Value) -> String {
        let key = EncodingKey::from_secret(OTHER.as_bytes());
        let encode = |json| encode(&Header::default(), json, &key).expect("a token");
        let [header, claims] = [encode(header), encode(&json!({ "exp": 1_u64 << 40 }))];
        let payload = |token: &str| token.split('.').nth(1).expect("of three").to_owned();
        format!("{}.{}.{}", payload(&header), payload(&claims), "A".repeat(86))
    }

    /// A key on Ed25519.
    fn ed_key(x: &str) -> TokenKey {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        TokenKey::from_jwk(&serde_json::from_value(jwk).expect("a JWK")).expect("a key")
    }

    /// Tokens with a published set of as many keys of one algorithm, with these names.
    fn published(names: impl IntoIterator<Item = Option<String>>) -> Tokens {
        let keys: Vec<_> = names.into_iter().map(|id| TokenKey { id, ..ed_key(FIRST) }).collect();
        let tokens =
            Tokens::new(&AuthConfig { jwks: Some(unreachable()), ..AuthConfig::default() });
        tokens.jwks.as_ref().expect("configured").set_keys(keys, Time(0));
        tokens
    }

    fn verifications(tokens: &Tokens, header: &serde_json::Value) -> (usize, &'static str) {
        let before = VERIFICATIONS.get();
        let AuthError::Invalid(why) = refused(tokens.verify(&forged(header), Time(0))) else {
            panic!("there are keys");
        };
        (VERIFICATIONS.get() - before, why)
    }

    /// SCENARIO: an issuer publishes 32 keys, and a client without any of them sends forged tokens.
    /// BUG: one without a `kid`, or against keys without one, was tried with all of them: 3.4 ms of a core.
    /// FIX: if more than four published keys could have signed a token, it has to name one, or none is tried.
    #[tokio::test]
    async fn a_forged_token_is_verified_with_few_keys_however_many_are_published() {
        let few = "its signature does not fit";
        let many = "too many published keys could have signed it (kid)";
        let (named, nameless) = (json!({"alg": "EdDSA", "kid": "7"}), json!({"alg": "EdDSA"}));
        let names = |count| (0..count).map(|number| Some(number.to_string()));
        assert_eq!(verifications(&published(names(32)), &named), (1, few));
        assert_eq!(verifications(&published(names(4)), &nameless), (4, few));
        assert_eq!(verifications(&published(names(32)), &nameless), (0, many));
        assert_eq!(verifications(&published(vec![None; 32]), &nameless), (0, many));
        assert_eq!(verifications(&published(vec![None; 32]), &named), (0, many));
        assert_eq!(verifications(&published(vec![Some("7".into()); 32]), &named), (0, many));
        // The keys that have the token's name are the only ones.
        let mixed = || names(32).chain(vec![None; 8]);
        assert_eq!(verifications(&published(mixed()), &named), (1, few));
        // Those without a name are what a token without one may mean, if there are any.
        let mixed = names(30).chain([None, None]);
        assert_eq!(verifications(&published(mixed), &nameless), (2, few));
    }
}
