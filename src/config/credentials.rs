//! Where a request carries its token, and where a token has its claims.

use std::fmt;

/// The name of a cookie (RFC 6265, 4.1.1), at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(Box<str>);

/// The name of a query parameter, at most 64 letters, digits, `.`, `_`, `~` and `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterName(Box<str>);

/// Where in a token a claim stands: a JSON Pointer (RFC 6901) like `/org` or `/https:~1~1example.com~1org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPointer(Box<str>);

/// Why a text is not a [`CookieName`], a [`ParameterName`] or a [`ClaimPointer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidName {
    /// It is no name of a cookie, or too long.
    Cookie,
    /// It is no name that a parameter has unescaped, or too long.
    Parameter,
    /// The server has a parameter of this name for something else.
    Reserved,
    /// It is no JSON Pointer, or points to the whole token, or is too long.
    Pointer,
}

/// The most credentials of one request that are tried, in the order `authorization`, query, cookies. Equal ones count
/// once.
pub const CREDENTIALS_MAX: usize = 3;

/// The longest name of a cookie or a parameter, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The longest pointer to a claim, in bytes.
const POINTER_BYTES_MAX: usize = 256;

/// The query parameter with the position of a client, in any case: as most servers spell it, as polyfills do
/// (`lastEventId`), and as Mercure does (`Last-Event-ID`, `lastEventID`).
pub(crate) const POSITION_PARAMETERS: [&str; 3] = ["last_event_id", "lasteventid", "last-event-id"];

/// The query parameter with the form of keepalives, in any case.
pub(crate) const PING_PARAMETER: &str = "ping";

/// The query parameter with the filter of a stream.
pub(crate) const KEYS_PARAMETER: &str = "keys";

/// The query parameter with where a topic's stream begins, and the one that makes it exclusive.
pub(crate) const SINCE_PARAMETER: &str = "since";
pub(crate) const EXCLUSIVE_PARAMETER: &str = "exclusive";

// ===== impl CookieName =====

impl CookieName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for CookieName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // A token (RFC 9110, 5.6.2).
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let is_valid = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_token);
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidName::Cookie) }
    }
}

impl Default for CookieName {
    fn default() -> Self {
        Self("nudged_token".into())
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// ===== impl ParameterName =====

impl ParameterName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ParameterName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if !(1..=NAME_BYTES_MAX).contains(&text.len()) || !text.bytes().all(is_unreserved) {
            return Err(InvalidName::Parameter);
        }
        let others = [&PING_PARAMETER, &KEYS_PARAMETER, &SINCE_PARAMETER, &EXCLUSIVE_PARAMETER];
        let mut reserved = POSITION_PARAMETERS.iter().chain(others);
        if reserved.any(|name| name.eq_ignore_ascii_case(text)) {
            return Err(InvalidName::Reserved);
        }
        Ok(Self(text.into()))
    }
}

impl Default for ParameterName {
    fn default() -> Self {
        Self("token".into())
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// ===== impl ClaimPointer =====

impl ClaimPointer {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ClaimPointer {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let escapes = text.split('~').skip(1);
        let is_valid = text.starts_with('/')
            && text.len() <= POINTER_BYTES_MAX
            && escapes.into_iter().all(|rest| rest.starts_with(['0', '1']));
        if is_valid { Ok(Self(text.into())) } else { Err(InvalidName::Pointer) }
    }
}

// ===== impl InvalidName =====

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cookie => {
                "the name of a cookie has 1 to 64 letters, digits and !#$%&'*+-.^_`|~ (RFC 6265)"
            }
            Self::Parameter => {
                "the name of a query parameter has 1 to 64 letters, digits, dots, dashes, underscores and tildes"
            }
            Self::Reserved => "the query parameter of this name has another meaning",
            Self::Pointer => {
                "expected a JSON Pointer (RFC 6901): it begins with a slash, and ~1 stands for a slash in a name, \
                 ~0 for a tilde, like /org or /https:~1~1example.com~1org"
            }
        })
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_syntax_of_their_place() {
        for good in ["nudged_token", "__Host-session", "a", "!"] {
            assert!(good.parse::<CookieName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a=b", "a;b", "a,b", "\"a\"", "é", &"a".repeat(65)] {
            assert_eq!(bad.parse::<CookieName>(), Err(InvalidName::Cookie), "{bad}");
        }
        for good in ["token", "access_token", "t.1-~"] {
            assert!(good.parse::<ParameterName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a=b", "a&b", "%74oken", "é", "a+b", "a[]", &"a".repeat(65)] {
            assert_eq!(bad.parse::<ParameterName>(), Err(InvalidName::Parameter), "{bad}");
        }
        for reserved in
            ["last_event_id", "lastEventId", "Last-Event-ID", "ping", "keys", "since", "Exclusive"]
        {
            assert_eq!(reserved.parse::<ParameterName>(), Err(InvalidName::Reserved), "{reserved}");
        }
    }

    #[test]
    fn a_claim_is_named_by_a_json_pointer() {
        for good in ["/org", "/a/0/b", "/https:~1~1example.com~1org", "/a~0b", "/", "/a.b c"] {
            assert!(good.parse::<ClaimPointer>().is_ok(), "{good}");
        }
        for bad in ["", "org", "#/org", "/a~", "/a~2", "/~~1", &format!("/{}", "a".repeat(256))] {
            assert_eq!(bad.parse::<ClaimPointer>(), Err(InvalidName::Pointer), "{bad}");
        }
    }
}
