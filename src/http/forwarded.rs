//! The client behind a trusted proxy, from `X-Forwarded-For` or `Forwarded` (RFC 7239): from the one that the proxy
//! writes, since the client may have sent the other. Only what trusted proxies have added can be believed, so it is
//! read from the right.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

use crate::config::ForwardedField;

/// The rightmost untrusted address; that of `proxy` itself, if it has one, if the field is absent or malformed.
pub(super) fn client(
    headers: &HeaderMap,
    field: ForwardedField,
    proxy: Option<IpAddr>,
    trusts: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let (name, parse): (_, fn(&str) -> Option<IpAddr>) = match field {
        ForwardedField::XForwardedFor => ("x-forwarded-for", node),
        ForwardedField::Forwarded => (FORWARDED.as_str(), element),
    };
    let lines = headers.get_all(name).into_iter().rev();
    // A line that is not ASCII counts as one invalid element.
    let elements = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
    let mut elements = elements.map(str::trim).filter(|element| !element.is_empty());
    let mut last = elements.next().and_then(parse);
    while let Some(address) = last.filter(|address| trusts(*address)) {
        match elements.next() {
            Some(before) => last = parse(before),
            None => return Some(address),
        }
    }
    last.or(proxy)
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
        client_by(ForwardedField::XForwardedFor, fields)
    }

    fn client_by(field: ForwardedField, fields: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        let trusts = |address: IpAddr| address.to_string().starts_with("10.");
        let proxy = Some(PROXY.parse().expect("an address"));
        client(&headers, field, proxy, trusts).expect("one is known").to_string()
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
    fn the_field_forwarded_is_read_if_the_proxy_writes_it() {
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("proto=https;For=192.0.2.1;by=10.0.0.1", "192.0.2.1"),
            ("for=198.51.100.9, for=\"[2001:db8::1]:4711\";proto=http", "2001:db8::1"),
            ("for=\"never closed, for=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
            ("for=_hidden", PROXY),
            ("proto=https", PROXY),
        ] {
            let field = ForwardedField::Forwarded;
            assert_eq!(client_by(field, &[("forwarded", value)]), expected, "{value}");
            let other = [("forwarded", value), ("x-forwarded-for", "198.51.100.9")];
            assert_eq!(client_by(field, &other), expected, "{value}");
            assert_eq!(client_of(&[("forwarded", value)]), PROXY, "{value}");
        }
    }
}
