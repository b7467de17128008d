//! Servers, and scripts of the page's own origin, that mean harm.

use serde_json::{Value, json};

use super::tabs;
use super::wire::{Script, event};
use crate::harness::{Chrome, Page, Site, answer, eventually_sees, publish, server};
use crate::support::eventually;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};

/// The name of the lock, and of the channel.
const NAME: &str = "const [{ name }] = (await navigator.locks.query()).held;";

/// Messages that are none, and a lock that is never given back.
#[test]
fn a_script_of_the_same_origin_does_not_keep_tabs_from_their_keys() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--keepalive", "1s"]);
    let site = Site::start(server.address());
    let chrome = Chrome::start();
    let tabs = tabs(&chrome, &site, 2);
    let other = chrome.tab(&format!("{}/empty", site.origin()));
    other.run(&format!(
        "return (async () => {{
            {NAME}
            const channel = new BroadcastChannel(name);
            for (const message of [null, 5, {{}}, ['-']]) channel.postMessage(message);
            await new Promise(done => navigator.locks.request(name, {{ steal: true }}, () => {{
                done();
                return new Promise(() => {{}});
            }}).catch(() => {{}}));
        }})()"
    ));
    eventually("its lock was stolen", || site.ids().len() >= 2);
    // What comes first is behind a gap, and so `connected`.
    for tab in &tabs {
        eventually_sees(tab, "keys again", |tab| {
            publish(&server, "acme", &["after"]);
            tab.keys().contains(&"after".into())
        });
    }
    eventually("there is one stream", || server.seats() == 1 && site.streams() == 1);
}

#[test]
fn another_origin_gets_no_ticket_by_a_redirect() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let chrome = Chrome::start();
    let tab = chrome.tab("about:blank");
    assert_no_ticket_elsewhere(|url| tab.go(url));
}

/// Browsers take the field away (Fetch, 4.4), for which nothing in the client is.
pub(crate) fn assert_no_ticket_elsewhere(go: impl Fn(&str)) {
    let (site, elsewhere) = (Site::start(None), Site::start(None));
    elsewhere.answer_api(Some(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\naccess-control-allow-origin: *\r\n\
         access-control-allow-headers: authorization, last-event-id\r\n\r\n"
            .into(),
    ));
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}/api/acme/events\r\n", elsewhere.origin());
        let redirect =
            answer(status, "text/plain", "").replacen("\r\n", &format!("\r\n{location}"), 1);
        site.answer_next([redirect]);
        let before = elsewhere.heads().len();
        let since = json!({ "ticket": "anna", "since": "a-1", "share": false });
        go(&site.page(&since));
        eventually("it was redirected", || {
            elsewhere.heads()[before..].iter().any(|head| head.starts_with("get "))
        });
    }
    let has_ticket = |head: &String| head.contains("\r\nauthorization: ");
    assert!(site.heads().iter().all(has_ticket));
    assert!(!elsewhere.heads().iter().any(has_ticket), "{:?}", elsewhere.heads());
}

/// A frame without an origin has no locks, and its channels are its own.
#[test]
fn a_frame_in_a_sandbox_has_a_stream_of_its_own() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let server = server(&["--cors-origin", "*", "--public-orgs", "acme", "--public-keys", "posts"]);
    let at = format!("http://{}", server.address());
    let site = Site::start(None);
    site.add("/frames", "<script>
        window.seen = [];
        addEventListener('message', ({ data }) => seen.push(data));
        </script><iframe sandbox='allow-scripts' src='/frame'></iframe><iframe sandbox='allow-scripts' src='/frame'></iframe>");
    site.add("/frame", format!("<script type='module'>
        import {{ nudged }} from '{at}/nudged.js';
        const note = (...what) => parent.postMessage(what, '*');
        addEventListener('error', event => note('error', event.message));
        nudged('{at}/api/acme/public/events', {{
            connected: first => note('connected', first), invalidate: keys => note('invalidate', keys),
            status: (state, why) => note('status', state, why),
        }});
        </script>"));
    let chrome = Chrome::start();
    let page = chrome.tab(&format!("{}/frames", site.origin()));
    page.eventually_connected(2);
    assert_eq!(server.seats(), 2);
    publish(&server, "acme", &["posts"]);
    eventually_sees(&page, "a key in both", |page| page.keys() == ["posts", "posts"]);
    let states = page.seen_of("status");
    assert!(states.iter().all(|state| state != "closed"), "{:?}", page.seen());
    assert_eq!(page.seen_of("error"), [Value::Null; 0]);
}

/// SCENARIO: a server sends faster than the page reads.
/// BUG: what is there is read without a task between, so that the page did nothing else as long as it lasted.
/// FIX: other tasks have their turn after each piece.
#[test]
fn events_without_an_end_leave_the_page_at_work() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let script = Script::start(event("a-1", "connected", r#"{"keepalive":20}"#));
    let site = Site::start(script.address);
    let chrome = Chrome::start();
    let tab = chrome.tab(&site.page(&json!({ "ticket": "anna", "share": false })));
    tab.eventually_connected(1);
    script.flood(&event("a-2", "invalidate", r#"{"keys":["posts"]}"#).repeat(1000));
    tab.eventually_has("posts");
    tab.run("return new Promise(done => setTimeout(done, 100))");
    assert!(tab.seen_of("status").iter().all(|state| state != "closed"));
    tab.run("stream.close()");
    eventually("the stream has ended", || site.streams() == 0);
}
