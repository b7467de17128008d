//! Who may do it: finds the token of a request, verifies it, and compares what it allows with what is
//! asked for. Nothing of a token is kept, cached or shown.

mod claims;
mod jwks;

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Uri, header};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use subtle::{Choice, ConstantTimeEq};

use self::claims::Claims;
pub(crate) use self::claims::{Orgs, Scope};
use self::jwks::Jwks;
use super::query;
use crate::config::{AuthConfig, Secret, TOKEN_BYTES_MAX, TOKEN_SKEW, TokenKey};
use crate::ids::{OrgName, Time};

/// The keys, and what else a token has to say.
#[derive(Debug)]
pub(crate) struct Auth {
    open: bool,
    publish_keys: Vec<Secret>,
    keys: Vec<TokenKey>,
    jwks: Option<Arc<Jwks>>,
    /// One for each algorithm: the library takes several only of one family.
    validations: [Validation; 4],
}

/// What a good token allows.
#[derive(Debug)]
pub(crate) struct Grant {
    /// When a stream that was opened with it has to end; `None` for never.
    pub(crate) expires: Option<SystemTime>,
    pub(crate) orgs: Orgs,
}

/// Why a request is not allowed. Says nothing of what the token held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// There is no token.
    Missing,
    /// There is one that is not good.
    Invalid(&'static str),
    /// It is not for this org.
    Org,
    /// It is not for this.
    Scope(Scope),
}

/// Where a token was found.
enum Credential<'a> {
    Bearer(&'a str),
    Query(String),
    Cookie(&'a str),
}

/// The cookie and the query parameter that a token may be in.
const COOKIE: &str = "nudged_token";
const QUERY: &str = "token";

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

// ===== impl Auth =====

impl Auth {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        // An application around us may have brought the other one too, and then there is no default.
        _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        Self {
            open: config.is_open(),
            publish_keys: config.publish_keys.clone(),
            keys: config.keys.clone(),
            jwks: config.jwks.clone().map(|jwks| Arc::new(Jwks::new(jwks))),
            validations: ALGORITHMS.map(|algorithm| validation(algorithm, config)),
        }
    }

    /// Fetches published keys before the first token names one. Inside a runtime.
    pub(crate) fn prefetch(&self, now: Time) {
        if let Some(jwks) = &self.jwks {
            jwks.fetch(now);
        }
    }

    /// What has to be waited for before [`Self::authorize`] can tell: the token's key may have been
    /// published since the keys were fetched.
    pub(crate) fn pending_keys(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        now: Time,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let jwks = self.jwks.as_ref()?;
        let credential = credential(headers, uri)?;
        let token = credential.text();
        if self.is_publish_key(&credential) {
            return None;
        }
        let header = header_of(token).ok()?;
        jwks.refresh(now);
        if jwks.knows(&header) || self.verify_with(token, &header, self.keys.iter()).is_ok() {
            return None;
        }
        let mut fetched = jwks.fetch(now)?;
        Some(async move { _ = fetched.changed().await })
    }

    /// Whether the request may do this, to this org; `None` where the body names the orgs.
    pub(crate) fn authorize(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        scope: Scope,
        org: Option<&OrgName>,
    ) -> Result<Grant, AuthError> {
        if self.open {
            return Ok(Grant::everyone());
        }
        let credential = credential(headers, uri).ok_or(AuthError::Missing)?;
        if self.is_publish_key(&credential) {
            return match scope {
                Scope::Publish => Ok(Grant::everyone()),
                Scope::Subscribe => Err(AuthError::Scope(scope)),
            };
        }
        let claims = self.verify(credential.text()).map_err(AuthError::Invalid)?;
        if !claims.allows(scope) {
            return Err(AuthError::Scope(scope));
        }
        let expires = Some(claims.expires());
        let orgs = claims.into_orgs();
        if org.is_some_and(|org| !orgs.allow(org)) {
            return Err(AuthError::Org);
        }
        Ok(Grant { expires, orgs })
    }

    fn verify(&self, token: &str) -> Result<Claims, &'static str> {
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

    /// Compared with every key to the end, so that the time tells nothing. Only as `Bearer`: what
    /// does not expire has no place in a URL.
    fn is_publish_key(&self, credential: &Credential<'_>) -> bool {
        let Credential::Bearer(text) = credential else { return false };
        let equal = |key: &Secret| key.as_bytes().ct_eq(text.as_bytes());
        self.publish_keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
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

/// The token of a request: the one that was put there on purpose before the one that a browser sends by
/// itself.
fn credential<'a>(headers: &'a HeaderMap, uri: &Uri) -> Option<Credential<'a>> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Credential::Bearer(token.trim()))
    });
    bearer
        .or_else(|| query(uri, QUERY).map(Credential::Query))
        .or_else(|| cookie(headers).map(Credential::Cookie))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| name.trim() == COOKIE).map(|(_, value)| value.trim())
}

/// Whether the URL holds a token, so that a page must not pass it on as its referrer.
pub(crate) fn is_in_url(uri: &Uri) -> bool {
    uri.query().is_some_and(|text| text.contains(QUERY)) && query(uri, QUERY).is_some()
}

// ===== impl Grant =====

impl Grant {
    /// What is allowed to everyone, for ever.
    pub(crate) fn everyone() -> Self {
        Self { expires: None, orgs: Orgs::All }
    }
}

// ===== impl TokenKey =====

impl TokenKey {
    /// A key is for one algorithm, whatever a token says; and of those with names, for the one named.
    fn fits(&self, header: &Header) -> bool {
        let named = self.id.as_ref().zip(header.kid.as_ref());
        self.algorithm == header.alg && named.is_none_or(|(ours, theirs)| ours == theirs)
    }
}

// ===== impl Credential =====

impl Credential<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Bearer(text) | Self::Cookie(text) => text,
            Self::Query(text) => text,
        }
    }
}

// ===== impl AuthError =====

impl AuthError {
    /// The value of `www-authenticate` (RFC 6750, 3).
    pub(crate) fn challenge(self) -> String {
        let realm = r#"Bearer realm="nudged""#;
        match self {
            Self::Missing => realm.into(),
            Self::Invalid(why) => {
                format!(r#"{realm}, error="invalid_token", error_description="{why}""#)
            }
            Self::Org => format!(r#"{realm}, error="insufficient_scope""#),
            Self::Scope(scope) => {
                format!(r#"{realm}, error="insufficient_scope", scope="{}""#, scope.name())
            }
        }
    }

    pub(crate) fn detail(self) -> String {
        match self {
            Self::Missing => "a token is needed: as authorization: Bearer, as the cookie \
                nudged_token, or as the query parameter token"
                .into(),
            Self::Invalid(why) => format!("the token is refused: {why}"),
            Self::Org => "the token is not for this organisation".into(),
            Self::Scope(scope) => format!("the token does not have the scope {}", scope.name()),
        }
    }
}
