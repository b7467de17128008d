//! What every proxy of `.proxies` promises, with its configuration as it stands there.

use crate::support::client::post;
use crate::support::event_source::{COOKIE, EventSource, ORIGIN};
use crate::support::port::ReservedPort;
use crate::support::programs::are_available;
use crate::support::proxy::Proxy;
use crate::support::recipe::{Recipe, without};
use crate::support::server::Signal;
use crate::support::{Client, Server, eventually};

/// A page's URL, with a token that no log may have.
const STREAM: &str = "/api/acme/events?token=0123-the-token-4567";
const TOKEN: &str = "0123-the-token-4567";

/// The promises, for each recipe.
macro_rules! promises {
    ($($module:ident: $recipe:ident),+ $(,)?) => {$(
        mod $module {
            use super::Recipe;

            #[test]
            fn events_arrive_one_by_one() {
                super::events_arrive_one_by_one(Recipe::$recipe);
            }

            #[test]
            fn a_restart_ends_no_page() {
                super::a_restart_ends_no_page(Recipe::$recipe);
            }

            #[test]
            fn a_visit_that_ends_frees_its_seat() {
                super::a_visit_that_ends_frees_its_seat(Recipe::$recipe);
            }

            #[test]
            fn no_access_log_has_the_token() {
                super::no_access_log_has_the_token(Recipe::$recipe);
            }
        }
    )+};
}

promises! {
    nginx: Nginx,
    haproxy: Haproxy,
    caddy: Caddy,
    envoy: Envoy,
    lighttpd: Lighttpd,
    http_proxy: HttpProxy,
    migrating: Migrating,
}

/// A server that can be started again at the same address.
struct Place(ReservedPort);

// ===== impl Place =====

impl Place {
    fn new() -> Self {
        Self(ReservedPort::new())
    }

    fn start(&self) -> Server {
        let address = self.0.address.to_string();
        start(&["--listen", &address, "--drain-window", "100ms"])
    }
}

/// A server for pages of other origins.
fn start(args: &[&str]) -> Server {
    let usual = ["--coalesce", "0", "--cors-origin", ORIGIN, "--insecure-open"];
    Server::start(&[&usual, args].concat())
}

/// Publishes through a proxy, and returns the status.
fn publish(proxy: &Proxy) -> u16 {
    let mut client = Client::connect(proxy.address);
    client.send(&post("/api/acme/events", "application/json", r#"{"keys":["posts"]}"#));
    let head = client.read_head();
    head.split(' ').nth(1).expect("a status").parse().expect("a number")
}

/// Each event is read before the next one is published, so that none may wait in a buffer.
fn events_arrive_one_by_one(recipe: Recipe) {
    if !are_available(&[recipe.program()]) {
        return;
    }
    let server = start(&[]);
    let proxy = Proxy::recipe(recipe, server.address());
    let source = EventSource::open(proxy.address, STREAM);
    source.expect(&["connected"]);
    for n in 1..=3 {
        assert_eq!(publish(&proxy), 202);
        source.expect(&[&["connected"][..], &["invalidate"].repeat(n)].concat());
    }
}

/// The paths of nudged are more than `/api/`, and not all of them are for strangers.
#[test]
fn every_recipe_passes_the_browser_client_on_and_those_that_name_paths_nothing_of_operators() {
    let server = start(&[]);
    let recipes = Recipe::ALL.into_iter().filter(|recipe| *recipe != Recipe::Migrating);
    for recipe in recipes.filter(|recipe| recipe.program().is_available_for("a part of ")) {
        let proxy = Proxy::recipe(recipe, server.address());
        for path in ["/nudged.js", concat!("/nudged-adapters-", env!("CARGO_PKG_VERSION"), ".js")] {
            let mut client = Client::connect(proxy.address);
            client.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
            let head = client.read_head().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{recipe:?} {path}: {head}");
            assert!(head.contains("\r\netag: \""), "{recipe:?} {path}: {head}");
        }
        // Only the one that passes everything on. The page holds no data, and the rest needs a token.
        for path in ["/ops", "/ops/orgs", "/metrics"] {
            let mut client = Client::connect(proxy.address);
            client.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
            let head = client.read_head().to_ascii_lowercase();
            let is_ours = head.starts_with("http/1.1 200 ") && head.contains("nosniff");
            assert_eq!(is_ours, recipe == Recipe::HttpProxy, "{recipe:?} {path}: {head}");
        }
    }
}

/// SCENARIO: nudged behind a proxy is restarted, or crashes, and pages reconnect while it is away.
/// BUG: the proxy answered 502 or 503, at which an `EventSource` gives up for good; the README promised that it
/// reconnects.
/// FIX: with the recipe the proxy sends it a `retry:`. A publisher gets an error all the same.
fn a_restart_ends_no_page(recipe: Recipe) {
    if !are_available(&[recipe.program()]) {
        return;
    }
    let place = Place::new();
    let mut server = place.start();
    let proxy = Proxy::recipe(recipe, place.0.address);
    let source = EventSource::open(proxy.address, STREAM);
    source.expect(&["connected"]);
    for (signal, restarts) in [(Signal::TERM, 1), (Signal::KILL, 2)] {
        server.signal(signal);
        server.wait();
        source.comes_back_in_vain();
        assert!(publish(&proxy) >= 500, "nothing is published while the server is away");
        server = place.start();
        source.expect(&["connected"].repeat(1 + restarts));
    }
    drop(source);
}

fn a_visit_that_ends_frees_its_seat(recipe: Recipe) {
    if !are_available(&[recipe.program()]) {
        return;
    }
    // No keepalive finds the visits that have ended, nor do the proxy's timeouts.
    let server = start(&["--keepalive", "1h"]);
    let text = recipe.text().replace("60s", "3600s");
    let proxy = Proxy::recipe_as(recipe, &text, server.address());
    let sources: Vec<_> =
        (0..12).map(|_| EventSource::open(proxy.address, "/api/acme/events")).collect();
    sources.iter().for_each(|source| source.expect(&["connected"]));
    assert_eq!(server.seats(), 12);
    drop(sources);
    eventually("every seat is free", || {
        if recipe == Recipe::Lighttpd {
            // It closes a connection once it could not deliver to its client.
            assert_eq!(publish(&proxy), 202);
        }
        server.seats() == 0
    });
}

/// The logs of a stream that was open, of one that its server left, and of one while the server was away.
fn logs_of_visits(recipe: Recipe, text: &str) -> String {
    let place = Place::new();
    let mut server = place.start();
    let proxy = Proxy::recipe_as(recipe, text, place.0.address);
    let source = EventSource::open(proxy.address, STREAM);
    source.expect(&["connected"]);
    server.signal(Signal::KILL);
    server.wait();
    source.comes_back_in_vain();
    let server = place.start();
    source.expect(&["connected", "connected"]);
    drop(source);
    eventually("the visit has ended", || publish(&proxy) == 202 && server.seats() == 0);
    proxy.end()
}

fn no_access_log_has_the_token(recipe: Recipe) {
    if !are_available(&[recipe.program()]) {
        return;
    }
    // http-proxy logs nothing.
    let logs = logs_of_visits(recipe, &recipe.text());
    assert_eq!(logs.contains("/api/acme/events"), recipe != Recipe::HttpProxy, "{logs}");
    assert!(!logs.contains(TOKEN) && !logs.contains(COOKIE), "{logs}");

    // Without these settings the token is there.
    let text = recipe.text();
    let text = match recipe {
        Recipe::Nginx | Recipe::Migrating => text.replace("nudged.log nudged;", "nudged.log;"),
        Recipe::Haproxy => without(&text, "log-format", "timeout connect")
            .replace("timeout connect", "option httplog\n    timeout connect"),
        Recipe::Caddy => text.replace("replace token REDACTED", ""),
        Recipe::Envoy => text.replace("%PATH(NQ)%", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
        Recipe::Lighttpd => without(&text, "accesslog.format", "accesslog.filename"),
        Recipe::HttpProxy => return,
    };
    assert_ne!(text, recipe.text());
    let logs = logs_of_visits(recipe, &text);
    assert!(logs.contains(TOKEN) && !logs.contains(COOKIE), "{logs}");
}
