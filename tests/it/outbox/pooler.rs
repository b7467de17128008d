//! Behind `PgBouncer` in transaction mode.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{keys_until, logging, next_keys};
use crate::support::nats::NatsServer;
use crate::support::postgres::{PgBouncer, Postgres, Sql};
use crate::support::programs::{NATS_SERVER, PGBOUNCER, POSTGRES, requires};
use crate::support::{BOUND, Server, eventually};

#[test]
fn rows_are_drained_through_a_pooler_with_passwords_that_resets_its_sessions() {
    requires!(POSTGRES, PGBOUNCER, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let sql = postgres.sql();
    sql.run(
        "CREATE ROLE app LOGIN PASSWORD 'se same'; \
         GRANT SELECT, UPDATE, DELETE ON nudged_outbox TO app",
    );
    postgres.ask_for_passwords(false);
    let settings = "auth_type = scram-sha-256\nserver_reset_query_always = 1";
    let pooler = PgBouncer::before_as(&postgres, 2, settings, "\"app\" \"se same\"\n");
    let args = ["--backplane", &nats.url()];
    let (server, log) = logging(&pooler.url_of("app:se%20same"), &args);
    log.line(&["the outbox is drained"]);
    eventually("the log is loaded", || server.get("/readyz").status() == 200);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("SELECT nudge('acme', 'a')");
    assert_eq!(next_keys(&mut stream), ["a"]);
    let (_server, log) = logging(&pooler.url_of("app:wrong"), &args);
    let line = log.line(&["the outbox is not drained"]);
    assert!(line.contains("authentication failed") && !line.contains("wrong"), "{line}");
}

/// SCENARIO: other clients use the pooler, so that two sessions through it are seldom in the same one of the database.
/// BUG: that was how a pooler was found, so the lock was taken in one session of it, where it stayed, and the reason was
/// that another server drains. FIX: a pooler names processes that the database does not have.
#[test]
fn a_pooler_that_others_use_is_named() {
    requires!(POSTGRES, PGBOUNCER);
    let postgres = Postgres::start();
    let pooler = PgBouncer::before(&postgres, 5);
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let other = Sql::connect(&pooler.url()).expect("it runs");
            scope.spawn(move || {
                let start = Instant::now();
                // Also if the test fails.
                while !stop.load(Ordering::Relaxed) && start.elapsed() < 2 * BOUND {
                    other.run("SELECT pg_sleep(0.002)");
                }
            });
        }
        let pooled = pooler.url();
        let refused: Vec<_> = (0..4)
            .map(|_| Server::refuses_to_start(&["--listen", "127.0.0.1:0", "--outbox", &pooled]))
            .collect();
        stop.store(true, Ordering::Relaxed);
        for (code, why) in refused {
            assert_eq!(code, Some(1), "{why}");
            assert!(why.contains("--outbox-direct") && !why.contains("another server"), "{why}");
        }
    });
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(postgres.sql().number(locks), 0);
}

#[test]
fn notifications_are_not_expected_from_a_pooler() {
    requires!(POSTGRES, PGBOUNCER, NATS_SERVER);
    let (postgres, nats) = (Postgres::start_with(&["--notify"]), NatsServer::start());
    let pooler = PgBouncer::before(&postgres, 3);
    let args = ["--backplane", &nats.url(), "--outbox-listen"];
    let (_server, log) = logging(&pooler.url(), &args);
    let line = log.line(&["no notifications of the outbox"]);
    assert!(line.contains("--outbox-direct"), "{line}");
    let direct = postgres.url();
    let (_server, log) =
        logging(&pooler.url(), &[&args[..], &["--outbox-direct", &direct]].concat());
    log.line(&["notifications of the outbox are received"]);
}

#[test]
fn rows_are_drained_through_a_pooler() {
    requires!(POSTGRES, PGBOUNCER, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let pooler = PgBouncer::before(&postgres, 3);
    let args = [
        "--outbox",
        &pooler.url(),
        "--backplane",
        &nats.url(),
        "--coalesce",
        "0",
        "--outbox-delay",
        "200ms",
    ];
    let servers = [Server::start(&args), Server::start(&args)];
    for server in &servers {
        eventually("it is ready", || server.get("/readyz").status() == 200);
    }
    let mut streams = servers.each_ref().map(|server| server.stream("acme"));
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    let writers = [0, 1, 2].map(|_| Sql::connect(&pooler.url()).expect("it runs"));
    for n in 0..200 {
        writers[n % 3].run(&format!("BEGIN; SELECT nudge('acme', 'n{n}'); COMMIT"));
    }
    writers[0].run("SELECT nudge('acme', 'end')");
    for stream in &mut streams {
        let mut all = keys_until(stream, "end");
        while all.len() < 201 {
            all.extend(next_keys(stream));
        }
    }
    eventually("none is left", || postgres.sql().waiting() == 0);
}
