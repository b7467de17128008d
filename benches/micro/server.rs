//! What takes a socket, counted in `nudged serve`: all of its threads, from the first byte read to the
//! last one written.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::callgrind::Watched;
use crate::Outcome;

/// Something to count, in instructions of one operation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) count: fn() -> Outcome<f64>,
}

/// A connection, asked one request after the other.
struct Client(BufReader<TcpStream>);

/// So many of what is counted; before it one is done that is not, which finds cold code.
const TIMES: usize = 500;
const STREAMS: usize = 1_000;
const EVENTS: usize = 20;
const LINES: usize = 1_000;
const SECRET: &str = "a secret that is long enough for HS256";
const BOUND: Duration = Duration::from_secs(60);

pub(crate) const CASES: [Case; 7] = [
    Case { name: "request", what: "a request is routed and answered (/livez)", count: request },
    Case { name: "publish", what: "a publish is read and answered", count: publish },
    Case { name: "token", what: "what a token (HS256) adds to a publish", count: token },
    Case { name: "line", what: "a line of an NDJSON publish", count: line },
    Case { name: "connect", what: "a stream is accepted, greeted and parked", count: connect },
    Case { name: "delivery", what: "an event is written to a parked stream", count: delivery },
    Case { name: "keepalive", what: "a comment is written to a parked stream", count: keepalive },
];

fn request() -> Outcome<f64> {
    ask(&mut Watched::start(&[])?, "GET /livez HTTP/1.1\r\nhost: micro\r\n\r\n", 200, TIMES)
}

fn publish() -> Outcome<f64> {
    ask(&mut Watched::start(&[])?, &post("/api/acme/events", JSON, "", BODY), 202, TIMES)
}

fn token() -> Outcome<f64> {
    let mint = ["token", "--secret", SECRET, "--org", "acme", "--scope", "publish"];
    let minted = Command::new(env!("CARGO_BIN_EXE_nudged")).args(mint).output()?;
    let token = String::from_utf8(minted.stdout)?;
    let field = format!("authorization: Bearer {}\r\n", token.trim());
    let request = post("/api/acme/events", JSON, &field, BODY);
    let with = ask(&mut Watched::start(&["--jwt-secret", SECRET])?, &request, 202, TIMES)?;
    Ok(with - publish()?)
}

fn line() -> Outcome<f64> {
    let mut server = Watched::start(&[])?;
    let line = "{\"org\":\"acme\",\"keys\":[\"posts\",\"feed:123\"]}\n";
    let mut batch = |lines: usize| {
        let request = post("/api/events", "application/x-ndjson", "", &line.repeat(lines));
        ask(&mut server, &request, 202, 20)
    };
    Ok((batch(LINES + 1)? - batch(1)?) / LINES as f64)
}

fn connect() -> Outcome<f64> {
    let mut server = Watched::start(&[])?;
    let address = server.address;
    let mut streams = vec![Client::subscribe(address)?];
    let all = server.count(|| {
        for _ in 0..STREAMS {
            streams.push(Client::subscribe(address)?);
        }
        Ok(())
    })?;
    Ok(all / STREAMS as f64)
}

fn delivery() -> Outcome<f64> {
    let mut server = Watched::start(&[])?;
    let (mut publisher, mut streams) = (Client::connect(server.address)?, crowd(server.address)?);
    let request = post("/api/acme/events", JSON, "", BODY);
    let mut event = || {
        publisher.ask(&request, 202)?;
        streams.iter_mut().try_for_each(|stream| stream.read_event())
    };
    event()?;
    let all = server.count(|| (0..EVENTS).try_for_each(|_| event()))?;
    Ok(all / (EVENTS * STREAMS) as f64)
}

fn keepalive() -> Outcome<f64> {
    let mut server = Watched::start(&["--keepalive", "2s"])?;
    let mut streams = crowd(server.address)?;
    let mut comments = 0;
    // Both ends take their time, so that some are counted that were not read: few of many.
    let all = server.count(|| {
        thread::sleep(Duration::from_secs(10));
        for stream in &mut streams {
            comments += stream.drain_comments()?;
        }
        Ok(())
    })?;
    Ok(all / comments as f64)
}

const JSON: &str = "application/json";
const BODY: &str = r#"{"keys":["posts"]}"#;

fn post(path: &str, kind: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    let mut text = format!("POST {path} HTTP/1.1\r\nhost: micro\r\ncontent-type: {kind}\r\n");
    let _ = write!(text, "{fields}content-length: {length}\r\n\r\n{body}");
    text
}

/// Asks so many times on one connection. Returns the instructions of one.
fn ask(server: &mut Watched, request: &str, status: u16, times: usize) -> Outcome<f64> {
    let mut client = Client::connect(server.address)?;
    client.ask(request, status)?;
    let all = server.count(|| (0..times).try_for_each(|_| client.ask(request, status)))?;
    Ok(all / times as f64)
}

fn crowd(address: SocketAddr) -> Outcome<Vec<Client>> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    (0..STREAMS).map(|_| Client::subscribe(address)).collect()
}

// ===== impl Client =====

impl Client {
    fn connect(address: SocketAddr) -> Outcome<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(BOUND))?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(1024, socket)))
    }

    /// Opens a stream, and reads its greeting.
    fn subscribe(address: SocketAddr) -> Outcome<Self> {
        let mut client = Self::connect(address)?;
        let request =
            "GET /api/acme/events HTTP/1.1\r\nhost: micro\r\naccept: text/event-stream\r\n\r\n";
        client.0.get_mut().write_all(request.as_bytes())?;
        client.read_head(200)?;
        client.read_event()?;
        Ok(client)
    }

    fn ask(&mut self, request: &str, status: u16) -> Outcome<()> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let length = self.read_head(status)?;
        self.0.read_exact(&mut vec![0; length])?;
        Ok(())
    }

    /// Returns the length of the body, if it is given.
    fn read_head(&mut self, status: u16) -> Outcome<usize> {
        let (mut length, mut first) = (0, String::new());
        self.0.read_line(&mut first)?;
        if !first.starts_with(&format!("HTTP/1.1 {status} ")) {
            return Err(format!("not {status}: {first}").into());
        }
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                return Ok(length);
            }
        }
    }

    /// Reads one chunk, which is one event.
    fn read_event(&mut self) -> Outcome<()> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16)?;
        self.0.read_exact(&mut vec![0; length + 2])?;
        Ok(())
    }

    /// Reads what there is, and returns how many comments it was.
    fn drain_comments(&mut self) -> Outcome<usize> {
        let mut text = Vec::new();
        self.0.get_ref().set_nonblocking(true)?;
        match self.0.read_to_end(&mut text) {
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            end => return Err(format!("the stream ended: {end:?}").into()),
        }
        Ok(text.iter().filter(|byte| **byte == b':').count())
    }
}
