//! Real faults, not mocks, each for many streams at once. After each the slabs are empty, the number of descriptors
//! is as before, and the metrics name the cause.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::programs::{HAPROXY, NGINX, requires};
use crate::support::proxy::{Proxy, RECOMMENDED};
use crate::support::server::Signal;
use crate::support::{Client, Server, Stream, Transport, eventually};

/// A fault and the causes that the metrics report.
struct Fault {
    /// More settings of the server.
    settings: &'static [&'static str],
    /// Number of streams that end for each cause.
    causes: &'static [(&'static str, u64)],
    /// Produces the fault, and returns what has to be kept until it is checked: dropping a half-closed socket would be
    /// another fault.
    produce: fn(&Server) -> Box<dyn Any>,
}

/// Number of streams that each fault affects.
const STREAMS: u64 = 50;

const REQUEST: &str = "GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n";
const ALL: u64 = STREAMS;

/// One test for each fault.
macro_rules! faults {
    ($($(#[$about:meta])* $name:ident $(, requires $program:ident)?:
        $settings:expr, $causes:expr, $produce:expr;)*) => {
        $($(#[$about])* #[test]
        fn $name() {
            $(requires!($program);)?
            Fault { settings: &$settings, causes: &$causes, produce: $produce }.check();
        })*
    };
}

faults! {
    a_close_counts_as_client: [], [("client", ALL)], |server| {
        drop(streams(server));
        done(())
    };

    a_reset_counts_as_reset: [], [("reset", ALL)], |server| {
        streams(server).into_iter().for_each(|stream| stream.client.reset());
        done(())
    };

    a_half_close_counts_as_client: [], [("client", ALL)], |server| {
        let streams = streams(server);
        streams.iter().for_each(|stream| stream.client.half_close());
        Box::new(streams)
    };

    /// The client's kernel closes the connections.
    a_killed_client_counts_as_client: [], [("client", ALL)], |server| {
        kill_a_client(server, true)
    };

    /// The client's kernel discards the unread bytes, and resets the connections.
    a_killed_client_with_unread_bytes_counts_as_reset: [], [("reset", ALL)], |server| {
        kill_a_client(server, false)
    };

    a_killed_nginx_counts_as_client, requires NGINX: [], [("client", ALL)], |server| {
        let proxy = Proxy::nginx(server, RECOMMENDED);
        let streams = through(&proxy, server);
        proxy.kill();
        Box::new((streams, proxy))
    };

    a_killed_haproxy_counts_as_client, requires HAPROXY: [], [("client", ALL)], |server| {
        let proxy = Proxy::haproxy(server, LONG_TIMEOUTS);
        let streams = through(&proxy, server);
        proxy.kill();
        Box::new((streams, proxy))
    };

    /// No keepalive within nginx's read timeout.
    an_idle_timeout_of_nginx_counts_as_client, requires NGINX: [], [("client", ALL)], |server| {
        let location = format!("{RECOMMENDED} proxy_read_timeout 4s;");
        let proxy = Proxy::nginx(server, &location);
        Box::new((through(&proxy, server), proxy))
    };

    an_idle_timeout_of_haproxy_counts_as_reset, requires HAPROXY: [], [("reset", ALL)], |server| {
        let timeouts = ["timeout connect 5s", "timeout client 1m", "timeout server 4s"];
        let proxy = Proxy::haproxy(server, &timeouts);
        Box::new((through(&proxy, server), proxy))
    };

    /// The client's kernel keeps acknowledging with a zero window.
    a_client_that_stops_reading_counts_as_timeout: LARGE, [("timeout", ALL)], |server| {
        let streams = streams(server);
        flood(server);
        Box::new(streams)
    };

    /// The same, where the stall timeout is shorter than the peer timeout.
    a_client_that_receives_nothing_counts_as_stalled: LARGE_WITH_STALL_TIMEOUT, [("stalled", ALL)], |server| {
        let streams = streams(server);
        flood(server);
        Box::new(streams)
    };

    /// The first may have ended before the last is open.
    a_stream_at_its_maximum_age_counts_as_max_age: ["--max-stream-age", "2s"], [("max_age", ALL)], |server| {
        Box::new(opened(|| server.stream("acme")))
    };

    an_interrupted_publish_harms_no_subscriber: [], [("client", 1)], |server| {
        let mut subscriber = server.stream("acme");
        subscriber.connected();
        for n in 0..STREAMS {
            let mut client = server.connect();
            client.send(
                "POST /api/acme/events HTTP/1.1\r\nhost: test\r\n\
                 content-type: application/json\r\ncontent-length: 15\r\n\r\n{\"keys\":[\"a\"",
            );
            if n % 2 == 0 {
                client.reset();
            }
        }
        let whole = server.publish("acme", &["whole"]).expect("subscribed");
        subscriber.expect_invalidate(&whole, &["whole"]);
        done(())
    };

    /// Open streams are served; new connections are accepted once descriptors are free.
    a_lack_of_descriptors_harms_no_open_stream: ["--workers", "1"], [("client", ALL + 1)], |server| {
        let mut streams = streams(server);
        let mut publisher = server.connect();
        publisher.send(LIVEZ);
        publisher.read_answer();
        let files = server.descriptors() + 4;
        allow_files(server, files);
        // The kernel accepts these; the server cannot accept all of them.
        let waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
        eventually("no descriptor is left", || server.descriptors() >= files);
        publisher.send(
            "POST /api/acme/events HTTP/1.1\r\nhost: test\r\n\
             content-type: application/json\r\ncontent-length: 14\r\n\r\n{\"keys\":[\"a\"]}",
        );
        assert_eq!(publisher.read_answer().status(), 202);
        streams.iter_mut().for_each(|stream| assert!(stream.next().contains("[\"a\"]")));
        drop(waiting);
        server.stream("acme").connected();
        drop(streams);
        done(())
    };
}

/// Either cause may be counted: it depends on how far the server has got when the client aborts.
#[test]
fn an_aborted_request_counts_as_client_or_reset() {
    for transport in Transport::http1() {
        let server = Server::start_on(transport, &[]);
        let descriptors = server.descriptors_at_rest();
        for n in 0..2 * STREAMS {
            let mut client = server.connect();
            client.send(REQUEST);
            if n % 2 == 0 {
                client.reset();
            }
        }
        // The server may have seen none of these in time, so another waits for its stream.
        let mut last = server.connect();
        last.send(REQUEST);
        eventually("a request has opened a stream", || server.metric(OPENED) > WARM);
        drop(last);
        assert_nothing_is_left(&server, descriptors);
        let closed = server.closed();
        assert_eq!(closed.values().sum::<u64>(), server.metric(OPENED), "{closed:?}");
        let known = ["client", "reset"];
        assert!(closed.keys().all(|cause| known.contains(&cause.as_str())), "{closed:?}");
    }
}

/// A draining server accepts no connection, so the request for the metrics begins before the drain.
#[test]
fn a_drained_stream_counts_as_drained() {
    for transport in Transport::http1() {
        let mut server = Server::start_on(transport, &["--workers", "1", "--drain-window", "0"]);
        let streams = streams(&server);
        let mut operator = server.connect();
        operator.send("GET /metrics HTTP/1.1\r\nhost: test\r\n");
        server.settle();
        server.signal(Signal::TERM);
        streams.into_iter().for_each(|mut stream| _ = stream.farewell());
        operator.send("\r\n");
        let metrics = operator.read_answer().body;
        let drained = format!("nudged_streams_closed_total{{reason=\"drained\"}} {ALL}\n");
        assert!(metrics.contains(&drained), "{transport:?}: {metrics}");
        assert!(metrics.contains("nudged_seats 0\n"), "{transport:?}: {metrics}");
        assert_eq!(server.wait(), Some(0));
    }
}

const LONG_TIMEOUTS: &[&str] = &["timeout connect 5s", "timeout client 1m", "timeout server 1m"];

/// Events larger than the socket buffers, and a short peer timeout for connections that are not read.
#[rustfmt::skip]
const LARGE: [&str; 8] = [
    "--publish-bytes", "2000000", "--key-bytes", "65536", "--keys", "16", "--peer-timeout", "1s",
];

#[rustfmt::skip]
const LARGE_WITH_STALL_TIMEOUT: [&str; 10] = [
    "--publish-bytes", "2000000", "--key-bytes", "65536", "--keys", "16", "--peer-timeout", "10m",
    "--stall-timeout", "1s",
];

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: test\r\n\r\n";
const OPENED: &str = "nudged_streams_opened_total";
/// Streams of `Server::descriptors_at_rest`.
const WARM: u64 = 32;

// ===== impl Fault =====

impl Fault {
    fn check(&self) {
        for transport in Transport::http1() {
            let server =
                Server::start_on(transport, &[&["--coalesce", "0"][..], self.settings].concat());
            let descriptors = server.descriptors_at_rest();
            let before = server.closed();
            let held = (self.produce)(&server);
            assert_nothing_is_left(&server, descriptors);
            let closed = since(&before, server.closed());
            let causes = self.causes.iter().map(|(cause, n)| ((*cause).to_owned(), *n));
            let causes: BTreeMap<_, _> = causes.collect();
            assert_eq!(closed, causes, "{transport:?}");
            drop(held);
        }
    }
}

/// The increase since `before`.
fn since(before: &BTreeMap<String, u64>, now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = now.into_iter().map(|(cause, n)| {
        let n = n - before.get(&cause).unwrap_or(&0);
        (cause, n)
    });
    more.filter(|(_, n)| *n > 0).collect()
}

fn assert_nothing_is_left(server: &Server, descriptors: usize) {
    eventually("every seat is free", || server.seats() == 0);
    eventually("every descriptor is closed", || server.descriptors() <= descriptors);
}

fn done(held: impl Any) -> Box<dyn Any> {
    Box::new(held)
}

fn streams(server: &Server) -> Vec<Stream> {
    open(server, || server.stream("acme"))
}

fn through(proxy: &Proxy, server: &Server) -> Vec<Stream> {
    open(server, || proxy.stream())
}

fn open(server: &Server, stream: impl Fn() -> Stream) -> Vec<Stream> {
    let streams = opened(stream);
    assert_eq!(server.seats(), STREAMS);
    streams
}

fn opened(stream: impl Fn() -> Stream) -> Vec<Stream> {
    let mut streams: Vec<_> = (0..STREAMS).map(|_| stream()).collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    streams
}

/// Publishes more than the buffers between the server and a client that does not read.
fn flood(server: &Server) {
    for n in 0..4 {
        let keys: Vec<_> = (0..16).map(|k| format!("{n}-{k}-{}", "x".repeat(20_000))).collect();
        server.publish("acme", &keys.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Sets `RLIMIT_NOFILE` of the running server.
fn allow_files(server: &Server, files: usize) {
    let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).expect("a process");
    let limit = Rlimit { current: Some(files as u64), maximum: Some(files as u64) };
    prlimit(Some(pid), Resource::Nofile, limit).expect("our child");
}

/// Opens the streams in another process, and kills it with SIGKILL.
fn kill_a_client(server: &Server, reads: bool) -> Box<dyn Any> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "faults::the_process_of_a_client", "--ignored", "--nocapture"])
        .env(ADDRESS, server.address().to_string())
        .env(READS, if reads { "yes" } else { "no" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test as a program");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    assert!(lines.any(|line| line.ends_with("has its streams")), "the client ended at its start");
    eventually("every stream has its seat", || server.seats() == STREAMS);
    if !reads {
        server.publish("acme", &["unread"]);
        let delivered = || server.metric("nudged_events_delivered_total");
        eventually("every stream has unread bytes", || delivered() == STREAMS);
    }
    child.kill().expect("our child");
    child.wait().expect("our child");
    done(())
}

const ADDRESS: &str = "FAULTS_ADDRESS";
const READS: &str = "FAULTS_READS";

#[test]
#[ignore = "the client process that other tests of this file kill"]
fn the_process_of_a_client() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let address = address.parse().expect("an address");
    let mut clients: Vec<_> = (0..STREAMS).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.send(REQUEST));
    if std::env::var(READS).is_ok_and(|reads| reads == "yes") {
        clients.iter_mut().for_each(|client| _ = client.read_until(b"}\n\n\r\n"));
    }
    println!("{} has its streams", std::process::id());
    std::io::stdout().flush().expect("a pipe");
    // Until it is killed, or the process that started it has ended.
    _ = std::io::stdin().read(&mut [0]);
}
