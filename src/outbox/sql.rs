//! The SQL: of the table and its functions, and of the statements that drain it.

use std::time::Duration;

/// The version of the table and its functions that this server needs.
pub(super) const VERSION: i32 = 1;

/// The oldest PostgreSQL that has identity columns.
pub(super) const POSTGRES_MIN: u32 = 10;

/// The one from which on a whole transaction may have a time-out.
const TRANSACTION_TIMEOUT_MIN: u32 = 17;

/// What makes the table, for a message.
pub(super) const COMMAND: &str = "nudged outbox-sql | psql -v ON_ERROR_STOP=1 postgres://…";

/// Makes the table and the functions that write into it; may be run again. With `notify` it has the trigger for
/// [`OutboxConfig::listen`](crate::config::OutboxConfig::listen).
#[must_use]
pub fn sql(notify: bool) -> String {
    let notify = if notify { include_str!("notify.sql") } else { "" };
    [include_str!("outbox.sql"), notify, include_str!("grants.sql")].concat()
}

/// Begins a transaction as this needs it: with another isolation level, rows that another server takes would be an
/// error; and PostgreSQL ends one whose server is cut off, and that would keep its rows. It may do nothing for `idle`.
pub(super) fn begin(major: u32, idle: Duration) -> String {
    let idle = idle.as_millis();
    let whole = match major >= TRANSACTION_TIMEOUT_MIN {
        true => "; SET LOCAL transaction_timeout = 0",
        false => "",
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 8000; \
         SET LOCAL idle_in_transaction_session_timeout = {idle}{whole}"
    )
}

/// Whether this is a standby, and whether transactions cannot write.
pub(super) const GET_STANDBY: &str =
    "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean";

/// The current user, if row-level security applies to it.
pub(super) const GET_HIDDEN: &str =
    "SELECT CASE WHEN row_security_active('nudged_outbox') THEN current_user::text END";

/// The version of what [`sql`] has made.
pub(super) const GET_VERSION: &str = "SELECT nudged_outbox_version()";

/// Fails unless the table may be read and has its columns.
pub(super) const PROBE: &str = "SELECT id, xid, written, org, keys, topic, event, data, \"text\", bulk \
     FROM nudged_outbox LIMIT 0";

/// Whether there are rights that only `FOR UPDATE` and `DELETE` need.
pub(super) const GET_RIGHTS: &str = "SELECT has_table_privilege('nudged_outbox', 'UPDATE') \
     AND has_table_privilege('nudged_outbox', 'DELETE')";

/// Whether the table has the trigger that notifies.
pub(super) const HAS_TRIGGER: &str = "SELECT EXISTS (SELECT FROM pg_trigger \
     WHERE tgrelid = 'nudged_outbox'::regclass AND tgname = 'nudged_outbox_notify' AND tgenabled <> 'D')";

/// The rows that wait, up to a number, and the seconds since the oldest of them was written.
pub(super) const COUNT: &str = "SELECT count(*), \
     coalesce(extract(epoch FROM clock_timestamp() - min(written)), 0)::float8 \
     FROM (SELECT written FROM nudged_outbox ORDER BY id LIMIT $1) AS waiting";

/// What is committed now.
pub(super) const SNAPSHOT: &str = "SELECT txid_current_snapshot()::text";

/// The bytes of a row of which this parameter is the most. Keys and JSON have to be unpacked to be measured, which for
/// hundreds of MB takes longer than a statement may: what is too large as it is stored is not. Keys are stored in up to
/// twice the bytes of their JSON.
fn bytes(max: u32) -> String {
    let unpacked = |column: &str, times: u32| {
        format!(
            "CASE WHEN pg_column_size({column}) > ${max} * {times} THEN ${max} + 1 \
             ELSE coalesce(octet_length({column}::text), 0) END"
        )
    };
    let (keys, data) = (unpacked("keys", 4), unpacked("data", 1));
    format!(
        "(octet_length(org)::bigint + {keys} + {data} + coalesce(octet_length(topic), 0) \
         + coalesce(octet_length(event), 0) + coalesce(octet_length(\"text\"), 0))"
    )
}

/// Whether the table has rows. Not all of them may be there for this server.
pub(super) const HAS_ROWS: &str = "EXISTS (SELECT FROM nudged_outbox)";

/// A trigger that may keep rows from being deleted, if there is one: for each row, before DELETE.
pub(super) const GET_KEEPING: &str = "SELECT (SELECT tgname::text FROM pg_trigger \
     WHERE tgrelid = 'nudged_outbox'::regclass AND tgtype & 11 = 11 AND tgenabled <> 'D' LIMIT 1)";

/// Which rows are taken out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    /// Those that a transaction of a snapshot sees, which is a parameter.
    pub(super) is_delayed: bool,
    /// Other servers drain the same table.
    pub(super) is_shared: bool,
}

/// Takes rows out: at most `$1`, of about `$2` bytes. One of more than `$3` bytes comes without its texts. The snapshot
/// is `$4`.
///
/// An array, and not `IN`: the planner may run the subquery of an `IN` more than once, and lock more than the limit.
pub(super) fn take(filter: Filter) -> String {
    let (condition, bytes, columns) = (filter.condition(4), bytes(3), columns(3));
    format!(
        "DELETE FROM nudged_outbox WHERE id = ANY (ARRAY(\
           SELECT id FROM (\
             SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (\
               SELECT id, {bytes} AS bytes FROM nudged_outbox {condition}\
               ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED\
             ) AS locked\
           ) AS counted WHERE before < $2\
         )) RETURNING id, {columns}, bulk"
    )
}

/// Locks the row that [`take`] would take first, with the snapshot `$1`.
pub(super) fn pick(filter: Filter) -> String {
    let condition = filter.condition(1);
    format!("SELECT id FROM nudged_outbox {condition} ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
}

/// Takes out the row `$1`; of more than `$2` bytes it comes without its texts.
pub(super) fn take_one() -> String {
    format!("DELETE FROM nudged_outbox WHERE id = $1 RETURNING id, {}, bulk", columns(2))
}

/// Deletes the row `$1` unread.
pub(super) const DELETE_ONE: &str = "DELETE FROM nudged_outbox WHERE id = $1";

/// The texts of a row, null if they have more bytes than this parameter.
fn columns(max: u32) -> String {
    let bytes = bytes(max);
    let text = |column: &str| format!("CASE WHEN {bytes} <= ${max} THEN {column} END");
    ["org", "keys", "topic", "event", "data::text", "\"text\""].map(text).join(", ")
}

// ===== impl Filter =====

impl Filter {
    /// Events of topics are taken out by one server at a time, which keeps them in their order: until its transaction
    /// ends it has a lock, which is not waited for.
    fn condition(self, snapshot: u32) -> String {
        let topics = "(topic IS NULL OR \
             (SELECT pg_try_advisory_xact_lock(1853187176, 'nudged_outbox'::regclass::oid::int4)))";
        // And those whose transaction is of the future, so that it was one of another database, from which they were
        // restored.
        let delayed = format!(
            "(txid_visible_in_snapshot(xid, ${snapshot}::txid_snapshot) \
             OR xid >= txid_snapshot_xmax(txid_current_snapshot()))"
        );
        let conditions = [(self.is_delayed, &*delayed), (self.is_shared, topics)];
        let conditions: Vec<_> =
            conditions.iter().filter(|(is_set, _)| *is_set).map(|(_, sql)| *sql).collect();
        match conditions.is_empty() {
            true => String::new(),
            false => format!("WHERE {} ", conditions.join(" AND ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;

    #[test]
    fn a_row_has_as_many_keys_as_a_publish_may_have() {
        let max = HubConfig::default().keys_max;
        for part in [format!("> {max} THEN"), format!("(n - 1) / {max}")] {
            assert!(sql(false).contains(&part), "{part}");
        }
    }

    #[test]
    fn a_time_out_is_set_where_there_is_one() {
        let begin = |major| begin(major, Duration::from_secs(10));
        assert!(begin(16).ends_with("idle_in_transaction_session_timeout = 10000"));
        assert!(begin(17).ends_with("transaction_timeout = 0"));
    }

    #[test]
    fn the_sql_has_the_version_that_the_server_needs() {
        let plain = sql(false);
        // A database has any encoding.
        assert!(sql(true).is_ascii());
        assert!(plain.contains(&format!("outbox, version {VERSION}.")), "{plain}");
        assert!(plain.contains(&format!("AS 'SELECT {VERSION}'")), "{plain}");
        assert!(!plain.contains("TRIGGER") && sql(true).contains("CREATE TRIGGER"));
    }
}
