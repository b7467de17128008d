//! Behind proxies. Here Debian's nginx and HAProxy in common configurations: events arrive at once, not when a buffer
//! is full, and a connection that nginx closes frees its seat. In the modules the configurations of `.proxies`.

mod kept_socket;
mod migrating;
mod pages;
mod recipes;
mod settings;

use crate::support::programs::{HAPROXY, NGINX, requires};
use crate::support::proxy::{Proxy, RECOMMENDED};
use crate::support::{Server, eventually};

/// nginx's default: HTTP/1.0 to the server.
const DEFAULT: &str = "";
/// As usual for pages: buffering, and compression of the listed types. (nginx ignores `no-transform`: if
/// `text/event-stream` is listed too, streams are compressed.)
const EAGER: &str = "proxy_http_version 1.1; proxy_buffering on; proxy_buffers 8 64k; gzip on; \
    gzip_types text/plain application/json; gzip_min_length 0; gzip_proxied any;";

/// The timeouts of Debian's configuration.
const TIMEOUTS: &[&str] = &["timeout connect 5s", "timeout client 50s", "timeout server 50s"];

#[test]
fn events_arrive_one_by_one_through_nginx() {
    requires!(NGINX);
    for location in [DEFAULT, RECOMMENDED, EAGER] {
        expect_one_by_one(|server| Proxy::nginx(server, location));
    }
}

#[test]
fn events_arrive_one_by_one_through_haproxy() {
    requires!(HAPROXY);
    expect_one_by_one(|server| Proxy::haproxy(server, TIMEOUTS));
}

/// Reads each event before it publishes the next, so that none may wait in a buffer.
fn expect_one_by_one(proxy: impl FnOnce(&Server) -> Proxy) {
    let server = Server::start(&["--coalesce", "0"]);
    let proxy = proxy(&server);
    let mut stream = proxy.stream();
    stream.connected();
    for key in ["a", "b", "c"] {
        let id = server.publish("acme", &[key]).expect("subscribed");
        stream.expect_invalidate(&id, &[key]);
    }
}

#[test]
fn a_client_that_leaves_nginx_frees_its_seat() {
    requires!(NGINX);
    for location in [DEFAULT, RECOMMENDED] {
        let server = Server::start(&[]);
        let nginx = Proxy::nginx(&server, location);
        let mut streams: Vec<_> = (0..20).map(|_| nginx.stream()).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        assert_eq!(server.seats(), 20);
        for (n, stream) in streams.into_iter().enumerate() {
            if n % 2 == 0 { stream.client.reset() } else { drop(stream) }
        }
        eventually("every seat is free", || server.seats() == 0);
    }
}

#[test]
fn an_nginx_that_is_killed_frees_its_seats() {
    requires!(NGINX);
    let server = Server::start(&[]);
    let nginx = Proxy::nginx(&server, RECOMMENDED);
    let mut streams: Vec<_> = (0..20).map(|_| nginx.stream()).collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    nginx.kill();
    eventually("every seat is free", || server.seats() == 0);
}
