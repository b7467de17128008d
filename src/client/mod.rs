//! The other end, for the command line: [`publish`] tells, [`listen`] hears, as a browser would.
//!
//! Both speak HTTP/1.1, in the clear or within TLS. They need a tokio runtime with time and I/O, of
//! either kind.

pub(crate) mod connect;
mod exchange;
mod listen;
mod publish;
pub(crate) mod tls;
mod trust;

use std::str::FromStr;
use std::{fmt, io};

use http::uri::{InvalidUri, Uri};
use http::{HeaderValue, StatusCode};

pub use listen::{Listen, listen};
pub use publish::{Publish, publish};
pub use trust::{Authorities, Trust};

use self::connect::Failure;
use crate::wire::EventTooLarge;

/// Which server, and who asks.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub url: BaseUrl,
    /// What is sent as `authorization: Bearer`, if anything.
    pub token: Option<Token>,
    /// Whose certificates are believed.
    pub trust: Trust,
}

/// `http[s]://host[:port][/prefix]`: what stands before `/api/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    is_secure: bool,
    /// For the `host` field.
    authority: String,
    /// For connecting: with a port always.
    address: String,
    /// Empty, or begins with a slash and does not end with one.
    prefix: String,
}

/// A bearer token (RFC 6750, 2.1). Not shown by `Debug`.
#[derive(Clone, Debug)]
pub struct Token(HeaderValue);

/// Why a text is not a [`BaseUrl`].
#[derive(Debug)]
pub enum InvalidBaseUrl {
    /// It is no URL.
    Syntax(InvalidUri),
    /// It begins neither with `http://` nor with `https://`.
    Scheme,
    /// It has a user name, a query or a fragment.
    Excess,
}

/// A text is not a [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

/// Why a client gave up.
#[derive(Debug)]
pub enum Error {
    /// No connection came about.
    Connect {
        /// Host and port.
        address: String,
        /// What the system says.
        why: io::Error,
    },
    /// Nobody answered within this many seconds.
    Silent {
        /// Host and port.
        address: String,
        /// How long we waited.
        seconds: u64,
    },
    /// TLS cannot come about with this server.
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The connection broke, or what came over it was not HTTP.
    Broken(Broken),
    /// The server answered, with another status than hoped for.
    Refused {
        /// Its status.
        status: StatusCode,
        /// The detail of its problem body (RFC 9457), if it sent one.
        detail: Option<String>,
    },
    /// The answer to [`listen`] is no event stream but of this content type.
    ContentType(String),
    /// The stream has an event that no server of ours would send.
    TooLarge(EventTooLarge),
    /// The last event id that was asked for cannot be sent in a header field.
    LastEventId,
    /// The output cannot be written.
    Output(io::Error),
}

/// How a connection broke.
#[derive(Debug)]
pub struct Broken(Failure);

/// A text of the server's as part of one line on a terminal: what could start a new line, move the
/// cursor or turn the direction of writing is shown as an escape.
struct OneLine<'a>(&'a str);

// ===== impl BaseUrl =====

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBaseUrl> {
        let url: Uri = text.parse().map_err(InvalidBaseUrl::Syntax)?;
        let (is_secure, port) = match url.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(InvalidBaseUrl::Scheme),
        };
        let authority = url.authority().ok_or(InvalidBaseUrl::Scheme)?;
        if authority.as_str().contains('@') || text.contains(['?', '#']) {
            return Err(InvalidBaseUrl::Excess);
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self {
            is_secure,
            authority: authority.to_string(),
            address: format!("{}:{port}", authority.host()),
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl BaseUrl {
    /// A name, or an address without brackets.
    fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl fmt::Display for InvalidBaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(why) => write!(f, "{why}; expected http://host:port"),
            Self::Scheme => f.write_str("expected http://host:port or https://host"),
            Self::Excess => f.write_str(
                "a user name, a query or a fragment has no meaning here; expected http://host:port",
            ),
        }
    }
}

impl std::error::Error for InvalidBaseUrl {}

// ===== impl Token =====

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        let mut value: HeaderValue = format!("Bearer {text}").parse().map_err(|_| InvalidToken)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token is visible ASCII without spaces, at least one character")
    }
}

impl std::error::Error for InvalidToken {}

// ===== impl Error =====

impl Error {
    /// Whether the network failed, not the server's will: a browser tries such a stream again.
    fn is_network(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Silent { .. } | Self::Broken(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, why } => write!(f, "cannot reach {address}: {why}"),
            Self::Silent { address, seconds } => {
                write!(f, "no answer from {address} within {seconds} s")
            }
            Self::Tls { address, why } => write!(f, "{address}: {why}"),
            Self::Broken(why) => why.fmt(f),
            Self::Refused { status, detail: None } => write!(f, "the server answered {status}"),
            Self::Refused { status, detail: Some(detail) } => {
                write!(f, "the server answered {status}: {}", OneLine(detail))
            }
            Self::ContentType(other) => {
                write!(f, "expected content-type text/event-stream, got {other:?}")
            }
            Self::TooLarge(why) => why.fmt(f),
            Self::LastEventId => f.write_str("a last event id may not contain control characters"),
            Self::Output(why) => write!(f, "cannot write: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<hyper::Error> for Error {
    fn from(why: hyper::Error) -> Self {
        Self::Broken(Broken(why.into()))
    }
}

// ===== impl Broken =====

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// ===== impl OneLine =====

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => c.escape_default().fmt(f),
            c if c.is_control() => c.escape_default().fmt(f),
            c => fmt::Write::write_char(f, c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for (text, authority, address, prefix) in [
            ("http://127.0.0.1:6834", "127.0.0.1:6834", "127.0.0.1:6834", ""),
            ("http://localhost/", "localhost", "localhost:80", ""),
            ("HTTP://[::1]:1/a/b//", "[::1]:1", "[::1]:1", "/a/b"),
            ("https://example.org", "example.org", "example.org:443", ""),
        ] {
            let url: BaseUrl = text.parse().expect(text);
            assert_eq!(
                (&*url.authority, &*url.address, &*url.prefix),
                (authority, address, prefix)
            );
        }
        for (text, why) in [
            ("127.0.0.1:6834", "expected http://host:port"),
            ("/api", "expected http://host:port"),
            ("ws://example.org", "expected http://host:port"),
            ("http://", "expected http://host:port"),
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
    fn the_host_is_what_a_certificate_names() {
        for (text, host) in [
            ("https://example.org", "example.org"),
            ("https://127.0.0.1:6834/a", "127.0.0.1"),
            ("https://[::1]", "::1"),
        ] {
            assert_eq!(text.parse::<BaseUrl>().expect(text).host(), host);
        }
    }

    #[test]
    fn a_token_is_sent_and_never_shown() {
        let token: Token = "s3cret".parse().expect("a token");
        assert_eq!(token.0, "Bearer s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        for bad in ["", "a b", "a\nb", "é"] {
            assert_eq!(bad.parse::<Token>().err(), Some(InvalidToken), "{bad:?}");
        }
    }

    #[test]
    fn what_a_server_says_stays_on_its_line() {
        let text = "a\nb\r\u{1b}[2J\u{9b}\u{2028}\u{202e}\u{2067}\"\\é";
        let shown = "a\\nb\\r\\u{1b}[2J\\u{9b}\\u{2028}\\u{202e}\\u{2067}\"\\é";
        assert_eq!(OneLine(text).to_string(), shown);
    }
}
