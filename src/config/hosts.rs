//! The names that a server answers for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A host that requests may be for, without a port: a DNS name, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(Host);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Without a final dot; its case has no meaning.
    Name(Box<str>),
    Address(IpAddr),
}

/// The text is not a [`HostName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHost;

/// The longest name, in bytes (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// The longest label of a name, in bytes.
const LABEL_BYTES_MAX: usize = 63;

// ===== impl HostName =====

impl HostName {
    /// Whether it is this name, which has no final dot.
    pub(crate) fn is_name(&self, name: &str) -> bool {
        matches!(&self.0, Host::Name(ours) if ours.eq_ignore_ascii_case(name))
    }

    /// Whether it is this address, which is canonical.
    pub(crate) fn is_address(&self, address: IpAddr) -> bool {
        matches!(&self.0, Host::Address(ours) if *ours == address)
    }
}

impl FromStr for HostName {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self(Host::Address(address.to_canonical())));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        match is_domain(name) {
            true => Ok(Self(Host::Name(name.into()))),
            false => Err(InvalidHost),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Host::Name(name) => f.write_str(name),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// Whether it is a name in ASCII that a browser would use. One whose last label is a number would be an address.
pub(super) fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

// ===== impl InvalidHost =====

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a host is a name in ASCII or an IP address, without a scheme and without a port, like \
             app.example (a name in another script has the form xn--…)",
        )
    }
}

impl std::error::Error for InvalidHost {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_without_a_port() {
        let long = format!("{}.example", "a".repeat(63));
        for good in [
            "app.example",
            "App.Example.",
            "my_service",
            "xn--bcher-kva.example",
            "::1",
            "[::1]",
            "10.0.0.1",
            &long,
        ] {
            assert!(good.parse::<HostName>().is_ok(), "{good}");
        }
        let (long, longer) = (format!("{}.example", "a".repeat(64)), "a.".repeat(128));
        for bad in [
            "",
            ".",
            "a..b",
            "*",
            "*.example",
            "a:80",
            "[::1]:80",
            "10.0.0.1:80",
            "http://a",
            "a/b",
            "a b",
            "a@b",
            "bücher.example",
            "1.2.3.4.5",
            "127.1",
            "[a]",
            &long,
            &longer,
        ] {
            assert_eq!(bad.parse::<HostName>(), Err(InvalidHost), "{bad}");
        }
    }
}
