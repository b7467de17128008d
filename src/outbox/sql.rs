//! The SQL: of the table and its functions, and of the statements that drain it.

/// The version of the table and its functions that this server needs.
pub(super) const VERSION: i32 = 1;

/// The oldest PostgreSQL that has identity columns.
pub(super) const POSTGRES_MIN: u32 = 10;

/// What makes the table, for a message.
pub(super) const COMMAND: &str = "nudged outbox-sql | psql postgres://…";

/// Makes the table and the functions that write into it; may be run again. With `notify` it has the trigger for
/// [`OutboxConfig::listen`](crate::config::OutboxConfig::listen).
#[must_use]
pub fn sql(notify: bool) -> String {
    let notify = if notify { include_str!("notify.sql") } else { "" };
    [include_str!("outbox.sql"), notify, include_str!("grants.sql")].concat()
}

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

/// The bytes of a row.
const BYTES: &str = "(octet_length(org)::bigint + coalesce(octet_length(keys::text), 0) \
     + coalesce(octet_length(topic), 0) + coalesce(octet_length(event), 0) \
     + coalesce(octet_length(data::text), 0) + coalesce(octet_length(\"text\"), 0))";

/// Takes rows out: at most `$1`, of about `$2` bytes. One of more than `$3` bytes comes without its texts. With `delayed`
/// they are those that a transaction of the snapshot `$4` sees; and those whose transaction is of the future, so that it
/// was one of another database, from which they were restored.
///
/// An array, and not `IN`: the planner may run the subquery of an `IN` more than once, and lock more than the limit.
pub(super) fn take(delayed: bool) -> String {
    let condition = match delayed {
        false => "",
        true => {
            "WHERE (txid_visible_in_snapshot(xid, $4::txid_snapshot) \
             OR xid >= txid_snapshot_xmax(txid_current_snapshot())) "
        }
    };
    let text = |column: &str| format!("CASE WHEN {BYTES} <= $3 THEN {column} END");
    let columns = ["org", "keys", "topic", "event", "data::text", "\"text\""].map(text).join(", ");
    format!(
        "DELETE FROM nudged_outbox WHERE id = ANY (ARRAY(\
           SELECT id FROM (\
             SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS before FROM (\
               SELECT id, {BYTES} AS bytes FROM nudged_outbox {condition}\
               ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED\
             ) AS locked\
           ) AS counted WHERE before < $2\
         )) RETURNING id, {columns}, bulk"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sql_has_the_version_that_the_server_needs() {
        let plain = sql(false);
        assert!(plain.contains(&format!("outbox, version {VERSION}.")), "{plain}");
        assert!(plain.contains(&format!("AS 'SELECT {VERSION}'")), "{plain}");
        assert!(!plain.contains("TRIGGER") && sql(true).contains("CREATE TRIGGER"));
    }
}
