//! The hosts that requests may be for. A page can have its own name resolve to the address of a server that only its
//! visitor reaches (DNS rebinding); for the browser it is then of the server's origin. Its requests still have its
//! name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{Request, header};

use super::reject::Reject;
use crate::config::{Config, HostName};

/// Which hosts requests may be for.
#[derive(Debug)]
pub(super) enum Hosts {
    /// Any: credentials protect the server, or every client may use it under any name (`insecure_open`).
    Any,
    /// `localhost` and these; of addresses, those of loopback, or all of them. An address cannot be rebound.
    Named { names: Vec<HostName>, addresses: bool },
}

/// Resolves to loopback only, and so do the names below it (RFC 6761, 6.3).
const LOCALHOST: &str = "localhost";

// ===== impl Hosts =====

impl Hosts {
    pub(super) fn new(config: &Config) -> Self {
        let is_local = config.is_open_by_default();
        if !is_local && config.hosts.is_empty() {
            return Self::Any;
        }
        Self::Named { names: config.hosts.clone(), addresses: !is_local }
    }

    /// Checks each host that the request names. No browser sends a request that names none.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Reject> {
        let target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let fields = request.headers().get_all(header::HOST).iter().map(|value| value.as_bytes());
        match target.into_iter().chain(fields).all(|host| self.allows(host)) {
            true => Ok(()),
            false => Err(Reject::Misdirected),
        }
    }

    /// Whether a request may be for this host, which may have a port.
    fn allows(&self, host: &[u8]) -> bool {
        let Self::Named { names, addresses } = self else { return true };
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let host = without_port(host);
        if let Some(address) = address(host) {
            let address = address.to_canonical();
            return *addresses
                || address.is_loopback()
                || names.iter().any(|name| name.is_address(address));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        host.is_empty() || is_localhost(name) || names.iter().any(|ours| ours.is_name(name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    }
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// `localhost`, or a name below it.
fn is_localhost(name: &str) -> bool {
    let Some(at) = name.len().checked_sub(LOCALHOST.len()) else { return false };
    let ends = name.as_bytes()[at..].eq_ignore_ascii_case(LOCALHOST.as_bytes());
    ends && (at == 0 || at > 1 && name.as_bytes()[at - 1] == b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(names: &[&str], addresses: bool) -> Hosts {
        let names = names.iter().map(|name| name.parse().expect("a host")).collect();
        Hosts::Named { names, addresses }
    }

    #[test]
    fn a_name_is_never_taken_for_an_address_nor_a_part_for_the_whole() {
        let hosts = named(&["app.example", "10.0.0.1", "::ffff:10.0.0.2"], false);
        for good in [
            "",
            "app.example.",
            "APP.example:1",
            "10.0.0.1:1",
            "10.0.0.2",
            "[::ffff:a00:1]",
            "a.b.localhost",
        ] {
            assert!(hosts.allows(good.as_bytes()), "{good}");
        }
        for bad in [
            "app.example..",
            "xapp.example",
            "app.example.x",
            "10.0.0.1.x",
            "127.0.0.1.x",
            "127.1",
            "2130706433",
            "0x7f000001",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "localhost.x",
            "xlocalhost",
            "xxlocalhost",
            ".localhost",
            ".",
            " localhost",
            "localhost@evil.example",
            "[::1]@evil.example",
        ] {
            assert!(!hosts.allows(bad.as_bytes()), "{bad}");
            let any_address = named(&[], true);
            assert!(!any_address.allows(bad.as_bytes()), "{bad}");
        }
        assert!(!hosts.allows(b"\xff"));
    }

    proptest! {
        /// Only what ends in `localhost`, is an address, or is empty, is allowed without names.
        #[test]
        fn what_is_allowed_cannot_be_rebound(host in "[a-z0-9.:@\\[\\]%-]{0,20}|[a-z.]{0,6}localhost[.:0-9a-z]{0,4}") {
            if named(&[], true).allows(host.as_bytes()) {
                let name = without_port(&host);
                let whole = name.strip_suffix('.').unwrap_or(name);
                let bare = name.trim_start_matches('[').trim_end_matches(']');
                prop_assert!(
                    whole.is_empty() && !name.contains('.')
                        || whole == "localhost"
                        || whole.ends_with(".localhost")
                        || bare.parse::<IpAddr>().is_ok(),
                    "{}", host
                );
            }
        }
    }
}
