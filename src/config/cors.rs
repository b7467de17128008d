//! The origins whose pages may read responses (CORS).

use std::fmt;
use std::str::FromStr;

use http::{HeaderValue, Uri};

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

/// An origin as browsers write it: `scheme://host[:port]` in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// The text is not an [`Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrigin;

// ===== impl Origin =====

impl Origin {
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let uri: Uri = text.parse().map_err(|_| InvalidOrigin)?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or(InvalidOrigin)?;
        // A browser leaves the scheme's default port out, so an origin with it would match no page.
        let implied =
            matches!((scheme, authority.port_u16()), ("http", Some(80)) | ("https", Some(443)));
        let as_written = text == format!("{scheme}://{authority}");
        let plain = !authority.as_str().contains(['@', '*'])
            && text.bytes().all(|byte| !byte.is_ascii_uppercase());
        if implied || !as_written || !plain {
            return Err(InvalidOrigin);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| InvalidOrigin)
    }
}

// ===== impl InvalidOrigin =====

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an origin is scheme://host or scheme://host:port in lower case, without a path and \
             without the scheme's own port, like https://app.example",
        )
    }
}

impl std::error::Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_the_form_that_browsers_send() {
        for good in ["https://app.example", "http://localhost:3000", "http://[::1]:8080"] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example",
            "https://app.example/",
            "https://App.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://*.app.example",
            "https://me@app.example",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidOrigin), "{bad}");
        }
    }
}
