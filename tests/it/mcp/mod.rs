//! Heartbeats with real programs: a client and a server of the Model Context Protocol, with nginx or HAProxy and the
//! example `heartbeat_proxy` between them. In the module the example by itself.

mod forwarding;
mod processes;

use std::net::SocketAddr;

use self::processes::{HeartbeatProxy, Script};
use crate::support::eventually;
use crate::support::programs::{HAPROXY, MCP_SDK, NGINX, requires};
use crate::support::proxy::Proxy;

/// What a call passes through, from its client on.
struct Chain {
    proxy: Proxy,
    _heartbeats: HeartbeatProxy,
}

/// Starts a proxy in front of an address.
type Start = fn(SocketAddr) -> Proxy;

/// What the locked SDK speaks.
const PROTOCOL: &str = "protocol 2025-11-25";
/// Twice in a call, in milliseconds. Twice the time that the proxies wait for the next byte, 3 s.
const SILENCE: &str = "6000";
const PING: &str = "500ms";
/// Beyond the bound of any test.
const NEVER: &str = "1h";
const NEVER_MS: &str = "3600000";

// ===== impl Chain =====

impl Chain {
    fn to(server: SocketAddr, ping: &str, start: Start) -> Self {
        let heartbeats = HeartbeatProxy::start(server, ping);
        Self { proxy: start(heartbeats.address), _heartbeats: heartbeats }
    }

    fn call(&self) -> Script {
        Script::client(self.proxy.address)
    }
}

#[test]
fn a_silent_call_is_lost_behind_nginx_and_returns_with_heartbeats() {
    requires!(NGINX, MCP_SDK);
    let start = |to| Proxy::nginx_to(to, "proxy_read_timeout 3s;");
    is_lost_without_heartbeats_and_returns_with_them(start, "upstream timed out");
}

#[test]
fn a_silent_call_is_lost_behind_haproxy_and_returns_with_heartbeats() {
    requires!(HAPROXY, MCP_SDK);
    const TIMEOUTS: &[&str] = &["timeout connect 60s", "timeout client 60s", "timeout server 3s"];
    // The server's time-out, while it sends data.
    is_lost_without_heartbeats_and_returns_with_them(
        |to| Proxy::haproxy_to(to, TIMEOUTS),
        " sD-- ",
    );
}

/// Two calls wait at the same time at the same server. All that differs on their ways is the period of the pings.
fn is_lost_without_heartbeats_and_returns_with_them(start: Start, reason: &str) {
    let server = Script::server(SILENCE);
    let without = Chain::to(server.address(), NEVER, start);
    let with = Chain::to(server.address(), PING, start);
    let (lost, returned) = (without.call(), with.call());

    lost.expect(PROTOCOL);
    lost.expect("lost SSE stream disconnected: TypeError: terminated");
    eventually("the proxy logs why", || without.proxy.logs().contains(reason));

    returned.expect(PROTOCOL);
    let progress = returned.next();
    assert!(progress.starts_with("progress "), "{progress}");
    returned.expect("result done");
    let logs = with.proxy.logs();
    assert!(!logs.contains(reason), "{logs}");

    let printed = server.until("call returns");
    let count = |wanted: &str| printed.lines().filter(|line| *line == wanted).count();
    assert_eq!(count("call begins"), 2, "{printed}");
    assert_eq!(count("call aborted"), 1, "{printed}");
    assert_eq!(count(&progress), 1, "not as the server sent it: {printed}");
}

#[test]
fn a_client_of_nginx_that_is_killed_aborts_its_call_at_the_server() {
    requires!(NGINX, MCP_SDK);
    is_aborted_when_its_client_is_killed(|to| Proxy::nginx_to(to, "proxy_read_timeout 1h;"));
}

#[test]
fn a_client_of_haproxy_that_is_killed_aborts_its_call_at_the_server() {
    requires!(HAPROXY, MCP_SDK);
    // It passes on that a client has gone if it is asked to.
    const PATIENT: &[&str] =
        &["option abortonclose", "timeout connect 60s", "timeout client 1h", "timeout server 1h"];
    is_aborted_when_its_client_is_killed(|to| Proxy::haproxy_to(to, PATIENT));
}

/// Nothing else ends the call within the bounds of the test: no ping, no time-out, no end of the silence.
fn is_aborted_when_its_client_is_killed(start: Start) {
    let server = Script::server(NEVER_MS);
    let chain = Chain::to(server.address(), NEVER, start);
    let client = chain.call();
    client.expect(PROTOCOL);
    server.expect("call begins");
    drop(client);
    server.expect("call aborted");
}
