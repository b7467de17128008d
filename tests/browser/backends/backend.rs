//! A backend of each language: a program that uses its file, and does what a test says.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use crate::support::BOUND;
use crate::support::programs::{GO, NODE, PYTHON};
use crate::support::temp_dir::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Node,
    Python,
    Go,
}

/// A running program, killed when this is dropped.
pub(super) struct Backend {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

pub(super) const NODE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser/server.js");
pub(super) const PYTHON_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser/server.py");
/// Longer than any test takes.
pub(super) const BOUND_MS: u32 = 3_600_000;
const DRIVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/backends");

/// Runs the test with each language that is installed, at the same time.
pub(super) fn each(test: impl Fn(Language) + Sync) {
    let all = [Language::Node, Language::Python, Language::Go];
    let programs = [&NODE, &PYTHON, &GO];
    let installed = all.into_iter().zip(programs);
    let installed = installed.filter(|(_, program)| program.is_available_for("a language of "));
    let installed: Vec<_> = installed.map(|(language, _)| language).collect();
    let test = &test;
    thread::scope(|scope| {
        for language in installed {
            let thread = thread::Builder::new().name(format!("{language:?}"));
            thread.spawn_scoped(scope, move || test(language)).expect("a thread");
        }
    });
}

/// A module with server.go and the program that uses it, and that program, built.
pub(super) fn go() -> &'static Path {
    static FOLDER: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (folder, _) = FOLDER.get_or_init(|| {
        let folder = TempDir::new();
        let package = folder.path().join("nudged");
        std::fs::create_dir(&package).expect("a folder");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser/server.go");
        std::fs::copy(source, package.join("nudged.go")).expect("a copy");
        std::fs::copy(format!("{DRIVERS}/driver.go"), folder.path().join("main.go"))
            .expect("a copy");
        std::fs::write(folder.file("go.mod"), "module example\n\ngo 1.22\n").expect("a file");
        go_command(folder.path(), &["build", "-o", "driver", "."]);
        let path = folder.path().to_owned();
        (folder, path)
    });
    folder.path()
}

/// Runs go(1) without a network, with a cache that outlives the test.
pub(super) fn go_command(folder: &Path, args: &[&str]) {
    let mut command = Command::new("go");
    command.args(args).current_dir(folder).env("GOFLAGS", "-mod=mod").env("GOPROXY", "off");
    command.env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    command.env("GOCACHE", concat!(env!("CARGO_MANIFEST_DIR"), "/target/go"));
    let output = command.output().expect("go runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// ===== impl Backend =====

impl Backend {
    /// Starts one, and makes its publisher with these options. Its windows end by `close` only, unless they say so.
    pub(super) fn start(language: Language, url: &str, options: &Value) -> Self {
        let mut backend = Self::run(language);
        backend.open(url, options);
        backend
    }

    /// Makes the next publisher of a running one.
    pub(super) fn open(&mut self, url: &str, options: &Value) {
        // A busy machine is no slow server.
        let mut all = json!({ "url": url, "timeout": 30_000, "window": BOUND_MS });
        let members = options.as_object().expect("an object").clone();
        all.as_object_mut().expect("an object").extend(members);
        let made = self.call(&json!({ "action": "new", "options": all }));
        assert_eq!(made["error"], Value::Null);
    }

    /// Starts one without a publisher.
    pub(super) fn run(language: Language) -> Self {
        let mut command = match language {
            Language::Node => command(&["node", &format!("{DRIVERS}/driver.mjs"), NODE_FILE]),
            Language::Python => command(&[
                "python3",
                "-B",
                "-W",
                "error",
                &format!("{DRIVERS}/driver.py"),
                PYTHON_FILE,
            ]),
            Language::Go => command(&[go().join("driver").to_str().expect("UTF-8")]),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, stdin, lines }
    }

    pub(super) fn call(&mut self, call: &Value) -> Value {
        self.call_text(&call.to_string())
    }

    /// The same, with JSON that no `Value` has.
    pub(super) fn call_text(&mut self, call: &str) -> Value {
        let stdin = self.stdin.as_mut().expect("it was not ended");
        writeln!(stdin, "{call}").expect("it reads");
        let line = self.lines.recv_timeout(BOUND).unwrap_or_else(|why| panic!("{call}: {why}"));
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{call}: {why}: {line:?}"))
    }

    pub(super) fn publish(&mut self, org: &str, keys: &[&str]) -> Value {
        self.call(&json!({ "action": "publish", "org": org, "keys": keys }))
    }

    pub(super) fn enqueue<K: AsRef<str>>(&mut self, org: &str, keys: &[K]) {
        let keys: Vec<_> = keys.iter().map(AsRef::as_ref).collect();
        let returned = self.call(&json!({ "action": "enqueue", "org": org, "keys": keys }));
        assert_eq!(returned["error"], Value::Null, "it never throws");
    }

    pub(super) fn close(&mut self, ms: u32) {
        assert_eq!(self.call(&json!({ "action": "close", "ms": ms }))["error"], Value::Null);
    }

    /// Sends what is queued, and waits until it is.
    pub(super) fn finish(&mut self) {
        self.close(BOUND_MS);
    }

    /// What was dropped since the last call: org, keys, and why.
    pub(super) fn dropped(&mut self) -> Vec<(String, Vec<String>, String)> {
        let answer = self.call(&json!({ "action": "dropped" }));
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let list = answer["dropped"].as_array().expect("a list").iter();
        let keys = |value: &Value| value.as_array().expect("a list").iter().map(text).collect();
        list.map(|one| (text(&one["org"]), keys(&one["keys"]), text(&one["error"]))).collect()
    }

    /// Ends its input, and waits for its end, which has to be in order.
    pub(super) fn end(mut self) {
        self.stdin = None;
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}
