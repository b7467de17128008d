//! The claims of a token: its orgs, its scopes, when it expires, and when the streams end that it has opened.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::Topics;
use crate::ids::OrgName;

/// A scope that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Subscribe,
    Publish,
    /// Any of both.
    Either,
    /// That of an exclusive stream, beside `subscribe`.
    Exclusive,
    /// What operators see of every org.
    Ops,
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
    /// Names and prefixes; see [`Topics`].
    #[serde(default)]
    topics: OneOrMany,
    /// Seconds since 1970. A valid token has it: the library requires it.
    exp: Option<f64>,
    /// When its streams end, in the same form; `exp` if there is none.
    #[serde(default, deserialize_with = "number")]
    until: Option<f64>,
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

/// The latest time that is represented: the end of the year 9999, in seconds since 1970.
const EXP_MAX: f64 = 253_402_300_799.0;

// ===== impl Scope =====

impl Scope {
    /// Its name, or the names of which any will do.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Either => "subscribe publish",
            Self::Exclusive => "exclusive",
            Self::Ops => "ops",
        }
    }

    /// As in `scope` of a challenge (RFC 6750, 3): what the request needs.
    pub(crate) fn challenge(self) -> &'static str {
        match self {
            Self::Exclusive => "subscribe exclusive",
            other => other.name(),
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

    /// When a stream that it opens has to end, be it before `exp` or after it.
    pub(super) fn stream_end(&self) -> SystemTime {
        let seconds = self.until.or(self.exp).unwrap_or_default().clamp(0.0, EXP_MAX);
        SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    /// Reads claims of which some stand elsewhere: the orgs at the pointer `org`, and nowhere else, the scopes at
    /// `scope`. The topics are where they always are.
    ///
    /// # Errors
    /// One of them is of another type.
    #[cfg(feature = "jwt")]
    pub(super) fn read(
        claims: &serde_json::Value,
        org: Option<&str>,
        scope: Option<&str>,
    ) -> serde_json::Result<Self> {
        let names = |pointer: &str| match claims.pointer(pointer) {
            Some(names) => OneOrMany::deserialize(names),
            None => Ok(OneOrMany::default()),
        };
        let time = |name: &str| claims.get(name).map(f64::deserialize).transpose();
        Ok(Self {
            org: names(org.unwrap_or("/org"))?,
            orgs: if org.is_some() { OneOrMany::default() } else { names("/orgs")? },
            scope: names(scope.unwrap_or("/scope"))?,
            topics: names("/topics")?,
            exp: time("exp")?,
            until: time("until")?,
        })
    }

    /// Takes the topics, so that there are none left. They need be named: a token without the claim is for none.
    pub(super) fn take_topics(&mut self) -> Topics {
        Topics::of(std::mem::take(&mut self.topics).into_vec())
    }

    pub(super) fn into_orgs(self) -> Orgs {
        if self.org.iter().chain(self.orgs.iter()).any(|name| name == EVERY) {
            return Orgs::All;
        }
        Orgs::Listed(self.org.into_vec().into_iter().chain(self.orgs.into_vec()).collect())
    }
}

/// A number; `null` is none.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(deserializer).map(Some)
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
        let both = claims(serde_json::json!({"scope": "subscribe exclusive"}));
        assert!(both.allows(Scope::Subscribe) && both.allows(Scope::Exclusive));
        let one = claims(serde_json::json!({"scope": "subscribe"}));
        assert!(!one.allows(Scope::Exclusive));
        assert!(claims(serde_json::json!({"scope": "subscribe ops"})).allows(Scope::Ops));
        for bad in ["ops:read", "Ops", "devops", "subscribe publish exclusive"] {
            assert!(!claims(serde_json::json!({"scope": bad})).allows(Scope::Ops), "{bad}");
        }
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
    fn topics_are_a_string_or_a_list_and_none_without_the_claim() {
        let none = Topics::Listed(vec![]);
        let listed = |names: &[&str]| Topics::Listed(names.iter().map(|n| (*n).into()).collect());
        for (json, expected) in [
            (serde_json::json!({}), none.clone()),
            (serde_json::json!({"topics": []}), none),
            (serde_json::json!({"topics": ""}), listed(&[""])),
            (serde_json::json!({"topics": "run-7"}), listed(&["run-7"])),
            (serde_json::json!({"topics": ["run-*", "a"]}), listed(&["run-*", "a"])),
            (serde_json::json!({"topics": "*"}), Topics::All),
            (serde_json::json!({"topics": ["a", "*"], "orgs": "*"}), Topics::All),
        ] {
            assert_eq!(claims(json.clone()).take_topics(), expected, "{json}");
            #[cfg(feature = "jwt")]
            assert_eq!(
                Claims::read(&json, Some("/a"), Some("/b")).expect("names").take_topics(),
                expected,
                "{json}"
            );
        }
        for topics in [serde_json::json!(null), 1.into(), serde_json::json!([1]), true.into()] {
            let json = serde_json::json!({ "topics": topics });
            assert!(serde_json::from_value::<Claims>(json.clone()).is_err(), "{json}");
            #[cfg(feature = "jwt")]
            assert!(Claims::read(&json, Some("/a"), None).is_err(), "{json}");
        }
    }

    #[test]
    fn any_expiry_has_a_representation() {
        for exp in [0.0, 1.5, 1e300, -1e300] {
            claims(serde_json::json!({ "exp": exp })).stream_end();
            claims(serde_json::json!({ "exp": 1, "until": exp })).stream_end();
        }
    }

    #[test]
    fn streams_end_at_until_or_else_at_exp() {
        for (json, end) in [
            (serde_json::json!({"exp": 60}), 60),
            (serde_json::json!({"exp": 60, "until": 3600}), 3600),
            (serde_json::json!({"exp": 60, "until": 30}), 30),
            (serde_json::json!({"exp": 60, "until": -1}), 0),
        ] {
            let ends = claims(json.clone()).stream_end();
            assert_eq!(ends, SystemTime::UNIX_EPOCH + Duration::from_secs(end), "{json}");
        }
        for until in [serde_json::json!(null), "1".into(), serde_json::json!([1]), true.into()] {
            let json = serde_json::json!({"exp": 60, "until": until});
            assert!(serde_json::from_value::<Claims>(json.clone()).is_err(), "{json}");
            #[cfg(feature = "jwt")]
            assert!(Claims::read(&json, Some("/a"), None).is_err(), "{json}");
        }
    }

    #[cfg(feature = "jwt")]
    #[test]
    fn claims_are_read_where_the_pointers_say() {
        let json = serde_json::json!({
            "https://example.com/org": "acme", "org": "other", "orgs": ["third"], "a": {"b.c": ["subscribe"]},
            "scope": "publish", "exp": 60, "until": 90,
        });
        let read = |org, scope| Claims::read(&json, org, scope).expect("names");
        let claims = read(Some("/https:~1~1example.com~1org"), Some("/a/b.c"));
        assert!(claims.allows(Scope::Subscribe) && !claims.allows(Scope::Publish));
        assert_eq!(claims.stream_end(), SystemTime::UNIX_EPOCH + Duration::from_secs(90));
        assert_eq!(claims.into_orgs(), Orgs::Listed(vec!["acme".into()]));
        let claims = read(None, Some("/nowhere"));
        assert!(!claims.allows(Scope::Publish));
        assert_eq!(claims.into_orgs(), Orgs::Listed(vec!["other".into(), "third".into()]));
        assert_eq!(read(Some("/nowhere"), None).into_orgs(), Orgs::Listed(vec![]));
        assert_eq!(read(Some("/orgs/0"), None).into_orgs(), Orgs::Listed(vec!["third".into()]));
        assert!(Claims::read(&json, Some("/a"), None).is_err(), "an object is no name");
        assert!(Claims::read(&json, Some("/exp"), None).is_err(), "a number is no name");
    }
}
