//! A client of the server, for the command line: [`publish`] posts stale keys, [`publish_event`] an event for a topic,
//! [`listen`] follows a stream as a browser does, [`probe`] asks whether a server is ready, and a [`Fetcher`] gets
//! its metrics.
//!
//! All of them use HTTP/1.1, on cleartext or over TLS. They need a tokio runtime of either kind, with time
//! and I/O.

mod event_line;
pub(crate) mod exchange;
mod fetch;
mod listen;
mod publish;
mod reread;
mod retry;
mod since;
pub(crate) mod tls;
mod topic;
pub(crate) mod url;
mod verify;

use std::error::Error as _;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use http::{HeaderValue, StatusCode};

pub use fetch::{Fetcher, ProbeTarget, probe};
pub use listen::{Listen, REDIRECTS_MAX, StreamKind, listen};
pub use publish::{Publish, RETRY_FOR, publish};
pub use reread::{Reread, reread};
pub use since::{InvalidSince, Since};
pub use tls::TlsError;
pub use topic::{CloseTopic, PublishEvent, TopicEvent, close_topic, publish_event};
pub use url::{BaseUrl, InvalidUrl};
pub use verify::{Authorities, Verify};

use crate::wire::EventTooLarge;

/// A server, and how to authenticate to each other.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its URL.
    pub url: BaseUrl,
    /// Sent as `authorization: Bearer`, if there is one.
    pub token: Option<Token>,
    /// Which certificates are accepted.
    pub verify: Verify,
}

/// A bearer token (RFC 6750, 2.1). Not shown by `Debug`.
#[derive(Clone, Debug)]
pub struct Token(HeaderValue);

/// A text is not a [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

/// Why a request or a stream failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The TCP connect failed.
    Connect {
        /// Host and port.
        address: String,
        /// What the system reports.
        why: io::Error,
    },
    /// The server did not respond in time.
    Timeout {
        /// Host and port.
        address: String,
        /// The time limit.
        after: Duration,
    },
    /// TLS with this server is impossible.
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong, and what to do.
        why: TlsError,
    },
    /// The TLS handshake failed, and may succeed later.
    Handshake {
        /// Host and port.
        address: String,
        /// What the system or the peer reports.
        why: io::Error,
    },
    /// The connection broke, or the peer does not speak HTTP.
    Broken(Broken),
    /// The response has an unexpected status.
    Refused {
        /// The status.
        status: StatusCode,
        /// The detail of the problem body (RFC 9457), if there is one.
        detail: Option<String>,
    },
    /// A redirect of [`listen`] cannot be followed.
    Redirect(InvalidRedirect),
    /// The response to [`listen`] is not an event stream but has this content type.
    ContentType(String),
    /// The stream has an event larger than any that the server sends.
    TooLarge(EventTooLarge),
    /// The response has a body of more bytes than are read.
    BodyTooLarge {
        /// The most that are read.
        max: usize,
    },
    /// The given last event id cannot be sent in a header field.
    LastEventId,
    /// The output cannot be written.
    Output(io::Error),
}

/// Why a redirect cannot be followed.
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidRedirect {
    /// Its `location` is no URL that a client can use.
    Location(InvalidUrl),
    /// It leads from https to http.
    Insecure,
    /// It is one of more than [`REDIRECTS_MAX`] in a row.
    TooMany,
}

/// How a connection broke.
#[derive(Debug)]
pub struct Broken(hyper::Error);

/// A text from the server as part of one line on a terminal: characters that could start a new line,
/// move the cursor or change the direction of writing are shown as escapes.
struct OneLine<'a>(&'a str);

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
    // No `From`, which would show hyper to the users of this library.
    pub(crate) fn broken(why: hyper::Error) -> Self {
        Self::Broken(Broken(why))
    }

    /// Whether the same publish may succeed in a while: the network failed, or the server or a proxy is overloaded or
    /// restarts.
    fn is_temporary(&self) -> bool {
        match self {
            Self::Broken(Broken(why)) if why.is_parse() => false,
            Self::Refused { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            other => other.is_network(),
        }
    }

    /// Whether the network failed, rather than the server refused: browsers then reconnect.
    fn is_network(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Handshake { .. } | Self::Broken(_)
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { address, why } => write!(f, "cannot reach {address}: {why}"),
            Self::Timeout { address, after } => {
                write!(f, "no response from {address} within {after:?}")
            }
            Self::Tls { address, why } => write!(f, "{address}: {why}"),
            Self::Handshake { address, why } => {
                write!(f, "{address}: the TLS handshake failed: {why}")
            }
            Self::Broken(why) => why.fmt(f),
            Self::Refused { status, detail: None } => write!(f, "the server answered {status}"),
            Self::Refused { status, detail: Some(detail) } => {
                write!(f, "the server answered {status}: {}", OneLine(detail))
            }
            Self::Redirect(why) => why.fmt(f),
            Self::ContentType(other) => {
                write!(f, "expected content-type text/event-stream, got {other:?}")
            }
            Self::TooLarge(why) => why.fmt(f),
            Self::BodyTooLarge { max } => {
                write!(f, "the response has more than {max} bytes, which are not read")
            }
            Self::LastEventId => f.write_str("a last event id may not contain control characters"),
            Self::Output(why) => write!(f, "cannot write: {why}"),
        }
    }
}

impl std::error::Error for Error {}

// ===== impl InvalidRedirect =====

impl fmt::Display for InvalidRedirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Location(why) => write!(f, "a redirect cannot be followed: {why}"),
            Self::Insecure => f.write_str("a redirect from https to http is not followed"),
            Self::TooMany => write!(f, "more than {REDIRECTS_MAX} redirects in a row"),
        }
    }
}

// ===== impl Broken =====

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection broke: {}", self.0)?;
        self.0.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))?;
        f.write_str(if self.0.is_parse() { "; if it speaks TLS, write https://" } else { "" })
    }
}

// ===== impl OneLine =====

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if is_unsafe(c) => c.escape_default().fmt(f),
            c => fmt::Write::write_char(f, c),
        })
    }
}

/// Whether the character could start a new line, move the cursor or change the direction of writing.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_and_debug_does_not_show_it() {
        let token: Token = "s3cret".parse().expect("a token");
        assert_eq!(token.0, "Bearer s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));
        for bad in ["", "a b", "a\nb", "é"] {
            assert_eq!(bad.parse::<Token>().err(), Some(InvalidToken), "{bad:?}");
        }
    }

    #[test]
    fn a_text_from_the_server_stays_on_its_line() {
        let text = "a\nb\r\u{1b}[2J\u{9b}\u{2028}\u{202e}\u{2067}\"\\é";
        let shown = "a\\nb\\r\\u{1b}[2J\\u{9b}\\u{2028}\\u{202e}\\u{2067}\"\\é";
        assert_eq!(OneLine(text).to_string(), shown);
    }
}
