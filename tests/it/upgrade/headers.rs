//! A process is replaced while connections wait for their header, or for what follows it.

use super::upgradable::Upgradable;
use crate::proxy_protocol::balancer::{LIVEZ, LOCAL, STREAM, connect, expect_none_refused, header};
use crate::support::{Answer, Client, Stream, Transport};

const CLIENT: &str = "192.0.2.1";

fn start(args: &[&str]) -> Upgradable {
    let usual = ["--workers", "1", "--proxy-protocol-from", "127.0.0.2", "--coalesce", "0"];
    Upgradable::start_on(Transport::Http1, &[&usual[..], args].concat())
}

fn ask(server: &Upgradable, header: &[u8]) -> Answer {
    let mut client = connect(server);
    client.send_bytes(&[header, b"GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n"].concat());
    client.read_answer()
}

#[test]
fn a_connection_goes_on_wherever_its_header_is() {
    let mut server = start(&["--address-streams", "5"]);
    let (whole, local) = (header(CLIENT), LOCAL.to_vec());
    let mut waiting: Vec<(Client, &[u8])> = Vec::new();

    for (header, parts) in [(&whole, [0, 1, 16, 28]), (&local, [0, 1, 15, 16])] {
        for length in parts {
            let mut client = connect(&server);
            client.send_bytes(&header[..length]);
            waiting.push((client, &header[length..]));
        }
    }
    // One that has been served.
    let mut kept = connect(&server);
    kept.send_bytes(&[&whole[..], LIVEZ.as_bytes()].concat());
    assert_eq!(kept.read_answer().status(), 200);
    server.settle();
    server.upgrade();
    let mut streams: Vec<_> = waiting
        .into_iter()
        .map(|(mut client, rest)| {
            client.send_bytes(&[rest, STREAM.as_bytes()].concat());
            let head = client.read_head();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let mut stream = Stream { client, head };
            stream.connected();
            stream
        })
        .collect();
    kept.send(STREAM);
    let head = kept.read_head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // Each counts for the address that was named: four here, and the one that was kept.
    assert_eq!(ask(&server, &whole).status(), 503);
    assert_eq!(ask(&server, &header("192.0.2.2")).status(), 200);
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
    expect_none_refused(&server);
}

/// The peer of its socket is the proxy, which is not what it counts for.
#[test]
fn a_stream_counts_for_the_named_address_in_the_next_process() {
    let mut server = start(&["--address-connections", "2"]);
    let stream = |server: &Upgradable, client: &str| {
        let mut socket = connect(server);
        socket.send_bytes(&header(client));
        let mut stream = Stream::open(socket, "/api/acme/events", "");
        stream.connected();
        stream
    };
    let mut streams: Vec<_> =
        [CLIENT, CLIENT, "192.0.2.2"].map(|client| stream(&server, client)).into();
    server.upgrade();
    assert_eq!(ask(&server, &header(CLIENT)).status(), 503);
    streams.push(stream(&server, "192.0.2.2"));
    streams.push(stream(&server, "192.0.2.3"));
    let id = server.publish("acme", &["a"]).expect("subscribed");
    streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &["a"]));
}
