//! A real Chromium: its `EventSource` opens the stream from a page, loses the server, comes back by
//! itself, and gets what it missed. Between the two stands a relay that can fail like a network.
#![allow(clippy::disallowed_types, reason = "loom replaces no lock of a test")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use fantoccini::ClientBuilder;
use serde_json::{Value, json};

use crate::support::certificate::Certificate;
use crate::support::port::ReservedPort;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, OPENSSL, requires};
use crate::support::{Server, eventually};

/// Serves a page at `/`, and passes everything else on, byte for byte.
#[derive(Clone)]
struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Where to; nowhere while the server is lost.
    upstream: Option<SocketAddr>,
    open: Vec<TcpStream>,
    /// The heads of the requests for streams.
    heads: Vec<String>,
}

/// Chromium under WebDriver, ended when this is dropped.
struct Browser {
    driver: Child,
    page: fantoccini::Client,
    runtime: tokio::runtime::Runtime,
    profile: std::path::PathBuf,
    _port: ReservedPort,
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const PAGE: &str = "<!doctype html><title>nudged</title><script>
    const seen = [];
    const source = new EventSource('/api/acme/events');
    for (const name of ['connected', 'resumed', 'invalidate', 'message'])
        source.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));
</script>";

// ===== impl Relay =====

impl Relay {
    fn start(upstream: impl Into<Option<SocketAddr>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = State { upstream: upstream.into(), open: vec![], heads: vec![] };
        let relay = Self { address, state: Arc::new(Mutex::new(state)) };
        let accepting = relay.clone();
        thread::spawn(move || {
            for browser in listener.incoming().flatten() {
                let relay = accepting.clone();
                thread::spawn(move || relay.serve(browser));
            }
        });
        relay
    }

    /// Cuts every connection, and refuses new ones until there is somewhere to go.
    fn set_upstream(&self, upstream: Option<SocketAddr>) {
        let mut state = self.state.lock().expect("no panic");
        state.upstream = upstream;
        for socket in state.open.drain(..) {
            _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn last_head(&self) -> String {
        self.state.lock().expect("no panic").heads.last().cloned().unwrap_or_default()
    }

    fn serve(&self, mut browser: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match browser.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("GET /api/") {
            let body = if head.starts_with("GET / ") { PAGE } else { "" };
            let length = body.len();
            _ = write!(
                browser,
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            return;
        }
        let mut server = {
            let mut state = self.state.lock().expect("no panic");
            let Some(upstream) = state.upstream else { return };
            let Ok(server) = TcpStream::connect(upstream) else { return };
            state.open.extend([&browser, &server].map(|s| s.try_clone().expect("a socket")));
            state.heads.push(head.clone());
            server
        };
        _ = server.write_all(head.as_bytes());
        _ = std::io::copy(&mut server, &mut browser);
        _ = browser.shutdown(Shutdown::Both);
    }
}

// ===== impl Browser =====

impl Browser {
    fn open(url: &str) -> Self {
        let reserved = ReservedPort::new();
        let port = reserved.address.port();
        let profile = std::env::temp_dir().join(format!("nudged-chromium-{port}"));
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        eventually("chromedriver listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let profile_flag = format!("--user-data-dir={}", profile.display());
        // The certificate of a test signs itself.
        let capabilities = json!({ "acceptInsecureCerts": true, "goog:chromeOptions": { "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", profile_flag,
        ] } });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let page = runtime.block_on(async {
            let page =
                ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
                    .capabilities(capabilities)
                    .connect(&format!("http://127.0.0.1:{port}"))
                    .await
                    .expect("a session");
            page.goto(url).await.expect("the page");
            page
        });
        Self { driver, page, runtime, profile, _port: reserved }
    }

    fn go(&self, url: &str) {
        self.runtime.block_on(self.page.goto(url)).expect("the page");
    }

    /// What a script of the page tells in the end.
    fn run(&self, script: &str, argument: &str) -> Value {
        let told = self.page.execute_async(script, vec![argument.into()]);
        self.runtime.block_on(told).expect("a script")
    }

    /// What the page's listeners have seen, as name, data and last event id.
    fn seen(&self) -> Vec<[String; 3]> {
        let seen = self.runtime.block_on(self.page.execute("return seen", vec![]));
        serde_json::from_value(seen.expect("a script")).expect("triples")
    }

    fn expect(&self, expected: &[[&str; 3]]) {
        let mut seen = self.seen();
        eventually(&format!("the page has seen {expected:?}"), || {
            seen = self.seen();
            seen.len() >= expected.len()
        });
        assert_eq!(seen, expected);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = self.runtime.block_on(self.page.clone().close());
        _ = self.driver.kill();
        _ = self.driver.wait();
        _ = std::fs::remove_dir_all(&self.profile);
    }
}

#[test]
fn a_browser_reconnects_and_gets_the_events_it_missed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let args = ["--coalesce", "0", "--retry-min", "200ms", "--retry-max", "200ms"];
    let server = Server::start(&args);
    let relay = Relay::start(server.address());
    let browser = Browser::open(&format!("http://{}/", relay.address));

    eventually("the page listens", || server.seats() == 1);
    let posts = server.publish("acme", &["posts"]).expect("subscribed");
    let at_first = posts.replace("-1", "-0");
    let connected = ["connected", "{}", &at_first];
    let first = ["invalidate", r#"{"keys":["posts"]}"#, &posts];
    browser.expect(&[connected, first]);

    relay.set_upstream(None);
    eventually("the seat is free", || server.seats() == 0);
    let missed = server.publish("acme", &["missed"]).expect("remembered");
    let too = server.publish("acme", &["missed-too"]).expect("remembered");
    relay.set_upstream(Some(server.address()));
    let resumed = ["resumed", "{}", &posts];
    let second = ["invalidate", r#"{"keys":["missed"]}"#, &missed];
    let third = ["invalidate", r#"{"keys":["missed-too"]}"#, &too];
    browser.expect(&[connected, first, resumed, second, third]);
    let head = relay.last_head().to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nlast-event-id: {posts}\r\n")), "{head}");
    assert!(head.contains("\r\naccept: text/event-stream\r\n"), "{head}");

    // Another process knows nothing of the old ids: the page has to read everything again.
    drop(server);
    let server = Server::start(&args);
    relay.set_upstream(Some(server.address()));
    eventually("the page listens again", || server.seats() == 1);
    eventually("the page has seen the new server", || browser.seen().len() == 6);
    let [name, _, id] = &browser.seen()[5];
    assert_eq!(name, "connected");
    assert_ne!(id, &too);
}

/// Over HTTP/1 a browser opens six connections to one origin, and a seventh stream waits for ever. (What
/// protocol it spoke, it tells no page of another origin; but nothing else has so many on one connection.)
#[test]
fn many_streams_of_one_page_share_a_connection_over_http2() {
    requires!(CHROMEDRIVER, CHROMIUM, OPENSSL);
    const STREAMS: u64 = 20;
    let certificate = Certificate::of_tests();
    let more = ["--plain-listen", "127.0.0.1:0", "--coalesce", "0", "--cors-origin", "*"];
    let mut server = Server::start(&[&certificate.flags()[..], &more].concat());
    // What this test asks goes through the door beside.
    server.addresses.reverse();
    let relay = Relay::start(server.address());
    let browser = Browser::open(&format!("http://{}/empty", relay.address));
    let open = format!(
        "window.seen = [];
        window.sources = Array.from({{ length: {STREAMS} }}, () => {{
            const source = new EventSource('https://{}/api/acme/events');
            source.addEventListener('invalidate', e => seen.push(['invalidate', e.data, e.lastEventId]));
            return source;
        }});",
        server.addresses[1]
    );
    browser.runtime.block_on(browser.page.execute(&open, vec![])).expect("a script");
    eventually("every stream is open", || server.seats() == STREAMS);
    // One of this test, one of the browser, and none yet to be noticed as gone.
    eventually("they share one connection", || server.metric("nudged_connections") == 2);
    let id = server.publish("acme", &["posts"]).expect("subscribed");
    let event = ["invalidate", r#"{"keys":["posts"]}"#, id.as_str()];
    browser.expect(&[event; STREAMS as usize]);

    // Of its own origin a page is told the protocol.
    browser.go(&format!("https://{}/livez", server.addresses[1]));
    let protocol = "arguments[1](performance.getEntriesByType('navigation')[0].nextHopProtocol)";
    assert_eq!(browser.run(protocol, ""), "h2");
}

/// What a page does with a server of another origin, and what it is told: its stream, its publish, which the
/// browser asks about first, and one that a form could have sent, about which it does not ask.
const ACROSS: &str = "const [url, done] = arguments;
    const opened = new Promise(tell => {
        const source = new EventSource(url, { withCredentials: true });
        source.onopen = () => tell('open');
        source.onerror = () => tell(source.readyState === EventSource.CLOSED ? 'refused' : 'lost');
    });
    const post = (type, mode) => fetch(url, {
        method: 'POST', credentials: 'include', mode, headers: { 'content-type': type },
        body: JSON.stringify({ keys: ['posts'] }),
    }).then(answer => answer.status || answer.type, why => why.name);
    opened.then(async stream => done([
        stream, await post('application/json', 'cors'), await post('text/plain', 'no-cors'),
    ]));";

/// The cookies of a host are sent whatever the port, with the requests of both pages. What the other one may
/// not is for the browser to refuse, by what the server says of origins.
#[test]
fn a_page_of_another_origin_is_served_if_it_is_listed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let (named, other) = (Relay::start(None), Relay::start(None));
    let origin = format!("http://{}", named.address);
    let flags = ["--jwt-secret", SECRET, "--cors-origin", &origin, "--coalesce", "0"];
    let server = Server::start(&flags);
    let published = || server.metric("nudged_events_published_total");
    let browser = Browser::open(&format!("{origin}/empty"));
    let cookie = format!("document.cookie = 'nudged_token={}'", mint());
    browser.runtime.block_on(browser.page.execute(&cookie, vec![])).expect("a script");

    let url = format!("http://{}/api/acme/events", server.address());
    assert_eq!(browser.run(ACROSS, &url), json!(["open", 202, "opaque"]));
    assert_eq!(published(), 1, "a form publishes nothing");
    // The same page by another name is of another origin too, and has no cookies.
    let by_name = format!("localhost:{}", named.address.port());
    for page in [other.address.to_string(), by_name] {
        browser.go(&format!("http://{page}/empty"));
        assert_eq!(browser.run(ACROSS, &url), json!(["refused", "TypeError", "opaque"]), "{page}");
        assert_eq!(published(), 1, "what the browser asked about was not sent");
    }
    // Those with the cookie were opened, and kept from the page.
    assert_eq!(server.metric("nudged_streams_opened_total"), 2);
}

/// A token for everything that an organisation has.
fn mint() -> String {
    let mut command = Server::command();
    command.args(["token", "--secret", SECRET, "--org", "acme", "--scope", "subscribe,publish"]);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("ASCII").trim().to_owned()
}
