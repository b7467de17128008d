//! The origins whose pages may read responses (CORS).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::{HeaderValue, Uri};

use super::hosts::is_domain;

/// Which pages of other origins may read responses (Fetch, CORS protocol).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CorsPolicy {
    /// No page of another origin.
    #[default]
    SameOrigin,
    /// Any page, but without cookies: with them, any page could act for the user that visits it.
    Any,
    /// The pages of these origins, with cookies.
    Listed(Vec<Origin>),
}

/// An origin as browsers write it, `scheme://host[:port]` in lower case; or the origins whose host has any one label in
/// the place of an asterisk, `https://*.preview.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(HeaderValue),
    /// What stands before the label and after it.
    AnyLabel {
        before: Box<str>,
        after: Box<str>,
    },
}

/// The text is not an [`Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrigin;

// ===== impl CorsPolicy =====

impl CorsPolicy {
    /// Whether the page of this origin may read responses.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::SameOrigin => false,
            Self::Any => true,
            Self::Listed(_) => self.takes_cookies_of(origin),
        }
    }

    /// Whether the pages of this origin may act for the user whose cookie their browser sends.
    pub(crate) fn takes_cookies_of(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::SameOrigin | Self::Any => false,
            Self::Listed(origins) => origins.iter().any(|listed| listed.includes(origin)),
        }
    }
}

// ===== impl Origin =====

impl Origin {
    fn includes(&self, origin: &HeaderValue) -> bool {
        match &self.0 {
            Pattern::Exact(listed) => listed == origin,
            Pattern::AnyLabel { before, after } => {
                let label = origin.as_bytes().strip_prefix(before.as_bytes());
                let label = label.and_then(|rest| rest.strip_suffix(after.as_bytes()));
                label.is_some_and(is_label)
            }
        }
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let Some((before, after)) = text.split_once("://*.") else {
            check(text)?;
            return HeaderValue::from_str(text)
                .map(Pattern::Exact)
                .map(Self)
                .map_err(|_| InvalidOrigin);
        };
        check(&format!("{before}://a.{after}"))?;
        let host = after.split(':').next().unwrap_or_default();
        // An asterisk in the place of a whole domain would allow every site below it.
        if !matches!(before, "http" | "https") || !(host.contains('.') || host == "localhost") {
            return Err(InvalidOrigin);
        }
        let (before, after) = (format!("{before}://").into(), format!(".{after}").into());
        Ok(Self(Pattern::AnyLabel { before, after }))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Exact(origin) => f.write_str(origin.to_str().unwrap_or_default()),
            Pattern::AnyLabel { before, after } => write!(f, "{before}*{after}"),
        }
    }
}

/// Whether a browser could send it as the origin of a page.
fn check(text: &str) -> Result<(), InvalidOrigin> {
    let uri: Uri = text.parse().map_err(|_| InvalidOrigin)?;
    let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or(InvalidOrigin)?;
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host).ok_or(InvalidOrigin)? {
        "" => None,
        port => Some(port.strip_prefix(':').and_then(canonical_port).ok_or(InvalidOrigin)?),
    };
    // A browser leaves the scheme's default port out, so an origin with it would match no page.
    let implied = matches!((scheme, port), ("http", Some(80)) | ("https", Some(443)));
    let as_written = text == format!("{scheme}://{authority}");
    let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    if implied || !as_written || !lower || !is_host(host) {
        return Err(InvalidOrigin);
    }
    Ok(())
}

/// A port as browsers write it.
fn canonical_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == text)
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']').and_then(|text| text.parse::<Ipv6Addr>().ok());
            address.is_some()
        }
        None => {
            host.parse::<Ipv4Addr>().is_ok() || is_domain(host.strip_suffix('.').unwrap_or(host))
        }
    }
}

/// One label of a host, as browsers write it.
fn is_label(label: &[u8]) -> bool {
    let is_part = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    (1..=63).contains(&label.len()) && label.iter().all(is_part)
}

// ===== impl InvalidOrigin =====

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an origin is scheme://host or scheme://host:port in lower case and ASCII (xn--…), without a \
             path and without the scheme's own port, like https://app.example; in \
             https://*.preview.example the asterisk is one label, and two or more follow it",
        )
    }
}

impl std::error::Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCENARIO: `--cors-origin https://example.com:abc`.
    /// BUG: it was accepted, and matched no page.
    /// FIX: what no browser sends as an origin is refused.
    #[test]
    fn an_origin_has_the_form_that_browsers_send() {
        for good in [
            "https://app.example",
            "http://localhost:3000",
            "http://[::1]:8080",
            "http://127.0.0.1:5173",
            "https://xn--bcher-kva.example",
            "https://my_app.example:65535",
            "https://app.example.",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
            "https://*.preview.example",
            "https://*.preview.example:8443",
            "http://*.localhost:3000",
        ] {
            let origin = good.parse::<Origin>();
            assert_eq!(origin.map(|origin| origin.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/a",
            "https://app.example?a",
            "https://app.example#a",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://me@app.example",
            "https://me:pw@app.example",
            "https://example.com:abc",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:08443",
            "https://example.com:+8443",
            "https://exa mple.com",
            "https://a..example",
            "https://b\u{fc}cher.example",
            "https://127.1",
            "https://1.2.3.4.5",
            "https://[::1",
            "https://[localhost]",
            // Asterisks that would allow too much, or nothing.
            "https://*",
            "https://*.com",
            "https://*:8443",
            "https://*.",
            "https://*.*.example.com",
            "https://a.*.example.com",
            "https://a*.example.com",
            "https://*.app.example/",
            "https://*.app.example:443",
            "https://*.app.example:abc",
            "https://*.1.2.3.4",
            "https://*.App.example",
            "*://*.app.example",
            "ftp://*.app.example",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidOrigin), "{bad}");
        }
    }
}
