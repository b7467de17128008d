//! `?exclusive`: the newest stream of a topic replaces the others.

use super::{JSON, RUN, expect_end, numbered, numbered_frame, publish};
use crate::bytes::Way;
use crate::support::http2_client::{End, Http2Client, code};
use crate::support::server::Signal;
use crate::support::{Client, Server, Stream, Transport, eventually};

/// What a stream that is replaced ends with.
const REPLACED: &str = "event: closed\ndata: {\"reason\":\"replaced\"}\n\n";

fn exclusive() -> String {
    format!("{RUN}?exclusive")
}

#[test]
fn the_newest_takes_the_place_of_the_others() {
    for way in Way::all() {
        let server = way.start(&[]);
        let first = publish(&server, RUN, &numbered(1));
        let mut streams = vec![way.open(&server, RUN), way.open(&server, RUN)];
        streams.iter_mut().for_each(|stream| _ = stream.connected());
        for query in ["?exclusive", "?exclusive=", "?exclusive=1", "?exclusive=true"] {
            let mut newest = way.open(&server, &format!("{RUN}{query}"));
            newest.connected();
            // Its greeting comes once the others are gone.
            assert_eq!(server.seats(), 1, "{way:?} {query}");
            for loser in &mut streams {
                assert_eq!(loser.next(), numbered_frame(&first, 1), "{way:?}");
                assert_eq!(loser.next(), REPLACED, "{way:?}");
                expect_end(loser);
            }
            streams = vec![newest];
            if query != "?exclusive=true" {
                // The next one joins, and is replaced with it.
                streams.insert(0, way.open(&server, RUN));
                streams[0].connected();
            }
        }
        assert_eq!(streams[0].next(), numbered_frame(&first, 1), "{way:?}");
        let live = publish(&server, RUN, &numbered(2));
        assert_eq!(streams[0].next(), numbered_frame(&live, 2), "{way:?}");
        let closed = server.closed();
        assert_eq!((closed.len(), closed.get("replaced")), (1, Some(&8)), "{way:?}: {closed:?}");
    }
}

/// Another topic, and the org's own streams, have nothing to do with it.
#[test]
fn only_streams_of_the_topic_are_turned_out() {
    for way in Way::all() {
        let server = way.start(&["--coalesce", "0"]);
        let paths = ["/api/acme/topics/run-8/events", "/api/other/topics/run-7/events"];
        let mut others = paths.map(|path| way.open(&server, path));
        others.iter_mut().for_each(|stream| _ = stream.connected());
        let mut org = way.open(&server, "/api/acme/events");
        org.connected();
        way.open(&server, &exclusive()).connected();
        for (path, stream) in paths.into_iter().zip(&mut others) {
            let id = publish(&server, path, &numbered(1));
            assert_eq!(stream.next(), numbered_frame(&id, 1), "{way:?}");
        }
        let id = server.publish("acme", &["a"]).expect("subscribed");
        org.expect_invalidate(&id, &["a"]);
    }
}

#[test]
fn without_it_no_stream_is_replaced() {
    for way in Way::all() {
        let server = way.start(&[]);
        let mut first = way.open(&server, &exclusive());
        first.connected();
        let mut others = ["?exclusive=0", "?exclusive=false", ""]
            .map(|query| way.open(&server, &format!("{RUN}{query}")));
        others.iter_mut().for_each(|stream| _ = stream.connected());
        // What HEAD shows is no stream.
        let mut client = server.connect();
        client.send(&format!("HEAD {} HTTP/1.1\r\nhost: test\r\n\r\n", exclusive()));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        // A request that is refused neither.
        for query in ["exclusive=yes", "exclusive&ping=x"] {
            assert_eq!(server.get(&format!("{RUN}?{query}")).status(), 400);
        }
        let id = publish(&server, RUN, &numbered(1));
        for stream in [&mut first].into_iter().chain(&mut others) {
            assert_eq!(stream.next(), numbered_frame(&id, 1), "{way:?}");
        }
        assert_eq!(server.closed().get("replaced"), None);
    }
}

#[test]
fn a_full_topic_lets_the_newest_in() {
    for way in Way::all() {
        let server = way.start(&["--topic-streams", "1"]);
        let mut loser = way.open(&server, RUN);
        loser.connected();
        assert_eq!(server.get(RUN).status(), 503, "{way:?}");
        way.open(&server, &exclusive()).connected();
        assert_eq!(loser.next(), REPLACED, "{way:?}");
        expect_end(&mut loser);
    }
}

/// A client whose stream has more to write than it takes, and one that has read all of it.
struct Stuck {
    server: Server,
    late: Late,
    reads: Stream,
}

/// A client that does not read.
enum Late {
    Http1(Stream),
    Http2(Http2Client, u32),
}

impl Stuck {
    /// Over HTTP/1 large events fill every buffer, see `stalled`; over HTTP/2 the window is shut soon.
    fn start(transport: Transport, more: &[&str]) -> Self {
        let flags = ["--topic-events", "200", "--topic-bytes", "20000000", "--peer-timeout", "10m"];
        let flags = [&flags[..], &["--workers", "1"], more].concat();
        let over_http2 = transport == Transport::H2c;
        let server =
            Server::start_on(if over_http2 { Transport::Http1 } else { transport }, &flags);
        let late = if over_http2 {
            let mut late = Http2Client::connect(server.address(), 1_000);
            let stream = late.get(RUN);
            late.event(stream);
            Late::Http2(late, stream)
        } else {
            let mut late = server.stream_with(RUN, "");
            late.connected();
            Late::Http1(late)
        };
        let mut reads = server.stream_with(RUN, "");
        reads.connected();
        let text = "x".repeat(60_000);
        let body = format!(r#"{{"event":"output","text":"{text}"}}"#);
        for _ in 0..if over_http2 { 4 } else { 120 } {
            let id = publish(&server, RUN, &body);
            let frame = format!("id: {id}\nevent: output\ndata: {text}\n\n");
            assert!(reads.next() == frame, "event {id}");
        }
        Self { server, late, reads }
    }

    /// Those that can be tested here.
    fn transports() -> impl Iterator<Item = Transport> {
        Transport::http1().chain([Transport::H2c])
    }

    /// The newest, which has to wait: the client that reads has had its end.
    fn wait(&mut self) -> Client {
        let mut newest = self.server.connect();
        let path = format!("{}&since=now", exclusive());
        newest.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert_eq!(self.reads.next(), REPLACED);
        expect_end(&mut self.reads);
        newest
    }
}

impl Late {
    /// What it has not received, it does not take for a whole stream.
    fn expect_reset(self) {
        match self {
            Self::Http1(mut stream) => {
                let rest = stream.client.try_read_to_end();
                assert!(!rest.is_ok_and(|rest| rest.ends_with(b"0\r\n\r\n")));
            }
            Self::Http2(mut client, stream) => {
                assert_eq!(client.end(stream).0, End::Reset(code::CANCEL));
            }
        }
    }
}

#[test]
fn one_that_does_not_read_is_cut_off() {
    for transport in Stuck::transports() {
        let mut stuck = Stuck::start(transport, &[]);
        let mut newest = stuck.wait();
        assert!(newest.read_head().starts_with("HTTP/1.1 200 "), "{transport:?}");
        newest.read_until(b"event: connected\n");
        let Stuck { server, late, .. } = stuck;
        assert_eq!(server.seats(), 1, "{transport:?}");
        let id = publish(&server, RUN, &numbered(1));
        newest.read_until(numbered_frame(&id, 1).as_bytes());
        late.expect_reset();
        let closed = server.closed();
        let expected = [("replaced", 1), ("stalled", 1)];
        let expected = expected.map(|(cause, count)| (cause.to_owned(), count)).into();
        assert_eq!(closed, expected, "{transport:?}");
    }
}

/// While the newest waits for one that does not read, it may go.
#[test]
fn the_newest_that_goes_while_it_waits_leaves_nothing_behind() {
    for transport in Stuck::transports() {
        let mut stuck = Stuck::start(transport, &[]);
        stuck.wait().reset();
        let Stuck { server, late, .. } = stuck;
        eventually("every seat is free", || server.seats() == 0);
        drop(late);
        eventually("every connection is closed", || server.metric("nudged_connections") == 1);
    }
}

/// And the server may stop.
#[test]
fn a_drain_ends_the_newest_that_waits() {
    for transport in Stuck::transports() {
        let mut stuck = Stuck::start(transport, &["--drain-window", "0"]);
        let mut newest = stuck.wait();
        stuck.server.signal(Signal::TERM);
        assert_eq!(stuck.server.wait(), Some(0), "{transport:?}");
        // A stream that ends at once, or, if it came too late for one, a refusal.
        let rest = newest.try_read_to_end().expect("an orderly end");
        assert!(rest.starts_with(b"HTTP/1.1 "), "{transport:?}");
    }
}

/// However they meet, one of them stays, and each of the others is replaced.
#[test]
fn of_many_that_come_at_once_one_stays() {
    for transport in Transport::all() {
        let server = Server::start_on(transport, &["--workers", "2"]);
        let mut clients: Vec<_> = (0..12).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(&format!("GET {} HTTP/1.1\r\nhost: test\r\n\r\n", exclusive()));
        }
        eventually("one is left", || {
            server.closed().get("replaced") == Some(&11) && server.seats() == 1
        });
        let id = publish(&server, RUN, r#"{"event":"last","data":1}"#);
        let ends = clients.into_iter().map(|mut client| {
            client.read_head();
            let chunks = [client.read_until(b"\n\n\r\n"), client.read_until(b"\n\n\r\n")];
            String::from_utf8(chunks.concat()).expect("UTF-8")
        });
        let lasts = ends.filter(|text| text.contains(&format!("id: {id}\n"))).count();
        assert_eq!(lasts, 1, "{transport:?}");
    }
}

/// A publish to a topic whose only stream is being replaced is not lost: it reaches the newest.
#[test]
fn the_newest_that_resumes_misses_nothing() {
    for way in Way::all() {
        let server = way.start(&[]);
        let mut stream = way.open(&server, &exclusive());
        let mut last = stream.connected();
        for n in 1..=10 {
            let answer = server.post(RUN, JSON, &numbered(n));
            assert_eq!(answer.status(), 202);
            let path = format!("{}&last_event_id={last}", exclusive());
            let mut newest = way.open(&server, &path);
            let (_, id, name) = newest.greeting();
            assert_eq!((&*name, &id), ("resumed", &last), "{way:?}");
            last = crate::support::after(&last, 1);
            assert_eq!(newest.next(), numbered_frame(&last, n), "{way:?}");
            stream = newest;
        }
        drop(stream);
    }
}
