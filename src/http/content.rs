//! Files that are part of the program, as responses that caches may keep.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// The content of a file.
pub(super) struct Content {
    bytes: &'static [u8],
    /// Derived from the bytes: servers of one version agree on it.
    etag: [u8; ETAG_LEN],
}

/// 16 digits in quotes.
const ETAG_LEN: usize = 18;

// ===== impl Content =====

impl Content {
    pub(super) const fn new(bytes: &'static [u8]) -> Self {
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

    /// The file, or that the client has it already (RFC 9110, 13.1.2).
    pub(super) fn response(
        &self,
        request: &HeaderMap,
        kind: &'static str,
        cache: HeaderValue,
    ) -> Response<Full<Bytes>> {
        let Self { bytes, etag } = self;
        let fields = request.get_all(header::IF_NONE_MATCH);
        let is_held = fields.iter().filter_map(|f| f.to_str().ok()).any(|f| lists(f, etag));
        let body = if is_held { Full::default() } else { Full::new(Bytes::from_static(bytes)) };
        let mut response = Response::new(body);
        let etag = HeaderValue::from_bytes(etag).expect("digits in quotes");
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, cache);
        if is_held {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        response
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
    }
}
