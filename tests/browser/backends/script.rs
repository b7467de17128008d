//! A server whose responses are a script, for requests of any HTTP client.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::support::eventually;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A status, header lines, and a body.
    Answer(u16, &'static str, &'static str),
    /// The connection is reset after the request.
    Reset,
    /// There is no response.
    Silence,
    /// 202, once the test has released this.
    Hold(Arc<Mutex<()>>),
}

/// Performs one step for each request, and answers 202 after the last one. Ends with the test's process.
pub(super) struct Script {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The method and the path.
    pub(super) line: String,
    /// The header fields, in lower case.
    pub(super) fields: Vec<String>,
    pub(super) body: String,
}

// ===== impl Script =====

impl Script {
    pub(super) fn play(steps: impl Into<VecDeque<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&requests);
        let steps: Arc<Mutex<VecDeque<Step>>> = Arc::new(Mutex::new(steps.into()));
        thread::spawn(move || {
            // A client may open a connection that it does not use.
            for client in listener.incoming().flatten() {
                let (taken, steps) = (Arc::clone(&taken), Arc::clone(&steps));
                thread::spawn(move || {
                    let Some(request) = Request::read(&client) else { return };
                    let step = steps.lock().expect("no panic").pop_front();
                    taken.lock().expect("no panic").push(request);
                    step.unwrap_or(Step::Answer(202, "", "{}")).perform(client);
                });
            }
        });
        Self { address, requests }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    /// Waits until there were so many.
    pub(super) fn await_requests(&self, count: usize) -> Vec<Request> {
        eventually("the requests", || self.requests().len() >= count);
        self.requests()
    }
}

// ===== impl Step =====

impl Step {
    fn perform(self, mut client: TcpStream) {
        match self {
            Self::Answer(status, fields, body) => {
                _ = write!(
                    client,
                    "HTTP/1.1 {status} Test\r\n{fields}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
            Self::Reset => _ = SockRef::from(&client).set_linger(Some(Duration::ZERO)),
            Self::Silence => _ = client.read(&mut [0]),
            Self::Hold(held) => {
                drop(held.lock().expect("no panic"));
                Self::Answer(202, "", "{}").perform(client);
            }
        }
    }
}

// ===== impl Request =====

impl Request {
    fn read(client: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(client);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
        let lower = |field: String| {
            let (name, value) = field.split_once(':').expect("a field");
            format!("{}: {}", name.to_lowercase(), value.trim())
        };
        let fields: Vec<_> = lines.into_iter().map(lower).collect();
        let length = fields.iter().find_map(|field| field.strip_prefix("content-length: "));
        let mut body = vec![0; length?.parse().expect("a number")];
        reader.read_exact(&mut body).ok()?;
        Some(Self { line, fields, body: String::from_utf8(body).expect("UTF-8") })
    }

    /// Its lines: orgs and keys.
    pub(super) fn lines(&self) -> Vec<(String, Vec<String>)> {
        let line = |line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line.as_object().expect("an object").len(), 2, "{line}");
            let keys = serde_json::from_value(line["keys"].clone()).expect("keys");
            (line["org"].as_str().expect("a name").to_owned(), keys)
        };
        self.body.lines().map(line).collect()
    }
}
