//! The filter in the URL of a stream: `?keys=posts,feed:*`.

use std::borrow::Cow;

use http::Uri;
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::reject::Reject;
use crate::config::{HubConfig, KEYS_PARAMETER};
use crate::hub::Filter;

/// The filter that a request wants for its stream: that of all its parameters together, or none without a parameter.
/// Keys are separated by commas, encoded ones too, so a key with a comma cannot be named.
pub(super) fn filter(uri: &Uri, limits: &HubConfig) -> Result<Filter, Reject> {
    let values: SmallVec<[Cow<'_, str>; 2]> = parameters(uri).collect::<Result<_, _>>()?;
    if values.is_empty() {
        return Ok(Filter::ALL);
    }
    let patterns = values.iter().flat_map(|value| value.split(','));
    Filter::new(patterns, limits).map_err(Reject::Filter)
}

/// Refuses a filter on a topic's stream, where it would do nothing.
pub(super) fn no_filter(uri: &Uri) -> Result<(), Reject> {
    match parameters(uri).next() {
        None => Ok(()),
        Some(_) => Err(Reject::TopicFilter),
    }
}

/// The values of the parameter, which have to be UTF-8: a key that is not what its client meant is never published.
fn parameters(uri: &Uri) -> impl Iterator<Item = Result<Cow<'_, str>, Reject>> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let is_meant = |name: &str| percent_decode(name.as_bytes()).eq(KEYS_PARAMETER.bytes());
    pairs.filter(move |(name, _)| is_meant(name)).map(|(_, value)| decode(value))
}

/// Decodes a value as a form has it, in which `+` is a space.
fn decode(value: &str) -> Result<Cow<'_, str>, Reject> {
    if !value.contains('+') {
        return percent_decode(value.as_bytes()).decode_utf8().map_err(|_| Reject::FilterEncoding);
    }
    let spaced = value.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    decoded.map(|text| Cow::Owned(text.into_owned())).map_err(|_| Reject::FilterEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Filter, Reject> {
        let uri = format!("/api/acme/events{query}").parse().expect("a URI");
        filter(&uri, &HubConfig::default())
    }

    fn of<const N: usize>(patterns: [&str; N]) -> Filter {
        Filter::new(patterns, &HubConfig::default()).expect("valid patterns")
    }

    #[test]
    fn every_spelling_of_a_filter_is_read() {
        for (query, expected) in [
            ("", Filter::ALL),
            ("?a=b&ping=event", Filter::ALL),
            ("?keys=posts", of(["posts"])),
            ("?keys=posts,feed:*", of(["posts", "feed:*"])),
            ("?keys=posts%2Cfeed%3A*", of(["posts", "feed:*"])),
            ("?keys=posts%2cfeed%3a%2A&x=1", of(["posts", "feed:*"])),
            ("?keys=posts&x=1&keys=feed:*", of(["posts", "feed:*"])),
            ("?k%65ys=posts", of(["posts"])),
            ("?keys=a+b", of(["a b"])),
            ("?keys=a%2Bb,c+d", of(["a+b", "c d"])),
            ("?keys=%C3%A9:*", of(["\u{e9}:*"])),
            ("?keys=,posts,", of(["posts"])),
            ("?keys=&keys=posts", of(["posts"])),
            ("?keys=*", Filter::ALL),
            ("?keys=a,b,c,d,e,f,g,h", Filter::ALL),
            ("?Keys=posts", Filter::ALL),
        ] {
            assert_eq!(parse(query).expect(query), expected, "{query}");
        }
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        for query in ["?keys=", "?keys", "?keys=,", "?keys=&keys="] {
            assert!(matches!(parse(query), Err(Reject::Filter(_))), "{query}");
        }
        for query in ["?keys=%ff", "?keys=posts,%C3", "?keys=posts&keys=a+%ff"] {
            assert!(matches!(parse(query), Err(Reject::FilterEncoding)), "{query}");
        }
        for query in ["?keys=feed*", "?keys=posts,a*b", "?keys=a:*:b"] {
            assert!(matches!(parse(query), Err(Reject::Filter(_))), "{query}");
        }
        assert!(parse(&format!("?keys={}", "x".repeat(513))).is_err());
    }
}
