//! Who may do it: finds the token of a request, verifies it, and compares what it allows with what is
//! asked for. Nothing of a token is kept, cached or shown.

mod claims;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(not(feature = "jwt"))]
#[path = "no_tokens.rs"]
mod tokens;
#[cfg(feature = "jwt")]
mod tokens;

use std::future::Future;
use std::time::SystemTime;

use http::{HeaderMap, Uri, header};
use subtle::{Choice, ConstantTimeEq};

pub(crate) use self::claims::{Orgs, Scope};
use self::tokens::Tokens;
use super::query;
use crate::config::{AuthConfig, Secret};
use crate::ids::{OrgName, Time};

/// The keys, and what else a token has to say.
#[derive(Debug)]
pub(crate) struct Auth {
    open: bool,
    publish_keys: Vec<Secret>,
    tokens: Tokens,
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

// ===== impl Auth =====

impl Auth {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        Self {
            open: config.is_open(),
            publish_keys: config.publish_keys.clone(),
            tokens: Tokens::new(config),
        }
    }

    /// Fetches published keys before the first token names one. Inside a runtime.
    pub(crate) fn prefetch(&self, now: Time) {
        self.tokens.prefetch(now);
    }

    /// What has to be waited for before [`Self::authorize`] can tell: the token's key may have been
    /// published since the keys were fetched.
    pub(crate) fn pending_keys(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        now: Time,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        if !self.tokens.are_published() {
            return None;
        }
        let credential = credential(headers, uri)?;
        if self.is_publish_key(&credential) {
            return None;
        }
        self.tokens.keys_for(credential.text(), now)
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
        let claims = self.tokens.verify(credential.text()).map_err(AuthError::Invalid)?;
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

    /// Compared with every key to the end, so that the time tells nothing. Only as `Bearer`: what
    /// does not expire has no place in a URL.
    fn is_publish_key(&self, credential: &Credential<'_>) -> bool {
        let Credential::Bearer(text) = credential else { return false };
        let equal = |key: &Secret| key.as_bytes().ct_eq(text.as_bytes());
        self.publish_keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }
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
