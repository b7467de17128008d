//! Behind `PgBouncer` in transaction mode.

use super::{keys_until, next_keys};
use crate::support::nats::NatsServer;
use crate::support::postgres::{PgBouncer, Postgres, Sql};
use crate::support::programs::{NATS_SERVER, PGBOUNCER, POSTGRES, requires};
use crate::support::{Server, eventually};

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
