//! Connects to PostgreSQL, and says in words what is wrong.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::{COMMAND, POSTGRES_MIN};
use super::tls;
use crate::backplane::wait::within;
use crate::config::{OutboxConfig, PostgresTls, PostgresUrl};

/// How to connect.
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A session. Its connection ends when this is dropped.
pub(super) struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

/// Why a session cannot be used, or not any more.
#[derive(Debug)]
pub(super) struct Down(pub(super) String);

/// How long to connect may take, and each request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing may come before the kernel asks whether the other end is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Characters of a reason that are shown: it may be the database's own text.
const WHY_MAX: usize = 300;

// ===== impl Connector =====

impl Connector {
    /// One for this URL.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub(super) fn new(url: &PostgresUrl, outbox: &OutboxConfig) -> Result<Self, String> {
        let mode = tls::mode(url, outbox);
        let mut config: Config = url.as_str().parse().map_err(|why: Error| in_words(&why).0)?;
        config.ssl_mode(match mode {
            PostgresTls::Disable => SslMode::Disable,
            PostgresTls::Prefer => SslMode::Prefer,
            PostgresTls::Require | PostgresTls::VerifyFull => SslMode::Require,
        });
        config.connect_timeout(TIMEOUT / 2).tcp_user_timeout(TIMEOUT).keepalives_idle(KEEPALIVE);
        if config.get_application_name().is_none() {
            config.application_name("nudged");
        }
        let tls = MakeRustlsConnect::new(tls::config(mode, outbox.ca.as_deref())?);
        Ok(Self { config, tls })
    }

    /// Connects. `notified` is woken by notifications.
    pub(super) async fn connect(&self, notified: &Arc<Notify>) -> Result<Session, Down> {
        // Large, and everything that awaits it would be.
        let connect = Box::pin(self.config.connect(self.tls.clone()));
        let Some(connected) = within(TIMEOUT, connect).await else {
            return Err(Down(format!("{} does not respond", self.hosts())));
        };
        let (client, mut connection) = connected.map_err(|why| match why.as_db_error() {
            Some(_) => in_words(&why),
            None => Down(format!("{}: {}", self.hosts(), in_words(&why).0)),
        })?;
        let version = connection.parameter("server_version").unwrap_or_default().to_owned();
        let notified = notified.clone();
        let connection = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(_) = message {
                    notified.notify_one();
                }
            }
        });
        let session = Session { client, connection };
        check_version(&version)?;
        Ok(session)
    }

    fn hosts(&self) -> String {
        let name = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let names: Vec<_> = self.config.get_hosts().iter().map(name).collect();
        names.join(",")
    }
}

/// Fails for one that is too old. What is no number is judged by what it can do.
fn check_version(version: &str) -> Result<(), Down> {
    let major = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    match major.parse::<u32>() {
        Ok(major) if major < POSTGRES_MIN => Err(Down(format!(
            "PostgreSQL {version} is too old: an outbox needs {POSTGRES_MIN} or newer"
        ))),
        _ => Ok(()),
    }
}

// ===== impl Session =====

impl Session {
    /// Runs a statement without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Down> {
        bounded(self.client.batch_execute(sql)).await
    }

    /// Runs a statement without a name, which poolers would mix up.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Down> {
        bounded(self.client.query_typed(sql, parameters)).await
    }

    /// The only row of a statement.
    pub(super) async fn query_one(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, Down> {
        bounded(self.client.query_typed_one(sql, parameters)).await
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&mut self) {
        _ = (&mut self.connection).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn bounded<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Down> {
    match within(TIMEOUT, request).await {
        Some(result) => result.map_err(|why| in_words(&why)),
        None => Err(Down("PostgreSQL does not respond".into())),
    }
}

/// Why something failed, without a password, and what to do about it.
pub(super) fn in_words(why: &Error) -> Down {
    let Some(refused) = why.as_db_error() else {
        let mut text = why.to_string();
        let mut source = why.source();
        while let Some(why) = source {
            text = format!("{text}: {why}");
            source = why.source();
        }
        return Down(text.chars().take(WHY_MAX).collect());
    };
    let message: String = refused.message().chars().take(WHY_MAX).collect();
    let code = refused.code();
    let advice = if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_FUNCTION].contains(code) {
        format!("; make the outbox with: {COMMAND}")
    } else if *code == SqlState::UNDEFINED_COLUMN {
        format!("; the table is another one than that of: {COMMAND}")
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        "; it takes: GRANT SELECT, UPDATE, DELETE ON nudged_outbox".into()
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        "; this is a standby: name the primary, or all with target_session_attrs=read-write".into()
    } else {
        String::new()
    };
    Down(format!("PostgreSQL: {message} ({}){advice}", code.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_with_the_version_that_is_needed() {
        for old in ["9.6.24", "8.4", "9.5devel"] {
            let Down(why) = check_version(old).expect_err("old");
            assert!(why.contains(old) && why.contains("10 or newer"), "{why}");
        }
        for new in ["10.0", "15.18 (Debian 15.18-0+deb12u1)", "18beta1", "", "unknown"] {
            check_version(new).expect(new);
        }
    }
}
