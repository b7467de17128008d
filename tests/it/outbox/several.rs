//! Servers that share a log drain the same outbox.

use std::collections::BTreeSet;

use super::{next_keys, nudges, read_all, streams_of_orgs};
use crate::support::nats::NatsServer;
use crate::support::postgres::Postgres;
use crate::support::programs::{NATS_SERVER, POSTGRES, requires};
use crate::support::{Server, Stream, eventually};

fn start(postgres: &Postgres, nats: &NatsServer) -> Server {
    start_with(postgres, nats, &[])
}

fn start_with(postgres: &Postgres, nats: &NatsServer, more: &[&str]) -> Server {
    let args = ["--outbox", &postgres.url(), "--backplane", &nats.url(), "--coalesce", "0"];
    let server = Server::start(&[&args, more].concat());
    eventually("the log is loaded", || server.get("/readyz").status() == 200);
    server
}

#[test]
fn two_servers_publish_each_row_and_leave_none() {
    requires!(POSTGRES, NATS_SERVER);
    const ROWS: usize = 100_000;
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let servers = [start(&postgres, &nats), start(&postgres, &nats)];
    let mut streams = servers.each_ref().map(streams_of_orgs);
    let sql = postgres.sql();
    for from in (0..ROWS).step_by(500) {
        sql.run(&nudges(from, from + 499));
    }
    streams.iter_mut().for_each(|streams| read_all(streams, ROWS));
    eventually("none is left", || sql.waiting() == 0);
    let published = || servers.each_ref().map(|s| s.metric("nudged_outbox_published_total"));
    eventually("all are counted", || published().iter().sum::<u64>() == ROWS as u64);
}

/// After an outage of the broker a server may have its clients read again, instead of what was published meanwhile.
fn hears(stream: &mut Stream, key: &str) {
    let key = format!("\"{key}\"");
    loop {
        let event = stream.next();
        if event.contains(&key) || event.contains("event: connected") {
            return;
        }
    }
}

#[test]
fn rows_wait_while_the_broker_is_away() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, mut nats) = (Postgres::start(), NatsServer::start());
    let server = start(&postgres, &nats);
    let mut stream = server.stream("acme");
    stream.connected();
    let sql = postgres.sql();
    sql.run("SELECT nudge('acme', 'before')");
    assert_eq!(next_keys(&mut stream), ["before"]);
    nats.pause();
    sql.run("SELECT nudge('acme', 'meanwhile')");
    let unavailable = || server.metric("nudged_outbox_batches_total{result=\"unavailable\"}");
    eventually("the log does not take it", || unavailable() > 0);
    assert_eq!(sql.waiting(), 1);
    nats.go_on();
    hears(&mut stream, "meanwhile");
    eventually("none is left", || sql.waiting() == 0);
    nats.kill();
    eventually("it is noticed", || server.metric("nudged_backplane_connected") == 0);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("SELECT nudge('acme', 'later')");
    // A transaction is not even begun.
    let batches = || {
        ["ok", "unavailable", "lost"].map(|result| {
            server.metric(&format!("nudged_outbox_batches_total{{result=\"{result}\"}}"))
        })
    };
    let looked = || {
        sql.number(
            "SELECT (extract(epoch FROM max(query_start)) * 1000000)::bigint FROM pg_stat_activity \
             WHERE application_name = 'nudged'",
        )
    };
    // One that had begun before may end meanwhile.
    eventually("it only looks whether the database is there", || {
        let before = batches();
        for _ in 0..10 {
            let last = looked();
            eventually("it looks", || looked() > last);
        }
        batches() == before
    });
    assert_eq!(sql.waiting(), 1);
    nats.start_again();
    hears(&mut stream, "later");
    eventually("none is left", || sql.waiting() == 0);
}

/// A server dies between the append and the COMMIT, again and again: each row is published at least once.
#[test]
fn rows_of_a_server_that_is_killed_are_published_by_another_one() {
    requires!(POSTGRES, NATS_SERVER);
    const ROWS: usize = 2_000;
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let reader = Server::start(&["--backplane", &nats.url(), "--coalesce", "0"]);
    eventually("the log is loaded", || reader.get("/readyz").status() == 200);
    let mut streams = streams_of_orgs(&reader);
    let sql = postgres.sql();
    for round in 0..4 {
        let server = start(&postgres, &nats);
        sql.run(&nudges(round * ROWS / 4, (round + 1) * ROWS / 4 - 1));
        eventually("it drains", || sql.waiting() < i64::try_from(ROWS / 4).expect("few"));
        drop(server);
    }
    let _last = start(&postgres, &nats);
    read_all(&mut streams, ROWS);
    eventually("none is left", || sql.waiting() == 0);
}

#[test]
fn a_row_that_no_record_of_the_broker_holds_is_deleted_and_the_others_are_published() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start_with("max_payload: 8000"));
    let server = start(&postgres, &nats);
    let mut stream = server.stream("acme");
    stream.connected();
    let sql = postgres.sql();
    sql.run(
        "SELECT nudge('acme', 'a'); SELECT nudge_topic_text('acme', 't', 'e', repeat('x', 9000)); \
         SELECT nudge_topic_text('acme', 't', 'e', repeat('y', 7000)); \
         SELECT nudge_topic_text('acme', 't', 'e', repeat('z', 7000)); SELECT nudge('acme', 'b')",
    );
    let keys = super::keys_until(&mut stream, "b");
    assert!(keys.contains("a"), "{keys:?}");
    eventually("none is left", || sql.waiting() == 0);
    eventually("it is counted", || server.metric("nudged_outbox_published_total") == 4);
    eventually("the other is", || server.metric("nudged_outbox_invalid_total") == 1);
}

/// SCENARIO: of the rows of a batch a later one is larger than a record of the broker. BUG: all of them were appended
/// again without it, and events that were in the log by then came twice. FIX: only what is not in the log is appended.
#[test]
fn a_row_that_no_record_holds_does_not_repeat_those_before_it() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start_with("max_payload: 8000"));
    let server = start(&postgres, &nats);
    let mut stream = server.stream_with("/api/acme/topics/t/events", "");
    stream.connected();
    let sql = postgres.sql();
    sql.run(
        "SELECT nudge_topic_text('acme', 't', 'e', repeat('x', 5000)); \
         SELECT nudge_topic_text('acme', 't', 'e', repeat('y', 61000)); \
         SELECT nudge_topic_text('acme', 't', 'e', repeat('z', 5000))",
    );
    for text in ["xxx", "zzz"] {
        let event = stream.next();
        assert!(event.contains(text), "{text}: {event}");
    }
    eventually("none is left", || sql.waiting() == 0);
    eventually("it is counted", || server.metric("nudged_outbox_invalid_total") == 1);
    assert_eq!(server.metric("nudged_outbox_published_total"), 2);
}

/// SCENARIO: a row is a line of exactly as many bytes as a publish may have, which are as many as a record has with the
/// line break. BUG: the record was too large, its line was not, and the transaction was repeated for ever. FIX: a line
/// that a record cannot hold is too large, whatever a publish may have.
#[test]
fn a_row_that_fills_a_record_but_for_its_line_break_does_not_stay() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start_with("max_payload: 8000"));
    let log = Server::start(&["--backplane", &nats.url()]);
    eventually("the log is loaded", || log.get("/readyz").status() == 200);
    let args = ["--publish-bytes", "7744", "--backplane", &nats.url(), "--coalesce", "0"];
    let server = super::start_plain(&postgres.url(), &args);
    eventually("the log is loaded", || server.get("/readyz").status() == 200);
    let mut stream = server.stream("acme");
    stream.connected();
    let sql = postgres.sql();
    let line = r#"{"org":"acme","topic":"t","event":"e","text":"","bulk":false}"#;
    for bytes in 7_740..=7_746 {
        let text = bytes - line.len();
        sql.run(&format!("SELECT nudge_topic_text('acme', 't', 'e', repeat('x', {text}))"));
    }
    sql.run("SELECT nudge('acme', 'behind')");
    hears(&mut stream, "behind");
    eventually("none is left", || sql.waiting() == 0);
}

/// A writer's transactions follow each other; several servers drain, whichever looks first.
#[test]
fn events_of_a_topic_come_in_the_order_of_their_rows() {
    requires!(POSTGRES, NATS_SERVER);
    const EVENTS: usize = 250;
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    // A batch may have all of them.
    let more = ["--topic-events", "1000", "--topic-bytes", "1000000"];
    let servers = [(); 3].map(|()| start_with(&postgres, &nats, &more));
    let mut stream = servers[0].stream_with("/api/acme/topics/run-7/events", "");
    stream.connected();
    let sql = postgres.sql();
    let published = || servers.each_ref().map(|s| s.metric("nudged_outbox_published_total"));
    let mut written = 0;
    eventually("several have drained", || {
        let (first, last) = (written + 1, written + EVENTS);
        sql.run(&format!(
            "DO $$ BEGIN FOR n IN {first}..{last} LOOP \
               PERFORM nudge_topic('acme', 'run-7', 'output', to_json(n)), nudge('acme', 'k' || n); COMMIT; \
             END LOOP; END $$"
        ));
        for n in first..=last {
            let event = stream.next();
            assert!(event.contains(&format!("\ndata: {n}\n")), "{n}: {event}");
        }
        written = last;
        written >= 4 * EVENTS && published().iter().filter(|rows| **rows > 0).count() > 1
    });
    eventually("none is left", || sql.waiting() == 0);
    eventually("each row once", || published().iter().sum::<u64>() == 2 * written as u64);
}

/// Whoever publishes events of topics has a lock: without it, keys are published, whatever is between them.
#[test]
fn a_server_without_the_lock_of_topics_publishes_keys() {
    requires!(POSTGRES, NATS_SERVER);
    for more in [&[][..], &["--outbox-delay", "300ms"]] {
        let (postgres, nats) = (Postgres::start(), NatsServer::start());
        let server = start_with(&postgres, &nats, more);
        let mut keys = server.stream("acme");
        keys.connected();
        let mut topic = server.stream_with("/api/acme/topics/run-7/events", "");
        topic.connected();
        let [other, sql] = [postgres.sql(), postgres.sql()];
        other.run(
            "BEGIN; SELECT pg_advisory_xact_lock(1853187176, 'nudged_outbox'::regclass::oid::int4)",
        );
        for n in 0..3 {
            sql.run(&format!(
                "SELECT nudge_topic('acme', 'run-7', 'output', '{n}'), nudge('acme', 'k{n}')"
            ));
        }
        let mut all = BTreeSet::new();
        while all.len() < 3 {
            all.extend(next_keys(&mut keys));
        }
        eventually("the events are left", || sql.waiting() == 3);
        other.run("COMMIT");
        for n in 0..3 {
            let event = topic.next();
            assert!(event.contains(&format!("\ndata: {n}\n")), "{n}: {event}");
        }
        eventually("none is left", || sql.waiting() == 0);
    }
}
