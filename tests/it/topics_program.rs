//! Topics and filters by the program alone: its server, and its commands as users type them.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};

use crate::support::Server;
use crate::support::killed::Killed;
use crate::support::scripted_server::DEADLINE;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The program, at its end.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The program with these arguments, and the words of `line` before them.
fn run(server: &Server, line: &str, more: &[&str]) -> Ran {
    let mut child = spawn(server, line, more);
    let code = child.wait();
    let stdout = text(child.0.stdout.take());
    Ran { code, stdout, stderr: text(child.0.stderr.take()) }
}

fn spawn(server: &Server, line: &str, more: &[&str]) -> Killed {
    let url = format!("http://{}", server.address());
    let mut command = Server::command();
    command.args(line.split(' ')).args(more).args(["--url", &url]).stderr(Stdio::piped());
    Killed(command.spawn().expect("the program"))
}

fn text(pipe: Option<impl Read>) -> String {
    std::io::read_to_string(pipe.expect("piped")).expect("text")
}

/// What a command printed that succeeds.
fn printed(server: &Server, line: &str, more: &[&str]) -> String {
    let Ran { code, stdout, stderr } = run(server, line, more);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line} {more:?}");
    stdout.trim_end().to_owned()
}

/// Why a command failed.
fn refusal(server: &Server, line: &str, more: &[&str]) -> String {
    let Ran { code, stdout, stderr } = run(server, line, more);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{line} {more:?}: {stderr}");
    stderr
}

/// `nudged listen`, while it runs.
struct Listening {
    child: Killed,
    lines: Receiver<String>,
}

// ===== impl Listening =====

impl Listening {
    /// Returns once its stream is open, with the id of that.
    fn start(server: &Server, line: &str, more: &[&str]) -> (Self, String) {
        let mut child = spawn(server, line, more);
        let stdout = BufReader::new(child.0.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            _ = lines.try_for_each(|line| sender.send(line));
        });
        let listening = Self { child, lines };
        let first = listening.line();
        let id = first.strip_prefix("connected {\"keepalive\":20}  id=");
        let id = id.unwrap_or_else(|| panic!("{first}")).to_owned();
        (listening, id)
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line")
    }

    /// Waits for its end. Returns the rest of its lines, and its last note.
    fn end(mut self) -> (Vec<String>, String) {
        assert_eq!(self.child.wait(), Some(0));
        let notes = text(self.child.0.stderr.take());
        (self.lines.iter().collect(), notes.lines().last().unwrap_or_default().to_owned())
    }
}

#[test]
fn a_run_is_seen_whole_by_those_that_come_late_and_its_end_ends_them() {
    let server = Server::start(&[]);
    let publish = "publish acme --topic run-1 --event";
    let first =
        printed(&server, publish, &["output", "--data", "{\"n\":\n 1, \"s\":\"é\u{2028}\"}"]);
    let second = printed(&server, publish, &["status.line", "--text", "a\nb\\n", "--bulk"]);
    let listen = "listen acme --topic run-1";
    let (late, id) = Listening::start(&server, listen, &[]);
    assert_eq!(late.line(), format!("output {{\"n\": 1, \"s\":\"é\\u2028\"}}  id={first}"));
    assert_eq!(late.line(), format!("status.line a\\nb\\\\n  id={second}"));
    let (later, _) = Listening::start(&server, listen, &["--since", "now"]);
    let (resumed, _) = Listening::start(&server, listen, &["--since", "0"]);
    assert_eq!([resumed.line(), resumed.line()].map(|line| line.contains(&id[..16])), [true; 2]);

    let third = printed(&server, publish, &["output", "--data", "2"]);
    for listening in [&late, &later, &resumed] {
        assert_eq!(listening.line(), format!("output 2  id={third}"));
    }
    let ended = printed(&server, "close acme --topic run-1 --reason", &["all done"]);
    assert_eq!(ended, "3 streams");
    for listening in [late, later, resumed] {
        let (lines, note) = listening.end();
        let [closed] = &lines[..] else { panic!("{lines:?}") };
        assert!(closed.starts_with("closed {\"reason\":\"all done\"}  id="), "{closed}");
        assert_eq!(note, "the stream is closed: all done");
    }
    assert_eq!(printed(&server, "close acme --topic run-1", &[]), "0 streams");
    let again = printed(&server, publish, &["output", "--data", "3"]);
    assert_ne!(again[..16], first[..16], "the topic has begun anew");
}

/// Two workers on one seat: each that comes ends the other, and none comes back by itself.
#[test]
fn an_exclusive_listener_that_is_replaced_does_not_come_back() {
    let server = Server::start(&[]);
    let listen = "listen acme --topic worker --exclusive";
    let (mut newest, _) = Listening::start(&server, listen, &[]);
    for _ in 0..3 {
        let (newer, _) = Listening::start(&server, listen, &["--since", "now"]);
        let (lines, note) = std::mem::replace(&mut newest, newer).end();
        let [closed] = &lines[..] else { panic!("{lines:?}") };
        assert!(closed.starts_with("closed {\"reason\":\"replaced\"}"), "{closed}");
        assert_eq!(note, "the stream is closed: replaced");
    }
    let id = printed(&server, "publish acme --topic worker --event job --text", &["go"]);
    assert_eq!(newest.line(), format!("job go  id={id}"));
    assert_eq!(server.seats(), 1);
    assert_eq!(printed(&server, "close acme --topic worker", &[]), "1 streams");
    assert_eq!(newest.end().1, "the stream is closed: closed");
}

#[test]
fn a_token_of_the_program_is_for_the_topics_that_it_names() {
    let server = Server::start(&["--jwt-secret", SECRET]);
    let token = |args: &str| {
        let line = format!("token --org acme --secret {SECRET} {args}");
        let output = Server::command().args(line.split(' ')).stderr(Stdio::null()).output();
        String::from_utf8(output.expect("the program").stdout).expect("text").trim_end().to_owned()
    };
    let reader = token("--topics run-*");
    let worker = token("--topics run-* --scope subscribe,exclusive");
    let publisher = token("--topics run-1 --scope publish");
    let none = token("--scope subscribe,publish");
    let publish = "publish acme --event a --data 1 --token";
    printed(&server, publish, &[&publisher, "--topic", "run-1"]);
    let (listening, _) = Listening::start(&server, "listen acme --topic run-1 --token", &[&reader]);
    assert!(listening.line().starts_with("a 1  id="));
    let (only, _) =
        Listening::start(&server, "listen acme --topic run-1 --exclusive --token", &[&worker]);
    assert_eq!(listening.end().1, "the stream is closed: replaced");

    for (line, more) in [
        (publish, &[&publisher[..], "--topic", "run-2"][..]),
        (publish, &[&none, "--topic", "run-1"]),
        (publish, &[&reader, "--topic", "run-1"]),
        ("close acme --topic run-1 --token", &[&reader]),
        ("listen acme --topic other --token", &[&reader]),
        ("listen acme --topic run-1 --token", &[&none]),
        ("listen acme --topic run-1 --exclusive --token", &[&reader]),
    ] {
        let why = refusal(&server, line, more);
        assert!(why.contains("nudged: the server answered 403 Forbidden: "), "{line}: {why}");
    }
    printed(&server, "close acme --topic run-1 --token", &[&publisher]);
    assert_eq!(only.end().1, "the stream is closed: closed");
}

#[test]
fn a_listener_with_keys_is_spared_the_events_without_them() {
    let server = Server::start(&["--coalesce", "0"]);
    let filters = [("--keys", "posts,feed:*"), ("--keys=posts", "--keys=feed:*")];
    for (first, second) in filters {
        let (listening, _) = Listening::start(&server, "listen acme", &[first, second]);
        for key in ["users", "feed:7", "users", "posts"] {
            server.publish("acme", &[key]);
        }
        let lines: Vec<_> = std::iter::repeat_with(|| listening.line())
            .filter(|line| !line.starts_with("ping "))
            .take(2)
            .collect();
        assert!(lines[0].starts_with("invalidate {\"keys\":[\"feed:7\"]}  id="), "{lines:?}");
        assert!(lines[1].starts_with("invalidate {\"keys\":[\"posts\"]}  id="), "{lines:?}");
    }
    let why = refusal(&server, "listen acme --keys", &["posts,a*b"]);
    assert!(why.contains("400 Bad Request: ") && why.contains("key 1 has a *"), "{why}");
}

#[test]
fn an_event_beyond_the_bound_of_the_server_is_refused_with_the_bound() {
    let server = Server::start(&["--topic-event-bytes", "1024"]);
    let long = "x".repeat(1_024);
    let publish = "publish acme --topic run-1 --event a --text";
    let why = refusal(&server, publish, &[&long]);
    assert!(why.contains("413") && why.contains("at most 1024"), "{why}");
    let why = refusal(&server, "close acme --topic run-1 --reason", &[&long[..257]]);
    assert!(why.contains("256"), "{why}");
    printed(&server, publish, &[&long[..900]]);
}
