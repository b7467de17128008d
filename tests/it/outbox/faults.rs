//! A database that is away, slow, or not what it should be.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::{keys_until, logging, next_keys};
use crate::support::eventually;
use crate::support::postgres::{Postgres, outbox_sql};
use crate::support::programs::{POSTGRES, requires};

#[test]
fn a_missing_table_is_named_with_the_command_that_makes_it() {
    requires!(POSTGRES);
    let postgres = Postgres::bare();
    let (server, log) = logging(&postgres.url(), &[]);
    let line = log.line(&["the outbox is not drained"]);
    assert!(line.contains("nudged outbox-sql | psql -v ON_ERROR_STOP=1 "), "{line}");
    // It serves all the same.
    assert_eq!(server.get("/readyz").status(), 200);
    assert_eq!(server.metric("nudged_outbox_connected"), 0);
    let mut stream = server.stream("acme");
    stream.connected();
    postgres.sql().run(&outbox_sql(&[]));
    postgres.sql().run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
    let lines = log.until("the outbox is drained");
    assert!(!lines.contains("not drained"), "once: {lines}");
}

#[test]
fn an_outbox_of_an_older_version_is_named_with_the_command() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "CREATE OR REPLACE FUNCTION nudged_outbox_version() RETURNS integer LANGUAGE sql AS 'SELECT 0'",
    );
    let (_server, log) = logging(&postgres.url(), &[]);
    let line = log.line(&["the outbox is not drained"]);
    assert!(line.contains("has version 0") && line.contains("nudged outbox-sql"), "{line}");
    sql.run(&outbox_sql(&[]));
    let line = log.line(&["the outbox is drained"]);
    assert!(line.contains(" WARN "), "its end is logged as its beginning is: {line}");
}

#[test]
fn missing_rights_are_named() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let sql = postgres.sql();
    sql.run(
        "CREATE ROLE app LOGIN; CREATE ROLE drainer LOGIN; GRANT INSERT ON nudged_outbox TO app",
    );
    for rights in ["", "SELECT, DELETE", "SELECT, UPDATE", "DELETE, UPDATE"] {
        sql.run("REVOKE ALL ON nudged_outbox FROM drainer");
        if !rights.is_empty() {
            sql.run(&format!("GRANT {rights} ON nudged_outbox TO drainer"));
        }
        let (_server, log) = logging(&postgres.url_of("drainer"), &[]);
        let line = log.line(&["the outbox is not drained"]);
        assert!(line.contains("GRANT SELECT, UPDATE, DELETE ON nudged_outbox"), "{line}");
    }
    sql.run("GRANT SELECT ON nudged_outbox TO drainer");
    let (server, log) = logging(&postgres.url_of("drainer"), &[]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let app = crate::support::postgres::Sql::connect(&postgres.url_of("app")).expect("a login");
    app.run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
}

#[test]
fn a_wrong_user_or_database_is_named() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    for (url, why) in [
        (postgres.url_of("nobody"), "nobody"),
        (
            postgres
                .url()
                .replace("/postgres", "/other")
                .replace("//postgres@", "//postgres:sesame@"),
            "other",
        ),
    ] {
        let (_server, log) = logging(&url, &[]);
        let line = log.line(&["the outbox is not drained"]);
        assert!(line.contains(why) && !line.contains("sesame"), "{line}");
    }
}

#[test]
fn an_old_server_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("postgres://u@{}/d?sslmode=disable", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = listener.accept() {
            let mut startup = [0; 1_024];
            _ = peer.read(&mut startup);
            // AuthenticationOk, ParameterStatus, ReadyForQuery.
            let mut answer = b"R\0\0\0\x08\0\0\0\0".to_vec();
            let status = b"server_version\x009.6.24\0";
            answer.push(b'S');
            answer.extend(u32::try_from(status.len() + 4).expect("short").to_be_bytes());
            answer.extend(status);
            answer.extend(b"Z\0\0\0\x05I");
            _ = peer.write_all(&answer);
            _ = peer.read(&mut startup);
        }
    });
    let (_server, log) = logging(&url, &[]);
    let line = log.line(&["the outbox is not drained"]);
    assert!(
        line.contains("PostgreSQL 9.6.24 is too old") && line.contains("10 or newer"),
        "{line}"
    );
}

#[test]
fn nothing_is_lost_while_the_database_is_away_and_the_log_says_it_once() {
    requires!(POSTGRES);
    let mut postgres = Postgres::start();
    let url = postgres.url();
    postgres.stop();
    let (server, log) = logging(&url, &[]);
    let mut stream = server.stream("acme");
    stream.connected();
    log.line(&["the outbox is not drained"]);
    for (round, end) in [Postgres::kill, Postgres::stop, Postgres::kill].into_iter().enumerate() {
        postgres.start_again();
        let lines = log.until("the outbox is drained");
        // Once more if the reason has changed: it starts up.
        assert!(lines.matches("not drained").count() <= 1, "once: {lines}");
        let sql = postgres.sql();
        let keys = |from: i32| {
            format!(
                "SELECT nudge('acme', 'r{round}-' || n) FROM generate_series({from}, {from} + 99) AS n"
            )
        };
        sql.run(&keys(0));
        sql.run(&format!("SELECT nudge('acme', 'end-{round}')"));
        let published = keys_until(&mut stream, &format!("end-{round}"));
        let first = (0..100).map(|n| format!("r{round}-{n}"));
        assert!(first.into_iter().all(|key| published.contains(&key)), "{published:?}");
        // Committed, and perhaps not published.
        sql.run(&keys(100));
        drop(sql);
        end(&mut postgres);
        log.line(&["the outbox is not drained"]);
        assert_eq!(server.metric("nudged_outbox_connected"), 0);
    }
    postgres.start_again();
    let sql = postgres.sql();
    eventually("the rows are gone", || sql.waiting() == 0);
    sql.run("SELECT nudge('acme', 'over')");
    let all = keys_until(&mut stream, "over");
    assert!(all.contains("r2-199"), "{all:?}");
}

#[test]
fn a_database_that_is_paused_goes_on_later() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, log) = logging(&postgres.url(), &[]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    postgres.pause();
    log.line(&["the outbox is not drained", "does not respond"]);
    assert_eq!(server.get("/readyz").status(), 200);
    postgres.go_on();
    postgres.sql().run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
    log.line(&["the outbox is drained"]);
}

#[test]
fn a_table_that_is_replaced_is_drained() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, log) = logging(&postgres.url(), &[]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    let sql = postgres.sql();
    sql.run("DROP TABLE nudged_outbox");
    log.line(&["the outbox is not drained", "nudged outbox-sql"]);
    sql.run(&outbox_sql(&[]));
    sql.run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
}

#[test]
fn the_reason_with_which_a_session_is_ended_while_nothing_is_requested_is_logged() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (server, log) = logging(&postgres.url(), &["--outbox-interval", "2s"]);
    log.line(&["the outbox is drained"]);
    let sql = postgres.sql();
    sql.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'nudged' AND state = 'idle'",
    );
    let line = log.line(&["the outbox is not drained"]);
    let why = "terminating connection due to administrator command (57P01)";
    assert!(line.contains(why), "{line}");
    eventually("it drains again", || server.metric("nudged_outbox_connected") == 1);
}
