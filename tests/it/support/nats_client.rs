//! A client of NATS that writes its protocol as it is documented, and knows nothing of JetStream but subjects and JSON:
//! what other programs of an operator do to a log.
#![allow(dead_code, reason = "each of those that include this uses some of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::BOUND;

/// A connection. Its waits are bounded.
pub(crate) struct NatsClient {
    socket: BufReader<TcpStream>,
    inbox: String,
    /// The server's greeting.
    info: String,
}

// ===== impl NatsClient =====

impl NatsClient {
    /// Connects. `login` is `USER:PASSWORD` or a token.
    pub(crate) fn connect(address: SocketAddr, login: Option<&str>) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(BOUND))?;
        socket.set_write_timeout(Some(BOUND))?;
        let inbox = format!("_INBOX.{}", socket.local_addr()?.port());
        let mut client = Self { socket: BufReader::new(socket), inbox, info: String::new() };
        let info = client.line()?;
        assert!(info.starts_with("INFO {"), "{info}");
        client.info = info["INFO ".len()..].into();
        let mut options = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true,
            "lang": "test", "version": "0", "protocol": 1,
        });
        match login.map(|login| login.split_once(':').ok_or(login)) {
            Some(Ok((user, password))) => {
                options["user"] = user.into();
                options["pass"] = password.into();
            }
            Some(Err(token)) => options["auth_token"] = token.into(),
            None => {}
        }
        let inbox = client.inbox.clone();
        client.write(&[format!("CONNECT {options}\r\nSUB {inbox} 1\r\nPING\r\n").as_bytes()])?;
        let mut line = client.line()?;
        while line.starts_with("INFO ") {
            line = client.line()?;
        }
        if line != "PONG" {
            return Err(io::Error::other(line));
        }
        Ok(client)
    }

    /// The version of the server.
    pub(crate) fn version(&self) -> String {
        let info: Value = serde_json::from_str(&self.info).expect("JSON");
        info["version"].as_str().expect("a version").into()
    }

    /// Waits for at most `bound` from now on.
    pub(crate) fn bounded(self, bound: Duration) -> io::Result<Self> {
        self.socket.get_ref().set_read_timeout(Some(bound))?;
        Ok(self)
    }

    /// The answer to a request.
    pub(crate) fn request(&mut self, subject: &str, payload: &[u8]) -> io::Result<String> {
        self.request_with("", subject, payload)
    }

    /// The same, with header lines (`Name: value\r\n`), or with all of the headers but their last line end.
    pub(crate) fn request_with(
        &mut self,
        headers: &str,
        subject: &str,
        payload: &[u8],
    ) -> io::Result<String> {
        let inbox = self.inbox.clone();
        let head = if headers.is_empty() {
            format!("PUB {subject} {inbox} {}\r\n", payload.len())
        } else {
            let headers = match headers {
                whole if whole.contains("NATS/1.0") => format!("{headers}\r\n"),
                _ => format!("NATS/1.0\r\n{headers}\r\n"),
            };
            let len = headers.len() + payload.len();
            format!("HPUB {subject} {inbox} {} {len}\r\n{headers}", headers.len())
        };
        self.write(&[head.as_bytes(), payload, b"\r\n"])?;
        self.message()
    }

    /// Appends to the log of this name, as a program that is no nudged. Returns its position.
    pub(crate) fn append(&mut self, log: &str, headers: &str, payload: &[u8]) -> u64 {
        let answer = self.request_with(headers, &format!("{log}.log"), payload).expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["seq"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// The same with headers that begin with a status, as those of the broker's own messages do.
    pub(crate) fn append_status(&mut self, log: &str, status: &str) -> u64 {
        self.append(log, &format!("NATS/1.0 {status}\r\n"), b"{}")
    }

    /// Asks JetStream (`$JS.API.` + `what`) and fails at an error.
    pub(crate) fn api(&mut self, what: &str, payload: &Value) -> Value {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        let answer = self.request(&format!("$JS.API.{what}"), payload.as_bytes());
        let answer = answer.unwrap_or_else(|why| panic!("{what}: {why}"));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        assert!(answer.get("error").is_none(), "{what}: {answer}");
        answer
    }

    /// What the stream of a log is: its configuration and its state.
    pub(crate) fn stream_info(&mut self, log: &str) -> Value {
        self.api(&format!("STREAM.INFO.{log}"), &Value::Null)
    }

    /// Deletes a stream, and creates it anew with its settings as `change` leaves them.
    pub(crate) fn recreate(&mut self, log: &str, change: impl FnOnce(&mut Value)) {
        let mut config = self.stream_info(log)["config"].take();
        change(&mut config);
        self.delete(log);
        self.api(&format!("STREAM.CREATE.{log}"), &config);
    }

    pub(crate) fn delete(&mut self, log: &str) {
        self.api(&format!("STREAM.DELETE.{log}"), &Value::Null);
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.socket.get_mut().write_all(&parts.concat())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.socket.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().into())
    }

    /// The payload of the next message; an error is one without a payload and with a status, such as "no responders".
    fn message(&mut self) -> io::Result<String> {
        loop {
            let line = self.line()?;
            let fields: Vec<_> = line.split(' ').collect();
            let number = |text: &str| text.parse::<usize>().expect("a length");
            let headers = match fields[0] {
                "MSG" => 0,
                "HMSG" => number(fields[fields.len() - 2]),
                "PING" => {
                    self.write(&[b"PONG\r\n"])?;
                    continue;
                }
                "INFO" => continue,
                _ => return Err(io::Error::other(line)),
            };
            let len = number(fields[fields.len() - 1]);
            let mut message = vec![0; len + 2];
            self.socket.read_exact(&mut message)?;
            let text = String::from_utf8_lossy(&message[headers..len]).into_owned();
            if text.is_empty() && headers > 0 {
                let status = String::from_utf8_lossy(&message[..headers]).into_owned();
                return Err(io::Error::other(status));
            }
            return Ok(text);
        }
    }
}
