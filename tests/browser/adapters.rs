//! What changes mean to caches in use: the adapters, with the libraries that they are for.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Chrome, Page, Site, eventually_sees, publish, server};
use crate::support::programs::{BROWSER_LIBRARIES, CHROMEDRIVER, CHROMIUM, locked, requires};

/// The packages that pages load, with the folders of their scripts.
const MODULES: [&str; 9] = [
    "@tanstack/query-core/build/modern",
    "alpinejs/dist",
    "dequal/lite",
    "htmx.org/dist",
    "htmx2/dist",
    "react/cjs",
    "react-dom/cjs",
    "scheduler/cjs",
    "use-sync-external-store/cjs",
];
const SWR: [&str; 3] = ["swr/dist", "swr/dist/_internal", "swr/dist/index"];

/// A site with the libraries, and `/NAME` for each of these files.
fn site(upstream: Option<SocketAddr>) -> Site {
    let site = Site::start(upstream);
    site.add("/libraries.js", include_str!("adapters/libraries.js"));
    site.add("/swr.js", include_str!("adapters/swr.js"));
    site.add("/swr", PAGE);
    site.add("/all", include_str!("adapters/all.html"));
    for folder in MODULES.iter().chain(&SWR).chain(&["swr/dist/infinite"]) {
        let path = format!("{}/{folder}", locked!("node_modules"));
        for file in std::fs::read_dir(path).expect("a folder").flatten() {
            let name = file.file_name().into_string().expect("UTF-8");
            if name.ends_with(".js") || name.ends_with(".cjs") {
                let text = std::fs::read_to_string(file.path()).expect("UTF-8");
                site.add(&format!("/modules/{folder}/{name}"), text);
            }
        }
    }
    site
}

const PAGE: &str = "<!doctype html><title>swr</title><script src='/libraries.js'></script>
    <script type='module'>import * as tests from '/swr.js'; window.tests = tests;</script>";

#[test]
fn tanstack_query_reads_exactly_what_is_hit() {
    requires!(BROWSER_LIBRARIES);
    let mut node = Command::new(locked!("bin/node"));
    node.args(["--test", "--test-reporter", "spec"]);
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/adapters/node.mjs"));
    let output = node.env("MODULES", locked!("node_modules/")).output().expect("node");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("pass 14"), "{text}");
}

#[test]
fn swr_reads_exactly_what_is_hit() {
    requires!(BROWSER_LIBRARIES, CHROMEDRIVER, CHROMIUM);
    let site = site(None);
    let chrome = Chrome::start();
    let tab = chrome.tab(&format!("{}/swr", site.origin()));
    let names = tab.run("return Object.keys(tests)");
    for name in names.as_array().expect("a list") {
        let name = name.as_str().expect("a name");
        let result: [Value; 2] =
            serde_json::from_value(tab.run(&format!("return tests.{name}()"))).expect(name);
        assert_eq!(result[0], result[1], "{name}");
    }
}

#[test]
fn htmx_and_alpine_react_to_events_of_every_key() {
    requires!(BROWSER_LIBRARIES, CHROMEDRIVER, CHROMIUM);
    let site = site(None);
    let chrome = Chrome::start();
    let tab = chrome.tab(&site.origin());
    for htmx in ["htmx2/dist/htmx.js", "htmx.org/dist/htmx.js"] {
        site.add("/dom", include_str!("adapters/dom.html").replace("HTMX", htmx));
        tab.go(&format!("{}/dom", site.origin()));
        // Both libraries prepare a page after it has been read.
        let run = |call: &str, hit: &[&str]| {
            let mut hits = Value::Null;
            eventually_sees(&tab, &format!("{htmx}: {call} hits {hit:?}"), |tab| {
                hits = tab.run(&format!("return run({call})"));
                hits == serde_json::json!(hit)
            });
        };
        run("'connected'", &["alpine all", "alpine any", "any", "one", "posts"]);
        run("'invalidate', ['posts']", &["alpine posts", "one", "posts", "window"]);
        run("'invalidate', ['feed:123']", &["alpine numbers", "numbers"]);
        run("'invalidate', ['feed.Main-1_x']", &["dots"]);
        run("'invalidate', ['größe:🎈']", &["letters"]);
        run("'invalidate', ['a b, (c)/d']", &["any"]);
        run("'invalidate', ['größe.X, [y]']", &["alpine any"]);
        run("'invalidate', ['', 'post', 'feed', 'stale', 'größe']", &[]);
    }
}

/// Two tabs, of which one has the stream.
#[test]
fn every_library_in_every_tab_reads_what_was_published() {
    requires!(BROWSER_LIBRARIES, CHROMEDRIVER, CHROMIUM);
    let mut server = server(&[]);
    let site = site(Some(server.address()));
    let chrome = Chrome::start();
    let tabs = [(); 2].map(|()| chrome.tab(&format!("{}/all", site.origin())));
    let read = |expected: &Value| {
        for tab in &tabs {
            eventually_sees(tab, &format!("reads {expected}"), |tab| {
                tab.run("return window.isReady && reads") == *expected
            });
        }
    };
    // What the page had read before its stream was open.
    let both = |posts: u32, users: u32| {
        let (posts, users) = (("posts", posts), ("users", users));
        let counts = ["query", "swr", "htmx", "alpine"].map(|library| {
            let of = |(name, count): (&str, u32)| (format!("{library} {name}"), count.into());
            [of(posts), of(users)]
        });
        Value::Object(counts.into_iter().flatten().collect())
    };
    read(&both(2, 2));
    publish(&server, "acme", &["posts", "nothing"]);
    read(&both(3, 2));
    publish(&server, "acme", &["users", "posts"]);
    read(&both(4, 3));
    assert_eq!(server.seats(), 1);

    // A new process does not know the ids of the last one.
    site.set_upstream(None);
    server = self::server(&[]);
    site.set_upstream(Some(server.address()));
    read(&both(5, 4));
}
