//! Publishes that happen when a transaction is committed, with a real PostgreSQL.

mod alone;
mod amounts;
mod between;
mod commit;
mod faults;
mod foreign;
mod gate;
mod guide;
mod hostile;
mod pooler;
mod settings;
mod several;
mod tls;

use std::collections::BTreeSet;
use std::process::Stdio;

use crate::support::log::Log;
use crate::support::postgres::Postgres;
use crate::support::{Server, Stream, Transport};

/// A server that drains the outbox of this database.
fn start(url: &str, args: &[&str]) -> Server {
    Server::start(&[&["--outbox", url, "--coalesce", "0"], args].concat())
}

/// The same without further settings.
fn start_plain(url: &str, args: &[&str]) -> Server {
    Server::start(&[&["--outbox", url], args].concat())
}

/// The same as [`start`], with its log.
fn logging(url: &str, args: &[&str]) -> (Server, Log) {
    let mut command = Server::command();
    command.stderr(Stdio::piped());
    let args = [&["--outbox", url, "--coalesce", "0", "--log", "info"], args].concat();
    let mut server = Server::start_as(command, Transport::Http1, &args);
    let log = Log::of(&mut server);
    (server, log)
}

/// A server, the database, and a stream that is open.
fn streaming(postgres: &Postgres, args: &[&str]) -> (Server, Stream) {
    let server = start(&postgres.url(), args);
    let mut stream = server.stream("acme");
    stream.connected();
    (server, stream)
}

/// The keys of the next event.
fn next_keys(stream: &mut Stream) -> Vec<String> {
    let mut event = stream.next();
    while event.starts_with(':') {
        event = stream.next();
    }
    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
    let data = data.unwrap_or_else(|| panic!("no data: {event:?}"));
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    let keys = data["keys"].as_array().unwrap_or_else(|| panic!("no keys: {event}"));
    keys.iter().map(|key| key.as_str().expect("a string").to_owned()).collect()
}

/// Orgs among which many keys are spread: one event has few of them.
const ORGS: usize = 50;

/// A stream of each of these orgs, all of them open.
fn streams_of_orgs(server: &Server) -> Vec<Stream> {
    let mut streams: Vec<_> = (0..ORGS).map(|org| server.stream(&format!("o{org}"))).collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    streams
}

/// Publishes the keys from one number to another, in one transaction.
fn nudges(from: usize, to: usize) -> String {
    format!("SELECT nudge('o' || n % {ORGS}, 'n' || n) FROM generate_series({from}, {to}) AS n")
}

/// Reads until the streams of the orgs have had so many keys, each of them.
fn read_all(streams: &mut [Stream], keys: usize) {
    for stream in streams {
        let mut all = BTreeSet::new();
        while all.len() < keys / ORGS {
            all.extend(next_keys(stream));
        }
    }
}

/// The keys of the next events, until one has this key.
fn keys_until(stream: &mut Stream, last: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    while !all.contains(last) {
        all.extend(next_keys(stream));
    }
    all
}
