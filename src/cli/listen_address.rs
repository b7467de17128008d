//! Addresses to listen on, as they are written on the command line.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;

use nudged::config::Endpoint;

/// An address to listen on, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListenAddress {
    /// `IP:PORT`: this one. An IPv6 address takes no IPv4.
    One(SocketAddr),
    /// `localhost:PORT`: the loopback addresses of IPv4 and IPv6.
    Localhost(u16),
    /// `unix:PATH`: a Unix socket.
    Unix(PathBuf),
    /// `:PORT`: all addresses of this machine, of IPv4 and IPv6.
    All(u16),
}

/// A text is not a [`ListenAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidListenAddress;

/// The addresses that these are on this machine. Warns where they are fewer than those written, or may seem to be more.
pub(super) fn resolve(addresses: &[ListenAddress]) -> Vec<Endpoint> {
    resolve_with(addresses, has, |line| tracing::warn!("{line}"))
}

/// Whether this machine can listen on it: it may lack IPv6.
fn has(address: Ipv6Addr) -> bool {
    TcpListener::bind((address, 0)).is_ok()
}

fn resolve_with(
    addresses: &[ListenAddress],
    has: impl Fn(Ipv6Addr) -> bool,
    mut warn: impl FnMut(String),
) -> Vec<Endpoint> {
    let mut resolved = Vec::new();
    for written in addresses {
        let (first, second): (SocketAddr, _) = match *written {
            ListenAddress::One(address) => (address, None),
            ListenAddress::Unix(ref path) => {
                let socket = Endpoint::Unix(path.clone());
                if !resolved.contains(&socket) {
                    resolved.push(socket);
                }
                continue;
            }
            ListenAddress::Localhost(port) => {
                ((Ipv4Addr::LOCALHOST, port).into(), Some((Ipv6Addr::LOCALHOST, port)))
            }
            ListenAddress::All(port) => {
                ((Ipv4Addr::UNSPECIFIED, port).into(), Some((Ipv6Addr::UNSPECIFIED, port)))
            }
        };
        if let Some((v6, _)) = second
            && !has(v6)
        {
            warn(format!("{written}: this machine has no IPv6, so only {first} is listened on"));
        }
        let second = second.filter(|(v6, _)| has(*v6)).map(SocketAddr::from);
        for address in [Some(first), second].into_iter().flatten() {
            // Each request of port 0 is one for a port of its own.
            if address.port() == 0 || !resolved.contains(&Endpoint::Tcp(address)) {
                resolved.push(Endpoint::Tcp(address));
            }
        }
    }
    let addresses = resolved.iter().filter_map(Endpoint::tcp);
    for v6 in addresses.filter(|address| address.ip() == Ipv6Addr::UNSPECIFIED) {
        let port = v6.port();
        if !resolved.contains(&(Ipv4Addr::UNSPECIFIED, port).into()) {
            warn(format!(
                "{v6} takes connections over IPv6 only; :{port} takes those over IPv4 too"
            ));
        }
    }
    resolved
}

// ===== impl ListenAddress =====

impl ListenAddress {
    pub(super) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            // An IPv4 address within IPv6 cannot be bound to as one that takes no IPv4.
            let ip = address.ip().to_canonical();
            let is_mapped = ip != address.ip();
            return Ok(Self::One(if is_mapped { (ip, address.port()).into() } else { address }));
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidListenAddress)?;
        // `parse` would take a sign.
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number).ok_or(InvalidListenAddress)?;
        match host {
            "" => Ok(Self::All(port)),
            host if host.eq_ignore_ascii_case("localhost") => Ok(Self::Localhost(port)),
            _ => Err(InvalidListenAddress),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::All(port) => write!(f, ":{port}"),
        }
    }
}

// ===== impl InvalidListenAddress =====

impl fmt::Display for InvalidListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "write it like 127.0.0.1:6834, [::1]:6834, localhost:6834 (both of these) or :6834 (all addresses, \
             IPv4 and IPv6), or unix:/run/nudged.sock; other names are not looked up",
        )
    }
}

impl std::error::Error for InvalidListenAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is listened on, and what the log says.
    fn resolved(texts: &[&str], has_v6: bool) -> (Vec<String>, Vec<String>) {
        let addresses: Vec<_> = texts.iter().map(|text| text.parse().expect(text)).collect();
        let mut lines = Vec::new();
        let resolved = resolve_with(&addresses, |_| has_v6, |line| lines.push(line));
        (resolved.iter().map(ToString::to_string).collect(), lines)
    }

    #[test]
    fn a_name_and_a_bare_port_mean_both_families() {
        for (texts, expected) in [
            (&["127.0.0.1:81"][..], &["127.0.0.1:81"][..]),
            (&["localhost:81"], &["127.0.0.1:81", "[::1]:81"]),
            (&["LOCALHOST:0"], &["127.0.0.1:0", "[::1]:0"]),
            (&[":81"], &["0.0.0.0:81", "[::]:81"]),
            (&["localhost:81", "[::1]:81"], &["127.0.0.1:81", "[::1]:81"]),
            (&["127.0.0.1:0", "127.0.0.1:0"], &["127.0.0.1:0", "127.0.0.1:0"]),
            (&["[::ffff:127.0.0.1]:81"], &["127.0.0.1:81"]),
            (&["0.0.0.0:81", "[::]:81"], &["0.0.0.0:81", "[::]:81"]),
            (&["unix:/a b", ":81", "unix:/a b"], &["unix:/a b", "0.0.0.0:81", "[::]:81"]),
            (&["unix:localhost:81"], &["unix:localhost:81"]),
        ] {
            assert_eq!(
                resolved(texts, true),
                (expected.iter().map(|s| (*s).into()).collect(), vec![])
            );
        }
    }

    #[test]
    fn the_log_says_what_is_less_than_both_families() {
        for (text, has_v6, expected, line) in [
            (
                "localhost:81",
                false,
                "127.0.0.1:81",
                "localhost:81: this machine has no IPv6, so only 127.0.0.1:81",
            ),
            (":81", false, "0.0.0.0:81", ":81: this machine has no IPv6, so only 0.0.0.0:81"),
            (
                "[::]:81",
                true,
                "[::]:81",
                "[::]:81 takes connections over IPv6 only; :81 takes those over IPv4",
            ),
        ] {
            let (addresses, lines) = resolved(&[text], has_v6);
            assert_eq!(addresses, [expected]);
            assert!(lines.len() == 1 && lines[0].starts_with(line), "{lines:?}");
        }
    }

    #[test]
    fn another_form_is_refused_with_the_forms_that_are_allowed() {
        for text in [
            "",
            "6834",
            "localhost",
            "localhost:",
            "example.org:80",
            "127.0.0.1",
            ":99999",
            ":+1",
            "::1:80:",
            "*:80",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidListenAddress), "{text}");
        }
        assert!(InvalidListenAddress.to_string().contains("localhost:6834"));
    }
}
