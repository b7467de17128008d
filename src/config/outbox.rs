//! Rows that transactions of an application write, to be published once they have been committed.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::percent::is_encoded;

/// A table of PostgreSQL whose rows are published and deleted.
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// The database. It may be a pooler in transaction mode.
    pub url: PostgresUrl,
    /// The database without a pooler, for what needs a session of its own: notifications
    /// ([`Self::listen`]), and the lock of a server that has no log to share. The same as [`Self::url`] if it is `None`.
    pub direct_url: Option<PostgresUrl>,
    /// A file with the certificates, in PEM, of the authorities that the database's certificate may be from; `None` for
    /// those of the system.
    pub ca: Option<PathBuf>,
    /// How long a row waits after its transaction was committed, for applications that read from replicas which lag. A
    /// server that has just started, or connected again, waits so long before it publishes anything.
    pub delay: Duration,
    /// How often the table is looked at while it is empty.
    pub interval: Duration,
    /// The table's trigger notifies at each commit: it is looked at at once.
    pub listen: bool,
}

/// Where a database is: `postgres://user[:password]@host[:port]/database[?sslmode=…]`. User and password are
/// percent-encoded (RFC 3986, 2.1). A host may be the folder of a Unix socket, as `%2Frun%2Fpostgresql`.
///
/// `sslmode` is as of libpq: `disable`; `prefer`, the default, and `require`, which accept any certificate;
/// `verify-full`, which verifies it and the name of the host. There is no `allow` and no `verify-ca`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Without `sslmode`.
    text: String,
    /// Without what authenticates, too.
    shown: String,
    tls: Option<PostgresTls>,
}

/// Whether a connection to PostgreSQL is encrypted (`sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresTls {
    /// Never.
    Disable,
    /// If the server can, whatever its certificate.
    Prefer,
    /// Always, whatever the server's certificate.
    Require,
    /// Always, with a certificate of an authority for the name of the host.
    VerifyFull,
}

/// Why a text is not a [`PostgresUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPostgresUrl(Cow<'static, str>);

// ===== impl OutboxConfig =====

impl OutboxConfig {
    /// The default of [`Self::interval`].
    pub const INTERVAL: Duration = Duration::from_millis(100);
    /// The same with [`Self::listen`].
    pub const LISTEN_INTERVAL: Duration = Duration::from_secs(1);
    /// Rows that are published and deleted in one transaction, at first. While transactions are full, the next one has
    /// twice as many.
    pub const BATCH_ROWS: i64 = 256;
    /// The most rows that are published and deleted in one transaction.
    pub const BATCH_ROWS_MAX: i64 = 2_048;
    /// Bytes of rows after which a transaction takes no more of them.
    pub const BATCH_BYTES: i64 = 2 * 1024 * 1024;

    /// The defaults, with this database.
    pub fn new(url: PostgresUrl) -> Self {
        Self {
            url,
            direct_url: None,
            ca: None,
            delay: Duration::ZERO,
            interval: Self::INTERVAL,
            listen: false,
        }
    }
}

// ===== impl PostgresUrl =====

impl PostgresUrl {
    /// The URL, with the password and without `sslmode`.
    #[cfg(feature = "postgres")]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Its `sslmode`, if it has one.
    pub fn tls(&self) -> Option<PostgresTls> {
        self.tls
    }
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(InvalidPostgresUrl("its scheme is not postgres".into()));
        }
        check_spelling(text).map_err(|why| InvalidPostgresUrl(why.into()))?;
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let mut tls = None;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => tls = Some(mode.parse()?),
                Some(("sslrootcert", _)) => {
                    let why = "sslrootcert is --outbox-ca here, with sslmode=verify-full";
                    return Err(InvalidPostgresUrl(why.into()));
                }
                Some((name, _)) if UNUSED.contains(&name) => {
                    let why = format!("{name} has no effect on an outbox");
                    return Err(InvalidPostgresUrl(why.into()));
                }
                _ => rest.push(parameter),
            }
        }
        let mut text = address.to_owned();
        if !rest.is_empty() {
            text = format!("{text}?{}", rest.join("&"));
        }
        let shown = check(&text).map_err(InvalidPostgresUrl)?;
        Ok(Self { text, shown, tls })
    }
}

/// Parameters of the client library that an outbox has settings of its own for, or that it cannot follow.
const UNUSED: [&str; 8] = [
    "connect_timeout",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "tcp_user_timeout",
];

/// Fails if it is not certain where a password in this ends.
fn check_spelling(text: &str) -> Result<(), &'static str> {
    if text.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()) {
        return Err("it has a space or a line break; in a password, a space is written %20");
    }
    if !is_encoded(text) || text.contains("%00") {
        return Err("it has a % without two digits after it; in a password, % is written %25");
    }
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let login = rest.rsplit_once('@').map_or("", |(login, _)| login);
    if login.contains(['@', '/', '?']) {
        return Err("in a user or a password, @ is written %40, / %2F and ? %3F");
    }
    Ok(())
}

/// Fails, without showing a password, if the client cannot use this. Returns what may be shown of it.
#[cfg(feature = "postgres")]
fn check(text: &str) -> Result<String, Cow<'static, str>> {
    let parsed = text.parse::<tokio_postgres::Config>();
    let config = parsed.map_err(|why| in_words(&why, text))?;
    if config.get_user().is_none_or(str::is_empty) {
        return Err("it has no user".into());
    }
    if config.get_hosts().is_empty() {
        return Err("it has no host".into());
    }
    if config.get_ports().contains(&0) {
        return Err(NO_PORT.into());
    }
    let Some(database) = config.get_dbname() else {
        return Err("it names no database".into());
    };
    Ok(format!("postgres://{}/{database}", hosts(&config)))
}

#[cfg(feature = "postgres")]
const NO_PORT: &str =
    "it has no port from 1 to 65535; an IPv6 address is in brackets, as in [::1]:5432";

/// The reason of the client, which names a parameter at most.
#[cfg(feature = "postgres")]
fn in_words(why: &tokio_postgres::Error, text: &str) -> Cow<'static, str> {
    use std::error::Error;

    let why = why.source().map(ToString::to_string).unwrap_or_default();
    match &*why {
        "invalid value for option `port`" => NO_PORT.into(),
        "invalid value for option `host`" => {
            "its host is malformed; an IPv6 address is in brackets, as in [::1]:5432".into()
        }
        // What counts as a name may be the rest of a password.
        _ if text.contains("password=") => {
            "it has a parameter that is not known, or none; in a password, & is written %26".into()
        }
        "" => "it is malformed".into(),
        _ => why.into(),
    }
}

/// The hosts with their ports, as a URL has them.
#[cfg(feature = "postgres")]
fn hosts(config: &tokio_postgres::Config) -> String {
    use tokio_postgres::config::Host;

    let ports = config.get_ports();
    let shown = |(index, host): (usize, &Host)| {
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => folder.display().to_string().replace('/', "%2F"),
        }
    };
    config.get_hosts().iter().enumerate().map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(not(feature = "postgres"))]
fn check(_text: &str) -> Result<String, Cow<'static, str>> {
    Ok("postgres://…".into())
}

impl fmt::Display for PostgresUrl {
    /// Without what authenticates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// ===== impl PostgresTls =====

impl FromStr for PostgresTls {
    type Err = InvalidPostgresUrl;

    fn from_str(mode: &str) -> Result<Self, InvalidPostgresUrl> {
        match mode {
            "disable" => Ok(Self::Disable),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(InvalidPostgresUrl(
                "its sslmode is none of disable, prefer, require and verify-full".into(),
            )),
        }
    }
}

// ===== impl InvalidPostgresUrl =====

impl fmt::Display for InvalidPostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; an outbox is postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=require]",
            self.0
        )
    }
}

impl std::error::Error for InvalidPostgresUrl {}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_user_a_host_and_a_mode_that_is_known() {
        for (url, tls) in [
            ("postgres://app@localhost/app", None),
            ("postgresql://app:p%40ss@[::1]:5433/app?sslmode=disable", Some(PostgresTls::Disable)),
            ("postgres://app@one,two:5433/app?sslmode=prefer", Some(PostgresTls::Prefer)),
            ("postgres://app@h?dbname=x&sslmode=require", Some(PostgresTls::Require)),
            ("postgres://app@%2Frun%2Fpostgresql/app", None),
            ("postgres:///app?user=app&host=db&sslmode=verify-full", Some(PostgresTls::VerifyFull)),
        ] {
            let parsed: PostgresUrl = url.parse().expect(url);
            assert_eq!(parsed.tls(), tls, "{url}");
            assert!(!parsed.as_str().contains("sslmode"), "{url}");
        }
    }

    #[test]
    fn the_error_of_a_url_has_the_reason_and_no_password() {
        for (url, why) in [
            ("mysql://app:sesame@h/app", "its scheme is not postgres"),
            ("postgres://app:sesame@h/app?sslmode=verify-ca", "its sslmode is none of"),
            ("postgres://app:sesame@h/app?sslmode=allow", "its sslmode is none of"),
            ("postgres://app:sesame@h/app?sslrootcert=a.pem", "--outbox-ca"),
            ("postgres://app:sesame@h/app?hostaddr=10.0.0.7", "hostaddr has no effect"),
            ("postgres://app:sesame@h/app?connect_timeout=3", "connect_timeout has no effect"),
            ("postgres://app:sesame@h/app?color=blue", "color"),
            ("postgres://app:sesame@h:port/app", "port from 1 to 65535"),
            ("postgres://app:sesame@h:0/app", "port from 1 to 65535"),
            ("postgres://app:sesame@::1/app", "an IPv6 address is in brackets"),
            ("postgres://app:sesame@[::1/app", "an IPv6 address is in brackets"),
            ("postgres://app:sesame", "port from 1 to 65535"),
            ("postgres://app:ses@ame@h/app", "%40"),
            ("postgres://h/app", "it has no user"),
            ("postgres://app:sesame@/app", "it has no host"),
            ("postgres://app:sesame@h", "it names no database"),
            ("postgres://app:sesame@h/", "it names no database"),
            ("postgres://app:sesame@h/app\n", "a space or a line break"),
            ("postgres://app:ses ame@h/app", "a space or a line break"),
            ("postgres://app:ses%ame@h/app", "% is written %25"),
            ("postgres://app:sesame%@h/app", "% is written %25"),
            ("postgres://app:sesame%00@h/app", "% is written %25"),
        ] {
            let refused = url.parse::<PostgresUrl>().expect_err(url).to_string();
            assert!(refused.contains(why), "{url}: {refused}");
            assert!(!refused.contains("ses") && !refused.contains("ame@"), "{refused}");
        }
    }

    /// SCENARIO: the password has characters that a URL has to encode, and has them as they are.
    /// BUG: the first `@` was taken for the end of the login, so that the rest of the password counted as a host or as
    /// the name of a parameter, which errors and the log show.
    /// FIX: such a URL is refused, and nothing of it is shown.
    #[test]
    fn no_part_of_a_password_counts_as_anything_else() {
        for url in [
            "postgres://app:alpha@beta/gamma@h/app",
            "postgres://app:alpha/beta@h/app",
            "postgres://app:alpha?beta@h/app",
            "postgres://h/app?user=app&password=alpha@beta",
            "postgres://app@h/app?password=alpha&beta=gamma",
            "postgres://app@h/app?password=alpha&beta",
        ] {
            let refused = url.parse::<PostgresUrl>().expect_err(url).to_string();
            let parts = ["alpha", "beta", "gamma"];
            assert!(parts.iter().all(|part| !refused.contains(part)), "{url}: {refused}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_login() {
        for (url, shown) in [
            ("postgres://app:sesame@h/app?sslmode=require", "postgres://h:5432/app"),
            ("postgres://app:sesame@one,[::1]:7/app", "postgres://one:5432,[::1]:7/app"),
            ("postgres://app@%2Frun%2Fpostgresql/app", "postgres://%2Frun%2Fpostgresql/app"),
            ("postgres:///app?user=app&password=sesame&host=db", "postgres://db:5432/app"),
        ] {
            let url: PostgresUrl = url.parse().expect(url);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.into(), shown.into()));
        }
    }
}
