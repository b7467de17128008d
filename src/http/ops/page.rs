//! The page for operators: one file, whose scripts and styles are in it. It holds no data, and reads what it shows.

use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body_util::Full;
use sha2::{Digest, Sha256};

use crate::http::content::Content;

const PAGE: &str = include_str!("page.html");

static CONTENT: Content = Content::new(PAGE.as_bytes());

/// Has a browser run and apply what is in the file, as it is, and the scripts of this origin, which the page imports the
/// client from: no source of a policy names a file by its path alone (CSP3, 2.3.1). It asks this origin only, sends no
/// form, is in no frame, and makes no text into HTML.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hashes = |tag| inline(PAGE, tag).map(source_of).collect::<String>();
    let policy = format!(
        "default-src 'none'; script-src 'self'{}; style-src{}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
        hashes("script"),
        hashes("style"),
    );
    HeaderValue::try_from(policy).expect("ASCII")
});

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Cuts the page off from one that opened it, and from those that it opens: a token is in its memory.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The page, or that the client has it already. A cache takes the fields of both.
pub(in crate::http) fn page(request: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = CONTENT.response(request, "text/html; charset=utf-8", NO_CACHE);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// The source of a policy that allows an element with this content.
fn source_of(content: &str) -> String {
    format!(" 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)))
}

/// The contents of the elements of this name, in their order. The names of attributes are not looked at: the page has no
/// element with another source.
fn inline<'p>(page: &'p str, tag: &str) -> impl Iterator<Item = &'p str> {
    let (opens, closes) = (format!("<{tag}"), format!("</{tag}>"));
    let mut rest = page;
    std::iter::from_fn(move || {
        loop {
            let after = &rest[rest.find(&opens)? + opens.len()..];
            rest = after;
            if !after.starts_with(['>', ' ', '\n']) {
                continue;
            }
            let content = &after[after.find('>')? + 1..];
            let content = &content[..content.find(&closes)?];
            rest = &after[after.find(&closes)?..];
            return Some(content);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_inline_element_is_found_as_it_is() {
        let page = "<scripted>no</scripted><script>\n a < b;\n</script><style x=y>b</style>\n\
                    <script\n type=module>c</script>d</script><script>never ends";
        assert_eq!(inline(page, "script").collect::<Vec<_>>(), ["\n a < b;\n", "c"]);
        assert_eq!(inline(page, "style").collect::<Vec<_>>(), ["b"]);
        assert_eq!(inline(page, "link").count(), 0);
    }

    /// The example of CSP3, and that of nothing.
    #[test]
    fn the_source_of_an_element_is_that_of_the_specification() {
        for (content, source) in [
            ("alert('Hello, world.');", " 'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"),
            ("", " 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"),
        ] {
            assert_eq!(source_of(content), source);
        }
    }

    /// What the policy would keep from having an effect, and what a browser would hash otherwise.
    #[test]
    fn the_page_is_small_and_has_nothing_that_its_policy_forbids() {
        assert!(PAGE.len() <= 20 * 1_024, "{} bytes", PAGE.len());
        assert!(!PAGE.contains('\r'), "a browser hashes lines that end in LF");
        assert!(inline(PAGE, "script").count() > 0 && inline(PAGE, "style").count() > 0);
        for (what, why) in [
            (" style=", "no hash counts for an attribute"),
            (" onclick=", "no hash counts for an attribute"),
            (" onload=", "no hash counts for an attribute"),
            ("javascript:", "it is no source"),
            ("<link", "it has no other file"),
            ("<img", "it has no other file"),
            ("<iframe", "it has no other file"),
            (" src=", "it has no other file"),
            ("http://", "it has nothing of another origin"),
            ("https://", "it has nothing of another origin"),
            ("innerHTML", "trusted types"),
            ("outerHTML", "trusted types"),
            ("insertAdjacentHTML", "trusted types"),
            ("document.write", "trusted types"),
            ("eval(", "it is not allowed"),
        ] {
            assert!(!PAGE.contains(what), "{what}: {why}");
        }
    }
}
