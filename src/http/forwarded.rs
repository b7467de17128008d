//! The client behind a trusted proxy, from `X-Forwarded-For` and `Forwarded` (RFC 7239). Only what trusted
//! proxies have added can be believed, so both are read from the right.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

/// The rightmost untrusted address; `proxy` itself if the fields are absent, malformed or disagree: a client
/// may have sent the one that its proxy does not write.
pub(super) fn client(
    headers: &HeaderMap,
    proxy: IpAddr,
    trusts: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let read = |name: &str, parse: fn(&str) -> Option<IpAddr>| {
        let lines = headers.get_all(name).into_iter().rev();
        // A line that is not ASCII counts as one invalid element.
        let elements = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
        let mut elements = elements.map(str::trim).filter(|element| !element.is_empty());
        let first = parse(elements.next()?);
        let mut last = first;
        while let Some(address) = last.filter(|address| trusts(*address)) {
            match elements.next() {
                Some(before) => last = parse(before),
                None => return Some(Some(address)),
            }
        }
        Some(last)
    };
    let client = match (read("x-forwarded-for", node), read(FORWARDED.as_str(), element)) {
        (Some(one), Some(other)) => one.filter(|one| other == Some(*one)),
        (one, other) => one.or(other).flatten(),
    };
    client.unwrap_or(proxy)
}

/// `for` of an element like `for="[2001:db8::1]:4711";proto=https`. Quotes are not matched: no address has
/// a comma or a semicolon, and a quote that a client left open must not swallow what its proxy added.
fn element(text: &str) -> Option<IpAddr> {
    let mut pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(value.trim().trim_matches('"'))
}

/// An address, with or without brackets and a port.
fn node(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().map(|node| node.ip()).ok();
    let address = text.parse::<IpAddr>().ok().or_else(bare).or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn client_of(fields: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        client(&headers, PROXY.parse().expect("an address"), trusts).to_string()
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        for (value, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("198.51.100.9,192.0.2.1,10.0.0.2, 10.9.9.9", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.7, 10.0.0.2", "10.0.0.7"),
            ("", PROXY),
            ("unknown", PROXY),
            ("192.0.2.1, unknown", PROXY),
            ("192.0.2.1, unknown, 10.0.0.2", PROXY),
        ] {
            assert_eq!(client_of(&[("x-forwarded-for", value)]), expected, "{value}");
        }
        let lines = [("x-forwarded-for", "198.51.100.9"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client_of(&lines), "192.0.2.1", "lines are one list, in their order");
        assert_eq!(client_of(&[]), PROXY);
    }

    #[test]
    fn the_field_forwarded_is_read_too() {
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("proto=https;For=192.0.2.1;by=10.0.0.1", "192.0.2.1"),
            ("for=198.51.100.9, for=\"[2001:db8::1]:4711\";proto=http", "2001:db8::1"),
            ("for=\"never closed, for=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
            ("for=_hidden", PROXY),
            ("proto=https", PROXY),
        ] {
            assert_eq!(client_of(&[("forwarded", value)]), expected, "{value}");
        }
    }

    /// SCENARIO: the proxy writes one of the fields, and forwards the other, which the client sent.
    /// BUG: whichever field is preferred, it may be the one in which the client chooses its own address.
    /// FIX: fields that disagree are ignored, and the request counts as the proxy's.
    #[test]
    fn fields_that_disagree_are_ignored() {
        let both = |one, other| client_of(&[("x-forwarded-for", one), ("forwarded", other)]);
        assert_eq!(both("192.0.2.1", "for=192.0.2.1"), "192.0.2.1");
        assert_eq!(both("192.0.2.1", "for=198.51.100.9"), PROXY);
        assert_eq!(both("192.0.2.1", "for=unknown"), PROXY);
    }
}
