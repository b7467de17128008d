//! Streams over TLS with the clients that there are: OpenSSL, rustls, Chromium, Firefox, curl, Python and Node. Both
//! sides update their keys, and a relay between them records that they did. The server runs in the test's process,
//! with a setting by which its streams request a key update after a few records, as only its own record layer does.

mod bounds;
mod browsers;
mod hostile;
mod kept;
mod key_log;
mod memory;
mod peer;
mod programs;
mod record;
mod rustls_client;
mod s_client;
mod server;
mod tap;

use std::io::{BufReader, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use self::key_log::KeyLog;
use self::server::{Local, Records};
use self::tap::{Tap, Transcript};
use crate::support::eventually;
use crate::support::killed::Killed;
use crate::support::temp_dir::TempDir;

/// A client that is a program. It is killed when this is dropped.
struct Program {
    process: Killed,
    stdin: Option<ChildStdin>,
    /// What it has written to stdout.
    output: Arc<Mutex<String>>,
}

/// A server, and a relay before it.
struct Site {
    server: Local,
    tap: Tap,
    dir: TempDir,
}

/// How many of the key updates that were requested of it a client has sent in the end. The RFC lets it wait for its next
/// record (RFC 8446, 4.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// All: after each event it sends data.
    All,
    /// All but the last one, which OpenSSL sends once another is requested.
    AllButOne,
    /// Firefox sends the first one at once, and the next one before its next data.
    One,
    /// Chromium waits for its next data.
    None,
}

/// Records after which the server requests a key update.
const EVERY: u64 = 3;

// ===== impl Site =====

impl Site {
    /// Its client writes the key log to [`Self::key_log`].
    fn start(records: Records) -> Self {
        let dir = TempDir::new();
        let log = KeyLog::File(dir.path().join("keys"));
        Self::start_with(records, log, dir)
    }

    /// Its client is rustls in this process.
    fn start_for_rustls(records: Records) -> Self {
        Self::start_with(records, KeyLog::memory(), TempDir::new())
    }

    fn start_with(records: Records, log: KeyLog, dir: TempDir) -> Self {
        let server = Local::start(records);
        let tap = Tap::start(server.secure, log);
        Self { server, tap, dir }
    }

    /// The file that its client writes the key log to.
    fn key_log(&self) -> String {
        self.dir.file("keys")
    }

    /// Publishes these events one after the other, each once the client has received the one before.
    fn publish_in_turn(&self, keys: &[String], received: impl Fn(&str) -> bool) {
        for key in keys {
            self.server.publish(key);
            eventually(&format!("the client receives {key}"), || received(key));
        }
    }

    /// Sends events until the server has requested some key updates, and checks what both sides have sent.
    fn updates_keys(&self, answers: Answers, received: impl Fn(&str) -> bool) {
        let keys = keys("e", 12);
        self.publish_in_turn(&keys, received);
        let requests = |seen: &Transcript| Transcript::key_updates(&seen.server, true);
        let replies = |seen: &Transcript| Transcript::key_updates(&seen.client, false);
        let seen = self.tap.until("the key updates are answered", |seen| {
            requests(seen) >= 3 && replies(seen) >= answers.of(requests(seen))
        });
        // Between two requests the server seals with one key, and so does the client between its answers.
        let generations = keys.iter().map(|key| seen.generation(key).expect("sent"));
        let generations: Vec<_> = generations.collect();
        assert!(generations.is_sorted() && generations[0] == 0, "{generations:?}");
        assert!(generations[11] >= 3, "{generations:?}");
        let server = Transcript::without_data(&seen.server);
        let updates = server.iter().filter(|sent| !sent.is_ticket());
        assert!(updates.map(|sent| sent.generation).eq(0..requests(&seen) as u32), "{server:?}");
        let client = Transcript::without_data(&seen.client);
        assert!(
            client.iter().map(|sent| sent.generation).eq(0..replies(&seen) as u32),
            "{client:?}"
        );
    }

    /// Waits until the client's seat is free, for this reason.
    fn ends_as(&self, reason: &str) {
        eventually("the seat is free", || self.server.seats() == 0);
        assert_eq!(self.server.closed(), [(reason.to_owned(), 1)].into());
    }
}

// ===== impl Answers =====

impl Answers {
    /// The least number of answers to so many requests.
    fn of(self, requests: usize) -> usize {
        match self {
            Self::All => requests,
            Self::AllButOne => requests - 1,
            Self::One => 1,
            Self::None => 0,
        }
    }
}

// ===== impl Program =====

impl Program {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = Killed(command.spawn().expect("it was probed"));
        let stdin = process.0.stdin.take();
        let mut stdout = BufReader::new(process.0.stdout.take().expect("piped"));
        let output = Arc::new(Mutex::new(String::new()));
        let written = output.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                written
                    .lock()
                    .expect("no panic")
                    .push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { process, stdin, output }
    }

    fn output(&self) -> String {
        self.output.lock().expect("no panic").clone()
    }

    fn wrote(&self, text: &str) -> bool {
        self.output().contains(text)
    }

    /// Whether it has written an event with this key.
    fn received(&self, key: &str) -> bool {
        self.wrote(&format!("{{\"keys\":[\"{key}\"]}}"))
    }

    /// Writes to its stdin at once.
    fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(text.as_bytes()).expect("it reads");
    }
}

/// The keys of some events.
fn keys(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}{n}-")).collect()
}
