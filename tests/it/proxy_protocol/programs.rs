//! Proxies as they are: HAProxy, which sends version 2, and nginx, which sends version 1 only.

use std::net::SocketAddr;

use super::balancer::{expect_none_refused, refused, server};
use crate::support::bridge::Bridge;
use crate::support::log::Log;
use crate::support::programs::{HAPROXY, NGINX_STREAM, OPENSSL, requires};
use crate::support::proxy::Proxy;
use crate::support::recipe;
use crate::support::{Client, Server, Stream, Transport, eventually};

/// The recipe, which connects from where the proxies are, with more options of its server.
fn haproxy(to: SocketAddr, more: &str) -> Proxy {
    let text = recipe::text("haproxy-tcp.cfg");
    assert!(text.contains(" send-proxy-v2 "), "{text}");
    let text =
        text.replace("    option httpchk", "    option log-health-checks\n    option httpchk");
    let options = format!(" send-proxy-v2 source 127.0.0.2 {more} ");
    Proxy::haproxy_tcp(&text.replace(" send-proxy-v2 ", &options), to)
}

/// TLS is passed through, and what HAProxy asks by itself is asked as LOCAL.
#[test]
fn haproxy_names_its_clients_and_checks_the_server() {
    requires!(HAPROXY, OPENSSL);
    for options in ["", "proxy-v2-options crc32c,unique-id,authority"] {
        let args = ["--access-log", "--log", "info"];
        let mut server = server(Transport::Tls, &args);
        let log = Log::of(&mut server);
        let proxy = haproxy(server.listens_on[0], options);
        eventually("HAProxy has found it ready", || proxy.logs().contains("Layer7 check passed"));
        for transport in [Transport::Tls, Transport::H2] {
            let bridge = Bridge::to(proxy.address, transport);
            let client = Client::connect(bridge.address);
            let mut stream = Stream::open(client, "/api/acme/events", "");
            stream.connected();
            let id = server.publish("acme", &["a"]).expect("subscribed");
            stream.expect_invalidate(&id, &["a"]);
            drop(stream);
            log.line(&["nudged::access", " client=127.0.0.1 "]);
        }
        expect_none_refused(&server);
        assert!(!proxy.logs().contains("is DOWN"), "{}", proxy.logs());
    }
}

/// A client's own header is the second one.
#[test]
fn a_client_of_haproxy_cannot_name_itself() {
    requires!(HAPROXY, OPENSSL);
    let server = server(Transport::Tls, &[]);
    let proxy = haproxy(server.listens_on[0], "");
    let mut client = Client::connect(proxy.address);
    client.send_bytes(&super::balancer::header("192.0.2.1"));
    let answer = client.try_read_to_end().unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let bridge = Bridge::to(proxy.address, Transport::Tls);
    Stream::open(Client::connect(bridge.address), "/api/acme/events", "").connected();
    expect_none_refused(&server);
}

/// SCENARIO: the balancer speaks version 1: `send-proxy` of HAProxy, or `proxy_protocol on` of nginx, which has no other.
/// FIX: the connection is closed, and the log says what to do.
#[test]
fn a_proxy_of_version_1_is_refused_with_advice() {
    requires!(HAPROXY, NGINX_STREAM);
    for start in [haproxy_v1, nginx] {
        let mut server = server(Transport::Http1, &[]);
        let log = Log::of(&mut server);
        let proxy = start(&server);
        // To see whether it listens has been a connection too.
        let mut client = Client::connect(proxy.address);
        _ = client.try_send_bytes(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n");
        assert_eq!(client.try_read_to_end().unwrap_or_default(), b"");
        let advice = "is of version 1 of the PROXY protocol, and only version 2 is accepted (HAProxy: \
                      send-proxy-v2; nginx cannot send it)";
        log.line(&["WARN", advice, "peer=\"127.0.0.2\"", "reason=\"v1\""]);
        assert!(refused(&server, "v1") > 0);
    }
}

fn haproxy_v1(server: &Server) -> Proxy {
    let text = recipe::text("haproxy-tcp.cfg");
    let (before, rest) = text.split_once("    option httpchk").expect("its checks");
    let (_, server_line) = rest.split_once("    server ").expect("its server");
    let line = server_line.lines().next().expect("a line");
    let line = line.split(" send-proxy-v2 ").next().expect("it sends it");
    let text = format!("{before}    server {line} send-proxy source 127.0.0.2\n");
    Proxy::haproxy_tcp(&text, server.address())
}

fn nginx(server: &Server) -> Proxy {
    let to = server.address();
    Proxy::nginx_stream(&format!("proxy_pass {to}; proxy_protocol on; proxy_bind 127.0.0.2;"))
}
