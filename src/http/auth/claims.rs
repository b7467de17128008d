//! The claims of a token: its orgs, its scopes, and when it expires.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::ids::OrgName;

/// A scope that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Subscribe,
    Publish,
    /// Any of them.
    Either,
}

/// The orgs that a token is valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Orgs {
    All,
    Listed(Vec<String>),
}

/// The claims that are read here. The library checks `exp`, `nbf`, `iss` and `aud`.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    org: OneOrMany,
    #[serde(default)]
    orgs: OneOrMany,
    #[serde(default)]
    scope: OneOrMany,
    /// Seconds since 1970. A valid token has it: the library requires it.
    exp: Option<f64>,
}

/// A string, or an array of strings.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Several(Vec<String>),
}

/// The name that stands for every org.
const EVERY: &str = "*";

/// The latest expiry that is represented: the end of the year 9999, in seconds since 1970.
const EXP_MAX: f64 = 253_402_300_799.0;

// ===== impl Scope =====

impl Scope {
    /// As in `scope` of a challenge (RFC 6750, 3).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Either => "subscribe publish",
        }
    }
}

// ===== impl Orgs =====

impl Orgs {
    pub(crate) fn allow(&self, org: &OrgName) -> bool {
        match self {
            Self::All => true,
            Self::Listed(orgs) => orgs.iter().any(|name| name == org.as_str()),
        }
    }
}

// ===== impl Claims =====

impl Claims {
    /// Whether the scope is in `scope`, a list separated by spaces (RFC 8693, 4.2) or an array.
    pub(super) fn allows(&self, scope: Scope) -> bool {
        let mut names = self.scope.iter().flat_map(str::split_ascii_whitespace);
        names.any(|name| scope.name().split(' ').any(|allowed| name == allowed))
    }

    pub(super) fn expires(&self) -> SystemTime {
        let seconds = self.exp.unwrap_or_default().clamp(0.0, EXP_MAX);
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    pub(super) fn into_orgs(self) -> Orgs {
        if self.org.iter().chain(self.orgs.iter()).any(|name| name == EVERY) {
            return Orgs::All;
        }
        Orgs::Listed(self.org.into_vec().into_iter().chain(self.orgs.into_vec()).collect())
    }
}

// ===== impl OneOrMany =====

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
        .iter()
        .map(String::as_str)
    }

    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Several(several) => several,
        }
    }
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: serde_json::Value) -> Claims {
        serde_json::from_value(json).expect("claims")
    }

    #[test]
    fn orgs_are_read_from_both_claims_as_string_or_list() {
        let acme: OrgName = "acme".parse().expect("a name");
        for good in [
            serde_json::json!({"org": "acme"}),
            serde_json::json!({"orgs": ["other", "acme"]}),
            serde_json::json!({"orgs": "*"}),
            serde_json::json!({"org": "*"}),
            serde_json::json!({"orgs": ["*"]}),
            serde_json::json!({"org": "other", "orgs": ["acme"]}),
        ] {
            assert!(claims(good.clone()).into_orgs().allow(&acme), "{good}");
        }
        for bad in [
            serde_json::json!({}),
            serde_json::json!({"org": "ACME"}),
            serde_json::json!({"org": "acme "}),
            serde_json::json!({"org": "acme*"}),
            serde_json::json!({"org": "other acme"}),
            serde_json::json!({"orgs": []}),
        ] {
            assert!(!claims(bad.clone()).into_orgs().allow(&acme), "{bad}");
        }
    }

    #[test]
    fn scopes_are_whole_words() {
        for good in ["subscribe", "publish subscribe", "a subscribe b"] {
            assert!(claims(serde_json::json!({"scope": good})).allows(Scope::Subscribe), "{good}");
        }
        assert!(claims(serde_json::json!({"scope": ["publish"]})).allows(Scope::Publish));
        for either in ["subscribe", "publish", "a publish"] {
            assert!(claims(serde_json::json!({"scope": either})).allows(Scope::Either), "{either}");
        }
        assert!(!claims(serde_json::json!({"scope": "a b"})).allows(Scope::Either));
        for bad in ["", "Subscribe", "subscribe,publish", "unsubscribe", "subscribe:all"] {
            assert!(!claims(serde_json::json!({"scope": bad})).allows(Scope::Subscribe), "{bad}");
        }
        assert!(!claims(serde_json::json!({})).allows(Scope::Subscribe));
    }

    #[test]
    fn any_expiry_has_a_representation() {
        for exp in [0.0, 1.5, 1e300, -1e300] {
            claims(serde_json::json!({ "exp": exp })).expires();
        }
    }
}
