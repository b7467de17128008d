//! What a client accepts (RFC 9110, 12.5.1): media ranges with their qualities.

use http::{HeaderMap, header};

use super::essence;

/// How well a media type is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Accepted {
    /// In thousandths; 0 is not at all.
    pub(super) quality: u16,
    /// The range that decides names the type itself.
    pub(super) by_name: bool,
}

/// How well the fields of a request accept a media type, whose parameters have one of these values where they have
/// any. The most specific range counts, and of several such ranges the best.
pub(super) fn accepted(
    headers: &HeaderMap,
    media_type: &str,
    parameters: &[(&str, &str)],
) -> Accepted {
    let matching = ranges(headers).filter_map(|range| matches(range, media_type, parameters));
    let best = matching.max().unwrap_or_default();
    Accepted { quality: best.1, by_name: best.0 == BY_NAME }
}

/// Whether the request accepts `text/event-stream`, as that of an `EventSource` does (WHATWG HTML, 9.2.3).
pub(super) fn accepts_events(headers: &HeaderMap) -> bool {
    ranges(headers).any(|range| essence(range).eq_ignore_ascii_case("text/event-stream"))
}

/// The media ranges of all fields, as they are written.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|value| value.split(','))
}

/// The specificity of a range that names the type itself; less is `type/*`, and the least `*/*`.
const BY_NAME: u8 = 2;

/// The specificity and the quality of a range, if it includes the media type.
fn matches(range: &str, media_type: &str, known: &[(&str, &str)]) -> Option<(u8, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let named = parts.next()?;
    let (kind, _) = media_type.split_once('/')?;
    let specificity = match named.split_once('/')? {
        _ if named.eq_ignore_ascii_case(media_type) => BY_NAME,
        ("*", "*") => 0,
        (range, "*") if range.eq_ignore_ascii_case(kind) => 1,
        _ => return None,
    };
    let mut quality = 1_000;
    for parameter in parts.filter(|part| !part.is_empty()) {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim_matches('"');
        if name.eq_ignore_ascii_case("q") {
            quality = parse_quality(value)?;
        } else if known.iter().any(|(known, _)| name.eq_ignore_ascii_case(known))
            && !known.contains(&(&*name.to_ascii_lowercase(), value))
        {
            return None;
        }
    }
    Some((specificity, quality))
}

/// `0`, `0.5`, `1.000`: thousandths (RFC 9110, 12.4.2).
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_valid = matches!(whole, "0" | "1")
        && fraction.len() <= 3
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{whole}{fraction:0<3}").parse().ok()?;
    (is_valid && thousandths <= 1_000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn quality(accept: &str) -> (u16, bool) {
        let mut headers = HeaderMap::new();
        for field in accept.split('|') {
            headers.append(header::ACCEPT, HeaderValue::from_str(field).expect("text"));
        }
        let known = [("version", "1.0.0"), ("charset", "utf-8")];
        let Accepted { quality, by_name } = accepted(&headers, "text/plain", &known);
        (quality, by_name)
    }

    #[test]
    fn the_most_specific_range_counts() {
        for (accept, expected) in [
            ("text/plain", (1_000, true)),
            ("Text/PLAIN ; q=0.5", (500, true)),
            ("*/*", (1_000, false)),
            ("text/*;q=0.25", (250, false)),
            ("*/*, text/*;q=0.5, text/plain;q=0.125", (125, true)),
            ("*/*|text/plain;q=0", (0, true)),
            ("text/html, application/*", (0, false)),
            ("text/plain;version=1.0.0;q=0.3", (300, true)),
            ("text/plain;version=\"1.0.0\"", (1_000, true)),
            ("text/plain;version=0.0.1", (0, false)),
            ("text/plain;version=0.0.1,text/plain;version=1.0.0;q=0.2", (200, true)),
            ("text/plain;escaping=allow-utf-8", (1_000, true)),
            // Not a quality: the range counts for nothing.
            ("text/plain;q=2", (0, false)),
            ("text/plain;q=0.1234, */*;q=0.1", (100, false)),
            ("text/plain;q=", (0, false)),
            ("", (0, false)),
            (",;,/", (0, false)),
        ] {
            assert_eq!(quality(accept), expected, "{accept:?}");
        }
        assert_eq!(
            accepted(&HeaderMap::new(), "text/plain", &[]),
            Accepted { quality: 0, by_name: false }
        );
    }
}
