//! Servers without a log: one of them drains.

use super::{logging, next_keys, start};
use crate::support::nats::NatsServer;
use crate::support::postgres::{PgBouncer, Postgres};
use crate::support::programs::{NATS_SERVER, PGBOUNCER, POSTGRES, requires};
use crate::support::{Server, eventually};

#[test]
fn a_second_server_without_a_log_refuses_to_start_and_says_why() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let (url, sql) = (postgres.url(), postgres.sql());
    let server = start(&url, &[]);
    eventually("it drains", || server.metric("nudged_outbox_connected") == 1);
    let (code, why) = Server::refuses_to_start(&["--listen", "127.0.0.1:0", "--outbox", &url]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("another server drains this outbox (process "), "{why}");
    assert!(why.contains("--backplane"), "{why}");
    // The first one goes on, and another one may follow it.
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("SELECT nudge('acme', 'one')");
    assert_eq!(next_keys(&mut stream), ["one"]);
    // Before the COMMIT it would be published again.
    eventually("the row is gone", || sql.waiting() == 0);
    drop(server);
    let server = start(&url, &[]);
    let mut stream = server.stream("acme");
    stream.connected();
    sql.run("SELECT nudge('acme', 'two')");
    assert_eq!(next_keys(&mut stream), ["two"]);
}

#[test]
fn the_successor_of_a_server_that_stops_drains() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let mut first = start(&postgres.url(), &["--drain-delay", "0s", "--drain-window", "0s"]);
    eventually("it drains", || first.metric("nudged_outbox_connected") == 1);
    first.signal(crate::support::server::Signal::TERM);
    // It starts while the first may still hold the lock.
    let second = start(&postgres.url(), &[]);
    eventually("it drains", || second.metric("nudged_outbox_connected") == 1);
    assert_eq!(first.wait(), Some(0));
}

#[test]
fn behind_a_pooler_a_server_without_a_log_refuses_to_start_without_a_direct_session() {
    requires!(POSTGRES, PGBOUNCER);
    let postgres = Postgres::start();
    for connections in [1, 5] {
        let pooler = PgBouncer::before(&postgres, connections);
        let pooled = pooler.url();
        let (code, why) =
            Server::refuses_to_start(&["--listen", "127.0.0.1:0", "--outbox", &pooled]);
        assert_eq!(code, Some(1), "{why}");
        assert!(why.contains("pooler") && why.contains("--outbox-direct"), "{why}");
        // With one it drains, and a second one is refused.
        let direct = postgres.url();
        let server = start(&pooled, &["--outbox-direct", &direct]);
        eventually("it drains", || server.metric("nudged_outbox_connected") == 1);
        let args = ["--listen", "127.0.0.1:0", "--outbox", &pooled, "--outbox-direct", &direct];
        let (code, why) = Server::refuses_to_start(&args);
        assert_eq!(code, Some(1), "{why}");
        assert!(why.contains("another server drains"), "{why}");
    }
}

/// It cannot know whether there is another one: it runs, and waits for the lock.
#[test]
fn a_server_that_started_without_the_database_waits_for_the_lock() {
    requires!(POSTGRES);
    let mut postgres = Postgres::start();
    let url = postgres.url();
    postgres.stop();
    let [(one, one_log), (other, other_log)] = [logging(&url, &[]), logging(&url, &[])];
    for log in [&one_log, &other_log] {
        log.line(&["the outbox is not drained", "127.0.0.1"]);
    }
    postgres.start_again();
    let servers = [&one, &other];
    let draining = || {
        let connected = servers.map(|server| server.metric("nudged_outbox_connected"));
        connected.iter().position(|connected| *connected == 1)
    };
    eventually("one of them drains", || draining().is_some());
    let first = draining().expect("just now");
    let (keep, end) = if first == 0 { (other, one) } else { (one, other) };
    drop(end);
    eventually("the other one drains", || keep.metric("nudged_outbox_connected") == 1);
}

/// SCENARIO: servers with a log drain a table and are idle, and one without a log is started. BUG: it started, and took
/// rows that the clients of the others then never got. FIX: those hold the lock together, in their sessions.
#[test]
fn a_server_without_a_log_refuses_to_start_beside_an_idle_one_with_a_log() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let (url, log) = (postgres.url(), nats.url());
    let servers = [(); 2].map(|()| start(&url, &["--backplane", &log]));
    let drains = |server: &Server| server.metric("nudged_outbox_connected") == 1;
    eventually("both drain", || servers.iter().all(drains));
    let (code, why) = Server::refuses_to_start(&["--listen", "127.0.0.1:0", "--outbox", &url]);
    assert_eq!(code, Some(1), "{why}");
    assert!(why.contains("another server drains this outbox (process "), "{why}");
    assert!(servers.iter().all(drains));
    drop(servers);
    let server = start(&url, &[]);
    let mut stream = server.stream("acme");
    stream.connected();
    postgres.sql().run("SELECT nudge('acme', 'one')");
    assert_eq!(next_keys(&mut stream), ["one"]);
}

/// SCENARIO: the same behind a pooler, where a session has no lock. BUG: a server with a log looked at the lock once it
/// had taken rows, which the other one had taken before: nothing was logged. FIX: it looks at the lock each time.
#[test]
fn an_idle_server_behind_a_pooler_notices_one_without_a_log() {
    requires!(POSTGRES, PGBOUNCER, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let pooler = PgBouncer::before(&postgres, 3);
    let (server, log) = logging(&pooler.url(), &["--backplane", &nats.url()]);
    log.line(&["the outbox is drained"]);
    let alone = start(&postgres.url(), &[]);
    let why = log.until("the outbox is not drained");
    assert!(why.contains("a server without --backplane drains this outbox"), "{why}");
    eventually("it shows", || server.metric("nudged_outbox_connected") == 0);
    drop(alone);
    eventually("it drains", || server.metric("nudged_outbox_connected") == 1);
}
