//! The example application, started with its one command.

use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::harness::{Chrome, Page, Tab, eventually_sees};
use crate::support::client::Client;
use crate::support::killed::Killed;
use crate::support::log::Log;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, NODE, NODE_SQLITE, locked, requires};
use crate::support::server::{Signal, signal};
use crate::support::temp_dir::TempDir;
use crate::support::{Answer, eventually};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser/examples/posts/server.js");

struct Example {
    process: Killed,
    _stdout: Log,
    /// With a host name that is an origin of its own in a browser.
    port: u16,
}

// ===== impl Example =====

impl Example {
    fn start() -> Self {
        let mut command = Command::new(locked!("bin/node"));
        command.arg(SCRIPT).env("NUDGED", env!("CARGO_BIN_EXE_nudged")).env("PORT", "0");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("node");
        let stdout = Log::read(child.stdout.take().expect("piped"));
        let process = Killed(child);
        let line = stdout.line(&["open http://127.0.0.1:"]);
        let port = line.split(['/', ':']).nth(4).expect("a port").parse().expect("a number");
        Self { process, _stdout: stdout, port }
    }

    fn connect(&self) -> Client {
        Client::connect(([127, 0, 0, 1], self.port).into())
    }

    /// The answer to a request with these fields.
    fn ask(&self, line: &str, fields: &str, body: &str) -> Answer {
        let mut client = self.connect();
        client.send(&format!(
            "{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{fields}\r\n{body}"
        ));
        let answer = client.read_to_end();
        let (head, body) =
            std::str::from_utf8(&answer).expect("UTF-8").split_once("\r\n\r\n").expect("a head");
        Answer { head: head.to_owned(), body: body.to_owned() }
    }

    /// The server that it has started.
    fn nudged(&self) -> Option<u32> {
        let pid = self.process.0.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.ok()?.trim().parse().ok()
    }

    fn ends_by(mut self, how: Signal) {
        let nudged = self.nudged().expect("a child");
        signal(self.process.0.id(), how).expect("it runs");
        assert_eq!(self.process.wait(), Some(0), "{how:?}");
        assert!(!std::path::Path::new(&format!("/proc/{nudged}")).exists(), "{how:?}");
        assert!(TcpStream::connect(("127.0.0.1", self.port)).is_err());
    }
}

impl Drop for Example {
    /// A process that is killed leaves its child.
    fn drop(&mut self) {
        if let Some(nudged) = self.nudged() {
            _ = signal(nudged, Signal::KILL);
        }
    }
}

/// What a window shows: authors and texts, with the number of likes.
fn posts(tab: &Tab<'_>) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#posts li')].map(post => post.innerText.replace(/\\s+/g, ' '))";
    serde_json::from_value(tab.run(script)).expect("texts")
}

fn log(tab: &Tab<'_>) -> String {
    let script = "return document.getElementById('status').innerText + '\\n' + document.getElementById('log').innerText";
    tab.run(script).as_str().expect("a text").to_owned()
}

fn write(tab: &Tab<'_>, text: &str) {
    let text = serde_json::json!(text);
    tab.run(&format!(
        "document.querySelector('#new input').value = {text}; document.querySelector('#new button').click()"
    ));
}

fn eventually_shows(tabs: &[&Tab<'_>], post: &str) {
    for tab in tabs {
        eventually_sees(*tab, post, |tab| posts(tab).iter().any(|shown| shown == post));
    }
}

#[test]
fn what_one_window_of_the_example_writes_another_one_reads() {
    requires!(CHROMEDRIVER, CHROMIUM, NODE_SQLITE);
    let example = Example::start();
    let chrome = Chrome::start();
    // Another origin has other cookies: another user.
    let [anna, ben] = ["127.0.0.1", "localhost"]
        .map(|host| chrome.tab(&format!("http://{host}:{}/", example.port)));
    ben.run("document.querySelector('header button').click()");
    let both = [&anna, &ben];
    for (tab, name) in both.into_iter().zip(["Anna", "Ben"]) {
        eventually_sees(tab, name, |tab| {
            tab.run("return document.querySelector('b').innerText") == name
        });
        eventually_sees(tab, "a stream", |tab| log(tab).starts_with("open\n"));
        assert!(!log(tab).contains(" again:") && !log(tab).contains("read /"), "{}", log(tab));
    }

    write(&anna, "first");
    eventually_shows(&both, "Anna first ♥ 0");
    assert!(log(&ben).contains("invalidate posts: read /posts again"), "{}", log(&ben));
    ben.run("document.querySelector('#posts button').click()");
    eventually_shows(&both, "Anna first ♥ 1");
    eventually_sees(&anna, "only the post", |tab| {
        log(tab).contains("invalidate post:2: read /posts/2 again")
    });
    assert_eq!(anna.run("return document.querySelector('#posts button').ariaPressed"), "false");

    // What could be markup is text.
    let attack = r#"<img src=x onerror="document.title='owned'">"'&lt;<script>document.title='owned'</script>"#;
    write(&ben, attack);
    eventually_shows(&both, &format!("Ben {attack} ♥ 0"));
    for tab in both {
        tab.reload();
        assert_eq!(posts(tab)[0], format!("Ben {attack} ♥ 0"));
        assert_eq!(
            tab.run("return [document.title, document.querySelectorAll('img, li script').length]"),
            serde_json::json!(["Posts", 0])
        );
        eventually_sees(tab, "a stream", |tab| log(tab).starts_with("open\n"));
    }

    // A new process knows nothing of what the last one sent.
    let last = example.nudged().expect("a child");
    signal(last, Signal::KILL).expect("it runs");
    for tab in both {
        eventually_sees(tab, "connected", |tab| {
            log(tab).contains("connected (something may have been missed): read /posts again")
        });
    }
    assert_ne!(example.nudged(), Some(last));
    write(&ben, "last");
    eventually_shows(&both, "Ben last ♥ 0");
    for tab in both {
        assert_eq!(log(tab).matches("connected (").count(), 1, "{}", log(tab));
    }
    example.ends_by(Signal::TERM);
}

#[test]
fn the_example_leaves_no_server_behind() {
    requires!(NODE_SQLITE);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        Example::start().ends_by(signal);
    }
}

#[test]
fn the_example_names_what_it_lacks() {
    requires!(NODE_SQLITE);
    let run = |node: &str, nudged: &str| {
        let output = Command::new(node).arg(SCRIPT).env("NUDGED", nudged).output().expect("node");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let (code, stderr) = run(locked!("bin/node"), "/nowhere/nudged");
    assert_eq!(code, Some(1), "{stderr}");
    let named = "/nowhere/nudged does not start (spawn /nowhere/nudged ENOENT). Install Rust";
    assert!(stderr.starts_with(named), "{stderr}");
    // Debian's Node has no SQLite.
    let probe = Command::new("node").args(["-e", "require('node:sqlite')"]).output();
    if NODE.is_available_for("old Node: ") && !probe.expect("node").status.success() {
        let (code, stderr) = run("node", "/nowhere/nudged");
        assert_eq!(code, Some(1), "{stderr}");
        let named = "this needs node:sqlite, which Node has from 22.13 on; this is v";
        assert!(stderr.starts_with(named), "{stderr}");
    }
}

/// SCENARIO: a request for a stream has fields about its connection.
/// BUG: the example passed them on, and Node throws at a `trailer`, which ended the process.
/// FIX: only what nudged needs is passed on.
#[test]
fn fields_of_a_connection_are_not_passed_on() {
    requires!(NODE_SQLITE);
    let example = Example::start();
    for field in [
        "content-length: 60",
        "transfer-encoding: chunked",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
        "connection: close, authorization",
        "te: trailers",
        "x-forwarded-for: 192.0.2.1",
        "trailer: x",
    ] {
        for _ in 0..3 {
            let refused = example.ask("GET /api/acme/events", &format!("{field}\r\n"), "");
            assert_eq!(refused.status(), 401, "{field}: {refused:?}");
            let script = example.ask("GET /nudged.js", "", "");
            assert_eq!(script.status(), 200, "after {field}: {script:?}");
        }
    }
    for path in ["//", "/%", "*", "/../../etc/passwd", "/page.js/../server.js", "/__proto__"] {
        assert_eq!(example.ask(&format!("GET {path}"), "", "").status(), 404, "{path}");
    }
    example.ends_by(Signal::TERM);
}

#[test]
fn a_page_that_is_left_leaves_no_stream_between_the_example_and_its_server() {
    requires!(NODE_SQLITE);
    let example = Example::start();
    let nudged = example.nudged().expect("a child");
    let sockets = || {
        let fds = std::fs::read_dir(format!("/proc/{nudged}/fd")).expect("it runs").flatten();
        let names = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
    };
    let ticket = example.ask("GET /ticket", "cookie: user=Anna\r\n", "").body;
    let ticket = ticket.lines().find(|line| line.starts_with("ey")).expect("a ticket");
    let head = format!("host: test\r\nauthorization: Bearer {ticket}\r\n\r\n");
    let before = sockets();
    let mut streams: Vec<_> = (0..20).map(|_| example.connect()).collect();
    for stream in &mut streams {
        stream.send(&format!("GET /api/acme/events HTTP/1.1\r\n{head}"));
        stream.read_until(b"event: connected\n");
    }
    assert!(sockets() >= before + 20);
    drop(streams);
    eventually("no stream is left", || sockets() <= before);
    example.ends_by(Signal::TERM);
}

/// A page of another site, or of another port of this machine, has the browser send the visitor's cookie.
#[test]
fn what_another_page_sends_is_not_written() {
    requires!(NODE_SQLITE);
    let example = Example::start();
    let page = example.ask("GET /", "", "");
    assert_eq!(
        page.header("set-cookie"),
        Some("user=Anna; Path=/; HttpOnly; SameSite=Lax"),
        "{page:?}"
    );
    let write = |path: &str, site: &str, body: &str| {
        let fields = format!("cookie: user=Anna\r\n{site}content-length: {}\r\n", body.len());
        example.ask(&format!("POST {path}"), &fields, body).status()
    };
    for site in ["cross-site", "same-site", "none", "", "Same-Origin"] {
        let site = format!("sec-fetch-site: {site}\r\n");
        for (path, body) in [("/posts", "text=owned"), ("/posts/1/like", ""), ("/user", "user=Ben")]
        {
            assert_eq!(write(path, &site, body), 403, "{path} {site}");
        }
    }
    // Browsers name the site for secure origins only, and this machine's.
    for site in ["", "sec-fetch-site: same-origin\r\n"] {
        assert_eq!(write("/posts", site, "text=mine"), 204);
    }
    let posts = example.ask("GET /posts", "", "").body;
    assert!(!posts.contains("owned") && posts.contains("\u{2665} 0"), "{posts}");
    assert_eq!(posts.matches("mine").count(), 2);
}

#[test]
fn a_body_without_an_end_is_refused() {
    requires!(NODE_SQLITE);
    let example = Example::start();
    let mut client = example.connect();
    client.send("POST /posts HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    while client.try_send_bytes(chunk.as_bytes()).is_ok() {}
    let body = format!("text={}", "x".repeat(8192));
    let fields = format!("cookie: user=Anna\r\ncontent-length: {}\r\n", body.len());
    assert_eq!(example.ask("POST /posts", &fields, &body).status(), 413);
    assert_eq!(example.ask("GET /", "", "").status(), 200);
}

/// Writes posts.png, the picture in the README: two windows, side by side.
#[test]
#[ignore = "it writes a file of the tree"]
fn the_picture() {
    requires!(CHROMEDRIVER, CHROMIUM, NODE_SQLITE);
    let example = Example::start();
    let chrome = Chrome::start_with(&["--force-device-scale-factor=1.5", "--hide-scrollbars"]);
    let [anna, ben] = ["127.0.0.1", "localhost"]
        .map(|host| chrome.tab(&format!("http://{host}:{}/", example.port)));
    ben.run("document.querySelector('header button').click()");
    for tab in [&anna, &ben] {
        eventually_sees(tab, "a stream", |tab| log(tab).starts_with("open\n"));
    }
    write(&anna, "Lunch at one?");
    eventually_shows(&[&anna, &ben], "Anna Lunch at one? ♥ 0");
    ben.run("document.querySelector('#posts button').click()");
    eventually_shows(&[&anna, &ben], "Anna Lunch at one? ♥ 1");
    write(&ben, "Yes, the usual place.");
    eventually_shows(&[&anna, &ben], "Ben Yes, the usual place. ♥ 0");
    let dir = TempDir::new();
    for (name, tab) in [("anna", anna), ("ben", ben)] {
        let picture = tab.picture(480, 600);
        std::fs::write(dir.path().join(format!("{name}.png")), picture).expect("a file");
    }
    let file = dir.path().join("both.html");
    std::fs::write(&file, BOTH).expect("a file");
    let tab = chrome.tab(&format!("file://{}", file.display()));
    std::fs::write(PICTURE, tab.picture(1002, 600)).expect("a file");
}

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser/examples/posts/posts.png");
const BOTH: &str = "<!doctype html><style>
    body { margin: 0; padding: 14px; display: flex; gap: 14px; background: #cfd6dd; }
    figure { margin: 0; border-radius: 8px; overflow: hidden; background: #eef1f4; }
    figcaption { font: 13px/28px system-ui; padding: 0 14px; color: #444; }
    img { display: block; width: 480px; }
</style>
<figure><figcaption>Anna's window</figcaption><img src='anna.png'></figure>
<figure><figcaption>Ben's window</figcaption><img src='ben.png'></figure>";
