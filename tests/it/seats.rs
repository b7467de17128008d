//! A seat is freed however its connection dies. The count is read from the slabs themselves, and the
//! descriptors from the kernel.

use crate::support::{Server, Stream, Transport, eventually};

fn server(transport: Transport) -> Server {
    Server::start_on(transport, &["--coalesce", "0"])
}

/// Opens streams, lets them end in this way, and sees that nothing is left of them.
fn nothing_is_left(end: impl Fn(Vec<Stream>)) {
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

/// Streams that ended, for whatever reason.
fn closed(server: &Server) -> u64 {
    server.closed().values().sum()
}

#[test]
fn a_close_frees_the_seat_and_the_descriptor() {
    nothing_is_left(drop);
}

#[test]
fn a_reset_frees_the_seat_and_the_descriptor() {
    nothing_is_left(|streams| streams.into_iter().for_each(|stream| stream.client.reset()));
}

#[test]
fn a_half_close_frees_the_seat_and_the_descriptor() {
    nothing_is_left(|mut streams| {
        streams.iter().for_each(|stream| stream.client.half_close());
        // The server ends the connection, which we only close when it has.
        streams.iter_mut().for_each(|stream| _ = stream.client.read_to_end());
    });
}

/// Two causes at once: the client's farewell, and then its reset for what the server still wrote.
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
        // Some may still be on their way in: only together do the three say that all is over.
        eventually("every seat is free, and every stream that was opened is counted", || {
            let closed = closed(&server);
            server.seats() == 0 && closed == server.metric("nudged_streams_opened_total")
        });
    }
}

/// Requests before the stream on the same connection are answered first, in order.
#[test]
fn a_pipelined_stream_begins_after_the_answers_before_it() {
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
        // What came after the request of the stream must not hide that its client goes.
        stream.client.reset();
        if transport != Transport::Http1 {
            // hyper looks at the socket no more while it holds unread bytes; a write finds out.
            server.publish("acme", &["probe"]);
            server.publish("acme", &["probe"]);
        }
        eventually("the seat is free", || server.seats() == 0);
    }
}

/// Out of descriptors, the server keeps the streams it has, and accepts again once there is room.
#[test]
fn after_a_lack_of_descriptors_connections_are_accepted_again() {
    for transport in Transport::all() {
        let server = Server::start_with_files(
            80,
            transport,
            // More than there are descriptors for.
            &["--workers", "1", "--connections", "1000"],
        );
        let mut first = server.stream("acme");
        first.connected();
        // The kernel accepts these; the server cannot take all of them.
        let waiting: Vec<_> = (0..200).map(|_| server.connect()).collect();
        eventually("it has none left", || server.descriptors() >= 80);
        drop(waiting);
        let mut last = server.stream("acme");
        last.connected();
        let id = server.publish("acme", &["posts"]).expect("subscribed");
        first.expect_invalidate(&id, &["posts"]);
        last.expect_invalidate(&id, &["posts"]);
    }
}
