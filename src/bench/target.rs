//! Where the streams and the publishes go.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use http::Uri;

use crate::client::Trust;
use crate::client::tls::Tls;

/// A URL taken apart and its host looked up, once.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) is_secure: bool,
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
    pub(crate) authority: String,
    pub(crate) path: String,
}

/// Why a measurement could not begin or go on.
#[derive(Debug)]
pub enum Error {
    /// A URL cannot be used.
    Url {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it and what is allowed.
        why: String,
    },
    /// No stream can come about with this server.
    Server {
        /// Its name.
        authority: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The settings contradict each other or the limits of this machine.
    Settings(String),
    /// The system refused something.
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        why: io::Error,
    },
}

/// Streams from one source address to one server, below the 28,232 ephemeral ports of Linux
/// (`net.ipv4.ip_local_port_range`).
const STREAMS_PER_SOURCE: usize = 20_000;

// ===== impl Target =====

impl Target {
    /// Takes `http[s]://host[:port]/path` apart.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Url { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|why| wrong(format!("{why}")))?;
        let (is_secure, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong("expected http:// or https://".into())),
        };
        let authority = uri.authority().ok_or_else(|| wrong("no host".into()))?;
        let host = authority.host().trim_matches(['[', ']']);
        let found = (host, authority.port_u16().unwrap_or(port)).to_socket_addrs();
        let mut addresses = found.map_err(|why| wrong(format!("host {host}: {why}")))?;
        let address = addresses.next().ok_or_else(|| wrong(format!("host {host}: no address")))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let (authority, host, path) = (authority.to_string(), host.to_owned(), path.to_owned());
        Ok(Self { is_secure, host, address, authority, path })
    }

    /// How TLS is spoken with it, if it is.
    pub(crate) fn tls(&self, trust: &Trust, protocol: &[u8]) -> Result<Option<Tls>, Error> {
        let tls = self.is_secure.then(|| Tls::new(trust, &self.host, protocol)).transpose();
        tls.map_err(|why| Error::Server { authority: self.authority.clone(), why })
    }

    /// The address from which the stream with this number is opened; `None` lets the system choose.
    pub(crate) fn source(&self, stream: usize, given: &[IpAddr]) -> Option<IpAddr> {
        if !given.is_empty() {
            return Some(given[stream % given.len()]);
        }
        let network = u8::try_from(stream / STREAMS_PER_SOURCE).ok().filter(|at| *at > 0)?;
        let loopback = self.address.is_ipv4() && self.address.ip().is_loopback();
        loopback.then(|| Ipv4Addr::new(127, 0, 1, network).into())
    }
}

// ===== impl Error =====

impl Error {
    pub(crate) fn system(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |why| Self::System { doing, why }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, why } => write!(f, "{url}: {why}"),
            Self::Server { authority, why } => write!(f, "{authority}: {why}"),
            Self::Settings(why) => write!(f, "{why}"),
            Self::System { doing, why } => write!(f, "{doing}: {why}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_comes_apart() {
        let target = Target::parse("http://127.0.0.1:81/api/a/events?x=1").unwrap();
        assert_eq!(target.address, "127.0.0.1:81".parse().unwrap());
        assert_eq!(target.path, "/api/a/events?x=1");
        assert_eq!(Target::parse("http://[::1]").unwrap().address, "[::1]:80".parse().unwrap());
    }

    #[test]
    fn https_has_a_port_of_its_own_and_a_host_to_check() {
        let target = Target::parse("https://[::1]/x").unwrap();
        assert_eq!(target.address, "[::1]:443".parse().unwrap());
        assert_eq!((target.is_secure, &*target.host), (true, "::1"));
        let why = Target::parse("ftp://127.0.0.1/").unwrap_err().to_string();
        assert!(why.contains("expected http:// or https://"), "{why}");
    }

    #[test]
    fn streams_beyond_the_ports_come_from_further_loopback_addresses() {
        let target = Target::parse("http://127.0.0.1:81/").unwrap();
        assert_eq!(target.source(19_999, &[]), None);
        assert_eq!(target.source(20_000, &[]), Some("127.0.1.1".parse().unwrap()));
        let given = ["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        assert_eq!(target.source(3, &given), Some(given[1]));
        assert_eq!(Target::parse("http://192.0.2.1/").unwrap().source(20_000, &[]), None);
    }
}
