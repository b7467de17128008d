//! A listening socket that outlives the server, as `.systemd/nudged.socket` is: a proxy's connects wait for the next
//! server, and it has nothing to refuse.

use std::net::TcpListener;

use crate::support::event_source::{EventSource, ORIGIN};
use crate::support::port::ReservedPort;
use crate::support::programs::{NGINX, SOCKET_ACTIVATE, requires};
use crate::support::proxy::Proxy;
use crate::support::recipe::{Recipe, without};
use crate::support::server::Signal;
use crate::support::transport::Transport;
use crate::support::{Client, Server};

const ARGS: &[&str] =
    &["--cors-origin", ORIGIN, "--insecure-open", "--coalesce", "0", "--drain-window", "100ms"];

/// nginx without the recipe, since the socket does its work.
#[test]
fn a_restart_ends_no_page_if_the_socket_outlives_the_server() {
    requires!(NGINX);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let start = || Server::start_as(Server::activated(&listener), Transport::Http1, ARGS);
    let text = without(&Recipe::Nginx.text(), "error_page", "}");
    let mut server = start();
    let proxy = Proxy::recipe_as(Recipe::Nginx, &text, address);
    let page = EventSource::open(proxy.address, "/api/acme/events");
    page.expect(&["connected"]);
    for (signal, restarts) in [(Signal::TERM, 1), (Signal::KILL, 2)] {
        server.signal(signal);
        server.wait();
        // It comes for sure while there is no server.
        let waits = EventSource::open(proxy.address, "/api/acme/events");
        server = start();
        page.expect(&["connected"].repeat(1 + restarts));
        waits.expect(&["connected"]);
        assert_eq!((page.empty(), waits.empty()), (0, 0), "nothing was refused");
    }
}

/// The first client is the one for which systemd starts the server.
#[test]
fn systemd_starts_the_server_for_its_first_client() {
    requires!(SOCKET_ACTIVATE);
    let port = ReservedPort::new();
    let address = port.address.to_string();
    let client = std::thread::spawn(move || {
        let mut socket = None;
        crate::support::eventually("systemd listens", || {
            socket = std::net::TcpStream::connect(port.address).ok();
            socket.is_some()
        });
        let mut client = Client::on(socket.expect("connected"));
        client.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client.read_answer().status()
    });
    let command = Server::command_by(&["systemd-socket-activate", "-l", &address]);
    let server = Server::start_as(command, Transport::Http1, ARGS);
    assert_eq!(server.address().to_string(), address);
    assert_eq!(client.join().expect("no panic"), 200);
}
