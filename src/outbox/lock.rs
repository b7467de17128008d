//! One server without a log to share drains an outbox alone: what another one took out of the table, its clients would
//! never get. It holds an advisory lock, in the session that drains.

use std::sync::Arc;

use tokio::sync::Notify;

use super::connection::{Connector, Down, Session};

/// Why the lock is not held.
#[derive(Debug)]
pub(super) enum NotHeld {
    /// Another server has it.
    Elsewhere(String),
    /// The session is not one of the database: a pooler gives it another one for each transaction.
    Pooled(String),
    Down(Down),
}

const GET_PID: &str = "SELECT pg_backend_pid()";

/// This backend's own lock, on the table: of two numbers, of which the first is that of outboxes.
const OWN: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND classid = 1853187175 AND objid = 'nudged_outbox'::regclass::oid AND objsubid = 2 \
     AND pid = pg_backend_pid() AND granted)";

const TRY: &str = "SELECT pg_try_advisory_lock(1853187175, 'nudged_outbox'::regclass::oid::int4)";

/// Which backend has it, and from where.
const HOLDER: &str = "SELECT concat_ws(' from ', 'process ' || l.pid, host(a.client_addr)) \
     FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.classid = 1853187175 AND l.objsubid = 2 \
     AND l.objid = 'nudged_outbox'::regclass::oid AND l.granted LIMIT 1";

const POOLED: &str = "the outbox is behind a pooler in transaction mode, where a server without \
     --backplane cannot hold the lock that makes it the only one; name the database itself with \
     --outbox-direct";

/// Takes the lock for this session.
pub(super) async fn take(session: &Session, connector: &Connector) -> Result<(), NotHeld> {
    // Two sessions of one backend are no sessions.
    let pid: i32 = pid(session).await?;
    {
        let other = connector.connect(&Arc::new(Notify::new())).await?;
        if self::pid(&other).await? == pid {
            return Err(NotHeld::Pooled(POOLED.into()));
        }
    }
    session.run("BEGIN").await?;
    // Within a transaction a pooler cannot change the backend.
    if is_held(session).await? {
        return Err(NotHeld::Pooled(POOLED.into()));
    }
    let taken: bool = get(session, TRY).await?;
    session.run("COMMIT").await?;
    if taken {
        return Ok(());
    }
    let holder = session.query(HOLDER, &[]).await?;
    let holder: Option<String> = holder.first().and_then(|row| row.try_get(0).ok());
    Err(NotHeld::Elsewhere(format!(
        "another server drains this outbox ({}); several servers need --backplane",
        holder.unwrap_or_else(|| "it has just ended".into())
    )))
}

/// Whether the backend that runs the current transaction has the lock.
pub(super) async fn is_held(session: &Session) -> Result<bool, Down> {
    get(session, OWN).await
}

async fn pid(session: &Session) -> Result<i32, Down> {
    let row = session.query_one(GET_PID, &[]).await?;
    row.try_get(0).map_err(|why| super::connection::in_words(&why))
}

async fn get(session: &Session, sql: &str) -> Result<bool, Down> {
    let row = session.query_one(sql, &[]).await?;
    row.try_get(0).map_err(|why| super::connection::in_words(&why))
}

// ===== impl NotHeld =====

impl From<Down> for NotHeld {
    fn from(down: Down) -> Self {
        Self::Down(down)
    }
}

/// What a transaction that found the lock gone ends with.
pub(super) fn lost() -> Down {
    Down(format!("the lock of the outbox is gone: {POOLED}"))
}
