//! What a process prints, read as it is written, so that its pipe is never full.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::{BOUND, Server};

/// The lines that no test has taken yet.
pub(crate) struct Log(Receiver<String>);

// ===== impl Log =====

impl Log {
    /// Of a server whose stderr is piped.
    pub(crate) fn of(server: &mut Server) -> Self {
        Self::read(server.take_stderr())
    }

    /// Of any process.
    pub(crate) fn read(pipe: impl Read + Send + 'static) -> Self {
        let (lines, log) = channel();
        // It ends with the process.
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Self(log)
    }

    /// The next line that contains all of these parts; those before are dropped.
    pub(crate) fn line(&self, parts: &[&str]) -> String {
        loop {
            let line = self.next(parts);
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }

    /// The next lines, up to one that contains this.
    pub(crate) fn until(&self, part: &str) -> String {
        let mut text = String::new();
        loop {
            let line = self.next(&[part]);
            text.push_str(&line);
            text.push('\n');
            if line.contains(part) {
                return text;
            }
        }
    }

    /// All that is left, of a process that has ended.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.0.recv_timeout(BOUND).ok()).collect()
    }

    fn next(&self, awaited: &[&str]) -> String {
        let line = self.0.recv_timeout(BOUND);
        line.unwrap_or_else(|why| panic!("no line with {awaited:?}: {why}"))
    }
}
