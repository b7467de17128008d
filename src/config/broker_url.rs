//! Where the broker is that has the log which several servers share.

use std::fmt;
use std::str::FromStr;

use super::percent::is_encoded;

/// Where a broker is. One of
///
/// * `nats://[user:password@|token@]host[:port][,host[:port]…]`, or `tls://…`: NATS with JetStream;
/// * `redis://[[user]:password@]host[:port][/database]`, or `rediss://…`: Redis, or Valkey;
/// * `redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/service[/database]`, or `rediss+sentinel://…`: the
///   same, whose primary these Sentinels know under this name. The login is that of Redis, and of Sentinels that ask
///   for one.
///
/// User, password and token are percent-encoded (RFC 3986, 2.1). A server without a port has 4222, 6379 or 26379.
#[derive(Clone, PartialEq, Eq)]
pub struct BackplaneUrl {
    /// What the broker is.
    pub kind: BrokerKind,
    /// Host and port of each server of the broker, or of each Sentinel; at least one. An IPv6 address is in brackets.
    pub servers: Vec<(String, u16)>,
    /// The connection is encrypted, those to Sentinels too.
    pub tls: bool,
    /// How it authenticates.
    pub login: Option<BackplaneLogin>,
}

/// What has the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerKind {
    /// A stream of NATS JetStream.
    Nats,
    /// A stream of Redis ≥ 7.0, or of Valkey.
    Redis {
        /// The number of the database.
        database: u16,
        /// The name of the primary for the Sentinels; `None` if [`BackplaneUrl::servers`] is the server itself.
        service: Option<String>,
    },
}

/// How a server authenticates to a broker.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackplaneLogin {
    /// With a name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// With a token.
    Token(String),
}

/// Why a text is not a [`BackplaneUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidBackplaneUrl(String);

/// The ports of NATS, of Redis, and of its Sentinels.
const NATS_PORT: u16 = 4222;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

const NO_DATABASE: &str = "its path is no number of a database; in a password, / is written %2F";

// ===== impl BackplaneUrl =====

impl FromStr for BackplaneUrl {
    type Err = InvalidBackplaneUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBackplaneUrl> {
        let invalid = |why: &str| InvalidBackplaneUrl(why.into());
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("there is no scheme"))?;
        // What was given may be a secret, so nothing of it is shown.
        let scheme = Scheme::of(scheme)
            .ok_or_else(|| invalid("its scheme is neither nats nor tls, redis nor rediss"))?;
        let (rest, path) = match rest.split_once('/') {
            Some((rest, path)) => (rest, path.strip_suffix('/').unwrap_or(path)),
            None => (rest, ""),
        };
        if rest.contains(['?', '#']) || path.contains(['?', '#']) || path.contains("//") {
            return Err(invalid(
                "it has a query or a fragment, or a second scheme; in a password, / is written \
                 %2F, ? %3F and # %23",
            ));
        }
        let kind = scheme.kind(path)?;
        let (login, servers) = match rest.rsplit_once('@') {
            Some((login, servers)) => (Some(parse_login(login, &kind)?), servers),
            None => (None, rest),
        };
        let parse = |(server, number)| parse_server(server, number, scheme.port());
        let servers: Vec<_> = servers.split(',').zip(1..).map(parse).collect::<Result<_, _>>()?;
        if servers.len() > 1 && matches!(kind, BrokerKind::Redis { service: None, .. }) {
            return Err(invalid("it has more than one server; Sentinels are redis+sentinel://"));
        }
        Ok(Self { kind, servers, tls: scheme.tls, login })
    }
}

/// What the scheme of a URL says.
#[derive(Clone, Copy)]
struct Scheme {
    is_redis: bool,
    is_sentinel: bool,
    tls: bool,
}

impl Scheme {
    fn of(text: &str) -> Option<Self> {
        let (is_redis, is_sentinel, tls) = match text {
            "nats" => (false, false, false),
            "tls" => (false, false, true),
            "redis" => (true, false, false),
            "rediss" => (true, false, true),
            "redis+sentinel" => (true, true, false),
            "rediss+sentinel" => (true, true, true),
            _ => return None,
        };
        Some(Self { is_redis, is_sentinel, tls })
    }

    fn port(self) -> u16 {
        match self {
            Self { is_redis: false, .. } => NATS_PORT,
            Self { is_sentinel: false, .. } => REDIS_PORT,
            Self { is_sentinel: true, .. } => SENTINEL_PORT,
        }
    }

    /// The path of NATS is empty; that of Redis names the service that Sentinels know, and the database.
    fn kind(self, path: &str) -> Result<BrokerKind, InvalidBackplaneUrl> {
        let invalid = |why: &str| Err(InvalidBackplaneUrl(why.into()));
        if !self.is_redis {
            return match path {
                "" => Ok(BrokerKind::Nats),
                _ => invalid("it has a path; in a password, / is written %2F"),
            };
        }
        let (service, database) = match (self.is_sentinel, path.split_once('/')) {
            (false, None) => (None, path),
            (false, Some(_)) => return invalid(NO_DATABASE),
            (true, None) => (Some(path), ""),
            (true, Some((service, database))) => (Some(service), database),
        };
        let Ok(database) = (if database.is_empty() { "0" } else { database }).parse() else {
            return invalid(NO_DATABASE);
        };
        if service.is_some_and(|service| !is_name(service)) {
            return invalid(
                "it names no service, which is what Sentinels call the primary; in a password, / is \
                 written %2F",
            );
        }
        Ok(BrokerKind::Redis { database, service: service.map(str::to_owned) })
    }
}

/// Of hosts, and of the services of Sentinels.
fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !text.is_empty() && text.bytes().all(allowed)
}

fn parse_login(text: &str, kind: &BrokerKind) -> Result<BackplaneLogin, InvalidBackplaneUrl> {
    if text.contains('@') {
        let why =
            "it has more than one @; one login is for all servers, and in it @ is written %40";
        return Err(InvalidBackplaneUrl(why.into()));
    }
    let decode = |text: &str| {
        let text = percent_encoding::percent_decode_str(text).decode_utf8();
        text.map(String::from).map_err(|_| InvalidBackplaneUrl("its login is not UTF-8".into()))
    };
    if !is_encoded(text) {
        let why = "its login has a % without two digits after it; in a password, % is written %25";
        return Err(InvalidBackplaneUrl(why.into()));
    }
    let is_redis = matches!(kind, BrokerKind::Redis { .. });
    match text.split_once(':') {
        // Redis has a user of this name, whose password was once all that there was.
        Some(("", password)) if is_redis => {
            Ok(BackplaneLogin::Password { user: "default".into(), password: decode(password)? })
        }
        Some((user, password)) if !user.is_empty() => {
            Ok(BackplaneLogin::Password { user: decode(user)?, password: decode(password)? })
        }
        None if is_redis => Err(InvalidBackplaneUrl(
            "its login has no password; without a user it is redis://:PASSWORD@HOST".into(),
        )),
        None if !text.is_empty() => Ok(BackplaneLogin::Token(decode(text)?)),
        _ => Err(InvalidBackplaneUrl("its login has no user".into())),
    }
}

fn parse_server(
    text: &str,
    number: usize,
    default_port: u16,
) -> Result<(String, u16), InvalidBackplaneUrl> {
    let invalid = || {
        InvalidBackplaneUrl(format!("its server {number} is no host with a port from 1 to 65535"))
    };
    let is_address = text.starts_with('[') && text.ends_with(']');
    let (host, port) = match text.rsplit_once(':').filter(|_| !is_address) {
        Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
        None => (text, default_port),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_v6 = address.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if port == 0 || !(is_name(host) || is_v6) {
        return Err(invalid());
    }
    Ok((host.to_owned(), port))
}

impl fmt::Display for BackplaneUrl {
    /// Without what authenticates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.kind, self.tls) {
            (BrokerKind::Nats, false) => "nats",
            (BrokerKind::Nats, true) => "tls",
            (BrokerKind::Redis { service: None, .. }, false) => "redis",
            (BrokerKind::Redis { service: None, .. }, true) => "rediss",
            (BrokerKind::Redis { service: Some(_), .. }, false) => "redis+sentinel",
            (BrokerKind::Redis { service: Some(_), .. }, true) => "rediss+sentinel",
        })?;
        for (index, (host, port)) in self.servers.iter().enumerate() {
            let separator = if index == 0 { "://" } else { "," };
            write!(f, "{separator}{host}:{port}")?;
        }
        let BrokerKind::Redis { database, service } = &self.kind else { return Ok(()) };
        if let Some(service) = service {
            write!(f, "/{service}")?;
        }
        if *database == 0 { Ok(()) } else { write!(f, "/{database}") }
    }
}

impl fmt::Debug for BackplaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for BackplaneLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackplaneLogin").finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidBackplaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; a backplane is nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]...] or tls://..., \
             redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE] or rediss://..., or \
             redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DATABASE]",
            self.0
        )
    }
}

impl std::error::Error for InvalidBackplaneUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backplane_is_a_url_with_servers_and_a_login() {
        let url: BackplaneUrl = "nats://a,b:1,[::1]:2".parse().expect("valid");
        assert_eq!(url.servers, [("a".into(), 4222), ("b".into(), 1), ("[::1]".into(), 2)]);
        assert_eq!((url.tls, url.login), (false, None));
        let url: BackplaneUrl = "tls://me:p%40ss:word@host/".parse().expect("valid");
        let login = BackplaneLogin::Password { user: "me".into(), password: "p@ss:word".into() };
        assert_eq!((url.tls, &url.login), (true, &Some(login)));
        assert_eq!(format!("{url} {url:?}"), "tls://host:4222 tls://host:4222", "no password");
        let url: BackplaneUrl = "nats://secret@host".parse().expect("valid");
        assert_eq!(url.login, Some(BackplaneLogin::Token("secret".into())));
        let url: BackplaneUrl = "rediss://:pass@host/3".parse().expect("valid");
        let login = BackplaneLogin::Password { user: "default".into(), password: "pass".into() };
        assert_eq!((url.tls, &url.login), (true, &Some(login)));
        assert_eq!(url.kind, BrokerKind::Redis { database: 3, service: None });
        assert_eq!(url.to_string(), "rediss://host:6379/3");
        let url: BackplaneUrl = "redis+sentinel://me:p@a,b:1/primary".parse().expect("valid");
        assert_eq!(url.servers, [("a".into(), 26379), ("b".into(), 1)]);
        assert_eq!(url.to_string(), "redis+sentinel://a:26379,b:1/primary");
        for bad in [
            "",
            "host",
            "http://host",
            "nats://",
            "nats://a,",
            "nats://a:0",
            "nats://a:x",
            "nats://a/b",
            "nats://a?x",
            "nats://@a",
            "nats://:p@a",
            "nats://a b",
            "nats://[::x]",
            "nats://u:p@a,u:p@b",
            "nats://u:p@a,nats://u:p@b",
            "redis://a,b",
            "redis://a/x",
            "redis://a/1/2",
            "redis://token@a",
            "redis+sentinel://a",
            "redis+sentinel://a/b c",
            "redis+sentinel://a/b/x",
            "redis+sentinel://u:p@a,u:p@b/c",
            "redis://u:p%zz@a",
            "nats://u:p%2@a",
            "nats://token%@a",
        ] {
            let why = bad.parse::<BackplaneUrl>().expect_err(bad).to_string();
            assert!(why.contains("a backplane is nats://"), "{bad}: {why}");
        }
    }

    /// SCENARIO: the `@` behind a password is forgotten, or the scheme, or the password has characters that a URL has to
    /// encode.
    /// BUG: the error showed the part that could not be parsed, which is the password.
    /// FIX: an error shows nothing of the text.
    #[test]
    fn an_error_shows_no_password() {
        for bad in [
            "hunter2",
            "hunter2://host",
            "user:hunter2@host",
            "nats://user:hunter2",
            "nats://hunter2:x",
            "nats://user:hunter2/@host",
            "nats://user:hunter2@x@host",
            "nats://a,hunter2:x,b",
            "nats://:hunter2@host",
            "redis://user:hunter2/@host",
            "redis+sentinel://user:hunter2/@host/main",
            "redis+sentinel://user:1/hunter2@host/main",
            "redis://user:hunter2%@host",
        ] {
            let why = bad.parse::<BackplaneUrl>().expect_err(bad);
            assert!(!format!("{why} {why:?}").contains("hunter2"), "{bad}: {why}");
        }
    }
}
