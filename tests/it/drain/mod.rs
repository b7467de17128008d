//! The end of a server: it is announced, spread over time, proper for each stream, and loses nothing.

mod ending;
mod service_manager;
mod streams;

use crate::support::{Client, Server, Transport};

fn server(transport: Transport, more: &[&str]) -> Server {
    let at_once: &[&str] = if more.contains(&"--coalesce") { &[] } else { &["--coalesce", "0"] };
    Server::start_on(transport, &[at_once, more].concat())
}

/// Asks for a publish, and returns once the server waits for its body.
fn begin_publish(client: &mut Client) {
    client.send(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: 14\r\nexpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
}
