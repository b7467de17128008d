//! The end of a server: it is announced, spread over time, in order for each stream, and loses no event.

mod ending;
mod held;
mod resolver;
mod service_manager;
mod streams;

use crate::support::{Client, Server, Transport};

fn server(transport: Transport, more: &[&str]) -> Server {
    let uncoalesced: &[&str] =
        if more.contains(&"--coalesce") { &[] } else { &["--coalesce", "0"] };
    Server::start_on(transport, &[uncoalesced, more].concat())
}

/// Sends the head of a publish, and returns once the server waits for the body.
fn begin_publish(client: &mut Client) {
    client.send(
        "POST /api/acme/events HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n\
         content-length: 14\r\nexpect: 100-continue\r\n\r\n",
    );
    assert_eq!(client.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
}
