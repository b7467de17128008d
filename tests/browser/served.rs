//! The client as a page of another origin gets it from the server, in a real Chromium.

use serde_json::json;

use crate::support::chromium::Browser;
use crate::support::programs::{CHROMEDRIVER, CHROMIUM, requires};
use crate::support::relay::Relay;
use crate::support::{Server, eventually};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Imports the client and the adapters by these names, and subscribes.
const IMPORTS: &str = "const [urls, done] = arguments;
    const [origin, client, adapters] = urls.split(' ');
    window.seen = [];
    const add = name => seen.push([name, '', '']);
    Promise.all([import(origin + client), import(origin + adapters)]).then(([{ nudged }, { dom }]) => {
        const target = new EventTarget();
        target.addEventListener('nudged', () => add('everything'));
        target.addEventListener('nudged:posts', () => add('posts'));
        nudged(origin + '/api/acme/events', { ...dom(target), share: false });
        done('imported');
    }, why => done(`${why}`));";

#[test]
fn a_page_of_another_origin_imports_the_client_and_follows_a_stream() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let pages = Relay::start(None, |_| String::new());
    let flags = ["--cors-origin", &pages.origin(), "--insecure-open", "--coalesce", "0"];
    let server = Server::start(&flags);
    let browser = Browser::open(&pages.origin());
    for (client, adapters) in [
        ("/nudged.js".to_owned(), "/nudged-adapters.js".to_owned()),
        (format!("/nudged-{VERSION}.js"), format!("/nudged-adapters-{VERSION}.js")),
    ] {
        browser.go(&pages.origin());
        let names = format!("http://{} {client} {adapters}", server.address());
        assert_eq!(browser.run(IMPORTS, &names), "imported");
        eventually("the page has subscribed", || server.seats() == 1);
        browser.expect(&[["everything", "", ""]]);
        server.publish("acme", &["posts"]).expect("subscribed");
        browser.expect(&[["everything", "", ""], ["posts", "", ""]]);
    }

    // By another host name the page has another origin, which may have the client and no stream.
    browser.go(&format!("http://localhost:{}/", pages.address.port()));
    let import = "const [url, done] = arguments;
        import(url).then(({ nudged }) => done(typeof nudged), why => done(`${why}`));";
    assert_eq!(browser.run(import, &format!("http://{}/nudged.js", server.address())), "function");
}

/// Chromium checks the CORS fields again when a 304 has renewed what it holds.
#[test]
fn a_script_that_a_page_holds_is_renewed_across_origins() {
    requires!(CHROMEDRIVER, CHROMIUM);
    let pages = Relay::start(None, |_| String::new());
    let server = Server::start(&[]);
    let browser = Browser::open(&pages.origin());
    let fetch = "const [url, done] = arguments;
        const lengths = async (...caches) => {
            const found = [];
            for (const cache of caches) {
                const response = await fetch(url, { cache });
                found.push(response.status, (await response.text()).length);
            }
            return found;
        };
        lengths('reload', 'no-cache', 'force-cache').then(done, why => done(`${why}`));";
    let length = include_str!("../../src/browser/nudged.js").encode_utf16().count();
    let url = format!("http://{}/nudged.js", server.address());
    assert_eq!(browser.run(fetch, &url), json!([200, length, 200, length, 200, length]));
}
