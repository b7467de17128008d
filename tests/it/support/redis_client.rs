//! A client of Redis that writes its protocol as it is documented: what other programs of an operator do to a log.
#![allow(dead_code, reason = "each of those that include this uses some of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::BOUND;

/// A connection. Its waits are bounded.
pub(crate) struct RedisClient(BufReader<TcpStream>);

/// What Redis answers, but for its errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Int(i64),
    Text(String),
    Array(Vec<Self>),
}

// ===== impl RedisClient =====

impl RedisClient {
    /// Connects. `login` is `USER:PASSWORD`.
    pub(crate) fn connect(address: SocketAddr, login: Option<&str>) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(BOUND))?;
        socket.set_write_timeout(Some(BOUND))?;
        let mut client = Self(BufReader::new(socket));
        if let Some((user, password)) = login.and_then(|login| login.split_once(':')) {
            client.request(&["AUTH", user, password])?;
        }
        Ok(client)
    }

    /// Waits for at most `bound` from now on.
    pub(crate) fn bounded(self, bound: Duration) -> io::Result<Self> {
        self.0.get_ref().set_read_timeout(Some(bound))?;
        Ok(self)
    }

    /// The reply to a command; one of Redis' errors is an error.
    pub(crate) fn request(&mut self, command: &[&str]) -> io::Result<Reply> {
        let parts: Vec<_> = command.iter().map(|part| part.as_bytes()).collect();
        self.request_bytes(&parts)
    }

    pub(crate) fn request_bytes(&mut self, command: &[&[u8]]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            bytes.extend(format!("${}\r\n", part.len()).bytes());
            bytes.extend_from_slice(part);
            bytes.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes)?;
        self.reply()
    }

    /// The same, which has to succeed. `command` is split at its spaces.
    pub(crate) fn run(&mut self, command: &str) -> Reply {
        let parts: Vec<_> = command.split(' ').collect();
        self.request(&parts).unwrap_or_else(|why| panic!("{command}: {why}"))
    }

    /// The value of a field of `INFO`.
    pub(crate) fn info(&mut self, field: &str) -> String {
        let Reply::Text(info) = self.run("INFO") else { panic!("no text") };
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {info}")).trim().into()
    }

    /// Appends to the log of this name, as a program that is no nudged. Returns the id.
    pub(crate) fn append(&mut self, log: &str, id: &str, fields: &[&str]) -> String {
        let key = format!("{log}:log");
        let command = [&["XADD", &key, id], fields].concat();
        match self.request(&command) {
            Ok(Reply::Text(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().into())
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().expect("a number");
        match kind {
            "+" => Ok(Reply::Text(rest.into())),
            "-" => Err(io::Error::other(rest)),
            ":" => Ok(Reply::Int(number())),
            "$" | "*" if number() < 0 => Ok(Reply::Nil),
            "$" => {
                let mut bytes = vec![0; number() as usize + 2];
                self.0.read_exact(&mut bytes)?;
                let text = &bytes[..bytes.len() - 2];
                Ok(Reply::Text(String::from_utf8_lossy(text).into_owned()))
            }
            "*" => Ok(Reply::Array((0..number()).map(|_| self.reply()).collect::<Result<_, _>>()?)),
            _ => Err(io::Error::other(line)),
        }
    }
}

// ===== impl Reply =====

impl Reply {
    pub(crate) fn items(self) -> Vec<Self> {
        match self {
            Self::Array(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }
}
