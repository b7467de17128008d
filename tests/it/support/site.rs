//! A site of files.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Ends with the test's process.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
}

// ===== impl Site =====

impl Site {
    /// Serves these files: paths and contents. A path without an extension is a page.
    pub(crate) fn start(files: impl Into<Vec<(&'static str, String)>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let files = Arc::new(files.into());
        thread::spawn(move || {
            for browser in listener.incoming().flatten() {
                let files = Arc::clone(&files);
                thread::spawn(move || serve(browser, &files));
            }
        });
        Self { address }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut browser: TcpStream, files: &[(&str, String)]) {
    let mut head = String::new();
    let mut reader = BufReader::new(browser.try_clone().expect("a socket"));
    while !head.ends_with("\r\n\r\n") {
        if !reader.read_line(&mut head).is_ok_and(|read| read > 0) {
            return;
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default();
    let file = files.iter().find(|(name, _)| *name == path);
    let (status, body) = file.map_or(("404 Not Found", ""), |(_, text)| ("200 OK", text.as_str()));
    let kind = if path.ends_with(".js") { "text/javascript" } else { "text/html" };
    _ = write!(
        browser,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}
