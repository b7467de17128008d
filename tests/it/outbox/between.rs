//! What happens between the publish and the COMMIT.

use super::gate::Gate;
use super::{logging, next_keys, start};
use crate::support::nats::NatsServer;
use crate::support::postgres::Postgres;
use crate::support::programs::{NATS_SERVER, POSTGRES, requires};
use crate::support::{Server, eventually};

/// It is published before the COMMIT: the other way round it would be lost here.
#[test]
fn a_row_whose_server_is_killed_before_the_commit_is_published_again_by_another_one() {
    requires!(POSTGRES, NATS_SERVER);
    let (postgres, nats) = (Postgres::start(), NatsServer::start());
    let backplane = ["--backplane", &nats.url()];
    let reader = Server::start(&[&backplane[..], &["--coalesce", "0"]].concat());
    eventually("the log is loaded", || reader.get("/readyz").status() == 200);
    let mut stream = reader.stream("acme");
    stream.connected();
    let gate = Gate::before(&postgres);
    let killed = start(&gate.url(), &backplane);
    gate.hold_commit_of("held");
    let sql = postgres.sql();
    sql.run("SELECT nudge('acme', 'held')");
    assert_eq!(next_keys(&mut stream), ["held"]);
    eventually("the COMMIT is held", || gate.is_holding());
    assert_eq!(sql.waiting(), 1);
    // Another server that drains meanwhile does not take it, and takes others.
    let other = start(&postgres.url(), &backplane);
    eventually("the log is loaded", || other.get("/readyz").status() == 200);
    sql.run("SELECT nudge('acme', 'other')");
    assert_eq!(next_keys(&mut stream), ["other"]);
    drop(killed);
    gate.end_held();
    assert_eq!(next_keys(&mut stream), ["held"]);
    eventually("none is left", || sql.waiting() == 0);
    eventually("both are counted", || other.metric("nudged_outbox_published_total") == 2);
}

#[test]
fn without_a_log_a_row_whose_server_is_killed_before_the_commit_is_published_by_the_next_one() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let gate = Gate::before(&postgres);
    let killed = start(&gate.url(), &[]);
    let mut stream = killed.stream("acme");
    stream.connected();
    gate.hold_commit_of("held");
    let sql = postgres.sql();
    sql.run("SELECT nudge('acme', 'held')");
    assert_eq!(next_keys(&mut stream), ["held"]);
    eventually("the COMMIT is held", || gate.is_holding());
    drop(killed);
    gate.end_held();
    assert_eq!(sql.waiting(), 1);
    // It drains before it accepts a stream.
    sql.run("BEGIN; SELECT FROM nudged_outbox FOR UPDATE");
    let next = start(&postgres.url(), &[]);
    let mut stream = next.stream("acme");
    stream.connected();
    sql.run("COMMIT");
    assert_eq!(next_keys(&mut stream), ["held"]);
    eventually("none is left", || sql.waiting() == 0);
}

/// SCENARIO: the network is gone while a transaction is open, and PostgreSQL does not learn of it. BUG: its session kept
/// the rows and the lock for as long as the kernel's keepalive takes, two hours, and nobody drained. FIX: PostgreSQL ends
/// a transaction in which nothing happens, and soon asks an idle session of the lock whether it is there.
#[test]
fn a_session_that_is_cut_off_in_a_transaction_keeps_nothing() {
    requires!(POSTGRES);
    let postgres = Postgres::start();
    let gate = Gate::before(&postgres);
    let (server, log) = logging(&gate.url(), &[]);
    log.line(&["the outbox is drained"]);
    let mut stream = server.stream("acme");
    stream.connected();
    gate.hold_commit_of("held");
    let sql = postgres.sql();
    sql.run("SELECT nudge('acme', 'held')");
    assert_eq!(next_keys(&mut stream), ["held"]);
    log.line(&["the outbox is not drained"]);
    log.line(&["the outbox is drained"]);
    assert_eq!(next_keys(&mut stream), ["held"]);
    eventually("none is left", || sql.waiting() == 0);
    assert!(gate.is_holding());
    assert_eq!(server.metric("nudged_outbox_batches_total{result=\"lost\"}"), 1);
}
