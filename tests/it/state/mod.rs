//! A server with `--state` that stops and starts again: its clients resume, and receive exactly what they missed. What it
//! cannot use costs them a re-read, and what is not its own is left as it is.

mod crash;
mod refused;
mod resume;
mod settings;
mod topics;
#[cfg(target_os = "linux")]
mod upgrade;

use std::process::{Command, Stdio};

use crate::support::log::Log;
use crate::support::server::Signal;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, Stream, Transport};

/// Where a server keeps its state.
struct Place {
    dir: TempDir,
    file: String,
}

const ACME: &str = "/api/acme/events";

// ===== impl Place =====

impl Place {
    fn new() -> Self {
        let dir = TempDir::new();
        Self { file: dir.file("state"), dir }
    }

    /// Starts a server that keeps its state there.
    fn start(&self, more: &[&str]) -> Server {
        self.start_on(Transport::Http1, more)
    }

    fn start_on(&self, transport: Transport, more: &[&str]) -> Server {
        self.start_as(Server::command(), transport, more)
    }

    fn start_as(&self, command: Command, transport: Transport, more: &[&str]) -> Server {
        let mut flags = vec!["--state", &self.file];
        for default in [["--drain-window", "100ms"], ["--coalesce", "0"]] {
            if !more.contains(&default[0]) {
                flags.extend(default);
            }
        }
        Server::start_as(command, transport, &[&flags, more].concat())
    }

    /// The same, whose log is piped.
    fn logging(&self, mut command: Command, more: &[&str]) -> (Server, Log) {
        command.stderr(Stdio::piped());
        let mut server = self.start_as(command, Transport::Http1, more);
        let log = Log::of(&mut server);
        (server, log)
    }

    /// A server that has published to acme and has stopped: its file, and the id that a client had before.
    fn stopped(&self) -> String {
        let server = self.start(&[]);
        let id = server.stream("acme").connected();
        server.publish("acme", &["a"]).expect("remembered");
        stop(server);
        assert_eq!(self.names(), ["state"]);
        id
    }

    /// The names of what is in its folder.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).expect("a folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("an entry").file_name().into_string().expect("text")
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }
}

/// Ends a server by a drain.
fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

/// Opens a stream as a client that has received everything up to this id.
fn reconnect(server: &Server, path: &str, id: &str) -> Stream {
    server.stream_with(path, &format!("last-event-id: {id}\r\n"))
}

/// The same, which resumes.
fn resumed(server: &Server, path: &str, id: &str) -> Stream {
    let mut stream = reconnect(server, path, id);
    let (_, greeted, name) = stream.greeting();
    assert_eq!((&*name, &*greeted), ("resumed", id));
    stream
}

/// Opens a stream whose client has to re-read everything, though it has this id, and returns its id.
fn reread(server: &Server, path: &str, id: &str) -> String {
    let connected = reconnect(server, path, id).connected();
    let epoch = |id: &str| id.split_once('-').expect("epoch-seq").0.to_owned();
    assert_ne!(epoch(&connected), epoch(id), "no id of before is issued again");
    connected
}
