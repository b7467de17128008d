//! The browser client (`src/browser`), served as it is: a page gets the one that was made with this server, without a
//! package or a build.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::Full;

use super::content::Content;
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

/// The version of the scripts, which is the server's.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

static CLIENT: Content = Content::new(include_bytes!("../browser/nudged.js"));
static ADAPTERS: Content = Content::new(include_bytes!("../browser/adapters.js"));

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
        let content = match self.file {
            File::Client => &CLIENT,
            File::Adapters => &ADAPTERS,
        };
        let cache = if self.is_versioned { FOR_EVER } else { FRESH };
        content.response(request, "text/javascript; charset=utf-8", cache)
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
}
