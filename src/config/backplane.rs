//! The log that several servers share: where it is, and how it is used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The log that several servers share. All servers of one log must be configured alike.
#[derive(Clone, Debug)]
pub struct BackplaneConfig {
    /// The broker that has the log.
    pub url: BackplaneUrl,
    /// A file with the certificates, in PEM, of the authorities that the broker's certificate may be from; `None` for
    /// those of the system.
    pub ca: Option<PathBuf>,
    /// The name of the log. Each set of servers has a log of its own.
    pub log: LogName,
    /// Copies of the log that a cluster of brokers keeps, if the server has to create it: 1, 3 or 5.
    pub replicas: u8,
    /// How long publishes are collected for one record, from the first of them on. Zero appends at once what there is.
    pub linger: Duration,
    /// Bytes of memory for the last records of the log, from which streams resume; at least [`Self::TAIL_BYTES_MIN`]. A
    /// log that this server creates keeps four times as much.
    pub tail_bytes: usize,
    /// How long a publish waits until its record is in the log and has come back. A request to the broker may take as
    /// long, and at least 3 s.
    pub timeout: Duration,
    /// A restart of the broker loses nothing: its disk has every record that it acknowledged. After a power cut that is
    /// so with NATS only if `sync_interval` is `always`, which 2.9 does not know.
    pub trust_disk: bool,
    /// `/readyz` responds 503 while the broker cannot be reached.
    pub unready_when_cut_off: bool,
}

/// Where a broker is: `nats://[user:password@|token@]host[:port][,host[:port]…]`, or `tls://…`. User, password and token
/// are percent-encoded (RFC 3986, 2.1). A server without a port has 4222.
#[derive(Clone, PartialEq, Eq)]
pub struct BackplaneUrl {
    /// Host and port of each server of the broker, at least one. An IPv6 address is in brackets.
    pub servers: Vec<(String, u16)>,
    /// The connection is encrypted.
    pub tls: bool,
    /// How it authenticates.
    pub login: Option<BackplaneLogin>,
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

/// The name of a log: `[A-Za-z0-9][A-Za-z0-9_-]{0,31}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName(String);

/// Why a text is not a [`BackplaneUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidBackplaneUrl(String);

/// Why a text is not a [`LogName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLogName;

/// The lines of the largest record that a log takes, in bytes: 512 KiB less 256 for its headers.
pub const RECORD_BYTES_MAX: usize = 512 * 1024 - 256;

/// What a record has beside the body of a publish, at most: the names of an organisation and of a topic, as JSON.
pub(crate) const RECORD_OVERHEAD_MAX: usize = 256;

/// The port of NATS.
const NATS_PORT: u16 = 4222;

// ===== impl BackplaneConfig =====

impl BackplaneConfig {
    /// The default of [`Self::replicas`].
    pub const REPLICAS: u8 = 1;
    /// The default of [`Self::linger`].
    pub const LINGER: Duration = Duration::from_millis(5);
    /// The default of [`Self::tail_bytes`].
    pub const TAIL_BYTES: usize = 64 * 1024 * 1024;
    /// The least value of [`Self::tail_bytes`].
    pub const TAIL_BYTES_MIN: usize = 1024 * 1024;
    /// The default of [`Self::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// The largest body of a publish that one record holds, in bytes.
    pub const PUBLISH_BYTES_MAX: usize = RECORD_BYTES_MAX - RECORD_OVERHEAD_MAX;

    /// The defaults, with this broker.
    pub fn new(url: BackplaneUrl) -> Self {
        Self {
            url,
            ca: None,
            log: LogName::default(),
            replicas: Self::REPLICAS,
            linger: Self::LINGER,
            tail_bytes: Self::TAIL_BYTES,
            timeout: Self::TIMEOUT,
            trust_disk: false,
            unready_when_cut_off: false,
        }
    }
}

// ===== impl BackplaneUrl =====

impl FromStr for BackplaneUrl {
    type Err = InvalidBackplaneUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBackplaneUrl> {
        let invalid = |why: &str| InvalidBackplaneUrl(why.into());
        let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("there is no scheme"))?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            // What was given may be a secret, so nothing of it is shown.
            _ => return Err(invalid("its scheme is neither nats nor tls")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(invalid(
                "it has a path, a query or a fragment, or a second scheme; in a password, / is \
                 written %2F, ? %3F and # %23",
            ));
        }
        let (login, servers) = match rest.rsplit_once('@') {
            Some((login, servers)) => (Some(parse_login(login)?), servers),
            None => (None, rest),
        };
        let servers = servers.split(',').zip(1..).map(parse_server).collect::<Result<_, _>>()?;
        Ok(Self { servers, tls, login })
    }
}

fn parse_login(text: &str) -> Result<BackplaneLogin, InvalidBackplaneUrl> {
    if text.contains('@') {
        let why =
            "it has more than one @; one login is for all servers, and in it @ is written %40";
        return Err(InvalidBackplaneUrl(why.into()));
    }
    let decode = |text: &str| {
        let text = percent_encoding::percent_decode_str(text).decode_utf8();
        text.map(String::from).map_err(|_| InvalidBackplaneUrl("its login is not UTF-8".into()))
    };
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => {
            Ok(BackplaneLogin::Password { user: decode(user)?, password: decode(password)? })
        }
        None if !text.is_empty() => Ok(BackplaneLogin::Token(decode(text)?)),
        _ => Err(InvalidBackplaneUrl("its login has no user".into())),
    }
}

fn parse_server((text, number): (&str, usize)) -> Result<(String, u16), InvalidBackplaneUrl> {
    let invalid = || {
        InvalidBackplaneUrl(format!("its server {number} is no host with a port from 1 to 65535"))
    };
    let is_address = text.starts_with('[') && text.ends_with(']');
    let (host, port) = match text.rsplit_once(':').filter(|_| !is_address) {
        Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
        None => (text, NATS_PORT),
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_name = !host.is_empty() && host.bytes().all(name);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_v6 = address.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if port == 0 || !(is_name || is_v6) {
        return Err(invalid());
    }
    Ok((host.to_owned(), port))
}

impl fmt::Display for BackplaneUrl {
    /// Without what authenticates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "tls://" } else { "nats://" })?;
        for (index, (host, port)) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{host}:{port}")?;
        }
        Ok(())
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
            "{}; a backplane is nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]...] or tls://...",
            self.0
        )
    }
}

impl std::error::Error for InvalidBackplaneUrl {}

// ===== impl LogName =====

impl Default for LogName {
    fn default() -> Self {
        Self("nudged".into())
    }
}

impl LogName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LogName {
    type Err = InvalidLogName;

    fn from_str(text: &str) -> Result<Self, InvalidLogName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let starts_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let valid = starts_well && text.len() <= 32 && text.bytes().all(allowed);
        valid.then(|| Self(text.into())).ok_or(InvalidLogName)
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidLogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a log's name is 1 to 32 of A-Z a-z 0-9 _ - and starts with a letter or digit")
    }
}

impl std::error::Error for InvalidLogName {}

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
        ] {
            let why = bad.parse::<BackplaneUrl>().expect_err(bad);
            assert!(!format!("{why} {why:?}").contains("hunter2"), "{bad}: {why}");
        }
    }

    #[test]
    fn a_log_has_a_plain_name() {
        for good in ["nudged", "A-1_b"] {
            assert_eq!(good.parse().as_ref().map(LogName::as_str), Ok(good));
        }
        for bad in ["", "a.b", "-a", "a b", "a*", &"a".repeat(33)] {
            assert_eq!(bad.parse::<LogName>(), Err(InvalidLogName), "{bad:?}");
        }
    }
}
