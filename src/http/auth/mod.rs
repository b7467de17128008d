//! Authorises requests: finds the token, verifies it, and compares its claims with the permission that the
//! request needs. No token is kept, cached or logged.

mod claims;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(not(feature = "jwt"))]
#[path = "no_tokens.rs"]
mod tokens;
#[cfg(feature = "jwt")]
mod tokens;

use std::time::SystemTime;

use http::{HeaderMap, Uri, header};
use subtle::{Choice, ConstantTimeEq};

use self::claims::Claims;
pub(crate) use self::claims::{Orgs, Scope};
#[cfg(all(test, feature = "jwt"))]
pub(crate) use self::tokens::VERIFICATIONS;
use self::tokens::{PendingToken, Tokens, Verification};
use super::query;
use crate::config::{AuthConfig, Secret};
use crate::ids::OrgName;
use crate::time::Time;

/// The keys that requests are authorised with.
#[derive(Debug)]
pub(crate) struct Auth {
    open: bool,
    publish_keys: Vec<Secret>,
    tokens: Tokens,
}

/// What a request needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permission<'a> {
    pub(crate) scope: Scope,
    /// `None` if the body names the orgs.
    pub(crate) org: Option<&'a OrgName>,
}

/// The outcome of a request that is not refused.
pub(crate) enum Authorization {
    Granted(Grant),
    /// The key of its token may be among those that are being fetched.
    WaitForKeys(PendingAuthorization),
}

/// A request whose token waits for keys.
pub(crate) struct PendingAuthorization {
    token: Box<PendingToken>,
    scope: Scope,
    org: Option<OrgName>,
}

/// What a valid token allows.
#[derive(Debug)]
pub(crate) struct Grant {
    /// When a stream that was opened with it has to end; `None` for never.
    pub(crate) expires: Option<SystemTime>,
    pub(crate) orgs: Orgs,
}

/// Why a request is not allowed. Contains nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// There is no token.
    Missing,
    /// The token is invalid, for this reason.
    Invalid(&'static str),
    /// The token does not include the org.
    Org,
    /// The token does not have the scope.
    Scope(Scope),
    /// None of the keys that there are has signed the token, and the published ones were never fetched: it may be good.
    NoKeysYet,
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

// ===== impl Auth =====

impl Auth {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        Self {
            open: config.is_open(),
            publish_keys: config.publish_keys.clone(),
            tokens: Tokens::new(config),
        }
    }

    /// Fetches the published keys before the first token needs them. Inside a runtime.
    pub(crate) fn prefetch(&self, now: Time) {
        self.tokens.prefetch(now);
    }

    /// Whether there are keys for every kind of token that is configured. If not, has them fetched. Inside a runtime.
    pub(crate) fn is_ready(&self, now: Time) -> bool {
        self.tokens.is_ready(now)
    }

    /// Takes the keys of this configuration in place of those that there are, but for the published ones.
    pub(crate) fn replace_keys(&self, config: &AuthConfig) {
        self.tokens.replace_keys(config);
    }

    /// Fetches the published keys again, however new they are. Inside a runtime.
    pub(crate) fn refetch(&self, now: Time) {
        self.tokens.refetch(now);
    }

    /// Has no request wait for keys any more: each is authorised with those that there are.
    pub(crate) fn close(&self) {
        self.tokens.close();
    }

    /// Authorises a request, or finds that it has to wait until keys are fetched. Inside a runtime.
    ///
    /// # Errors
    /// Why it is not allowed.
    pub(crate) fn authorize(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        permission: Permission<'_>,
        now: Time,
    ) -> Result<Authorization, AuthError> {
        if self.open {
            return Ok(Authorization::Granted(Grant::everyone()));
        }
        let credential = credential(headers, uri).ok_or(AuthError::Missing)?;
        if self.is_publish_key(&credential) {
            return match permission.scope {
                Scope::Publish | Scope::Either => Ok(Authorization::Granted(Grant::everyone())),
                Scope::Subscribe => Err(AuthError::Scope(Scope::Subscribe)),
            };
        }
        match self.tokens.verify(credential.text(), now)? {
            Verification::Valid(claims) => permission.grant(claims).map(Authorization::Granted),
            Verification::WaitForKeys(token) => {
                let Permission { scope, org } = permission;
                let pending = PendingAuthorization { token, scope, org: org.cloned() };
                Ok(Authorization::WaitForKeys(pending))
            }
        }
    }

    /// Authorises a request when the keys that it waits for are fetched.
    ///
    /// # Errors
    /// Why it is not allowed.
    pub(crate) async fn authorize_pending(
        &self,
        pending: PendingAuthorization,
    ) -> Result<Grant, AuthError> {
        let PendingAuthorization { token, scope, org } = pending;
        let claims = self.tokens.verify_pending(token).await?;
        Permission { scope, org: org.as_ref() }.grant(claims)
    }

    /// Compares with every key to the end, so that the time does not depend on the keys. A publish key
    /// does not expire, so it is accepted in `authorization` only and never in a URL.
    fn is_publish_key(&self, credential: &Credential<'_>) -> bool {
        let Credential::Bearer(text) = credential else { return false };
        let equal = |key: &Secret| key.as_bytes().ct_eq(text.as_bytes());
        self.publish_keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }
}

/// The token of a request. `authorization` and the query, which a page sets itself, precede the cookie,
/// which a browser sends with every request.
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

/// Whether the URL contains a token, so that a page must not send it as its referrer.
pub(crate) fn is_in_url(uri: &Uri) -> bool {
    uri.query().is_some_and(|text| text.contains(QUERY)) && query(uri, QUERY).is_some()
}

// ===== impl Permission =====

impl Permission<'_> {
    fn grant(self, claims: Claims) -> Result<Grant, AuthError> {
        let Self { scope, org } = self;
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
}

// ===== impl Grant =====

impl Grant {
    /// The grant of a request that needs no token: every org, for ever.
    pub(crate) fn everyone() -> Self {
        Self { expires: None, orgs: Orgs::All }
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
    /// Whether the same request may succeed soon.
    pub(crate) fn is_temporary(self) -> bool {
        matches!(self, Self::NoKeysYet)
    }

    /// The value of `www-authenticate` (RFC 6750, 3); `None` if another token would not help.
    pub(crate) fn challenge(self) -> Option<String> {
        let realm = r#"Bearer realm="nudged""#;
        Some(match self {
            Self::NoKeysYet => return None,
            Self::Missing => realm.into(),
            Self::Invalid(why) => {
                format!(r#"{realm}, error="invalid_token", error_description="{why}""#)
            }
            Self::Org => format!(r#"{realm}, error="insufficient_scope""#),
            Self::Scope(scope) => {
                format!(r#"{realm}, error="insufficient_scope", scope="{}""#, scope.name())
            }
        })
    }

    pub(crate) fn detail(self) -> String {
        match self {
            Self::Missing => "a token is needed: as authorization: Bearer, as the cookie \
                nudged_token, or as the query parameter token"
                .into(),
            Self::Invalid(why) => format!("the token is refused: {why}"),
            Self::NoKeysYet => "there are no keys yet to verify tokens with: the JWK set was not \
                fetched; come back soon"
                .into(),
            Self::Org => "the token is not for this organisation".into(),
            Self::Scope(Scope::Either) => {
                "the token has neither the scope subscribe nor publish".into()
            }
            Self::Scope(scope) => format!("the token does not have the scope {}", scope.name()),
        }
    }
}
