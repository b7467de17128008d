//! Databases, roles and tables that are set up otherwise.

use std::time::{Duration, Instant};

use super::gate::Gate;
use super::{keys_until, logging, next_keys, start};
use crate::support::eventually;
use crate::support::nats::NatsServer;
use crate::support::postgres::{Postgres, Sql};
use crate::support::programs::{NATS_SERVER, POSTGRES, requires};

/// A role that drains, and no more.
const DRAINER: &str =
    "CREATE ROLE drainer LOGIN; GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO drainer";

/// SCENARIO: the database takes the connection, and then every transaction fails, as on a standby. BUG: at each attempt
/// it was logged that the outbox is drained, and that it is not, ten times a second. FIX: it is drained once a
/// transaction was committed; until then attempts are ever rarer, and are one outage.
#[test]
fn transactions_that_fail_one_after_the_other_are_one_outage() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'nothing is deleted here'; END $$; \
         CREATE TRIGGER refuse BEFORE DELETE ON nudged_outbox FOR EACH ROW EXECUTE FUNCTION refuse(); \
         SELECT nudge('acme', 'a')",
    );
    let gate = Gate::before(&postgres);
    let (server, log) = logging(&gate.url(), &[]);
    let lines = log.until("nothing is deleted here");
    assert!(lines.contains("the outbox is not drained"), "{lines}");
    assert!(!lines.contains("the outbox is drained"), "{lines}");
    let (before, start) = (gate.connections(), Instant::now());
    eventually("it is tried again", || gate.connections() >= before + 7);
    // Half of 0.1 s, and twice as much each time, up to half of 2 s.
    assert!(start.elapsed() >= Duration::from_millis(3_000), "{:?}", start.elapsed());
    assert_eq!(server.metric("nudged_outbox_connected"), 0);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("DROP TRIGGER refuse ON nudged_outbox");
    assert_eq!(next_keys(&mut stream), ["a"]);
    let lines = log.until("the outbox is drained");
    assert!(!lines.contains("not drained"), "once: {lines}");
}

#[test]
fn a_standby_is_named_and_drained_once_it_is_promoted() {
    requires!(POSTGRES);
    let mut postgres = Postgres::start();
    postgres.sql().run("SELECT nudge('acme', 'a')");
    postgres.stop();
    std::fs::write(postgres.dir().join("data/standby.signal"), "").expect("a file");
    postgres.start_again();
    let (server, log) = logging(&postgres.url(), &[]);
    let lines = log.until("the outbox is not drained");
    assert!(lines.contains("this is a standby") && !lines.contains("is drained"), "{lines}");
    let mut stream = server.stream("acme");
    stream.connected();
    postgres.sql().run("SELECT pg_promote()");
    assert_eq!(next_keys(&mut stream), ["a"]);
    log.line(&["the outbox is drained"]);
}

#[test]
fn a_database_that_is_read_only_is_named() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(DRAINER);
    sql.run("ALTER ROLE drainer SET default_transaction_read_only = on");
    let (_server, log) = logging(&postgres.url_of("drainer"), &[]);
    let lines = log.until("the outbox is not drained");
    assert!(lines.contains("default_transaction_read_only"), "{lines}");
    assert!(!lines.contains("standby") && !lines.contains("is drained"), "{lines}");
    sql.run("ALTER ROLE drainer RESET default_transaction_read_only");
    log.line(&["the outbox is drained"]);
}

/// SCENARIO: the role's defaults are another isolation level, and time-outs that are shorter than a batch takes. BUG:
/// transactions had these, and failed. FIX: each transaction sets what it needs.
#[test]
fn what_a_role_has_as_defaults_is_not_what_a_transaction_has() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(DRAINER);
    for (setting, value) in [
        ("default_transaction_isolation", "serializable"),
        ("statement_timeout", "7s"),
        ("lock_timeout", "1ms"),
        ("idle_in_transaction_session_timeout", "1ms"),
        ("standard_conforming_strings", "off"),
    ] {
        sql.run(&format!("ALTER ROLE drainer SET {setting} = '{value}'"));
    }
    let settings = "current_setting('transaction_isolation'), current_setting('lock_timeout'), \
        current_setting('statement_timeout'), \
        current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_keepalives_idle')";
    sql.run(&format!(
        "CREATE TABLE settings (isolation text, locks text, statements text, idle text, keepalive text); \
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \
         $$ BEGIN INSERT INTO settings SELECT {settings}; RETURN NULL; END $$; \
         CREATE TRIGGER keep AFTER DELETE ON nudged_outbox FOR EACH ROW EXECUTE FUNCTION keep()"
    ));
    let (server, log) = logging(&postgres.url_of("drainer"), &["--outbox-delay", "100ms"]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
    eventually("the row is gone", || sql.waiting() == 0);
    let count =
        |condition: &str| sql.number(&format!("SELECT count(*) FROM settings WHERE {condition}"));
    assert_eq!(count("isolation = 'read committed'"), 1);
    assert_eq!(count("locks = '0' AND statements <> '7s' AND idle <> '1ms'"), 1);
    // Those of the session that holds the lock.
    assert_eq!(count("keepalive::int BETWEEN 1 AND 60"), 1);
}

/// SCENARIO: the outbox was made by a role that has a schema of its name, with the default `search_path`. BUG: its
/// functions looked for the table in the schema of the caller, and failed; a temporary table of the same name took the
/// rows. FIX: their `search_path` is the schema that the table is in, by its name.
#[test]
fn the_functions_find_their_table_whoever_calls_them_from_wherever() {
    requires!(POSTGRES);
    let postgres = Postgres::bare();
    let sql = postgres.sql();
    sql.run(
        "CREATE ROLE \"Owner\" LOGIN; CREATE SCHEMA \"Owner\" AUTHORIZATION \"Owner\"; \
         CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA \"Owner\" TO app; \
         CREATE ROLE drainer LOGIN; GRANT USAGE ON SCHEMA \"Owner\" TO drainer; \
         ALTER ROLE drainer SET search_path = \"Owner\"",
    );
    let owner = Sql::connect(&postgres.url_of("Owner")).expect("a login");
    owner.run(&crate::support::postgres::outbox_sql(&["--notify"]));
    owner.run(
        "GRANT INSERT ON nudged_outbox TO app; \
         GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO drainer",
    );
    let (server, log) = logging(&postgres.url_of("drainer"), &["--outbox-listen"]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let app = Sql::connect(&postgres.url_of("app")).expect("a login");
    app.run("SELECT \"Owner\".nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
    app.run("CREATE TEMPORARY TABLE nudged_outbox (org text, keys text[])");
    app.run("SELECT \"Owner\".nudge('acme', 'b')");
    assert_eq!(next_keys(&mut stream), ["b"]);
    app.run("SET search_path = ''; SELECT \"Owner\".nudge('acme', 'c')");
    assert_eq!(next_keys(&mut stream), ["c"]);
}

#[test]
fn row_level_security_that_hides_rows_is_warned_of() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(DRAINER);
    sql.run("ALTER TABLE nudged_outbox ENABLE ROW LEVEL SECURITY; SELECT nudge('acme', 'a')");
    let (server, log) = logging(&postgres.url_of("drainer"), &[]);
    let line = log.line(&["row-level security"]);
    assert!(line.contains("drainer"), "{line}");
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("CREATE POLICY drain ON nudged_outbox TO drainer USING (true)");
    assert_eq!(next_keys(&mut stream), ["a"]);
}

#[test]
fn a_table_with_partitions_is_drained() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "DROP TABLE nudged_outbox; CREATE SEQUENCE ids; \
         CREATE TABLE nudged_outbox (id bigint NOT NULL DEFAULT nextval('ids'), \
         xid bigint NOT NULL DEFAULT txid_current(), written timestamptz NOT NULL DEFAULT now(), \
         org text NOT NULL, keys text[], topic text, event text, data json, text text, bulk boolean) \
         PARTITION BY HASH (id); \
         CREATE TABLE p0 PARTITION OF nudged_outbox FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
         CREATE TABLE p1 PARTITION OF nudged_outbox FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    );
    let (server, mut stream) = super::streaming(&postgres, &[]);
    sql.run("SELECT nudge('acme', 'n' || n) FROM generate_series(1, 200) AS n");
    sql.run("SELECT nudge('acme', 'end')");
    let mut keys = keys_until(&mut stream, "end");
    while keys.len() < 201 {
        keys.extend(next_keys(&mut stream));
    }
    eventually("none is left", || sql.waiting() == 0);
    eventually("all are counted", || server.metric("nudged_outbox_published_total") == 201);
}

/// SCENARIO: a row has bytes that are no text, in a database without an encoding, or that UTF-8 has not. BUG: PostgreSQL
/// refused to send the rows of the transaction, again and again, and nothing was published any more. FIX: rows are then
/// taken out one by one, and that one is deleted, logged and counted.
#[test]
fn databases_of_other_encodings_are_drained() {
    requires!(POSTGRES);
    let postgres = Postgres::bare();
    for (encoding, invalid) in [
        ("LATIN1", ""),
        ("SQL_ASCII", r"convert_from('\xff', 'SQL_ASCII')"),
        ("WIN1252", "chr(129)"),
    ] {
        let name = encoding.to_lowercase();
        postgres.sql().run(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ));
        let url = format!("postgres://postgres@{}/{name}", postgres.address());
        let sql = Sql::connect(&url).expect("it runs");
        sql.run(&crate::support::postgres::outbox_sql(&[]));
        let server = start(&url, &[]);
        let mut stream = server.stream("acme");
        stream.connected();
        sql.run("SELECT nudge('acme', 'é')");
        assert_eq!(next_keys(&mut stream), ["é"]);
        if !invalid.is_empty() {
            sql.run(&format!("SELECT nudge('acme', {invalid}) FROM generate_series(1, 3)"));
        }
        sql.run("SELECT nudge('acme', 'end')");
        assert_eq!(next_keys(&mut stream), ["end"]);
        eventually("none is left", || sql.waiting() == 0);
        let count = || server.metric("nudged_outbox_invalid_total");
        let expected = if invalid.is_empty() { 0 } else { 3 };
        eventually("they are counted", || count() == expected);
    }
}

/// Another server may have the lock of the new table by then.
#[test]
fn a_server_whose_lock_is_that_of_another_table_takes_nothing_from_the_new_one() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, log) = logging(&postgres.url(), &[]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    postgres.sql().run(
        "BEGIN; CREATE TABLE other (LIKE nudged_outbox INCLUDING ALL); \
         ALTER TABLE nudged_outbox RENAME TO before; ALTER TABLE other RENAME TO nudged_outbox; \
         INSERT INTO nudged_outbox (org, keys) VALUES ('acme', '{a}'); COMMIT",
    );
    log.line(&["the outbox is not drained", "the lock of the outbox is gone"]);
    log.line(&["the outbox is drained"]);
    assert_eq!(next_keys(&mut stream), ["a"]);
    eventually("it is counted", || server.metric("nudged_outbox_published_total") == 1);
}

/// As `LOCK TABLE`, or an `ALTER TABLE` that waits for another transaction.
#[test]
fn a_table_that_is_locked_is_drained_later() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, log) = logging(&postgres.url(), &[]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let sql = postgres.sql();
    sql.run("BEGIN; LOCK TABLE nudged_outbox; SELECT nudge('acme', 'a')");
    log.line(&["the outbox is not drained", "statement timeout"]);
    sql.run("COMMIT");
    assert_eq!(next_keys(&mut stream), ["a"]);
    log.line(&["the outbox is drained"]);
}

#[test]
fn a_transaction_that_is_prepared_is_published_once_it_is_committed() {
    requires!(POSTGRES);
    let postgres = Postgres::bare_with("max_prepared_transactions = 5");
    let sql = postgres.sql();
    sql.run(&crate::support::postgres::outbox_sql(&[]));
    let (_server, mut stream) = super::streaming(&postgres, &["--outbox-delay", "200ms"]);
    for name in ["kept", "dropped"] {
        sql.run(&format!("BEGIN; SELECT nudge('acme', '{name}')"));
        sql.run(&format!("PREPARE TRANSACTION '{name}'"));
    }
    sql.run("SELECT nudge('acme', 'between')");
    assert_eq!(next_keys(&mut stream), ["between"]);
    sql.run("ROLLBACK PREPARED 'dropped'");
    sql.run("COMMIT PREPARED 'kept'");
    assert_eq!(next_keys(&mut stream), ["kept"]);
    eventually("none is left", || sql.waiting() == 0);
}

/// SCENARIO: a server without a log drains a table, and one with a log is started beside it. BUG: each took rows that
/// the other one's clients then never got, and nothing was logged. FIX: one with a log takes none while the lock of one
/// without is held.
#[test]
fn a_server_with_a_log_takes_nothing_beside_one_without() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let (alone, mut stream) = super::streaming(&postgres, &[]);
    eventually("it drains", || alone.metric("nudged_outbox_connected") == 1);
    let (server, log) = logging(&postgres.url(), &["--backplane", &nats.url()]);
    let lines = log.until("the outbox is not drained");
    assert!(lines.contains("without --backplane") && !lines.contains("is drained"), "{lines}");
    let sql = postgres.sql();
    for n in 0..20 {
        sql.run(&format!("SELECT nudge('acme', 'n{n}')"));
        assert_eq!(next_keys(&mut stream), [format!("n{n}")]);
    }
    assert_eq!(server.metric("nudged_outbox_published_total"), 0);
    drop(alone);
    eventually("the log is loaded", || server.get("/readyz").status() == 200);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("SELECT nudge('acme', 'later')");
    let event = std::iter::from_fn(|| Some(stream.next())).find(|event| event.contains("later"));
    assert!(event.is_some());
    log.line(&["the outbox is drained"]);
}

/// SCENARIO: the table has a trigger that keeps some rows. BUG: they waited for ever, and nothing was logged. FIX: such a
/// trigger is named; other rows are published, once.
#[test]
fn a_trigger_that_may_keep_rows_is_warned_of() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RETURN CASE WHEN OLD.org = 'acme' THEN OLD END; END $$; \
         CREATE TRIGGER keeps_some BEFORE DELETE ON nudged_outbox FOR EACH ROW EXECUTE FUNCTION keep(); \
         SELECT nudge('other', 'kept'); SELECT nudge('acme', 'a'); SELECT nudge('other', 'kept')",
    );
    let (server, log) = logging(&postgres.url(), &[]);
    let line = log.line(&["before DELETE"]);
    assert!(line.contains("keeps_some"), "{line}");
    eventually("the kept ones are left", || sql.waiting() == 2);
    let mut streams = ["acme", "other"].map(|org| server.stream(org));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    sql.run("SELECT nudge('acme', 'b')");
    assert_eq!(next_keys(&mut streams[0]), ["b"]);
    // It is counted once it is committed.
    let published = || server.metric("nudged_outbox_published_total");
    eventually("each is published once", || published() == 2);
    sql.run("DROP TRIGGER keeps_some ON nudged_outbox");
    assert_eq!(next_keys(&mut streams[1]), ["kept"]);
    eventually("none is left", || sql.waiting() == 0);
}
