//! Listening on Unix sockets: their files, and what is served over them.

mod ends;
mod files;
mod proxied;
mod serving;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::support::temp_dir::TempDir;
use crate::support::{Answer, Client, Server, Stream, Transport};

/// The path of a socket, in a folder of its own.
struct Place {
    dir: TempDir,
    path: PathBuf,
}

// ===== impl Place =====

impl Place {
    fn new() -> Self {
        let dir = TempDir::new();
        let path = dir.path().join("socket");
        Self { dir, path }
    }

    /// The value of `--listen` for it.
    fn flag(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Starts a server here, and at a port by which the test looks into it.
    fn serve(&self, args: &[&str]) -> Server {
        let listen = format!("127.0.0.1:0,{}", self.flag());
        Server::start_as(
            Server::command(),
            Transport::Http1,
            &[&["--listen", &listen], args].concat(),
        )
    }

    fn connect(&self) -> Client {
        connect(&self.path)
    }

    fn stream(&self, org: &str) -> Stream {
        Stream::open(self.connect(), &format!("/api/{org}/events"), "")
    }

    fn streams(&self, org: &str, count: usize) -> Vec<Stream> {
        let mut streams: Vec<_> = (0..count).map(|_| self.stream(org)).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        streams
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        let mut client = self.connect();
        client.send(&format!("GET {path} HTTP/1.1\r\n{headers}\r\n"));
        client.read_answer()
    }
}

/// A client of the socket at this path. Calls on sockets do not depend on their family.
fn connect(path: &Path) -> Client {
    let socket = UnixStream::connect(path).expect("the server listens");
    Client::on(TcpStream::from(OwnedFd::from(socket)))
}
