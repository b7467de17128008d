//! One server without a log to share drains an outbox alone: what another one took out of the table, its clients would
//! never get. It holds an advisory lock, in the session that drains. Servers with a log share that lock: each has it in
//! its session, unless it is one of a pooler, and in each transaction that looks at the table.

use super::connection::{Down, Session};

/// Why the lock is not held.
#[derive(Debug)]
pub(super) enum NotHeld {
    /// Another server has it.
    Elsewhere(String),
    /// The session is not one of the database: a pooler gives it another one for each transaction.
    Pooled(String),
    Down(Down),
}

/// This backend's own lock, on the table: of two numbers, of which the first is that of outboxes.
const OWN: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND classid = 1853187175 AND objid = 'nudged_outbox'::regclass::oid AND objsubid = 2 \
     AND mode = 'ExclusiveLock' AND pid = pg_backend_pid() AND granted)";

const TRY: &str = "SELECT pg_try_advisory_lock(1853187175, 'nudged_outbox'::regclass::oid::int4)";

const TRY_SHARED: &str =
    "SELECT pg_try_advisory_lock_shared(1853187175, 'nudged_outbox'::regclass::oid::int4)";

/// The same until the transaction ends: an expression.
pub(super) const SHARES: &str =
    "pg_try_advisory_xact_lock_shared(1853187175, 'nudged_outbox'::regclass::oid::int4)";

/// Which backend has it, and from where.
const HOLDER: &str = "SELECT concat_ws(' from ', 'process ' || l.pid, host(a.client_addr)) \
     FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.classid = 1853187175 AND l.objsubid = 2 \
     AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND l.objid = 'nudged_outbox'::regclass::oid AND l.granted LIMIT 1";

const POOLED: &str = "the outbox is behind a pooler in transaction mode, where a server without \
     --backplane cannot hold the lock that makes it the only one; name the database itself with \
     --outbox-direct";

/// PostgreSQL asks soon whether this end is there, so that a server whose machine is gone does not keep the lock for
/// the two hours that the kernel has as its default.
const KEEPALIVE: &str =
    "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// Takes the lock for this session.
pub(super) async fn take(session: &Session) -> Result<(), NotHeld> {
    if session.is_pooled().await? {
        return Err(NotHeld::Pooled(POOLED.into()));
    }
    session.run(KEEPALIVE).await?;
    session.begin().await?;
    let taken: bool = get(session, TRY).await?;
    session.run("COMMIT").await?;
    if taken {
        return Ok(());
    }
    let holder = holder(session).await?;
    Err(NotHeld::Elsewhere(format!(
        "another server drains this outbox ({holder}); several servers need --backplane"
    )))
}

/// Whether the backend that runs the current transaction has the lock.
pub(super) async fn is_held(session: &Session) -> Result<bool, Down> {
    get(session, OWN).await
}

/// Shares the lock with other servers with a log, for this session, so that none without a log starts beside them.
pub(super) async fn share(session: &Session) -> Result<(), Down> {
    // A pooler would keep the lock in a session that others use.
    let is_pooled = session.is_pooled().await?;
    let sql = if is_pooled { format!("SELECT {SHARES}") } else { TRY_SHARED.into() };
    if !get(session, &sql).await? {
        return Err(is_alone(session).await);
    }
    if is_pooled { Ok(()) } else { session.run(KEEPALIVE).await }
}

/// What a server with a log ends with that found the lock to be that of one without.
pub(super) async fn is_alone(session: &Session) -> Down {
    let holder = match holder(session).await {
        Ok(holder) => holder,
        Err(down) => return down,
    };
    Down(format!(
        "a server without --backplane drains this outbox ({holder}), and its clients alone get what is \
         published; end it, or give it the log"
    ))
}

async fn holder(session: &Session) -> Result<String, Down> {
    let holder = session.query(HOLDER, &[]).await?;
    let holder = holder.first().and_then(|row| row.try_get(0).ok());
    Ok(holder.unwrap_or_else(|| "it has just ended".into()))
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
    Down(format!("the lock of the outbox is gone: its table is another one, or {POOLED}"))
}
