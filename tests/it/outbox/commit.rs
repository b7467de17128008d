//! When a row is published, and what it may be.

use super::{keys_until, next_keys, nudges, read_all, start, streaming, streams_of_orgs};
use crate::support::postgres::Postgres;
use crate::support::programs::{POSTGRES, requires};
use crate::support::{Stream, eventually};

#[test]
fn keys_are_published_when_their_transaction_is_committed() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, mut stream) = streaming(&postgres, &[]);
    let [writer, other] = [postgres.sql(), postgres.sql()];
    writer.run("BEGIN; SELECT nudge('acme', 'posts', 'feed:9')");
    // What is committed later is published earlier.
    other.run("SELECT nudge('acme', 'later')");
    assert_eq!(next_keys(&mut stream), ["later"]);
    writer.run("COMMIT");
    assert_eq!(next_keys(&mut stream), ["posts", "feed:9"]);
    writer.run("SELECT nudge('acme', VARIADIC ARRAY['é', 'a\"b', E'tab\\there'])");
    assert_eq!(next_keys(&mut stream), ["é", "a\"b", "tab\there"]);
    eventually("the rows are gone", || writer.waiting() == 0);
    eventually("it is counted", || server.metric("nudged_outbox_published_total") == 3);
    assert_eq!(server.metric("nudged_outbox_invalid_total"), 0);
    assert_eq!(server.metric("nudged_outbox_connected"), 1);
    assert!(server.metric("nudged_outbox_batches_total{result=\"ok\"}") > 0);
}

#[test]
fn what_is_rolled_back_is_never_published() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (_server, mut stream) = streaming(&postgres, &[]);
    let writer = postgres.sql();
    writer.run("BEGIN; SELECT nudge('acme', 'no-1'); ROLLBACK");
    writer.run(
        "BEGIN; SELECT nudge('acme', 'kept'); SAVEPOINT s; SELECT nudge('acme', 'no-2'); \
         ROLLBACK TO SAVEPOINT s; SELECT nudge('acme', 'also'); COMMIT",
    );
    assert!(writer.try_run("BEGIN; SELECT nudge('acme', 'no-3'); SELECT 1/0").is_err());
    writer.run("ROLLBACK");
    writer.run("SELECT nudge('acme', VARIADIC ARRAY[]::text[])");
    writer.run("SELECT nudge('acme', 'end')");
    let all = keys_until(&mut stream, "end");
    assert_eq!(all.into_iter().collect::<Vec<_>>(), ["also", "end", "kept"]);
}

#[test]
fn events_of_topics_are_rows_too() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let server = start(&postgres.url(), &[]);
    let writer = postgres.sql();
    writer.run(
        "BEGIN; SELECT nudge_topic('acme', 'run-7', 'output', E'{\"n\":\\n 1}'); \
         SELECT nudge_topic('acme', 'run-7', 'none', 'null'); \
         SELECT nudge_topic_text('acme', 'run-7', 'line', E'a\\nb', bulk => true); COMMIT",
    );
    eventually("they are gone", || writer.waiting() == 0);
    let mut stream: Stream = server.stream_with("/api/acme/topics/run-7/events", "");
    stream.connected();
    let events = [stream.next(), stream.next(), stream.next()];
    assert!(events[0].contains("event: output\ndata: {\"n\":"), "{events:?}");
    assert!(events[1].contains("event: none\ndata: null\n"), "{events:?}");
    assert!(events[2].contains("event: line\ndata: a\ndata: b\n"), "{events:?}");
}

#[test]
fn a_row_that_can_never_be_valid_is_logged_counted_and_deleted() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let writer = postgres.sql();
    writer.run(
        "SELECT nudge('a b', 'x'); SELECT nudge('acme', repeat('k', 100000)); \
         SELECT nudge('acme', repeat('k', 2000)); SELECT nudge('acme', NULL); \
         SELECT nudge('acme', 'a', NULL); SELECT nudge('', 'x'); SELECT nudge('acme', ''); \
         SELECT nudge_topic('acme', 'a b', 'e', '1'); SELECT nudge_topic('acme', 't', 'a b', '1'); \
         SELECT nudge_topic('acme', 't', 'e', NULL); \
         INSERT INTO nudged_outbox (org) VALUES ('acme'); \
         INSERT INTO nudged_outbox (org, keys, topic) VALUES ('acme', '{a}', 't'); \
         SELECT nudge('a b', 'x' || n) FROM generate_series(1, 1000) AS n; \
         SELECT nudge_topic_text('acme', 't', 'e', repeat('t', 30000000)); \
         SELECT nudge('acme', 'good')",
    );
    let invalid = writer.waiting() - 1;
    let (server, log) = super::logging(&postgres.url(), &[]);
    let line = log.line(&["cannot be published"]);
    assert!(line.contains("id=1") && line.contains("starts with a letter or digit"), "{line}");
    eventually("they are gone", || writer.waiting() == 0);
    let count = || server.metric("nudged_outbox_invalid_total");
    eventually("they are counted", || i64::try_from(count()).expect("few") == invalid);
    eventually("the good one is", || server.metric("nudged_outbox_published_total") == 1);
    assert_eq!(server.metric("nudged_events_published_total"), 1);
    // One line for each kind of reason.
    drop(server);
    let lines = log.rest().iter().filter(|line| line.contains("cannot be published")).count();
    assert!((2..12).contains(&lines), "{lines}");
}

#[test]
fn a_transaction_that_was_open_for_long_and_commits_last_is_published() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, mut stream) = streaming(&postgres, &[]);
    let mut others = streams_of_orgs(&server);
    let [long, writer] = [postgres.sql(), postgres.sql()];
    long.run("BEGIN; SELECT nudge('acme', 'long')");
    (0..50).for_each(|n| writer.run(&nudges(n * 40, n * 40 + 39)));
    read_all(&mut others, 2_000);
    eventually("the others are gone", || writer.waiting() == 0);
    long.run("COMMIT");
    assert_eq!(next_keys(&mut stream), ["long"]);
}

/// The first row that comes out is one that was written while the delay was over for an earlier one: a row waits from its
/// COMMIT on, and not from when it was written.
#[test]
fn with_a_delay_a_row_waits_from_its_commit_on() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, mut stream) = streaming(&postgres, &["--outbox-delay", "1500ms"]);
    let [long, writer] = [postgres.sql(), postgres.sql()];
    long.run("BEGIN; SELECT nudge('acme', 'long')");
    writer.run("SELECT nudge('acme', 'short')");
    assert_eq!(next_keys(&mut stream), ["short"]);
    // It was written long ago by now, and is committed only now.
    let committed = std::time::Instant::now();
    long.run("COMMIT");
    assert_eq!(next_keys(&mut stream), ["long"]);
    assert!(committed.elapsed() >= std::time::Duration::from_millis(1_500));
    // Rows that were restored have transactions of the future.
    writer.run(
        "INSERT INTO nudged_outbox (xid, org, keys) VALUES (1000000000, 'acme', '{restored}')",
    );
    assert_eq!(next_keys(&mut stream), ["restored"]);
    assert_eq!(server.metric("nudged_outbox_invalid_total"), 0);
}

#[test]
fn with_notifications_the_table_is_looked_at_when_there_is_something() {
    requires!(POSTGRES);
    let postgres = Postgres::start_with(&["--notify"]);
    // It would be looked at once a minute.
    let args = ["--outbox-listen", "--outbox-interval", "60s"];
    let (server, log) = super::logging(&postgres.url(), &args);
    log.line(&["notifications of the outbox are received"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let writer = postgres.sql();
    for key in ["a", "b", "c"] {
        writer.run(&format!("SELECT nudge('acme', '{key}')"));
        assert_eq!(next_keys(&mut stream), [key]);
    }
}

/// SCENARIO: with a delay the table is looked at when a notification comes, and the row is too young then. BUG: the next
/// look was after the interval, which is long where notifications come: the row waited for both. FIX: while
/// rows wait for their delay the table is looked at as if there were no notifications.
#[test]
fn a_row_that_is_too_young_at_its_notification_does_not_wait_for_the_interval() {
    requires!(POSTGRES);
    let postgres = Postgres::start_with(&["--notify"]);
    let interval = std::time::Duration::from_secs(60);
    let args = ["--outbox-listen", "--outbox-interval", "60s", "--outbox-delay", "500ms"];
    let (server, log) = super::logging(&postgres.url(), &args);
    log.line(&["notifications of the outbox are received"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let writer = postgres.sql();
    for key in ["a", "b"] {
        let committed = std::time::Instant::now();
        writer.run(&format!("SELECT nudge('acme', '{key}')"));
        assert_eq!(next_keys(&mut stream), [key]);
        assert!(committed.elapsed() < interval / 2, "{:?}", committed.elapsed());
    }
    // Some of them become old enough after others, and after the last notification.
    let committed = std::time::Instant::now();
    writer.run(
        "DO $$ BEGIN FOR n IN 1..20 LOOP PERFORM nudge('acme', 'n' || n), pg_sleep(0.02); COMMIT; END LOOP; END $$",
    );
    let mut all = std::collections::BTreeSet::new();
    while all.len() < 20 {
        all.extend(next_keys(&mut stream));
    }
    assert!(committed.elapsed() < interval / 2, "{:?}", committed.elapsed());
}
