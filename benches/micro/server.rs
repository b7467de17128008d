//! The work on sockets, counted in `nudged serve`: all of its threads, from the first byte read to the last one
//! written.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::callgrind::CountedServer;
use crate::Outcome;
use crate::shared::http::{Connection, JSON, NDJSON, get, post};
use crate::shared::nats::Nats;
use crate::shared::process::{NUDGED, now};

/// An operation, and how its instructions are counted.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) count: fn() -> Outcome<f64>,
}

/// Counted operations. One more runs first, uncounted, because its code is cold.
const TIMES: usize = 500;
const STREAMS: usize = 1_000;
const EVENTS: usize = 20;
const LINES: usize = 1_000;
/// How long a server may take, under valgrind, until it has loaded its log.
const READY: Duration = Duration::from_secs(60);
const SECRET: &str = "a secret that is long enough for HS256";
const BODY: &str = r#"{"keys":["posts"]}"#;

pub(crate) const CASES: [Case; 13] = [
    Case { name: "request", what: "a request is routed and answered (/livez)", count: request },
    Case { name: "publish", what: "a publish is read and answered", count: || publish(Log::None) },
    Case { name: "token", what: "what a token (HS256) adds to a publish", count: token },
    Case { name: "line", what: "a line of an NDJSON publish", count: || line(Log::None) },
    Case {
        name: "connect",
        what: "a stream is accepted and greeted",
        count: || connect(Log::None),
    },
    Case { name: "delivery", what: "an event is written to a stream", count: delivery },
    Case {
        name: "keepalive",
        what: "a comment is written to a stream",
        count: || keepalive(Log::None),
    },
    Case {
        name: "publish-log",
        what: "a publish, by way of a log, from the request to the response",
        count: || publish(Log::Nats),
    },
    Case {
        name: "line-log",
        what: "a line of an NDJSON publish, by way of a log",
        count: || line(Log::Nats),
    },
    Case {
        name: "connect-log",
        what: "a stream is accepted and greeted, with a log",
        count: || connect(Log::Nats),
    },
    Case {
        name: "stream",
        what: "what one more stream adds to an event",
        count: || one_more_stream(Log::None),
    },
    Case {
        name: "stream-log",
        what: "what one more stream adds to an event, with a log",
        count: || one_more_stream(Log::Nats),
    },
    Case {
        name: "keepalive-log",
        what: "an id is written to a stream, with a log",
        count: || keepalive(Log::Nats),
    },
];

/// Whether the server has a log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    None,
    Nats,
}

/// A server, and the broker of its log.
struct Setup {
    server: CountedServer,
    nats: Option<Nats>,
}

// ===== impl Case =====

impl Case {
    pub(crate) fn needs_log(&self) -> bool {
        self.name.ends_with("-log")
    }
}

fn request() -> Outcome<f64> {
    repeat(&mut CountedServer::start(&[])?, &get("/livez", ""), 200, TIMES)
}

fn publish(log: Log) -> Outcome<f64> {
    repeat(&mut Setup::start(log, &[])?.server, &post_event(""), 202, TIMES)
}

fn token() -> Outcome<f64> {
    let mint = ["token", "--secret", SECRET, "--org", "acme", "--scope", "publish"];
    let minted = Command::new(NUDGED).args(mint).output()?;
    let token = String::from_utf8(minted.stdout)?;
    let request = post_event(&format!("authorization: Bearer {}\r\n", token.trim()));
    let with = repeat(&mut CountedServer::start(&["--jwt-secret", SECRET])?, &request, 202, TIMES)?;
    Ok(with - publish(Log::None)?)
}

fn line(log: Log) -> Outcome<f64> {
    let mut setup = Setup::start(log, &[])?;
    let line = "{\"org\":\"acme\",\"keys\":[\"posts\",\"feed:123\"]}\n";
    let mut batch = |lines: usize| {
        let request = post("/api/events", NDJSON, "", &line.repeat(lines));
        repeat(&mut setup.server, &request, 202, 20)
    };
    Ok((batch(LINES + 1)? - batch(1)?) / LINES as f64)
}

fn connect(log: Log) -> Outcome<f64> {
    let mut setup = Setup::start(log, &[])?;
    let address = setup.server.address;
    let mut streams = vec![subscribe(address)?];
    let all = setup.count(|| {
        for _ in 0..STREAMS {
            streams.push(subscribe(address)?);
        }
        Ok(())
    })?;
    Ok(all / STREAMS as f64)
}

fn delivery() -> Outcome<f64> {
    let mut server = CountedServer::start(&[])?;
    let mut publisher = Connection::open(server.address)?;
    let mut streams = subscribe_all(server.address)?;
    let request = post_event("");
    let mut event = || {
        publisher.exchange(&request, 202)?;
        streams.iter_mut().try_for_each(read_event)
    };
    event()?;
    let all = server.count(|| (0..EVENTS).try_for_each(|_| event()))?;
    Ok(all / (EVENTS * STREAMS) as f64)
}

/// A delivery without its share of the publish, which costs more by way of a log.
fn one_more_stream(log: Log) -> Outcome<f64> {
    let mut setup = Setup::start(log, &[])?;
    let address = setup.server.address;
    let mut publisher = Connection::open(address)?;
    let request = post_event("");
    let (mut streams, mut counts) = (Vec::new(), Vec::new());
    for count in [STREAMS / 10, STREAMS] {
        while streams.len() < count {
            streams.push(subscribe(address)?);
        }
        let mut event = || {
            publisher.exchange(&request, 202)?;
            streams.iter_mut().try_for_each(read_event)
        };
        event()?;
        counts.push(setup.count(|| (0..EVENTS).try_for_each(|_| event()))?);
    }
    Ok((counts[1] - counts[0]) / (EVENTS * (STREAMS - STREAMS / 10)) as f64)
}

fn keepalive(log: Log) -> Outcome<f64> {
    let mut setup = Setup::start(log, &["--keepalive", "2s"])?;
    let mut streams = subscribe_all(setup.server.address)?;
    let mut comments = 0;
    // Starting and stopping the count takes time, in which a few comments are counted and not read.
    let all = setup.server.count(|| {
        thread::sleep(Duration::from_secs(10));
        for stream in &mut streams {
            comments += drain_comments(stream)?;
        }
        Ok(())
    })?;
    Ok(all / comments as f64)
}

fn post_event(fields: &str) -> String {
    post("/api/acme/events", JSON, fields, BODY)
}

/// Sends a request this often on one connection. Returns the instructions of one.
fn repeat(server: &mut CountedServer, request: &str, status: u16, times: usize) -> Outcome<f64> {
    let mut client = Connection::open(server.address)?;
    client.exchange(request, status)?;
    let all = server.count(|| {
        for _ in 0..times {
            client.exchange(request, status)?;
        }
        Ok(())
    })?;
    Ok(all / times as f64)
}

fn subscribe_all(address: SocketAddr) -> Outcome<Vec<Connection>> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    (0..STREAMS).map(|_| subscribe(address)).collect()
}

/// Opens a stream, and reads its greeting.
fn subscribe(address: SocketAddr) -> Outcome<Connection> {
    let mut stream = Connection::open(address)?;
    stream.send(&get("/api/acme/events", "accept: text/event-stream\r\n"))?;
    match stream.read_head()?.status {
        200 => read_event(&mut stream)?,
        status => return Err(format!("the response to a stream was {status}").into()),
    }
    Ok(stream)
}

/// Reads one chunk, which is one event.
fn read_event(stream: &mut Connection) -> Outcome<()> {
    let length = usize::from_str_radix(&stream.read_line()?, 16)?;
    stream.0.read_exact(&mut vec![0; length + 2])?;
    Ok(())
}

/// Reads the bytes that have arrived, and returns the number of keepalives among them: comments, or with a log
/// events.
fn drain_comments(stream: &mut Connection) -> Outcome<usize> {
    let mut bytes = Vec::new();
    stream.0.get_ref().set_nonblocking(true)?;
    match stream.0.read_to_end(&mut bytes) {
        Err(why) if why.kind() == ErrorKind::WouldBlock => {}
        end => return Err(format!("the stream ended: {end:?}").into()),
    }
    let starts = |start: &[u8]| bytes.windows(start.len()).filter(|part| *part == start).count();
    Ok(starts(b"\r\n:") + starts(b"event: ping"))
}

// ===== impl Setup =====

impl Setup {
    fn start(log: Log, args: &[&str]) -> Outcome<Self> {
        let nats = (log == Log::Nats).then(Nats::start).transpose()?;
        let Some(nats) = nats else {
            return Ok(Self { server: CountedServer::start(args)?, nats: None });
        };
        let url = nats.url.clone();
        let log = ["--backplane", &url, "--backplane-linger", "0ms"];
        let server = CountedServer::start(&[args, &log].concat())?;
        let ready = get("/readyz", "connection: close\r\n");
        let start = now();
        while Connection::open(server.address)?.exchange(&ready, 200).is_err() {
            if start.elapsed() > READY {
                return Err("the server does not load its log".into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Self { server, nats: Some(nats) })
    }

    /// The instructions of the server for some work, without those that it spends on its log in the same time.
    fn count(&mut self, work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
        let start = now();
        let all = self.server.count(work)?;
        if self.nats.is_none() {
            return Ok(all);
        }
        let took = start.elapsed();
        let idle = self.server.count(|| {
            thread::sleep(took);
            Ok(())
        })?;
        Ok(all - idle)
    }
}
