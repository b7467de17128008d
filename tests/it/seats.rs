//! A seat is freed however its connection ends. Seats are counted in the slabs themselves, and descriptors by the
//! kernel.

use crate::support::{Server, Stream, Transport, eventually};

fn server(transport: Transport) -> Server {
    Server::start_on(transport, &["--coalesce", "0"])
}

/// Opens streams, ends them with `end`, and checks that nothing of them is left.
fn assert_nothing_is_left(end: impl Fn(Vec<Stream>)) {
    for transport in Transport::all() {
        let server = server(transport);
        let before = server.descriptors_at_rest();
        let earlier = closed(&server);

        let streams = server.streams("acme", 200);
        assert_eq!(server.seats(), 200);
        end(streams);
        eventually("every seat is free", || server.seats() == 0);
        eventually("every descriptor is closed", || server.descriptors() <= before);
        assert_eq!(closed(&server), earlier + 200, "each is freed once");
        assert_eq!(server.metric("nudged_streams_open{kind=\"member\"}"), 0);
    }
}

/// Streams that ended, for any reason.
fn closed(server: &Server) -> u64 {
    server.closed().values().sum()
}

#[test]
fn a_close_frees_the_seat_and_the_descriptor() {
    assert_nothing_is_left(drop);
}

#[test]
fn a_reset_frees_the_seat_and_the_descriptor() {
    assert_nothing_is_left(|streams| streams.into_iter().for_each(|stream| stream.client.reset()));
}

#[test]
fn a_half_close_frees_the_seat_and_the_descriptor() {
    assert_nothing_is_left(|mut streams| {
        streams.iter().for_each(|stream| stream.client.half_close());
        // The client closes the connection only once the server has ended it.
        streams.iter_mut().for_each(|stream| _ = stream.client.read_to_end());
    });
}

/// The two causes are the client's half-close, and then its reset in response to what the server still wrote.
#[test]
fn a_seat_is_freed_once_for_two_causes_at_once() {
    for transport in Transport::all() {
        let server = server(transport);
        let streams = server.streams("acme", 50);
        streams.iter().for_each(|stream| stream.client.half_close());
        server.publish("acme", &["while-closing"]);
        streams.into_iter().for_each(|stream| stream.client.reset());
        eventually("every seat is free", || server.seats() == 0);
        assert_eq!(closed(&server), 50);
    }
}

#[test]
fn a_request_aborted_before_its_stream_leaves_no_seat() {
    for transport in Transport::all() {
        let server = server(transport);
        for n in 0..100 {
            let mut client = server.connect();
            let request = "GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n";
            client.send(&request[..request.len() - n % 3]);
            client.reset();
        }
        // Some may not have been accepted yet; only the three numbers together show that all have ended.
        eventually("every seat is free, and every stream that was opened is counted", || {
            let closed = closed(&server);
            server.seats() == 0 && closed == server.metric("nudged_streams_opened_total")
        });
    }
}

/// Earlier requests on the same connection are responded to first, in order.
#[test]
fn a_pipelined_stream_begins_after_the_earlier_responses() {
    for transport in Transport::all() {
        let server = server(transport);
        let mut client = server.connect();
        let livez = "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
        let stream = "GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n";
        client.send(&format!("{livez}{livez}{stream}{livez}"));
        assert_eq!(client.read_answer().body, "live\n");
        assert_eq!(client.read_answer().body, "live\n");
        let head = client.read_head();
        let mut stream = Stream { client, head };
        stream.connected();
        let id = server.publish("acme", &["posts"]).expect("subscribed");
        stream.expect_invalidate(&id, &["posts"]);
        // Bytes after the request of the stream must not hide that its client disconnects.
        stream.client.reset();
        if transport != Transport::Http1 {
            // hyper does not read the socket while it holds unparsed bytes; a write detects the reset.
            server.publish("acme", &["probe"]);
            server.publish("acme", &["probe"]);
        }
        eventually("the seat is free", || server.seats() == 0);
    }
}

/// Without a free descriptor the server keeps its streams; it accepts again once there is one.
#[test]
fn connections_are_accepted_again_after_a_lack_of_descriptors() {
    for transport in Transport::all() {
        let server = Server::start_with_files(
            80,
            transport,
            // More than there are descriptors for.
            &["--workers", "1", "--connections", "1000"],
        );
        let mut first = server.stream("acme");
        first.connected();
        // The kernel accepts these; the server cannot accept all of them.
        let waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
        eventually("no descriptor is left", || server.descriptors() >= 80);
        drop(waiting);
        let mut last = server.stream("acme");
        last.connected();
        let id = server.publish("acme", &["posts"]).expect("subscribed");
        first.expect_invalidate(&id, &["posts"]);
        last.expect_invalidate(&id, &["posts"]);
    }
}
