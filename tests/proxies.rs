//! Behind Debian's nginx and HAProxy, as people have them in front: events arrive at once, not when a
//! buffer is full, and what happens to nginx happens to the seats.

mod support;

use support::proxy::Proxy;
use support::{PLAIN_PATHS, Server, eventually};

/// Its default: HTTP/1.0 to the server.
const DEFAULT: &str = "";
/// What people are told to write.
const RECOMMENDED: &str = support::proxy::RECOMMENDED;
/// What people have who serve pages: buffering, and compression of what they list. (nginx heeds no
/// `no-transform`: who lists `text/event-stream` too gets compressed streams.)
const EAGER: &str = "proxy_http_version 1.1; proxy_buffering on; proxy_buffers 8 64k; gzip on; \
    gzip_types text/plain application/json; gzip_min_length 0; gzip_proxied any;";

/// As Debian's configuration has them.
const TIMEOUTS: &[&str] = &["timeout connect 5s", "timeout client 50s", "timeout server 50s"];

#[test]
fn events_arrive_one_by_one() {
    for path in PLAIN_PATHS {
        expect_one_by_one(path, |server| Proxy::nginx(server, DEFAULT));
        expect_one_by_one(path, |server| Proxy::nginx(server, RECOMMENDED));
        expect_one_by_one(path, |server| Proxy::nginx(server, EAGER));
        expect_one_by_one(path, |server| Proxy::haproxy(server, TIMEOUTS));
    }
}

/// Each is read before the next is published, which no buffer lets through.
fn expect_one_by_one(path: &[&str], proxy: impl FnOnce(&Server) -> Proxy) {
    let server = Server::start(&[path, &["--coalesce", "0"]].concat());
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
    for path in PLAIN_PATHS {
        let server = Server::start(path);
        let nginx = Proxy::nginx(&server, RECOMMENDED);
        let mut streams: Vec<_> = (0..20).map(|_| nginx.stream()).collect();
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        nginx.kill();
        eventually("every seat is free", || server.seats() == 0);
    }
}
