//! The credentials of a request: every place where a token may be, in the order in which they are tried.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header};
use smallvec::SmallVec;

use crate::config::{AuthConfig, CREDENTIALS_MAX, CookieName, ParameterName};

/// The names of the cookie and of the query parameter that a token may be in.
#[derive(Debug)]
pub(super) struct Names {
    cookie: CookieName,
    parameter: ParameterName,
}

/// A token or a publish key, and where it was found. It is not empty.
pub(super) struct Credential<'a> {
    pub(super) place: Place,
    pub(super) text: Cow<'a, str>,
}

/// Where a credential was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Bearer,
    Query,
    Cookie,
}

// ===== impl Names =====

impl Names {
    pub(super) fn new(config: &AuthConfig) -> Self {
        Self { cookie: config.token_cookie.clone(), parameter: config.token_query.clone() }
    }

    /// The first credentials of a request, at most [`CREDENTIALS_MAX`], without those that repeat one. `authorization`
    /// and the query, which a page sets itself, precede the cookies, which a browser sends with every request.
    pub(super) fn credentials<'a>(
        &'a self,
        headers: &'a HeaderMap,
        uri: &'a Uri,
    ) -> SmallVec<[Credential<'a>; CREDENTIALS_MAX]> {
        let bearers = bearers(headers).map(|text| Credential::new(Place::Bearer, text.into()));
        let queries = self.parameters(uri).map(|text| Credential::new(Place::Query, text));
        let cookies = self.cookies(headers).map(|text| Credential::new(Place::Cookie, text.into()));
        let mut found = SmallVec::<[Credential<'a>; CREDENTIALS_MAX]>::new();
        for credential in bearers.chain(queries).chain(cookies) {
            let repeats = found.iter().any(|other| other.text == credential.text);
            if !repeats && !credential.text.is_empty() {
                found.push(credential);
                if found.len() == CREDENTIALS_MAX {
                    break;
                }
            }
        }
        found
    }

    /// The values of the query parameter (WHATWG URL, application/x-www-form-urlencoded), whose name may be written
    /// with escapes.
    pub(super) fn parameters<'a>(&'a self, uri: &'a Uri) -> impl Iterator<Item = Cow<'a, str>> {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        pairs.filter(|(name, _)| name == self.parameter.as_str()).map(|(_, value)| value)
    }

    /// The values of the cookie. Another cookie of the same line may have bytes that are no text.
    fn cookies<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        let lines = headers.get_all(header::COOKIE).iter();
        let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        pairs.filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..at], &pair[at + 1..]);
            let is_ours = name.trim_ascii() == self.cookie.as_str().as_bytes();
            is_ours.then(|| str::from_utf8(value.trim_ascii()).ok()).flatten()
        })
    }
}

/// The credentials of the scheme `Bearer`.
fn bearers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::AUTHORIZATION).iter();
    values.filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    })
}

// ===== impl Credential =====

impl<'a> Credential<'a> {
    fn new(place: Place, text: Cow<'a, str>) -> Self {
        Self { place, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(uri: &str, fields: &[(&'static str, &[u8])]) -> Vec<(Place, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, http::HeaderValue::from_bytes(value).expect("a value"));
        }
        let names = Names::new(&AuthConfig::default());
        let uri = uri.parse().expect("a URI");
        let found = names.credentials(&headers, &uri);
        found.into_iter().map(|one| (one.place, one.text.into_owned())).collect()
    }

    #[test]
    fn credentials_are_found_in_their_order() {
        let fields: [(_, &[u8]); 3] = [
            ("cookie", b"nudged_token=c"),
            ("authorization", b"Basic x"),
            ("authorization", b"bEARER  b "),
        ];
        let expected = [(Place::Bearer, "b"), (Place::Query, "q"), (Place::Cookie, "c")];
        let expected = expected.map(|(place, text)| (place, text.to_owned()));
        assert_eq!(found("/?token=q", &fields), expected);
    }

    #[test]
    fn at_most_three_different_ones_are_tried() {
        let cookies: [(_, &[u8]); 2] = [
            ("cookie", b"nudged_token=a; nudged_token=; nudged_token=a"),
            ("cookie", b"nudged_token=b;nudged_token=d"),
        ];
        let texts =
            |uri, fields| found(uri, fields).into_iter().map(|(_, text)| text).collect::<String>();
        assert_eq!(texts("/", &cookies), "abd");
        assert_eq!(texts("/?token=a&token=&token=c", &cookies), "acb");
        assert_eq!(texts("/?token=1&token=2&token=3&token=4", &cookies), "123");
        assert_eq!(texts("/?token=&nudged_token=x", &[("cookie", b"nudged_token=; token=x")]), "");
    }

    /// SCENARIO: another cookie of the site has letters beyond ASCII.
    /// BUG: the whole field was skipped, and the token with it.
    /// FIX: cookies are read one by one.
    #[test]
    fn another_cookie_does_not_hide_the_token() {
        let fields: [(_, &[u8]); 1] = [("cookie", b"name=Zo\xc3\xab; nudged_token=t; raw=\xff; a")];
        assert_eq!(found("/", &fields), [(Place::Cookie, "t".to_owned())]);
    }
}
