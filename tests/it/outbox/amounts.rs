//! Many rows, large ones, and how many there are.

use super::start;
use crate::support::postgres::Postgres;
use crate::support::programs::{POSTGRES, requires};
use crate::support::{Server, eventually};

/// Of rows that wait a transaction takes some, so that neither it nor the memory for it grows with them.
#[test]
fn a_transaction_takes_a_bounded_number_of_rows_and_bytes() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "CREATE TABLE batches (rows bigint, bytes bigint); \
         CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO batches \
         SELECT count(*), sum(octet_length(coalesce(text, ''))) FROM gone; RETURN NULL; END $$; \
         CREATE TRIGGER keep AFTER DELETE ON nudged_outbox REFERENCING OLD TABLE AS gone \
         FOR EACH STATEMENT EXECUTE FUNCTION keep()",
    );
    sql.run("SELECT nudge('o' || n % 50, 'n' || n) FROM generate_series(1, 12000) AS n");
    sql.run(
        "SELECT nudge_topic_text('acme', 't' || n, 'e', repeat('x', 50000)) FROM generate_series(1, 150) AS n",
    );
    let server = start(&postgres.url(), &[]);
    eventually("none is left", || sql.waiting() == 0);
    eventually("all are counted", || server.metric("nudged_outbox_published_total") == 12_150);
    let most = |what: &str| sql.number(&format!("SELECT max({what})::bigint FROM batches"));
    assert_eq!(most("rows"), 2_048);
    let bytes = most("bytes");
    assert!((1_000_000..=2 * 1024 * 1024 + 50_000).contains(&bytes), "{bytes}");
}

#[test]
fn what_waits_is_a_metric() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "INSERT INTO nudged_outbox (org, keys, written) \
         SELECT 'acme', '{a}', now() - interval '1 hour' FROM generate_series(1, 7)",
    );
    // They are counted before the first transaction, and then every 10 s.
    let server = start(&postgres.url(), &["--outbox-delay", "3s"]);
    let metrics = || server.get("/metrics").body;
    eventually("they are counted", || metrics().contains("\nnudged_outbox_rows 7\n"));
    let text = metrics();
    let oldest = text.lines().find_map(|line| line.strip_prefix("nudged_outbox_oldest_seconds "));
    let oldest: f64 = oldest.expect("it is there").parse().expect("a number");
    assert!((3_600.0..7_200.0).contains(&oldest), "{oldest}");
    for (name, kind) in [
        ("rows", "gauge"),
        ("oldest_seconds", "gauge"),
        ("connected", "gauge"),
        ("published_total", "counter"),
        ("invalid_total", "counter"),
        ("batches_total", "counter"),
    ] {
        assert!(text.contains(&format!("# TYPE nudged_outbox_{name} {kind}\n")), "{name}: {text}");
        assert!(text.contains(&format!("# HELP nudged_outbox_{name} ")), "{name}: {text}");
    }
    eventually("they are published", || server.metric("nudged_outbox_published_total") == 7);
    eventually("none waits", || {
        let text = metrics();
        text.contains("\nnudged_outbox_rows 0\n")
            && text.contains("\nnudged_outbox_oldest_seconds 0.0\n")
    });
}

/// SCENARIO: many rows are too large. BUG: transactions with few rows and no bytes to publish counted as the last, so
/// that it was waited between them. FIX: they are full.
#[test]
fn rows_that_are_too_large_do_not_delay_those_behind_them() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "SELECT nudge_topic_text('acme', 't', 'e', repeat('x', 3000000)) FROM generate_series(1, 5)",
    );
    sql.run("SELECT nudge('acme', 'behind')");
    let server = start(&postgres.url(), &["--outbox-interval", "60s"]);
    eventually("none is left", || sql.waiting() == 0);
    eventually("they are counted", || server.metric("nudged_outbox_invalid_total") == 5);
    eventually("the last one is", || server.metric("nudged_outbox_published_total") == 1);
}

/// SCENARIO: a statement changes a thousand rows of an application, and its keys are one array. BUG: more keys than a
/// publish may have were an invalid row, which was deleted, and browsers were not told. FIX: the function writes as many
/// rows as it takes, and an org with too many keys at once re-reads.
#[test]
fn more_keys_than_a_publish_may_have_are_several_rows_and_become_connected() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    for (keys, rows) in [(1, 1), (256, 1), (257, 2), (1_000, 4)] {
        sql.run(&format!(
            "SELECT nudge('acme', VARIADIC array_agg('n' || n)) FROM generate_series(1, {keys}) AS n"
        ));
        assert_eq!(sql.waiting(), rows, "{keys}");
        assert_eq!(sql.number("SELECT sum(cardinality(keys))::bigint FROM nudged_outbox"), keys);
        sql.run("DELETE FROM nudged_outbox");
    }
    let server = Server::start(&["--outbox", &postgres.url()]);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run(
        "SELECT nudge('acme', VARIADIC array_agg('n' || n)) FROM generate_series(1, 1000) AS n",
    );
    while !stream.next().contains("event: connected") {}
    eventually("none is left", || sql.waiting() == 0);
    assert_eq!(server.metric("nudged_outbox_invalid_total"), 0);
}

/// SCENARIO: rows have some hundred MB of JSON, which is small as it is stored. BUG: each was unpacked several times to
/// be measured, which took longer than a statement may: the same rows were tried again for ever, and nothing was
/// published. FIX: what is too large as it is stored is not unpacked.
#[test]
fn rows_that_are_large_when_they_are_unpacked_are_not_unpacked() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run("SELECT nudge_topic('acme', 't', 'e', to_json(repeat('x', 50000000)))");
    sql.run(
        "INSERT INTO nudged_outbox (org, topic, event, data) \
         SELECT org, topic, event, data FROM nudged_outbox, generate_series(1, 119); \
         SELECT nudge('acme', 'behind')",
    );
    let server = start(&postgres.url(), &[]);
    eventually("none is left", || sql.waiting() == 0);
    eventually("they are counted", || server.metric("nudged_outbox_invalid_total") == 120);
    eventually("the last one is", || server.metric("nudged_outbox_published_total") == 1);
}
