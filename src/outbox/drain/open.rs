//! The session in which rows are taken out, and whether they can be.

use super::{Drainer, State};
use crate::outbox::connection::{Down, Session, in_words};
use crate::outbox::lock::{self, NotHeld};
use crate::outbox::sql;

/// What the log has a warning of, once.
#[derive(Debug, Default)]
pub(super) struct HasWarned {
    hidden: bool,
    keeping: bool,
}

// ===== impl Drainer =====

impl Drainer {
    /// Connects, and checks that rows can be taken out.
    pub(super) async fn open(&self, state: &mut State) -> Result<Session, NotHeld> {
        state.snapshots.clear();
        let session = self.connector.connect(&self.shared.wake).await?;
        session.begin().await?;
        check_writable(&session).await?;
        let version: i32 = get(&session, sql::GET_VERSION).await?;
        if version < sql::VERSION {
            let (needed, command) = (sql::VERSION, sql::COMMAND);
            return Err(NotHeld::Down(Down(format!(
                "the outbox has version {version}, and this server needs {needed}; bring it up to date with: {command}"
            ))));
        }
        session.query(sql::PROBE, &[]).await?;
        if !get::<bool>(&session, sql::GET_RIGHTS).await? {
            let why = "the user may not drain the outbox; it takes: GRANT SELECT, UPDATE, DELETE ON nudged_outbox";
            return Err(NotHeld::Down(Down(why.into())));
        }
        state.has_warned.of_rows_that_stay(&session).await?;
        if self.backplane.is_some() {
            lock::share(&session).await?;
        }
        session.run("COMMIT").await?;
        if self.backplane.is_none() {
            lock::take(&session).await?;
        }
        Ok(session)
    }
}

// ===== impl HasWarned =====

impl HasWarned {
    /// Warns of what leaves rows in the table, unpublished.
    async fn of_rows_that_stay(&mut self, session: &Session) -> Result<(), Down> {
        let hidden: Option<String> = get(session, sql::GET_HIDDEN).await?;
        if let Some(user) = hidden.filter(|_| !self.hidden) {
            self.hidden = true;
            tracing::warn!(user, "row-level security: rows that no policy shows are not published");
        }
        let keeping: Option<String> = get(session, sql::GET_KEEPING).await?;
        if let Some(trigger) = keeping.filter(|_| !self.keeping) {
            self.keeping = true;
            tracing::warn!(
                trigger,
                "a trigger before DELETE: rows that it keeps are not published"
            );
        }
        Ok(())
    }
}

/// Fails where transactions cannot write.
async fn check_writable(session: &Session) -> Result<(), Down> {
    let row = session.query_one(sql::GET_STANDBY, &[]).await?;
    let get = |index| row.try_get::<_, bool>(index).map_err(|why| in_words(&why));
    let why = match (get(0)?, get(1)?) {
        (true, _) => {
            "this is a standby: name the primary, or all servers with target_session_attrs=read-write"
        }
        (_, true) => "its transactions are read-only (default_transaction_read_only)",
        _ => return Ok(()),
    };
    Err(Down(format!("PostgreSQL: {why}")))
}

/// The only value of a statement without parameters.
pub(super) async fn get<T>(session: &Session, sql: &str) -> Result<T, Down>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    session.query_one(sql, &[]).await?.try_get(0).map_err(|why| in_words(&why))
}
