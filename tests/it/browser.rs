//! A real Chromium, and a Firefox: its `EventSource` opens the stream from a page, loses the server, reconnects by itself, and
//! receives the missed events. A relay between the two simulates network failures.

use nudged::ids::EventId;
use nudged::wire::{Frame, Greeting};
use serde_json::json;

use crate::support::certificate::Certificate;
use crate::support::chromium::Browser;
use crate::support::firefox::Firefox;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, FIREFOX, OPENSSL, requires};
use crate::support::relay::Relay;
use crate::support::scripted_server::{ScriptedServer, stream};
use crate::support::{Server, eventually};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What a greeting says of a server with the default settings.
const KEEPALIVE: &str = r#"{"keepalive":20}"#;

const PAGE: &str = "<!doctype html><title>nudged</title><script>
    const seen = [];
    const source = new EventSource('/api/acme/events');
    for (const name of ['connected', 'resumed', 'invalidate', 'message'])
        source.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));
</script>";

/// The page at `/`, a ticket at `/ticket`, and empty pages elsewhere.
fn page(path: &str) -> String {
    match path {
        "/" => PAGE.to_owned(),
        "/ticket" => mint(&["--ttl", "5s", "--until", "1h"]),
        _ => String::new(),
    }
}

#[test]
fn a_browser_reconnects_and_receives_the_events_it_missed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let args = ["--coalesce", "0", "--retry-min", "200ms", "--retry-max", "200ms"];
    let server = Server::start(&args);
    let relay = Relay::start(server.address(), page);
    let browser = Browser::open(&format!("http://{}/", relay.address));

    eventually("the page has subscribed", || server.seats() == 1);
    let posts = server.publish("acme", &["posts"]).expect("subscribed");
    let at_first = posts.replace("-1", "-0");
    let connected = ["connected", KEEPALIVE, &at_first];
    let first = ["invalidate", r#"{"keys":["posts"]}"#, &posts];
    browser.expect(&[connected, first]);

    relay.set_upstream(None);
    eventually("the seat is free", || server.seats() == 0);
    let missed = server.publish("acme", &["missed"]).expect("remembered");
    let too = server.publish("acme", &["missed-too"]).expect("remembered");
    relay.set_upstream(Some(server.address()));
    let resumed = ["resumed", KEEPALIVE, &posts];
    let second = ["invalidate", r#"{"keys":["missed"]}"#, &missed];
    let third = ["invalidate", r#"{"keys":["missed-too"]}"#, &too];
    browser.expect(&[connected, first, resumed, second, third]);
    let head = relay.last_head().to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nlast-event-id: {posts}\r\n")), "{head}");
    assert!(head.contains("\r\naccept: text/event-stream\r\n"), "{head}");

    // A new process does not resume the old ids: the page has to reread everything.
    drop(server);
    let server = Server::start(&args);
    relay.set_upstream(Some(server.address()));
    eventually("the page has subscribed again", || server.seats() == 1);
    eventually("the page has received the new greeting", || browser.seen().len() == 6);
    let [name, _, id] = &browser.seen()[5];
    assert_eq!(name, "connected");
    assert_ne!(id, &too);
}

/// Over HTTP/1 a browser opens at most six connections to an origin, and a seventh stream would wait for ever. (A page
/// of another origin cannot read the protocol; but only HTTP/2 carries so many streams on one connection.)
#[test]
fn many_streams_of_one_page_share_a_connection_over_http2() {
    requires!(CHROMEDRIVER, CHROMIUM, OPENSSL);
    const STREAMS: u64 = 20;
    let certificate = Certificate::of_tests();
    let more = [
        "--plain-listen",
        "127.0.0.1:0",
        "--coalesce",
        "0",
        "--insecure-open",
        "--cors-origin",
        "*",
    ];
    let mut server = Server::start(&[&certificate.flags()[..], &more].concat());
    // The test's own requests go to the cleartext address.
    server.addresses.reverse();
    let relay = Relay::start(server.address(), page);
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
    // One of this test and one of the browser.
    eventually("they share one connection", || server.metric("nudged_connections") == 2);
    let id = server.publish("acme", &["posts"]).expect("subscribed");
    let event = ["invalidate", r#"{"keys":["posts"]}"#, id.as_str()];
    browser.expect(&[event; STREAMS as usize]);

    // A page of the same origin can read the protocol.
    browser.go(&format!("https://{}/livez", server.addresses[1]));
    let protocol = "arguments[1](performance.getEntriesByType('navigation')[0].nextHopProtocol)";
    assert_eq!(browser.run(protocol, ""), "h2");
}

/// A page's requests to a server of another origin, and their results: a stream, a publish with a preflight, and a
/// publish like a form's, without a preflight.
const ACROSS: &str = "const [url, done] = arguments;
    const opened = new Promise(resolve => {
        const source = new EventSource(url, { withCredentials: true });
        source.onopen = () => resolve('open');
        source.onerror = () => resolve(source.readyState === EventSource.CLOSED ? 'refused' : 'lost');
    });
    const post = (type, mode) => fetch(url, {
        method: 'POST', credentials: 'include', mode, headers: { 'content-type': type },
        body: JSON.stringify({ keys: ['posts'] }),
    }).then(answer => answer.status || answer.type, why => why.name);
    opened.then(async stream => done([
        stream, await post('application/json', 'cors'), await post('text/plain', 'no-cors'),
    ]));";

/// A browser sends the cookies of a host to every port, and so with the requests of both pages. It is the browser that
/// refuses the unlisted page, because of the server's CORS headers.
#[test]
fn a_page_of_another_origin_is_served_if_it_is_listed() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let (named, other) = (Relay::start(None, page), Relay::start(None, page));
    let origin = format!("http://{}", named.address);
    let flags = ["--jwt-secret", SECRET, "--cors-origin", &origin, "--coalesce", "0"];
    let server = Server::start(&flags);
    let published = || server.metric("nudged_events_published_total");
    let browser = Browser::open(&format!("{origin}/empty"));
    let token = mint(&["--scope", "subscribe,publish"]);
    let cookie = format!("document.cookie = 'nudged_token={token}'");
    browser.runtime.block_on(browser.page.execute(&cookie, vec![])).expect("a script");

    let url = format!("http://{}/api/acme/events", server.address());
    assert_eq!(browser.run(ACROSS, &url), json!(["open", 202, "opaque"]));
    assert_eq!(published(), 1, "a form publishes nothing");
    // By another host name, the same page has another origin, and no cookie.
    let by_name = format!("localhost:{}", named.address.port());
    for page in [other.address.to_string(), by_name] {
        browser.go(&format!("http://{page}/empty"));
        assert_eq!(browser.run(ACROSS, &url), json!(["refused", "TypeError", "opaque"]), "{page}");
        assert_eq!(published(), 1, "the browser has not sent the publish after the preflight");
    }
    // Those with the cookie were opened; the browser hid the second one from its page.
    assert_eq!(server.metric("nudged_streams_opened_total"), 2);
}

/// SCENARIO: a stream is interrupted after its ticket has expired, so that the page needs a new one.
/// BUG: the page of the README had forgotten its position with the old URL, and read everything again, once a ticket.
/// FIX: it carries the last id to the new URL, and resumes.
#[test]
fn the_page_of_the_readme_resumes_with_a_new_ticket() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let readme = include_str!("../../README.md");
    let start = readme.find("let last = '';").expect("the script of the README");
    let script = readme[start..].split("\n```").next().expect("its end");
    // The relay serves one request on a connection, which the server has to close after a refusal.
    let times = ["--retry-min", "200ms", "--retry-max", "200ms", "--idle-timeout", "100ms"];
    let flags = [&["--jwt-secret", SECRET, "--coalesce", "0"][..], &times].concat();
    let server = Server::start(&flags);
    let publisher = mint(&["--scope", "publish"]);
    let publish = |key: &str| {
        let body = json!({ "keys": [key] }).to_string();
        let length = body.len();
        let answer = server.request(&format!(
            "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
             authorization: Bearer {publisher}\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(answer.status(), 202);
    };
    let relay = Relay::start(server.address(), page);
    let browser = Browser::open(&format!("http://{}/empty", relay.address));
    let page = "window.seen = [];
        window.reloadEverything = () => seen.push(['everything', '', '']);
        window.reload = keys => seen.push(['reload', String(keys), '']);
        const element = document.createElement('script');
        element.textContent = arguments[0];
        document.head.append(element);";
    browser.runtime.block_on(browser.page.execute(page, vec![script.into()])).expect("a script");
    eventually("the page has subscribed", || server.seats() == 1);
    publish("posts");
    let everything = ["everything", "", ""];
    browser.expect(&[everything, ["reload", "posts", ""]]);
    let head = relay.last_head();
    assert!(!head.contains("last_event_id"), "there is no position yet: {head}");

    let target = head.split(' ').nth(1).expect("a target").to_owned();
    eventually("the ticket has expired", || {
        let mut client = server.connect();
        client.send(&format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n"));
        client.read_head().starts_with("HTTP/1.1 401 ")
    });
    relay.set_upstream(None);
    eventually("the seat is free", || server.seats() == 0);
    publish("missed");
    relay.set_upstream(Some(server.address()));
    browser.expect(&[everything, ["reload", "posts", ""], ["reload", "missed", ""]]);
    let head = relay.last_head();
    assert!(head.contains("&last_event_id=") && !head.contains(&target), "{head}");
}

/// A token for acme.
fn mint(args: &[&str]) -> String {
    let mut command = Server::command();
    command.args(["token", "--secret", SECRET, "--org", "acme"]).args(args);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("ASCII").trim().to_owned()
}

/// A reconnection time counts once its line has ended (WHATWG HTML, 9.2.6), so the last one of a drained stream needs
/// no blank line, and is no event. A browser that waited for a blank line would come back after an hour.
#[test]
fn a_browser_honours_the_reconnection_time_of_a_farewell() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let id: EventId = "00c0ffee00c0ffee-7".parse().expect("an id");
    let frames = [
        Frame::greeting(Greeting::Connected, id, 3_600_000, 20),
        Frame::keepalive(),
        Frame::farewell(100),
    ];
    let body: Vec<u8> = frames.iter().flat_map(Frame::payload).collect();
    let again = Frame::greeting(Greeting::Resumed, id, 3_600_000, 20).payload();
    let text = |body: &[u8]| stream(std::str::from_utf8(body).expect("UTF-8"));
    let script = ScriptedServer::play([text(&body), text(&again)]);
    let relay = Relay::start(script.address, page);
    let browser = Browser::open(&format!("http://{}/", relay.address));
    eventually("the page has come back", || browser.seen().len() == 2);
    let names: Vec<_> = browser.seen().into_iter().map(|[name, _, id]| [name, id]).collect();
    assert_eq!(names, ["connected", "resumed"].map(|name| [name.to_owned(), id.to_string()]));
    let [_, second] = &script.requests()[..] else { panic!("two requests") };
    assert!(second.to_ascii_lowercase().contains(&format!("\r\nlast-event-id: {id}\r\n")));
}

/// The snippet of the README, behind a proxy that never ends a response whose upstream has died.
#[test]
fn a_page_that_wants_pings_notices_silence() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let readme = include_str!("../../README.md");
    let mut scripts = readme.split("```js\n").skip(1).filter_map(|rest| rest.split("```").next());
    let snippet = scripts.find(|script| script.contains("ping: 'event'")).expect("the snippet");
    let server = Server::start(&["--coalesce", "0", "--keepalive", "2s"]);
    let relay = Relay::start(server.address(), page);
    let browser = Browser::open(&format!("http://{}/empty", relay.address));
    let script = format!(
        "window.seen = [];
        const reloadEverything = () => seen.push(['everything', '', '']);
        const reload = keys => seen.push(['keys', ...keys, '']);
        {snippet}"
    );
    browser.runtime.block_on(browser.page.execute(&script, vec![])).expect("a script");
    eventually("the page has subscribed", || !browser.seen().is_empty());
    server.publish("acme", &["posts"]).expect("subscribed");
    eventually("the page has reloaded", || browser.seen().len() == 2);
    assert!(relay.last_head().starts_with("GET /api/acme/events?ping=event HTTP/1.1\r\n"));

    // The upstream of each connection ends; the page's own connections stay, in silence.
    let upstream = relay.silence();
    eventually("the seat is free", || server.seats() == 0);
    server.publish("acme", &["missed"]).expect("remembered");
    relay.forward_to(upstream);
    let seen = ["everything", "keys posts", "keys missed"];
    let mut names = Vec::new();
    eventually("the page has come back", || {
        let events = browser.seen().into_iter();
        names = events.map(|[name, key, _]| format!("{name} {key}").trim().to_owned()).collect();
        names.len() == seen.len()
    });
    assert_eq!(names, seen);
    assert!(relay.last_head().contains("ping=event&last_event_id="), "{}", relay.last_head());
}

/// It has no listener for `ping`: the browser keeps the id by itself.
const FILTERED: &str = "<!doctype html><title>nudged</title><script>
    window.seen = [];
    const source = new EventSource('/api/acme/events?keys=mine');
    for (const name of ['connected', 'resumed', 'invalidate'])
        source.addEventListener(name, event => seen.push([name, event.data, event.lastEventId]));
</script>";

/// Alone, a filtered stream has its position in its keepalives.
#[test]
fn the_id_of_a_filtered_page_in_firefox_moves_with_its_keepalives() {
    requires!(FIREFOX);
    let times = ["--keepalive", "1s", "--retry-min", "200ms", "--retry-max", "200ms"];
    let server = Server::start(&times);
    let relay = Relay::start(server.address(), |_| FILTERED.to_owned());
    let window = Firefox::open(&relay.origin());
    eventually("the page has subscribed", || window.seen().len() == 1);
    // The first events may come although they are others'.
    let ids = ["a", "b", "c"].map(|key| server.publish("acme", &[key]).expect("subscribed"));
    eventually("a keepalive has passed", || relay.last_id() == ids[2]);
    relay.set_upstream(None);
    eventually("the seat is free", || server.seats() == 0);
    relay.set_upstream(Some(server.address()));
    let mut seen = window.seen();
    eventually("the page has come back", || {
        seen = window.seen();
        seen.last().is_some_and(|[name, ..]| name == "resumed")
    });
    assert_eq!(seen.last().expect("events")[2], ids[2]);
}
