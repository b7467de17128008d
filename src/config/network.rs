//! Networks of addresses, and how proxies name the clients behind them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network in CIDR notation, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Peers of connections, before any of their clients is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peers {
    /// Those of a network.
    Network(Network),
    /// Those of Unix sockets, which have no address.
    Unix,
}

/// The header field in which proxies name their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedField {
    /// `X-Forwarded-For`, which most proxies write.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A text is not a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidNetwork;

// ===== impl Network =====

impl Network {
    /// An IPv4 address within IPv6, as a socket of both families reports it, counts as the IPv4 address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(canonical).map(Self).map_err(|_| InvalidNetwork)
    }
}

/// A network of IPv4 that is written as one of IPv6 (`::ffff:10.0.0.0/104`), as what it is.
fn canonical(net: IpNet) -> IpNet {
    let v4 = (net.addr().to_canonical(), net.prefix_len().checked_sub(96));
    match v4 {
        (address @ IpAddr::V4(_), Some(bits)) if matches!(net, IpNet::V6(_)) => {
            IpNet::new(address, bits).unwrap_or(net)
        }
        _ => net,
    }
}

// ===== impl Peers =====

impl Peers {
    /// Whether the peer with this address is one of them; `None` is that of a Unix socket.
    pub(crate) fn contain(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Self::Network(network), Some(address)) => network.contains(address),
            (Self::Unix, None) => true,
            (Self::Network(_), None) | (Self::Unix, Some(_)) => false,
        }
    }
}

impl FromStr for Peers {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        match text {
            "unix" => Ok(Self::Unix),
            _ => text.parse().map(Self::Network),
        }
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(Network(net)) => net.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

// ===== impl InvalidNetwork =====

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1; unix are the clients of Unix sockets")
    }
}

impl std::error::Error for InvalidNetwork {}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCENARIO: a proxy connects over IPv4 to a socket of both families, which reports it as `::ffff:10.0.0.1`.
    /// FIX: it counts as 10.0.0.1, and so does a network that is written that way.
    #[test]
    fn an_ipv4_address_within_ipv6_is_the_ipv4_address() {
        for text in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "10.0.0.1", "::ffff:10.0.0.1"] {
            let network: Network = text.parse().expect(text);
            for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
                assert!(network.contains(address.parse().expect("an address")), "{text} {address}");
            }
            for address in ["11.0.0.1", "::ffff:11.0.0.1", "::1", "::10.0.0.1"] {
                assert!(
                    !network.contains(address.parse().expect("an address")),
                    "{text} {address}"
                );
            }
        }
        let all: Network = "::/0".parse().expect("all of IPv6");
        assert!(all.contains("2001:db8::1".parse().expect("an address")));
    }
}
