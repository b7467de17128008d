//! The browser client (`src/browser`), served as it is: a page gets the one that was made with this server, without a
//! package or a build.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::reject::Reject;

/// A script by one of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    file: File,
    /// Whether the name has the version, so that its bytes never change.
    is_versioned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Client,
    Adapters,
}

/// The content of a file.
struct Content {
    bytes: &'static [u8],
    /// Derived from the bytes: servers of one version agree on it.
    etag: [u8; ETAG_LEN],
}

/// The version of the scripts, which is the server's.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

static CLIENT: Content = Content::new(include_bytes!("../browser/nudged.js"));
static ADAPTERS: Content = Content::new(include_bytes!("../browser/adapters.js"));

/// 16 digits in quotes.
const ETAG_LEN: usize = 18;

const FRESH: HeaderValue = HeaderValue::from_static("max-age=3600");
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// For every response under the name of a script. A module is fetched with CORS (WHATWG HTML, 8.1.4.2), and this one holds
/// nothing of a user: every page may have it, whatever pages may have of the streams, and one cached response is good for
/// all of them.
pub(super) const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");

/// Finds the script of this name, a path without its first slash; `None` if it is not the name of one, and an error if it
/// is that of another version.
pub(super) fn find(name: &str) -> Option<Result<Script, Reject>> {
    let name = name.strip_suffix(".js")?.strip_prefix("nudged")?;
    let (file, version) = match name.strip_prefix("-adapters") {
        Some(version) => (File::Adapters, version),
        None => (File::Client, name),
    };
    let script = |is_versioned| Some(Ok(Script { file, is_versioned }));
    match version.strip_prefix('-') {
        None if version.is_empty() => script(false),
        Some(VERSION) => script(true),
        Some(other) if other.starts_with(|c: char| c.is_ascii_digit()) && !other.contains('/') => {
            Some(Err(Reject::ScriptVersion))
        }
        _ => None,
    }
}

// ===== impl Script =====

impl Script {
    /// The script, or that the client has it already (RFC 9110, 13.1.2).
    pub(super) fn response(self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let Content { bytes, etag } = match self.file {
            File::Client => &CLIENT,
            File::Adapters => &ADAPTERS,
        };
        let fields = request.get_all(header::IF_NONE_MATCH);
        let is_held = fields.iter().filter_map(|f| f.to_str().ok()).any(|f| lists(f, etag));
        let body = if is_held { Full::default() } else { Full::new(Bytes::from_static(bytes)) };
        let mut response = Response::new(body);
        let etag = HeaderValue::from_bytes(etag).expect("digits in quotes");
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, if self.is_versioned { FOR_EVER } else { FRESH });
        if is_held {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            let kind = HeaderValue::from_static("text/javascript; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, kind);
        }
        response
    }
}

// ===== impl Content =====

impl Content {
    const fn new(bytes: &'static [u8]) -> Self {
        // FNV-1a.
        let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        let mut etag = [b'"'; ETAG_LEN];
        at = 1;
        while at < ETAG_LEN - 1 {
            etag[at] = b"0123456789abcdef"[(hash >> 60) as usize];
            hash <<= 4;
            at += 1;
        }
        Self { bytes, etag }
    }
}

/// Whether `If-None-Match` is an asterisk or lists this tag, by weak comparison (RFC 9110, 8.8.3.2). A list ends where it
/// is malformed.
fn lists(field: &str, etag: &[u8]) -> bool {
    let mut rest = field.trim();
    if rest == "*" {
        return true;
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let strong = rest.strip_prefix("W/").unwrap_or(rest);
        let Some(end) = strong.strip_prefix('"').and_then(|opaque| opaque.find('"')) else {
            return false;
        };
        let (tag, after) = strong.split_at(end + 2);
        if tag.as_bytes() == etag {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_script_is_found_and_another_version_is_named() {
        let script = |file, is_versioned| Script { file, is_versioned };
        for (name, expected) in [
            ("nudged.js".to_owned(), script(File::Client, false)),
            ("nudged-adapters.js".to_owned(), script(File::Adapters, false)),
            (format!("nudged-{VERSION}.js"), script(File::Client, true)),
            (format!("nudged-adapters-{VERSION}.js"), script(File::Adapters, true)),
        ] {
            assert!(matches!(find(&name), Some(Ok(found)) if found == expected), "{name}");
        }
        for name in
            ["nudged-0.0.9.js", "nudged-adapters-99.js", "nudged-0.1.js", "nudged-1.0.0-rc.1.js"]
        {
            assert!(matches!(find(name), Some(Err(Reject::ScriptVersion))), "{name}");
        }
        for name in [
            "",
            ".js",
            "nudged",
            "nudged.mjs",
            "nudged.js/",
            "nudged-.js",
            "nudged-adapters-.js",
            "nudged-server.js",
            "nudged-0.0.9/x.js",
            "Nudged.js",
            "adapters.js",
        ] {
            assert!(find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_tag_is_found_in_a_list_by_weak_comparison() {
        let etag = b"\"abc\"";
        for field in [
            r#""abc""#,
            r#"W/"abc""#,
            r#""x", "abc""#,
            r#""x" ,W/"abc","y""#,
            r#", ,"","a,b" , "abc","#,
            r#"W/"x","abc" junk"#,
            "*",
            " * ",
        ] {
            assert!(lists(field, etag), "{field}");
        }
        for field in [
            "",
            ",",
            "abc",
            r#""ab""#,
            r#""abcd""#,
            r#""x,"abc"#,
            r#""abc"#,
            r#"w/"abc""#,
            r#"W/ "abc""#,
            r#"x "abc""#,
            r#""W/"abc""#,
            r#"*, "abc""#,
            r#""*""#,
            "W/*",
        ] {
            assert!(!lists(field, etag), "{field}");
        }
    }

    #[test]
    fn a_tag_is_strong_and_differs_with_every_byte() {
        // The vectors of the hash's authors.
        assert_eq!(&Content::new(b"").etag, b"\"cbf29ce484222325\"");
        assert_eq!(&Content::new(b"foobar").etag, b"\"85944171f73967e8\"");
        assert_ne!(CLIENT.etag, ADAPTERS.etag);
    }
}
