//! Authorises requests: finds their tokens, verifies them, and compares their claims with the permission that the
//! request needs. The first that grants it counts. No token is kept, cached or logged.

#[cfg(feature = "jwt")]
mod checks;
mod claims;
mod credential;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(feature = "jwt")]
mod layout;
#[cfg(not(feature = "jwt"))]
#[path = "no_tokens.rs"]
mod tokens;
#[cfg(feature = "jwt")]
mod tokens;
mod topics;

use std::time::SystemTime;

use http::{HeaderMap, Uri};
use subtle::{Choice, ConstantTimeEq};

use self::claims::Claims;
pub(crate) use self::claims::{Orgs, Scope};
use self::credential::{Credential, Names, Place};
#[cfg(all(test, feature = "jwt"))]
pub(crate) use self::tokens::VERIFICATIONS;
use self::tokens::{PendingToken, Tokens, Verification};
pub(crate) use self::topics::Topics;
use crate::config::{AuthConfig, Secret};
use crate::ids::{OrgName, Topic, TopicName};
use crate::time::Time;

/// The keys that requests are authorised with.
#[derive(Debug)]
pub(crate) struct Auth {
    open: bool,
    publish_keys: Vec<Secret>,
    names: Names,
    tokens: Tokens,
}

/// The parts of a request that it is authorised by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presented<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) uri: &'a Uri,
    /// A page of another origin requests a change, or what only operators see: neither the cookies of its browser nor that
    /// it reaches an open server show that the user wants it.
    pub(crate) is_foreign: bool,
}

/// What a request needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permission<'a> {
    pub(crate) scope: Scope,
    /// `None` if the body names the orgs.
    pub(crate) org: Option<&'a OrgName>,
    /// `None` if it is about no topic, or the body names them.
    pub(crate) topic: Option<&'a TopicName>,
    /// It needs the scope `exclusive` as well.
    pub(crate) is_exclusive: bool,
}

/// The outcome of a request that is not refused.
pub(crate) enum Authorization {
    Granted(Grant),
    /// The key of one of its tokens may be among those that are being fetched.
    WaitForKeys(PendingAuthorization),
}

/// A request of which no token grants what it needs, and at least one waits for keys.
pub(crate) struct PendingAuthorization {
    /// What became of each credential, in their order.
    tried: Vec<Result<Box<PendingToken>, AuthError>>,
    scope: Scope,
    org: Option<OrgName>,
    topic: Option<TopicName>,
    is_exclusive: bool,
}

/// What one credential is found to be, unless it is refused.
enum Judgement {
    Granted(Grant),
    WaitForKeys(Box<PendingToken>),
}

/// What a valid token allows.
#[derive(Debug)]
pub(crate) struct Grant {
    /// When a stream that was opened with it has to end; `None` for never.
    pub(crate) expires: Option<SystemTime>,
    pub(crate) orgs: Orgs,
    pub(crate) topics: Topics,
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
    /// The token does not include the topic.
    Topic,
    /// The token does not have the scope.
    Scope(Scope),
    /// A page of another origin would change something, without a credential that it must know itself.
    Origin,
    /// A page of another origin asks for what only operators see.
    ForeignOps,
    /// The token for what only operators see is elsewhere than in `authorization`.
    Place,
    /// The token is not for every org.
    EveryOrg,
    /// None of the keys that there are has signed the token, and the published ones were never fetched: it may be good.
    NoKeysYet,
}

// ===== impl Auth =====

impl Auth {
    pub(crate) fn new(config: &AuthConfig) -> Self {
        Self {
            open: config.is_open(),
            publish_keys: config.publish_keys.clone(),
            names: Names::new(config),
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

    /// Authorises a request by the first of its credentials that grants what it needs, or finds that it has to wait
    /// until keys are fetched. Each credential is verified once. Inside a runtime.
    ///
    /// # Errors
    /// Why the first of them does not, or that one of them cannot be judged yet.
    pub(crate) fn authorize(
        &self,
        request: Presented<'_>,
        permission: Permission<'_>,
        now: Time,
    ) -> Result<Authorization, AuthError> {
        let is_ops = permission.scope == Scope::Ops;
        if is_ops && request.is_foreign {
            return Err(AuthError::ForeignOps);
        }
        if self.open {
            return match request.is_foreign {
                true => Err(AuthError::Origin),
                false => Ok(Authorization::Granted(Grant::everyone())),
            };
        }
        let mut tried = Vec::new();
        for credential in self.names.credentials(request.headers, request.uri) {
            if credential.place == Place::Cookie && request.is_foreign {
                tried.push(Err(AuthError::Origin));
                continue;
            }
            // URLs are logged, and cookies are sent with what the user did not ask for.
            if is_ops && credential.place != Place::Bearer {
                tried.push(Err(AuthError::Place));
                continue;
            }
            match self.judge(&credential, permission, now) {
                Ok(Judgement::Granted(grant)) => return Ok(Authorization::Granted(grant)),
                Ok(Judgement::WaitForKeys(token)) => tried.push(Ok(token)),
                Err(why) => tried.push(Err(why)),
            }
        }
        if tried.iter().any(Result::is_ok) {
            let Permission { scope, org, topic, is_exclusive } = permission;
            let (org, topic) = (org.cloned(), topic.cloned());
            let pending = PendingAuthorization { tried, scope, org, topic, is_exclusive };
            return Ok(Authorization::WaitForKeys(pending));
        }
        let refused: Vec<_> = tried.into_iter().filter_map(Result::err).collect();
        Err(AuthError::of(&refused))
    }

    /// What one credential allows.
    fn judge(
        &self,
        credential: &Credential<'_>,
        permission: Permission<'_>,
        now: Time,
    ) -> Result<Judgement, AuthError> {
        if self.is_publish_key(credential) {
            return match permission.scope {
                Scope::Publish | Scope::Either => Ok(Judgement::Granted(Grant::everyone())),
                scope @ (Scope::Subscribe | Scope::Exclusive | Scope::Ops) => {
                    Err(AuthError::Scope(scope))
                }
            };
        }
        match self.tokens.verify(&credential.text, now)? {
            Verification::Valid(claims) => permission.grant(claims).map(Judgement::Granted),
            Verification::WaitForKeys(token) => Ok(Judgement::WaitForKeys(token)),
        }
    }

    /// Authorises a request when the keys that it waits for are fetched.
    ///
    /// # Errors
    /// Why the first of its credentials does not allow it, or that one of them cannot be judged yet.
    pub(crate) async fn authorize_pending(
        &self,
        pending: PendingAuthorization,
    ) -> Result<Grant, AuthError> {
        let PendingAuthorization { tried, scope, org, topic, is_exclusive } = pending;
        let (org, topic) = (org.as_ref(), topic.as_ref());
        let permission = Permission { scope, org, topic, is_exclusive };
        let mut refused = Vec::new();
        for outcome in tried {
            let granted = match outcome {
                Ok(token) => self
                    .tokens
                    .verify_pending(token)
                    .await
                    .and_then(|claims| permission.grant(claims)),
                Err(why) => Err(why),
            };
            match granted {
                Ok(grant) => return Ok(grant),
                Err(why) => refused.push(why),
            }
        }
        Err(AuthError::of(&refused))
    }

    /// Whether the URL contains a token, so that a page must not send it as its referrer.
    pub(crate) fn is_in_url(&self, uri: &Uri) -> bool {
        self.names.parameters(uri).next().is_some()
    }

    /// Compares with every key to the end, so that the time does not depend on the keys. A publish key
    /// does not expire, so it is accepted in `authorization` only and never in a URL.
    fn is_publish_key(&self, credential: &Credential<'_>) -> bool {
        if credential.place != Place::Bearer {
            return false;
        }
        let equal = |key: &Secret| key.as_bytes().ct_eq(credential.text.as_bytes());
        self.publish_keys.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }
}

// ===== impl Permission =====

impl<'a> Permission<'a> {
    /// That to do this with a topic.
    pub(crate) fn for_topic(scope: Scope, topic: &'a Topic) -> Self {
        let Topic { org, name } = topic;
        Self { scope, org: Some(org), topic: Some(name), is_exclusive: false }
    }

    fn grant(self, mut claims: Claims) -> Result<Grant, AuthError> {
        let Self { scope, org, topic, is_exclusive } = self;
        let exclusive = is_exclusive.then_some(Scope::Exclusive);
        let mut scopes = [scope].into_iter().chain(exclusive);
        if let Some(missing) = scopes.find(|scope| !claims.allows(*scope)) {
            return Err(AuthError::Scope(missing));
        }
        let (expires, topics) = (Some(claims.stream_end()), claims.take_topics());
        let orgs = claims.into_orgs();
        // A scope of this name may be one that a tenant gives to its own users.
        if scope == Scope::Ops && orgs != Orgs::All {
            return Err(AuthError::EveryOrg);
        }
        if org.is_some_and(|org| !orgs.allow(org)) {
            return Err(AuthError::Org);
        }
        if topic.is_some_and(|topic| !topics.allow(topic)) {
            return Err(AuthError::Topic);
        }
        Ok(Grant { expires, orgs, topics })
    }
}

// ===== impl Grant =====

impl Grant {
    /// The grant of a request that needs no token: every org and topic, for ever.
    pub(crate) fn everyone() -> Self {
        Self { expires: None, orgs: Orgs::All, topics: Topics::All }
    }
}

// ===== impl AuthError =====

impl AuthError {
    /// Why a request is refused whose credentials are refused for these reasons, in their order.
    fn of(refused: &[Self]) -> Self {
        let temporary = refused.iter().find(|why| why.is_temporary());
        temporary.or_else(|| refused.first()).copied().unwrap_or(Self::Missing)
    }

    /// Whether the same request may succeed soon.
    pub(crate) fn is_temporary(self) -> bool {
        matches!(self, Self::NoKeysYet)
    }

    /// The value of `www-authenticate` (RFC 6750, 3); `None` if another token would not help.
    pub(crate) fn challenge(self) -> Option<String> {
        let realm = r#"Bearer realm="nudged""#;
        Some(match self {
            Self::NoKeysYet => return None,
            Self::Missing | Self::Origin | Self::ForeignOps | Self::Place => realm.into(),
            Self::Invalid(why) => {
                format!(r#"{realm}, error="invalid_token", error_description="{why}""#)
            }
            Self::Org | Self::Topic | Self::EveryOrg => {
                format!(r#"{realm}, error="insufficient_scope""#)
            }
            Self::Scope(scope) => {
                format!(r#"{realm}, error="insufficient_scope", scope="{}""#, scope.challenge())
            }
        })
    }

    pub(crate) fn detail(self) -> String {
        match self {
            Self::Missing => {
                "a token is needed: as authorization: Bearer, or in the query parameter \
                or the cookie for it (token and nudged_token, unless --token-query and \
                --token-cookie say otherwise)"
                    .into()
            }
            Self::Invalid(why) => format!("the token is refused: {why}"),
            Self::NoKeysYet => "there are no keys yet to verify tokens with: the JWK set was not \
                fetched; come back soon"
                .into(),
            Self::Org => "the token is not for this organisation".into(),
            Self::Topic => r#"the token is not for this topic: its claim topics has to have the name, a prefix like "run-*", or "*""#
                .into(),
            Self::Scope(Scope::Either) => {
                "the token has neither the scope subscribe nor publish".into()
            }
            Self::Scope(Scope::Exclusive) => {
                "the token does not have the scope exclusive, which ?exclusive needs beside subscribe"
                    .into()
            }
            Self::Scope(scope) => format!("the token does not have the scope {}", scope.name()),
            Self::ForeignOps => {
                "a page of another origin may not have this, whatever --cors-origin says".into()
            }
            Self::Place => {
                "a token for this counts as authorization: Bearer only, and not in a query or a cookie"
                    .into()
            }
            Self::EveryOrg => {
                r#"the token is not for every organisation: beside the scope ops, this needs "org": "*""#
                    .into()
            }
            Self::Origin => {
                "a page of another origin may not change anything, and a cookie does not \
                authorise it; name its origin in --cors-origin, or, to a server with keys, send a \
                token as authorization: Bearer"
                    .into()
            }
        }
    }
}

#[cfg(all(test, feature = "jwt"))]
mod tests;
