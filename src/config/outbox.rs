//! Rows that transactions of an application write, to be published once they have been committed.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

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

/// Where a database is: `postgres://user[:password]@host[:port]/database[?sslmode=…]`.
///
/// `sslmode` is as of libpq: `disable`; `prefer`, the default, and `require`, which accept any certificate;
/// `verify-full`, which verifies it and the name of the host. There is no `allow` and no `verify-ca`.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Without `sslmode`.
    text: String,
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
                _ => rest.push(parameter),
            }
        }
        let mut text = address.to_owned();
        if !rest.is_empty() {
            text = format!("{text}?{}", rest.join("&"));
        }
        check(&text).map_err(InvalidPostgresUrl)?;
        Ok(Self { text, tls })
    }
}

/// Fails, without showing a password, if the client cannot use this.
#[cfg(feature = "postgres")]
fn check(text: &str) -> Result<(), Cow<'static, str>> {
    use std::error::Error;

    use tokio_postgres::config::Host;

    let config: tokio_postgres::Config = text.parse().map_err(|why: tokio_postgres::Error| {
        // It names a parameter at most.
        why.source().map_or_else(|| "it is malformed".to_owned(), ToString::to_string)
    })?;
    let hosts = config.get_hosts();
    let is_misread = |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', ' ']));
    if hosts.iter().any(is_misread) {
        return Err(
            "it has more than one @, or a malformed host; write %40 for an @ in a password".into(),
        );
    }
    if config.get_user().is_none_or(str::is_empty) {
        return Err("it has no user".into());
    }
    if hosts.is_empty() {
        return Err("it has no host".into());
    }
    Ok(())
}

#[cfg(not(feature = "postgres"))]
fn check(_text: &str) -> Result<(), Cow<'static, str>> {
    Ok(())
}

impl fmt::Debug for PostgresUrl {
    /// Without what authenticates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://…")
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
            ("postgres://app@h?application_name=x&sslmode=require", Some(PostgresTls::Require)),
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
            ("postgres://app:sesame@h/app?color=blue", "color"),
            ("postgres://app:sesame@h:port/app", "port"),
            ("postgres://app:ses@ame@h/app", "%40"),
            ("postgres://h/app", "it has no user"),
            ("postgres://app:sesame@/app", "it has no host"),
        ] {
            let refused = url.parse::<PostgresUrl>().expect_err(url).to_string();
            assert!(refused.contains(why), "{url}: {refused}");
            assert!(!refused.contains("ses") && !refused.contains("ame@"), "{refused}");
        }
    }
}
