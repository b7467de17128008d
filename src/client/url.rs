//! `http://` and `https://` URLs, split into what a connection and a request need.

use std::fmt;
use std::str::FromStr;

use http::uri::{InvalidUri, Uri};

/// `http[s]://host[:port][/path][?query]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpUrl {
    pub(crate) is_secure: bool,
    /// The value of the `host` field.
    pub(crate) authority: String,
    /// Host and port, always both.
    pub(crate) address: String,
    /// Path and query.
    pub(crate) path: String,
}

/// `http[s]://host[:port][/prefix]`: what stands before `/api/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(HttpUrl);

/// Why a text is not a URL that a client can use.
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// It is not a URL.
    Syntax(InvalidUri),
    /// It begins neither with `http://` nor with `https://`.
    Scheme,
    /// It has a user name.
    UserInfo,
    /// A base URL has a query or a fragment.
    Query,
}

// ===== impl HttpUrl =====

impl FromStr for HttpUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(InvalidUrl::Syntax)?;
        let (is_secure, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(InvalidUrl::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidUrl::Scheme)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        // What is no number is no port, and would be taken for a part of the name.
        let rest = &authority.as_str()[authority.host().len()..];
        if authority.port_u16().is_none() && !matches!(rest, "" | ":") {
            return Err(InvalidUrl::Scheme);
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self {
            is_secure,
            authority: authority.to_string(),
            address: format!("{}:{port}", authority.host()),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}

impl HttpUrl {
    /// A name, or an address without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_matches(['[', ']'])
    }

    /// Whether requests to both go to the same origin (RFC 6454).
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        let same_host = self.address.eq_ignore_ascii_case(&other.address);
        self.is_secure == other.is_secure && same_host
    }

    /// Scheme, host and port: what may be shown of a URL whose query may be secret.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", self.scheme(), self.authority)
    }

    fn scheme(&self) -> &'static str {
        if self.is_secure { "https" } else { "http" }
    }

    /// What a reference means in a response from this URL (RFC 3986, 5.2), without its fragment.
    pub(crate) fn join(&self, reference: &str) -> Result<Self, InvalidUrl> {
        let reference = reference.split('#').next().unwrap_or_default();
        let before_path = &reference[..reference.find(['/', '?']).unwrap_or(reference.len())];
        if before_path.contains(':') {
            return reference.parse();
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme()).parse();
        }
        let (base, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let path = match path {
            "" if query.is_none() => self.path.clone(),
            "" => base.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => {
                let folder = base.rfind('/').map_or("/", |end| &base[..=end]);
                without_dots(&format!("{folder}{path}"))
            }
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{path}{query}", self.origin()).parse()
    }

    /// The URL of the stream with this number; `None` if it is the same for all: `{s}` in the path becomes the number.
    #[cfg(feature = "bench")]
    pub(crate) fn of_stream(&self, number: usize) -> Option<Self> {
        let path = self.path.contains("{s}").then(|| self.path.replace("{s}", &number.to_string()));
        path.map(|path| Self { path, ..self.clone() })
    }

    /// Resolves the host, and blocks until then.
    #[cfg(feature = "bench")]
    pub(crate) fn resolve(&self) -> std::io::Result<std::net::SocketAddr> {
        use std::net::ToSocketAddrs as _;
        let mut addresses = self.address.to_socket_addrs()?;
        addresses.next().ok_or_else(|| std::io::Error::other("the host has no address"))
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

/// An absolute path without segments that are one or two dots (RFC 3986, 5.2.4).
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let segments = || path.split('/').skip(1);
    for segment in segments() {
        match segment {
            "." => {}
            ".." => _ = kept.pop(),
            segment => kept.push(segment),
        }
    }
    // A folder stays a folder.
    if segments().last().is_some_and(|last| matches!(last, "." | "..")) {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

// ===== impl BaseUrl =====

impl FromStr for BaseUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let mut url: HttpUrl = text.parse()?;
        if text.contains(['?', '#']) {
            return Err(InvalidUrl::Query);
        }
        let prefix = url.path.trim_end_matches('/').len();
        url.path.truncate(prefix);
        Ok(Self(url))
    }
}

impl BaseUrl {
    /// Its path is the prefix: empty, or begins with a slash and does not end with one.
    pub(super) fn as_url(&self) -> &HttpUrl {
        &self.0
    }

    /// The URL of this path, which begins with a slash.
    pub(super) fn at(&self, path: &str) -> HttpUrl {
        HttpUrl { path: format!("{}{path}", self.0.path), ..self.0.clone() }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// ===== impl InvalidUrl =====

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "{why}; expected http://host:port"),
            Self::Scheme => f.write_str("expected http://host:port or https://host"),
            Self::UserInfo => {
                f.write_str("a user name has no meaning here; expected http://host:port")
            }
            Self::Query => {
                f.write_str("a query or a fragment has no meaning here; expected http://host:port")
            }
        }
    }
}

impl std::error::Error for InvalidUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_a_host_a_port_and_a_prefix() {
        for (text, authority, address, prefix) in [
            ("http://127.0.0.1:6834", "127.0.0.1:6834", "127.0.0.1:6834", ""),
            ("http://localhost/", "localhost", "localhost:80", ""),
            ("HTTP://[::1]:1/a/b//", "[::1]:1", "[::1]:1", "/a/b"),
            ("https://example.org", "example.org", "example.org:443", ""),
        ] {
            let BaseUrl(url) = text.parse().expect(text);
            assert_eq!((&*url.authority, &*url.address, &*url.path), (authority, address, prefix));
        }
        for (text, why) in [
            ("127.0.0.1:6834", "expected http://host:port"),
            ("/api", "expected http://host:port"),
            ("ws://example.org", "expected http://host:port"),
            ("http://", "expected http://host:port"),
            ("http://example.org:abc", "expected http://host:port"),
            ("http://example.org:70000", "expected http://host:port"),
            ("http://a b", "expected http://host:port"),
            ("http://me@example.org", "a user name"),
            ("http://example.org?x", "a query"),
            ("http://example.org#x", "a fragment"),
        ] {
            let refused = text.parse::<BaseUrl>().expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_request_has_the_path_and_the_query_of_its_url() {
        for (text, path) in [
            ("http://127.0.0.1:81/api/a/events?x=1", "/api/a/events?x=1"),
            ("http://127.0.0.1:81", "/"),
            ("http://127.0.0.1:81?x=1", "/?x=1"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().expect(text).path, path, "{text}");
        }
    }

    /// The examples are of RFC 3986, 5.4, as far as a client needs them.
    #[test]
    fn a_reference_is_relative_to_the_url_of_its_response() {
        let base: HttpUrl = "http://a:81/b/c/d?q".parse().expect("a URL");
        for (reference, expected) in [
            ("http://g/h?x", "http://g/h?x"),
            ("https://g:1", "https://g:1/"),
            ("//g/h", "http://g/h"),
            ("/g", "http://a:81/g"),
            ("/g?y#s", "http://a:81/g?y"),
            ("/g?at=12:30", "http://a:81/g?at=12:30"),
            ("g", "http://a:81/b/c/g"),
            ("g/", "http://a:81/b/c/g/"),
            ("./g", "http://a:81/b/c/g"),
            (".", "http://a:81/b/c/"),
            ("..", "http://a:81/b/"),
            ("../../../g", "http://a:81/g"),
            ("/./g/../h", "http://a:81/h"),
            ("?y", "http://a:81/b/c/d?y"),
            ("", "http://a:81/b/c/d?q"),
            ("#s", "http://a:81/b/c/d?q"),
        ] {
            let joined = base.join(reference).expect(reference);
            assert_eq!(joined.to_string(), expected, "{reference:?}");
        }
        for reference in ["ftp://g/", "mailto:me", "http:g", "//", "http://me@g/", "/a b"] {
            assert!(base.join(reference).is_err(), "{reference:?}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let url = |text: &str| text.parse::<HttpUrl>().expect("a URL");
        let base = url("http://a/b");
        assert!(base.is_same_origin(&url("http://A:80/c?d")));
        for other in ["https://a/b", "http://a:81/b", "http://b/b"] {
            assert!(!base.is_same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn the_host_has_the_form_of_names_in_certificates() {
        for (text, host) in [
            ("https://example.org", "example.org"),
            ("https://127.0.0.1:6834/a", "127.0.0.1"),
            ("https://[::1]", "::1"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().expect(text).host(), host);
        }
    }

    #[test]
    fn each_scheme_has_its_port() {
        for (text, address) in [
            ("http://127.0.0.1:81/x", "127.0.0.1:81"),
            ("http://[::1]", "[::1]:80"),
            ("https://[::1]/x", "[::1]:443"),
        ] {
            assert_eq!(text.parse::<HttpUrl>().expect(text).address, address);
        }
    }
}
