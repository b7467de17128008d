//! Connects to PostgreSQL, and says in words what is wrong.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::dial::{Connection, Socket, dial};
use super::sql::{COMMAND, POSTGRES_MIN, begin};
use super::{pooled, tls};
use crate::backplane::bounded::Allowance;
use crate::backplane::wait::within;
use crate::config::{OutboxConfig, PostgresTls, PostgresUrl};
use crate::sync::Mutex;

/// How to connect.
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    /// The certificates of authorities are those of a file, not of the system.
    has_authorities: bool,
    reply_bytes: usize,
    /// How long a transaction may do nothing, while what it has read is published. Longer than this end waits.
    idle: Duration,
}

/// A session. Its connection ends when this is dropped.
pub(super) struct Session {
    client: Client,
    connection: JoinHandle<()>,
    /// Why the connection has ended: PostgreSQL may give the reason while nothing is requested.
    ended: Arc<Mutex<Option<Down>>>,
    begin: String,
    allowance: Allowance,
    /// What a reply may have.
    reply_bytes: usize,
}

/// Why a session cannot be used, or not any more.
#[derive(Clone, Debug)]
pub(super) struct Down(pub(super) String);

/// How long each request may take. PostgreSQL gives a statement up earlier.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to connect to one of the hosts may take: the next one is there for when it does not respond.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of the reply to a request, besides four times those of a row. Those of a batch are counted as the database has
/// them, and come in up to three times as many: short keys with their lengths, and in UTF-8.
const REPLY_BYTES: usize = 4 * OutboxConfig::BATCH_BYTES as usize;

/// Characters of a reason that are shown: it may be the database's own text.
const WHY_MAX: usize = 300;

// ===== impl Connector =====

impl Connector {
    /// One for this URL. A row may have `row_bytes`. What a transaction has read is published within `publish`.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub(super) fn new(
        url: &PostgresUrl,
        outbox: &OutboxConfig,
        row_bytes: usize,
        publish: Duration,
    ) -> Result<Self, String> {
        let mode = tls::mode(url, outbox);
        let mut config: Config = url.as_str().parse().map_err(|why: Error| in_words(&why).0)?;
        config.ssl_mode(match mode {
            PostgresTls::Disable => SslMode::Disable,
            PostgresTls::Prefer => SslMode::Prefer,
            PostgresTls::Require | PostgresTls::VerifyFull => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("nudged");
        }
        let tls = MakeRustlsConnect::new(tls::config(mode, outbox.ca.as_deref())?);
        let has_authorities = outbox.ca.is_some();
        let reply_bytes = REPLY_BYTES.saturating_add(row_bytes.saturating_mul(4));
        Ok(Self { config, tls, has_authorities, reply_bytes, idle: publish + TIMEOUT * 3 / 2 })
    }

    /// Connects to the first host that can be used. `notified` is woken by notifications.
    pub(super) async fn connect(&self, notified: &Arc<Notify>) -> Result<Session, Down> {
        let mut reasons = Vec::new();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let ports = self.config.get_ports();
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
            // Large, and everything that awaits it would be.
            let connect = Box::pin(self.connect_to(host, port, notified));
            let name = match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            };
            match within(HOST_TIMEOUT, connect).await {
                Some(Ok(session)) => return Ok(session),
                // What the database itself says comes without the host, if there is one only.
                Some(Err((why, true))) if self.config.get_hosts().len() == 1 => return Err(why),
                Some(Err((why, _))) => reasons.push(format!("{name}: {}", why.0)),
                None => reasons.push(format!("{name} does not respond")),
            }
        }
        Err(Down(reasons.join("; ").chars().take(WHY_MAX).collect()))
    }

    /// Connects to a host. A reason may be what the database says.
    async fn connect_to(
        &self,
        host: &Host,
        port: u16,
        notified: &Arc<Notify>,
    ) -> Result<Session, (Down, bool)> {
        let of_socket = |why: &dyn std::fmt::Display| {
            (Down(format!("error connecting to server: {why}")), false)
        };
        let socket = dial(host, port, HOST_TIMEOUT / 2, TIMEOUT).await;
        let (socket, allowance) = socket.map_err(|why| of_socket(&why))?;
        let name = if let Host::Tcp(name) = host { name } else { "" };
        let mut tls = self.tls.clone();
        let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, name);
        let tls = tls.map_err(|why| of_socket(&why))?;
        let connected = self.config.connect_raw(socket, tls).await;
        let (client, connection) = connected.map_err(|why| match why.as_db_error() {
            Some(_) => (in_words(&why), true),
            None => {
                let why = in_words(&why).0;
                (Down(format!("{why}{}", self.tls_advice(&why))), false)
            }
        })?;
        let begun = self.begin_session(client, connection, allowance, notified);
        let session = begun.map_err(|why| (why, true))?;
        self.check_attributes(&session).await.map_err(|why| (why, false))?;
        Ok(session)
    }

    fn begin_session(
        &self,
        client: Client,
        mut connection: Connection,
        allowance: Allowance,
        notified: &Arc<Notify>,
    ) -> Result<Session, Down> {
        let version = connection.parameter("server_version").unwrap_or_default();
        let version: String = version.chars().take(WHY_MAX).collect();
        let major = check_version(&version)?;
        let (notified, ended) = (notified.clone(), Arc::new(Mutex::new(None)));
        let end = ended.clone();
        let connection = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notification(_)) => notified.notify_one(),
                    Ok(_) => {}
                    Err(why) => {
                        *end.lock() = Some(in_words(&why));
                        return;
                    }
                }
            }
        });
        let (begin, reply_bytes) = (begin(major, self.idle), self.reply_bytes);
        Ok(Session { client, connection, ended, begin, allowance, reply_bytes })
    }

    /// Fails for a host that is not the one that the URL is for (`target_session_attrs`).
    async fn check_attributes(&self, session: &Session) -> Result<(), Down> {
        let wanted = self.config.get_target_session_attrs();
        if wanted == TargetSessionAttrs::Any {
            return Ok(());
        }
        let row = session.query_one("SHOW transaction_read_only", &[]).await?;
        let is_read_only: String = row.try_get(0).map_err(|why| in_words(&why))?;
        match (wanted, &*is_read_only) {
            (TargetSessionAttrs::ReadWrite, "on") => Err(Down("it does not allow writes".into())),
            (TargetSessionAttrs::ReadOnly, "off") => Err(Down("it is not read-only".into())),
            _ => Ok(()),
        }
    }

    /// What to do where the certificate is of an authority that is not known.
    fn tls_advice(&self, why: &str) -> &'static str {
        match (why.contains("UnknownIssuer"), self.has_authorities) {
            (false, _) => "",
            (true, false) => "; name its authority with --outbox-ca",
            (true, true) => "; it is not of an authority in --outbox-ca",
        }
    }
}

/// Returns the first number. Fails for one that is too old; what has no number is judged by what it can do.
fn check_version(version: &str) -> Result<u32, Down> {
    let major = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    match major.parse::<u32>() {
        Ok(major) if major < POSTGRES_MIN => Err(Down(format!(
            "PostgreSQL {version} is too old: an outbox needs {POSTGRES_MIN} or newer"
        ))),
        major => Ok(major.unwrap_or(POSTGRES_MIN)),
    }
}

// ===== impl Session =====

impl Session {
    /// Runs a statement without parameters.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Down> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    /// Begins a transaction, whatever the defaults of its user and database are.
    pub(super) async fn begin(&self) -> Result<(), Down> {
        self.run(&self.begin).await
    }

    /// The same, and in the same request these two expressions, which are boolean.
    pub(super) async fn begin_with(&self, [first, second]: [&str; 2]) -> Result<[bool; 2], Down> {
        let sql = format!("{}; SELECT {first}, {second}", self.begin);
        let messages = self.bounded(self.client.simple_query(&sql)).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some([0, 1].map(|index| row.try_get(index))),
            _ => None,
        });
        let [first, second] = row.ok_or_else(|| Down("PostgreSQL returned no row".into()))?;
        let is_true = |value: Result<Option<&str>, Error>| {
            value.map(|value| value == Some("t")).map_err(|why| in_words(&why))
        };
        Ok([is_true(first)?, is_true(second)?])
    }

    /// Whether it is one of a pooler, which has the right to give it another backend for each transaction.
    pub(super) async fn is_pooled(&self) -> Result<bool, Down> {
        let row = self.query_one("SELECT pg_backend_pid()", &[]).await?;
        let process: i32 = row.try_get(0).map_err(|why| in_words(&why))?;
        Ok(pooled::named_process(&self.client.cancel_token()).await != Some(process))
    }

    /// Runs a statement without a name, which poolers would mix up.
    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Down> {
        self.bounded(self.client.query_typed(sql, parameters)).await
    }

    /// The same; `None` if PostgreSQL cannot send a text, because it is none in the database's encoding, or has no
    /// equivalent in UTF-8. The transaction has failed then.
    pub(super) async fn query_text(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Option<Vec<Row>>, Down> {
        let is_no_text = |why: &Error| {
            let codes = [SqlState::CHARACTER_NOT_IN_REPERTOIRE, SqlState::UNTRANSLATABLE_CHARACTER];
            why.code().is_some_and(|code| codes.contains(code))
        };
        let query = async {
            match self.client.query_typed(sql, parameters).await {
                Err(why) if is_no_text(&why) => Ok(None),
                rows => rows.map(Some),
            }
        };
        self.bounded(query).await
    }

    /// The only row of a statement.
    pub(super) async fn query_one(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, Down> {
        self.bounded(self.client.query_typed_one(sql, parameters)).await
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&mut self) -> Down {
        _ = (&mut self.connection).await;
        self.ended.lock().clone().unwrap_or_else(|| Down("the connection was lost".into()))
    }

    async fn bounded<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Down> {
        self.allowance.renew(self.reply_bytes);
        match within(TIMEOUT, request).await {
            Some(Err(why)) if why.is_closed() => {
                Err(self.ended.lock().clone().unwrap_or_else(|| in_words(&why)))
            }
            Some(result) => result.map_err(|why| in_words(&why)),
            None => Err(Down("PostgreSQL does not respond".into())),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
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
        "; an outbox is drained where transactions may write".into()
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
