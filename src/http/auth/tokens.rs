//! Verifies tokens against the configured and the published keys.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode_header};
use tokio::sync::watch;

use super::claims::Claims;
use super::jwks::Jwks;
use super::layout::Layout;
use crate::config::{AuthConfig, TOKEN_BYTES_MAX, TOKEN_KEYS_MAX, TOKEN_SKEW, TokenKey};
use crate::time::Time;

/// The keys, and what they are to check of a token beside its signature.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: Vec<TokenKey>,
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
    /// Changes when the fetch has ended, successfully or not.
    fetched: watch::Receiver<()>,
}

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
            keys: config.keys.clone(),
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
    /// Why it is invalid.
    pub(super) fn verify(&self, token: &str, now: Time) -> Result<Verification, &'static str> {
        let header = decode_limited(token)?;
        if let Some(verified) = self.verify_with(&self.keys, token, &header) {
            return verified.map(Verification::Valid);
        }
        let Some(jwks) = &self.jwks else {
            return Err(self.unverified(&[], &header));
        };
        jwks.refresh(now);
        if !jwks.knows(&header)
            && let Some(fetched) = jwks.fetch(now)
        {
            let pending = PendingToken { token: token.to_owned(), header, fetched };
            return Ok(Verification::WaitForKeys(Box::new(pending)));
        }
        // The keys are read last, so a fetch that has ended since `knows` counts.
        self.verify_published(token, &header, &jwks.keys()).map(Verification::Valid)
    }

    /// Verifies a token when the fetch that it waits for has ended.
    ///
    /// # Errors
    /// Why it is invalid.
    pub(super) async fn verify_pending(
        &self,
        pending: Box<PendingToken>,
    ) -> Result<Claims, &'static str> {
        let PendingToken { token, header, mut fetched } = *pending;
        _ = fetched.changed().await;
        let published = self.jwks.as_ref().map(|jwks| jwks.keys()).unwrap_or_default();
        self.verify_published(&token, &header, &published)
    }

    /// Verifies a token that no configured key has signed.
    fn verify_published(
        &self,
        token: &str,
        header: &Header,
        published: &[TokenKey],
    ) -> Result<Claims, &'static str> {
        let same = |key: &&TokenKey| key.fits(header) && key.id == header.kid;
        let is_named = published.iter().any(|key| same(&key));
        let keys = || published.iter().filter(|key| !is_named || same(key));
        if keys().filter(|key| key.fits(header)).count() > TOKEN_KEYS_MAX {
            return Err("too many published keys could have signed it (kid)");
        }
        let verified = self.verify_with(keys(), token, header);
        verified.unwrap_or_else(|| Err(self.unverified(published, header)))
    }

    /// Why a token is invalid that none of the keys has signed.
    fn unverified(&self, published: &[TokenKey], header: &Header) -> &'static str {
        if self.keys.iter().chain(published).any(|key| key.fits(header)) {
            "its signature does not fit"
        } else {
            "no key is known that it could be signed with"
        }
    }

    /// The claims, or what is wrong with them; `None` if none of the keys signed the token.
    fn verify_with<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k TokenKey>,
        token: &str,
        header: &Header,
    ) -> Option<Result<Claims, &'static str>> {
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
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::json;

    use super::*;
    use crate::config::JwksConfig;

    const OURS: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn sign(secret: &str, exp: u64) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::default(), &json!({ "exp": exp }), &key).expect("a token")
    }

    /// The published set cannot be fetched: its address has no listener.
    #[tokio::test]
    async fn only_a_token_that_no_known_key_signed_waits_for_published_keys() {
        let jwks = JwksConfig::new("http://127.0.0.1:1/keys".parse().expect("a URL"));
        let tokens = Tokens::new(&AuthConfig {
            keys: vec![TokenKey::from_secret(OURS).expect("32 bytes")],
            jwks: Some(jwks),
            ..AuthConfig::default()
        });
        let verify = |token: &str| tokens.verify(token, Time(0));
        assert!(matches!(verify(&sign(OURS, 1 << 40)), Ok(Verification::Valid(_))));
        assert_eq!(verify(&sign(OURS, 1)).err(), Some("it has expired"));
        assert!(verify("no token").is_err());
        let before = VERIFICATIONS.get();
        let Ok(Verification::WaitForKeys(pending)) = verify(&sign(OTHER, 1 << 40)) else {
            panic!("nothing is fetched");
        };
        let refused = tokens.verify_pending(pending).await;
        assert_eq!(refused.err(), Some("its signature does not fit"));
        assert_eq!(VERIFICATIONS.get() - before, 1, "again after the fetch");
        let refused = verify(&sign(OTHER, 1 << 40));
        assert_eq!(refused.err(), Some("its signature does not fit"), "a fetch for each token");
        assert_eq!(VERIFICATIONS.get() - before, 2, "twice with the same key");
    }
    /// A token that no key has signed: its signature is of zeros.
    fn forged(header: &serde_json::Value) -> String {
        let key = EncodingKey::from_secret(OTHER.as_bytes());
        let encode = |json| encode(&Header::default(), json, &key).expect("a token");
        let [header, claims] = [encode(header), encode(&json!({ "exp": 1_u64 << 40 }))];
        let payload = |token: &str| token.split('.').nth(1).expect("of three").to_owned();
        format!("{}.{}.{}", payload(&header), payload(&claims), "A".repeat(86))
    }

    /// Tokens with a published set of as many keys of one algorithm, with these names.
    fn published(names: impl IntoIterator<Item = Option<String>>) -> Tokens {
        const ED: &str =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = TokenKey::from_jwk(&serde_json::from_str(ED).expect("a JWK")).expect("a key");
        let keys: Vec<_> = names.into_iter().map(|id| TokenKey { id, ..key.clone() }).collect();
        let jwks = JwksConfig::new("http://127.0.0.1:1/keys".parse().expect("a URL"));
        let tokens = Tokens::new(&AuthConfig { jwks: Some(jwks), ..AuthConfig::default() });
        tokens.publish(keys);
        tokens
    }

    fn verifications(tokens: &Tokens, header: &serde_json::Value) -> (usize, &'static str) {
        let before = VERIFICATIONS.get();
        let refused = tokens.verify(&forged(header), Time(0)).err().expect("it is forged");
        (VERIFICATIONS.get() - before, refused)
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
