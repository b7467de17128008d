//! A broker with a log, as the tests of the program start one: what happens to it, and what other programs do to the
//! log, has the same names for all of them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::path::Protocol;
use crate::support::NatsClient;
use crate::support::nats::NatsServer;
use crate::support::programs::{NATS_SERVER, Program, REDIS_SERVER, are_available};
use crate::support::redis::{APPEND_ONLY, RedisServer};
use crate::support::redis_client::{RedisClient, Reply};

/// A server that stores each record before it acknowledges it.
pub(crate) trait Broker: Sized {
    type Client: LogClient;
    const PROTOCOL: Protocol;
    /// Sets of flags of nudged, one for each way to decide whether a restart may have lost records.
    const TRUSTS: &'static [&'static [&'static str]];
    /// Whether with the first of them a restart with its files goes unnoticed.
    const TRUSTED_RESTARTS: bool;
    /// Whether a record that others append without a tag has one nevertheless.
    const TAGS_BARE_RECORDS: bool;

    fn program() -> &'static Program;
    fn start() -> Self;
    fn address(&self) -> SocketAddr;
    /// Has a log that no node has opened yet.
    fn create_log(&self);
    /// Ends it without any chance to write something.
    fn kill(&mut self);
    /// Ends it in good order.
    fn stop(&mut self);
    /// Starts it again with its files.
    fn start_again(&mut self);
    /// It stands still: its connections stay, and nothing is answered.
    fn pause(&self);
    fn go_on(&self);
    /// The folder with its records. Copy or replace it only while it does not run.
    fn files(&self) -> PathBuf;

    fn client(&self) -> Self::Client {
        Self::Client::connect(self.address()).expect("it runs")
    }
}

/// A program that is no nudged, at the log of nodes that have the name by default.
pub(crate) trait LogClient: Send + Sized + 'static {
    fn connect(address: SocketAddr) -> io::Result<Self>;
    /// Appends a record. Returns its position.
    fn try_store(&mut self, form: Form, payload: &[u8]) -> io::Result<u64>;
    /// Appends records that are broken around these lines, and one that is larger than any of nudged.
    fn store_garbage(self, lines: &[u8]);
    fn newest(&mut self) -> u64;
    fn delete_log(&mut self);
    /// Deletes the log, and creates another one with the same settings.
    fn recreate_log(&mut self);

    fn store(&mut self, form: Form, payload: &[u8]) -> u64 {
        self.try_store(form, payload).expect("stored")
    }
}

/// What a record has beside its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Bare,
    /// The version of the format, the kind, and a tag.
    Marked(&'static str, &'static str),
}

pub(crate) const LOG: &str = "nudged";
pub(crate) const TAG: &str = "0123456789abcdef";

/// Makes two tests of each of these functions, `nats::NAME` and `redis::NAME`.
macro_rules! for_each_broker {
    ($($name:ident),+ $(,)?) => {
        mod nats {
            $(#[test]
            fn $name() {
                use $crate::support::nats::NatsServer;
                $crate::harness::broker::run::<NatsServer>(super::$name::<NatsServer>);
            })+
        }
        mod redis {
            $(#[test]
            fn $name() {
                use $crate::support::redis::RedisServer;
                $crate::harness::broker::run::<RedisServer>(super::$name::<RedisServer>);
            })+
        }
    };
}
pub(crate) use for_each_broker;

/// Runs a test where its broker is installed.
pub(crate) fn run<B: Broker>(test: impl FnOnce()) {
    if are_available(&[B::program()]) {
        test();
    }
}

// ===== impl NatsServer =====

impl Broker for NatsServer {
    type Client = NatsClient;
    const PROTOCOL: Protocol = Protocol::Nats;
    const TRUSTS: &'static [&'static [&'static str]] = &[&["--backplane-trust-disk"], &[]];
    const TRUSTED_RESTARTS: bool = true;
    const TAGS_BARE_RECORDS: bool = true;

    fn program() -> &'static Program {
        &NATS_SERVER
    }

    fn start() -> Self {
        Self::start()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn create_log(&self) {
        let stream = json!({ "name": LOG, "subjects": [format!("{LOG}.log")] });
        self.client().api(&format!("STREAM.CREATE.{LOG}"), &stream);
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn start_again(&mut self) {
        self.start_again();
    }

    fn pause(&self) {
        self.pause();
    }

    fn go_on(&self) {
        self.go_on();
    }

    fn files(&self) -> PathBuf {
        self.store()
    }
}

impl LogClient for NatsClient {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect(address, None)
    }

    fn try_store(&mut self, form: Form, payload: &[u8]) -> io::Result<u64> {
        let header = match form {
            Form::Bare => String::new(),
            Form::Marked(version, kind) => format!("Nudged: {version} {kind} {TAG}\r\n"),
        };
        let answer = self.request_with(&header, &format!("{LOG}.log"), payload)?;
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer["seq"].as_u64().ok_or_else(|| io::Error::other(answer.to_string()))
    }

    fn store_garbage(mut self, lines: &[u8]) {
        for header in [
            "",
            "1",
            "1 lines",
            "1 lines zz",
            "lines",
            "one lines 00",
            "1 lines 0123456789abcdef more",
        ] {
            self.append(LOG, &format!("Nudged: {header}\r\n"), lines);
        }
        // More than a broker takes: this connection ends.
        _ = self.request(&format!("{LOG}.log"), &vec![b'a'; 10 << 20]);
    }

    fn newest(&mut self) -> u64 {
        self.stream_info(LOG)["state"]["last_seq"].as_u64().expect("a number")
    }

    fn delete_log(&mut self) {
        self.delete(LOG);
    }

    fn recreate_log(&mut self) {
        self.recreate(LOG, |_| {});
    }
}

// ===== impl RedisServer =====

impl Broker for RedisServer {
    type Client = RedisClient;
    const PROTOCOL: Protocol = Protocol::Redis;
    const TRUSTS: &'static [&'static [&'static str]] = &[&[]];
    const TRUSTED_RESTARTS: bool = false;
    const TAGS_BARE_RECORDS: bool = false;

    fn program() -> &'static Program {
        &REDIS_SERVER
    }

    fn start() -> Self {
        Self::start_with(APPEND_ONLY)
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    /// The first record does.
    fn create_log(&self) {}

    fn kill(&mut self) {
        self.kill();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn start_again(&mut self) {
        self.start_again();
    }

    fn pause(&self) {
        self.pause();
    }

    fn go_on(&self) {
        self.go_on();
    }

    fn files(&self) -> PathBuf {
        self.store()
    }
}

impl LogClient for RedisClient {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut client = Self::connect(address, None)?;
        client.request(&["PING"])?;
        Ok(client)
    }

    fn try_store(&mut self, form: Form, payload: &[u8]) -> io::Result<u64> {
        let marks = match form {
            Form::Bare => vec![],
            Form::Marked(version, kind) => vec!["v", version, "n", TAG, "k", kind],
        };
        self.try_append(&marks, payload)
    }

    fn store_garbage(mut self, lines: &[u8]) {
        for marks in [
            &["v", "1"][..],
            &["v", "1", "k", "lines", "n", "zz"],
            &["v", "", "k", "", "n", ""],
            &["v", "one", "k", "lines", "n", "00"],
            &["v", "1", "k", "lines", "n", TAG, "x", "more"],
            &["v", "1", "k", "news", "d", "first"],
        ] {
            self.try_append(marks, lines).expect("stored");
        }
        self.append(LOG, "0-*", &["v", "1", "k", "lines", "n", TAG]);
        self.append(LOG, "0-*", &["unknown", "field"]);
        self.try_append(&[], &vec![b'a'; 10 << 20]).expect("stored");
    }

    fn newest(&mut self) -> u64 {
        let newest = self.run(&format!("XREVRANGE {LOG}:log + - COUNT 1")).items();
        newest.into_iter().next().map_or(0, |entry| position(entry.items()[0].text()))
    }

    fn delete_log(&mut self) {
        self.run(&format!("DEL {LOG}:log"));
    }

    /// The first record creates it.
    fn recreate_log(&mut self) {
        self.delete_log();
    }
}

// ===== impl RedisClient =====

impl RedisClient {
    fn try_append(&mut self, marks: &[&str], payload: &[u8]) -> io::Result<u64> {
        let key = format!("{LOG}:log");
        let mut command: Vec<_> = ["XADD", &key, "0-*"].map(str::as_bytes).to_vec();
        command.extend(marks.iter().map(|mark| mark.as_bytes()));
        command.extend([b"d", payload]);
        match self.request_bytes(&command)? {
            Reply::Text(id) => Ok(position(&id)),
            other => panic!("{other:?}"),
        }
    }
}

/// That of an id of the log.
pub(crate) fn position(id: &str) -> u64 {
    id.strip_prefix("0-").expect("an id of the log").parse().expect("a number")
}
