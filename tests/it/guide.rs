//! What `src/guide` shows, as it stands there: its commands, and the AI run with a page in a real Chromium.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::support::chromium::Browser;
use crate::support::markdown::blocks;
use crate::support::port::ReservedPort;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, CURL, NODE, requires};
use crate::support::server::Signal;
use crate::support::site::Site;
use crate::support::temp_dir::TempDir;
use crate::support::{Server, eventually};

const TOPICS: &str = include_str!("../../src/guide/topics.md");

/// The address of the server in the guides.
const ADDRESS: &str = "127.0.0.1:6834";

/// The guide's backend of an AI run, ended when this is dropped. What it reads is the output of the model.
struct Run {
    backend: Child,
    _dir: TempDir,
}

// ===== impl Run =====

impl Run {
    fn start(server: SocketAddr) -> Self {
        let dir = TempDir::new();
        let script = blocks(TOPICS, "js").into_iter().find(|block| block.contains("publish("));
        let script = script.expect("the backend").replace(ADDRESS, &server.to_string());
        let path = dir.file("run.mjs");
        std::fs::write(&path, script).expect("a file");
        let mut command = Command::new("node");
        command.args([&path, "run-42"]).stdin(Stdio::piped());
        Self { backend: command.spawn().expect("node"), _dir: dir }
    }

    /// The model writes a piece.
    fn write(&mut self, piece: &str) {
        let model = self.backend.stdin.as_mut().expect("piped");
        model.write_all(piece.as_bytes()).expect("it reads");
    }

    /// The model has finished.
    fn end(&mut self) {
        drop(self.backend.stdin.take());
        assert!(self.backend.wait().expect("a child").success());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        _ = self.backend.kill();
        _ = self.backend.wait();
    }
}

/// A server for the pages of a site.
fn start(address: SocketAddr, site: &Site) -> Server {
    Server::start(&[
        "--listen",
        &address.to_string(),
        "--cors-origin",
        &site.origin(),
        "--insecure-open",
        "--retry-min",
        "100ms",
        "--retry-max",
        "200ms",
    ])
}

/// Records the events that a page's `EventSource` gets, whether the page listens to them or not.
const RECORDER: &str = "<script>
    const seen = [];
    window.EventSource = class extends EventSource {
        constructor(url) {
            super(url);
            for (const name of ['connected', 'resumed', 'state', 'output', 'closed'])
                this.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));
        }
    };
</script>";

/// The guide's page, of the server at this address.
fn page(server: SocketAddr) -> String {
    let page = blocks(TOPICS, "html").into_iter().next().expect("the page");
    let page = page.replace("<!doctype html>", &format!("<!doctype html>{RECORDER}"));
    let absolute = page.replace("'/api/", &format!("'http://{server}/api/"));
    assert_ne!(absolute, page, "the page has the URL of the topic");
    absolute
}

/// What a page shows: the state of the run, and its output.
fn shown(browser: &Browser) -> (String, String) {
    let shown = "return ['state', 'text'].map(id => document.getElementById(id).textContent)";
    serde_json::from_value(browser.execute(shown, "")).expect("two texts")
}

fn shows(browser: &Browser, state: &str, text: &str) {
    eventually(&format!("the page shows {state:?}, {text:?}"), || {
        shown(browser) == (state.to_owned(), text.to_owned())
    });
}

/// The events that the page has had since it was loaded, without data and ids.
fn names(browser: &Browser) -> Vec<String> {
    browser.seen().into_iter().map(|[name, ..]| name).collect()
}

fn published(server: &Server, count: u64) {
    eventually("it is published", || server.metric("nudged_events_published_total") == count);
}

/// The guide's page at a site, its server, and a run whose state is published.
fn begin() -> (ReservedPort, Site, Server, Run) {
    let address = ReservedPort::new();
    let site = Site::start([("/", page(address.address))]);
    let server = start(address.address, &site);
    let run = Run::start(server.address());
    published(&server, 1);
    (address, site, server, run)
}

#[test]
fn a_page_that_comes_late_or_reloads_sees_the_whole_run_until_it_is_closed() {
    requires!(CHROMEDRIVER, CHROMIUM, NODE);
    let (_address, site, server, mut run) = begin();
    run.write("It ");
    published(&server, 2);
    run.write("was ");
    published(&server, 3);

    let browser = Browser::open(&site.origin());
    shows(&browser, "running", "It was ");
    assert_eq!(names(&browser), ["connected", "state", "output", "output"], "late");
    run.write("a dark\n");
    shows(&browser, "running", "It was a dark\n");

    browser.go(&site.origin());
    shows(&browser, "running", "It was a dark\n");
    run.write("night \u{1F319}.");
    shows(&browser, "running", "It was a dark\nnight \u{1F319}.");
    let all = ["connected", "state", "output", "output", "output", "output"];
    assert_eq!(names(&browser), all, "everything that is kept, once");

    let opened = server.metric("nudged_streams_opened_total");
    run.end();
    shows(&browser, "complete", "It was a dark\nnight \u{1F319}.");
    assert_eq!(names(&browser)[6..], ["closed"]);
    assert_eq!(browser.execute("return events.readyState", ""), 2, "it does not come back");
    assert_eq!(server.closed().get("closed"), Some(&1));
    assert_eq!(server.metric("nudged_streams_opened_total"), opened);
    assert_eq!(server.seats(), 0);
}

/// Why the page closes its source.
#[test]
fn an_event_source_that_ignores_closed_comes_back() {
    requires!(CHROMEDRIVER, CHROMIUM, NODE);
    let address = ReservedPort::new();
    let page = page(address.address);
    let ignores = page.replace("events.close();", "");
    assert_ne!(ignores, page);
    let site = Site::start([("/", ignores)]);
    let server = start(address.address, &site);
    let mut run = Run::start(server.address());
    let browser = Browser::open(&site.origin());
    shows(&browser, "running", "");
    run.end();
    eventually("it has come back", || server.metric("nudged_streams_opened_total") == 2);
    assert_eq!(server.closed().get("closed"), Some(&1));
}

/// SCENARIO: nudged is killed and started again in the middle of a run.
/// BUG: pieces that are published later do not join those before, for a page that comes after the restart.
/// FIX: the backend tries again, and notices by the epoch of the ids that it has to publish everything anew.
#[test]
fn a_run_survives_a_restart_of_the_server() {
    requires!(CHROMEDRIVER, CHROMIUM, NODE);
    let (address, site, mut server, mut run) = begin();
    run.write("It was ");
    let browser = Browser::open(&site.origin());
    shows(&browser, "running", "It was ");

    server.signal(Signal::KILL);
    server.wait();
    run.write("a dark ");
    let server = start(address.address, &site);
    shows(&browser, "running", "It was a dark ");
    run.write("night.");
    shows(&browser, "running", "It was a dark night.");
    browser.go(&site.origin());
    shows(&browser, "running", "It was a dark night.");
    run.end();
    shows(&browser, "complete", "It was a dark night.");
    assert_eq!(browser.execute("return events.readyState", ""), 2);
    assert_eq!(server.seats(), 0);
}

/// More pieces than are kept: a late page gets one with the whole text among those that are.
#[test]
fn a_page_that_comes_after_many_pieces_sees_the_whole_run() {
    requires!(CHROMEDRIVER, CHROMIUM, NODE);
    let (_address, site, server, mut run) = begin();
    let mut text = String::new();
    for n in 1..=170 {
        let piece = format!("{n} ");
        run.write(&piece);
        text += &piece;
        // With the event of the state, and each 50th piece as two.
        published(&server, 1 + n + n / 50);
    }
    let browser = Browser::open(&site.origin());
    shows(&browser, "running", &text);
    let outputs = names(&browser).iter().filter(|name| *name == "output").count();
    assert_eq!(outputs, 100, "what is kept");
}

#[test]
fn the_curl_lines_of_topics_work() {
    requires!(CURL);
    let server = Server::start(&[]);
    let commands = blocks(TOPICS, "console").concat();
    let commands: Vec<_> = commands.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let run = |command: &str| {
        let command = command.replace(ADDRESS, &server.address().to_string());
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(Stdio::piped());
        shell.stderr(Stdio::null()).spawn().expect("sh(1)")
    };
    let [state, output, listen, close] = commands[..] else { panic!("{commands:?}") };
    for command in [state, output] {
        let answer = run(command).wait_with_output().expect("curl").stdout;
        assert!(answer.starts_with(b"{\"id\":\""), "{:?}", String::from_utf8_lossy(&answer));
    }
    let mut listener = run(listen);
    let mut stream = BufReader::new(listener.stdout.take().expect("piped"));
    eventually("curl listens", || server.seats() == 1);
    let answer = run(close).wait_with_output().expect("curl").stdout;
    assert_eq!(answer, b"{\"streams\":1}");
    let mut received = String::new();
    stream.read_to_string(&mut received).expect("UTF-8");
    assert!(listener.wait().expect("curl").success(), "the stream ends");

    let shown = blocks(TOPICS, "console")[0].split_once(listen).expect("its output").1.to_owned();
    let closed = blocks(TOPICS, "text").into_iter().next().expect("the last event");
    assert_eq!(shape(&received), shape(&(shown + closed)));
}

/// The lines of a stream without what is random, and without the last `retry:`.
fn shape(stream: &str) -> Vec<String> {
    let lines = stream.trim().lines().filter(|line| !line.starts_with("retry: "));
    let lines = lines.map(|line| match line.split_once('-') {
        Some((id, number)) if id.starts_with("id: ") => format!("id: -{number}"),
        _ => line.to_owned(),
    });
    lines.collect()
}
