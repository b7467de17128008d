//! Proxies that change what they forward.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::harness::read_head;

/// What it does with the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Removes lines that begin with a colon.
    StripsComments,
    /// Forwards a response, head and all, once it is complete.
    Buffers,
    /// Forwards the head at once, and the body once it is complete.
    BuffersBodies,
}

/// Ends with the test's process.
#[derive(Clone)]
pub(super) struct Filter {
    pub(super) address: SocketAddr,
    kind: Kind,
    server: SocketAddr,
    /// Whether it does so to new responses, or forwards them as they are.
    pub(super) is_on: Arc<AtomicBool>,
    /// Number of comments that it has forwarded.
    pub(super) comments: Arc<AtomicUsize>,
    /// Number of lines `event: ping` that it has forwarded.
    pub(super) pings: Arc<AtomicUsize>,
}

// ===== impl Filter =====

impl Filter {
    pub(super) fn start(kind: Kind, server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let filter = Self {
            address: listener.local_addr().expect("bound"),
            kind,
            server,
            is_on: Arc::new(AtomicBool::new(true)),
            comments: Arc::default(),
            pings: Arc::default(),
        };
        let accepting = filter.clone();
        thread::spawn(move || {
            for browser in listener.incoming().flatten() {
                let filter = accepting.clone();
                thread::spawn(move || filter.forward(browser));
            }
        });
        filter
    }

    /// Forwards until either end is closed, and closes the other.
    fn forward(&self, mut browser: TcpStream) -> Option<()> {
        // HTTP/1.0 has no chunks, whose lengths would have to change.
        let head = read_head(&mut browser)?.replacen("HTTP/1.1", "HTTP/1.0", 1);
        let mut server = TcpStream::connect(self.server).ok()?;
        server.write_all(head.as_bytes()).ok()?;
        let mut from = browser.try_clone().ok()?;
        let to = server.try_clone().ok()?;
        thread::spawn(move || {
            _ = from.read(&mut [0]);
            _ = to.shutdown(Shutdown::Both);
        });
        _ = self.copy(&mut BufReader::new(server), &mut browser);
        browser.shutdown(Shutdown::Both).ok()
    }

    fn copy(&self, server: &mut impl BufRead, browser: &mut TcpStream) -> std::io::Result<()> {
        let kind = self.is_on.load(Relaxed).then_some(self.kind);
        let mut line = Vec::new();
        if kind != Some(Kind::Buffers) {
            while line != b"\r\n" {
                line.clear();
                server.read_until(b'\n', &mut line)?;
                browser.write_all(&line)?;
            }
        }
        if matches!(kind, Some(Kind::Buffers | Kind::BuffersBodies)) {
            let mut rest = Vec::new();
            server.read_to_end(&mut rest)?;
            return browser.write_all(&rest);
        }
        loop {
            line.clear();
            if server.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let is_comment = line.starts_with(b":");
            if is_comment && kind == Some(Kind::StripsComments) {
                continue;
            }
            browser.write_all(&line)?;
            self.comments.fetch_add(is_comment.into(), Relaxed);
            self.pings.fetch_add((line == b"event: ping\n").into(), Relaxed);
        }
    }
}
