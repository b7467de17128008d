//! Verifies tokens.

use std::future::Future;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};

use super::claims::Claims;
use super::jwks::Jwks;
use crate::config::{AuthConfig, TOKEN_BYTES_MAX, TOKEN_SKEW, TokenKey};
use crate::ids::Time;

/// The keys, and what else a token has to say.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: Vec<TokenKey>,
    jwks: Option<Arc<Jwks>>,
    /// One for each algorithm: the library takes several only of one family.
    validations: [Validation; 4],
}

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

// ===== impl Tokens =====

impl Tokens {
    pub(super) fn new(config: &AuthConfig) -> Self {
        // An application around us may have brought the other one too, and then there is no default.
        _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Self {
            keys: config.keys.clone(),
            jwks: config.jwks.clone().map(|jwks| Arc::new(Jwks::new(jwks))),
            validations: ALGORITHMS.map(|algorithm| validation(algorithm, config)),
        }
    }

    /// Fetches published keys before the first token names one. Inside a runtime.
    pub(super) fn prefetch(&self, now: Time) {
        if let Some(jwks) = &self.jwks {
            jwks.fetch(now);
        }
    }

    /// Whether there are keys that may have to be fetched.
    pub(super) fn are_published(&self) -> bool {
        self.jwks.is_some()
    }

    /// What has to be waited for before [`Self::verify`] can tell: the token's key may have been
    /// published since the keys were fetched.
    pub(super) fn keys_for(
        &self,
        token: &str,
        now: Time,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let jwks = self.jwks.as_ref()?;
        let header = header_of(token).ok()?;
        jwks.refresh(now);
        if jwks.knows(&header) || self.verify_with(token, &header, self.keys.iter()).is_ok() {
            return None;
        }
        let mut fetched = jwks.fetch(now)?;
        Some(async move { _ = fetched.changed().await })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        let header = header_of(token)?;
        let published = self.jwks.as_ref().map(|jwks| jwks.keys());
        self.verify_with(
            token,
            &header,
            self.keys.iter().chain(published.iter().flat_map(|p| p.iter())),
        )
    }

    fn verify_with<'k>(
        &self,
        token: &str,
        header: &Header,
        keys: impl Iterator<Item = &'k TokenKey>,
    ) -> Result<Claims, &'static str> {
        let mut why = "no key is known that it could be signed with";
        for key in keys.filter(|key| key.fits(header)) {
            let mut validations = self.validations.iter();
            let validation = validations.find(|v| v.algorithms.contains(&key.algorithm));
            match decode::<Claims>(token, &key.key, validation.expect("keys are of the four")) {
                Ok(verified) => return Ok(verified.claims),
                Err(error) => match of_the_claims(error.kind()) {
                    Some(why) => return Err(why),
                    // It may be signed with the next one.
                    None => why = "its signature does not fit",
                },
            }
        }
        Err(why)
    }
}

/// What the library checks of the claims, after the signature. `iss` and `aud` are required where they
/// are compared, since it takes a token without them for one that has nothing wrong in them.
fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp"];
    validation.validate_nbf = true;
    // The skew is for `nbf` alone: a stream ends at its `exp`, so none may begin after it.
    validation.leeway = TOKEN_SKEW.as_secs();
    // "On or after" its time a token is not good (RFC 7519, 4.1.4); the library means only after.
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

/// Reads the header of a token, which says nothing that can be trusted.
fn header_of(token: &str) -> Result<Header, &'static str> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err("it is longer than 8192 bytes");
    }
    let header = decode_header(token)
        .map_err(|_| "it is not a JWT signed by an algorithm that is allowed")?;
    // What we have to understand and do not is a reason to refuse (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err("it has critical extensions, of which none is known");
    }
    Ok(header)
}

/// What is wrong with the claims of a token whose signature is good.
fn of_the_claims(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        // What the library answers to a time before its own subtraction, which is long past.
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
    /// A key is for one algorithm, whatever a token says; and of those with names, for the one named.
    pub(super) fn fits(&self, header: &Header) -> bool {
        let named = self.id.as_ref().zip(header.kid.as_ref());
        self.algorithm == header.alg && named.is_none_or(|(ours, theirs)| ours == theirs)
    }
}
