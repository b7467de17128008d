//! What single settings of `.proxies` are for: without them a stream behind the proxy is late, cut, or outlives its
//! visit.

use crate::support::event_source::{EventSource, ORIGIN};
use crate::support::programs::{ENVOY, HAPROXY, HTTP_PROXY, LIGHTTPD, NGINX, requires};
use crate::support::proxy::Proxy;
use crate::support::recipe::{Recipe, without};
use crate::support::server::Signal;
use crate::support::{Client, Server, eventually};

const PATH: &str = "/api/acme/events";
const VISITS: usize = 12;

/// A server for pages of other origins, which sends nothing on its own.
fn start(args: &[&str]) -> Server {
    let usual =
        ["--coalesce", "0", "--cors-origin", ORIGIN, "--insecure-open", "--keepalive", "1h"];
    Server::start(&[&usual, args].concat())
}

/// Opens twelve streams and ends them. The thirteenth, which stays, shows that the proxy goes on.
fn visits_end(proxy: &Proxy) -> EventSource {
    let visits: Vec<_> = (0..VISITS).map(|_| EventSource::open(proxy.address, PATH)).collect();
    visits.iter().for_each(|visit| visit.expect(&["connected"]));
    drop(visits);
    let stays = EventSource::open(proxy.address, PATH);
    stays.expect(&["connected"]);
    stays
}

/// SCENARIO: visits end behind HAProxy, as the README configured it.
/// BUG: HAProxy kept their connections, each with its seat, until it could not deliver a keepalive to the client.
/// FIX: `option abortonclose` in `defaults`, where it is in effect for streams that are open (see `recipes`). In the
/// `backend` alone it is not.
#[test]
fn haproxy_keeps_the_seats_of_ended_visits_without_abortonclose() {
    requires!(HAPROXY);
    let text = Recipe::Haproxy.text();
    let none = text.replace("    option abortonclose\n", "");
    assert_ne!(none, text);
    let backend = none.replace(
        "    option http-no-delay\n",
        "    option http-no-delay\n    option abortonclose\n",
    );
    assert_ne!(none, backend);
    for text in [none, backend] {
        let server = start(&[]);
        let proxy = Proxy::recipe_as(Recipe::Haproxy, &text, server.address());
        let _stays = visits_end(&proxy);
        assert_eq!(server.seats(), VISITS as u64 + 1);
        // What cannot be delivered ends them.
        eventually("the seats of the ended visits are free", || {
            server.publish("acme", &["posts"]);
            server.seats() == 1
        });
    }
}

/// SCENARIO: a page is closed behind http-proxy 1.18, as development servers use it.
/// BUG: http-proxy keeps the connection to the server, and goes on reading it, so that the seat stays for ever.
/// FIX: the recipe closes it (see `recipes`); where the proxy cannot be changed, `--max-stream-age` does.
#[test]
fn a_stream_that_http_proxy_keeps_ends_at_its_maximal_age() {
    requires!(HTTP_PROXY);
    let text = Recipe::HttpProxy.text();
    let none = without(&text, "proxy.on('proxyReq'", "proxy.on('proxyRes'");
    let server = start(&[]);
    let proxy = Proxy::recipe_as(Recipe::HttpProxy, &none, server.address());
    let stays = visits_end(&proxy);
    for _ in 0..10 {
        server.publish("acme", &["posts"]);
    }
    stays.expect(&[&["connected"][..], &["invalidate"; 10]].concat());
    assert_eq!(server.seats(), VISITS as u64 + 1, "what it cannot deliver does not end them");

    let server = start(&["--max-stream-age", "1s"]);
    let proxy = Proxy::recipe_as(Recipe::HttpProxy, &none, server.address());
    let visits: Vec<_> = (0..VISITS).map(|_| EventSource::open(proxy.address, PATH)).collect();
    visits.iter().for_each(EventSource::begins);
    drop(visits);
    eventually("every seat is free", || server.seats() == 0);
}

/// SCENARIO: the server is killed behind http-proxy 1.18.
/// BUG: http-proxy leaves the page's response open for ever, and the page does not notice.
/// FIX: the recipe closes it (see `recipes`).
#[test]
fn a_page_behind_http_proxy_does_not_notice_the_end_of_its_server() {
    requires!(HTTP_PROXY);
    let text = Recipe::HttpProxy.text();
    let none = without(&text, "proxy.on('proxyRes'", "\n\n");
    let mut server = start(&[]);
    let proxy = Proxy::recipe_as(Recipe::HttpProxy, &none, server.address());
    let page = EventSource::open(proxy.address, PATH);
    page.expect(&["connected"]);
    server.signal(Signal::KILL);
    server.wait();
    // The proxy knows it: another page comes back in vain meanwhile.
    let other = EventSource::open(proxy.address, PATH);
    other.comes_back_in_vain();
    assert_eq!(page.empty(), 0);
    page.expect(&["connected"]);
}

/// SCENARIO: a stream lives longer than Envoy's route timeout, 15 s unless it is set.
/// BUG: Envoy cuts it, whatever was sent on it; so every browser reconnects every 15 s.
/// FIX: `timeout: 0s`.
#[test]
fn envoy_cuts_a_stream_at_its_timeout() {
    requires!(ENVOY);
    let text = Recipe::Envoy.text();
    let short = text.replace("timeout: 0s", "timeout: 0.2s");
    assert_ne!(short, text);
    let server = start(&["--retry-min", "100ms", "--retry-max", "200ms"]);
    let kept = Proxy::recipe(Recipe::Envoy, server.address());
    let kept = (EventSource::open(kept.address, PATH), kept);
    kept.0.expect(&["connected"]);
    let proxy = Proxy::recipe_as(Recipe::Envoy, &short, server.address());
    let _cut = EventSource::open(proxy.address, PATH);
    eventually("it was cut twice", || server.metric("nudged_streams_opened_total") >= 4);
    kept.0.expect(&["connected"]);
}

/// SCENARIO: a page listens behind lighttpd's mod_proxy.
/// BUG: lighttpd collects a response until it is complete, which a stream never is: the page receives nothing.
/// FIX: `server.stream-response-body = 2`.
#[test]
fn lighttpd_collects_a_stream_unless_it_is_set_to_forward_it() {
    requires!(LIGHTTPD);
    let none = without(&Recipe::Lighttpd.text(), "server.stream-response-body", "proxy.server");
    let server = start(&[]);
    let proxy = Proxy::recipe_as(Recipe::Lighttpd, &none, server.address());
    let mut page = Client::connect(proxy.address);
    page.send(&format!("GET {PATH} HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\r\n"));
    eventually("it has a seat", || server.seats() == 1);
    for _ in 0..10 {
        server.publish("acme", &["posts"]).expect("subscribed");
    }
    assert!(page.is_silent(), "not even a head");
}

/// SCENARIO: nginx without the recipe, as the README had it ("needs no settings"), while the server restarts.
/// BUG: its 502 ends the page's `EventSource` for good.
/// FIX: `error_page` (see `recipes`).
#[test]
fn a_restart_behind_a_proxy_without_a_recipe_ends_every_page() {
    requires!(NGINX);
    let text = Recipe::Nginx.text();
    let none = without(&text, "error_page", "}");
    let mut server = start(&[]);
    let proxy = Proxy::recipe_as(Recipe::Nginx, &none, server.address());
    let page = EventSource::open(proxy.address, PATH);
    page.expect(&["connected"]);
    server.signal(Signal::KILL);
    server.wait();
    let why = page.gives_up();
    assert!(why.contains(" 502 "), "{why}");
}
