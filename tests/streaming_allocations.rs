//! Allocations of streams over real sockets, counted by the allocator. HTTP/1: none for a delivery, in cleartext or behind
//! TLS, no block that an open stream holds, behind TLS three, and a bounded number of bytes. HTTP/2: a bounded number of
//! bytes that an open stream holds. The clients run in the same process and allocate nothing during a count.

mod counting;
#[path = "counting/http2.rs"]
mod http2;
#[cfg(feature = "tls")]
#[path = "counting/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use counting::{LIVE_BLOCKS, LIVE_BYTES, allocations};
use nudged::config::{Config, HubConfig};
use nudged::server::Server;
use tokio::sync::oneshot;

const BOUND: Duration = Duration::from_secs(20);

/// A power of two, so that the slabs are full.
const STREAMS: usize = 2_048;

/// The most that an open stream in cleartext may hold, in bytes: its slot, its seat, its entry in the wheel, whose lists
/// grow by a quarter, and 8 for its share of what all streams have in common. With 8 bytes more in any of them it fails.
const STREAM_BYTES: f64 = 80.0 + 48.0 + 1.25 * 24.0 + 8.0;

/// The most blocks of memory for each open stream. It has none of its own: all streams are in the same few.
const STREAM_BLOCKS: f64 = 0.1;

/// What is streamed, and a publish of it.
struct Kind {
    stream: &'static str,
    publish: &'static str,
    media_type: &'static str,
    body: &'static str,
    /// How the last event ends of a publish, in its chunk.
    last: &'static [u8],
}

const KEYS: Kind = Kind {
    stream: "/api/acme/events",
    publish: "/api/acme/events",
    media_type: "application/json",
    body: r#"{"keys":["a"]}"#,
    last: EVENT_END,
};

/// Several events at once, of both classes.
const TOPIC: Kind = Kind {
    stream: "/api/acme/topics/run-1/events?since=now",
    publish: "/api/events",
    media_type: "application/x-ndjson",
    body: concat!(
        r#"{"org":"acme","topic":"run-1","event":"output","data":{"n":1}}"#,
        "\n",
        r#"{"org":"acme","topic":"run-1","event":"output","text":"two\nlines","bulk":true}"#,
        "\n",
        r#"{"org":"acme","topic":"run-1","event":"output","data":"last"}"#,
    ),
    last: b"data: \"last\"\n\n\r\n",
};

/// How each event ends, in its chunk.
const EVENT_END: &[u8] = b"\n\n\r\n";

/// Starts a server with one worker, which stops when the sender is dropped.
fn start() -> (SocketAddr, oneshot::Sender<()>) {
    let (addresses, stop) = serve(Config::default());
    (addresses[0], stop)
}

/// The same with these settings, beside those of these tests. Returns its addresses.
fn serve(config: Config) -> (Vec<SocketAddr>, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config {
        listen: vec![([127, 0, 0, 1], 0).into()],
        workers: 1,
        drain_delay: Duration::ZERO,
        // The first round of publishes fills what is kept of them.
        hub: HubConfig {
            coalesce: Duration::ZERO,
            history_events: 8,
            topic_events: 8,
            ..HubConfig::default()
        },
        ..config
    };
    let server = Server::bind(config).expect("a free port");
    let addresses = server
        .addresses()
        .iter()
        .map(|address| address.endpoint.tcp().expect("an address"))
        .collect();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(server.run(async { _ = stopped.await }))
    });
    (addresses, stop)
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(BOUND)).expect("a socket");
    socket
}

/// Reads until the bytes received end with `end`.
fn read_until(socket: &mut TcpStream, end: &[u8]) {
    let (mut buffer, mut length) = ([0; 4096], 0);
    while !buffer[..length].ends_with(end) {
        let read = socket.read(&mut buffer[length..]).expect("more, in time");
        assert_ne!(read, 0, "the connection ended");
        length += read;
    }
}

fn subscribe(address: SocketAddr, kind: &Kind) -> TcpStream {
    let mut socket = connect(address);
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", kind.stream);
    socket.write_all(request.as_bytes()).expect("it listens");
    read_until(&mut socket, EVENT_END);
    socket
}

fn post(kind: &Kind) -> String {
    let Kind { publish, media_type, body, .. } = kind;
    format!(
        "POST {publish} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media_type}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Publishes, and reads up to the last event on every stream. Returns the number of allocations.
fn deliver(publisher: &mut TcpStream, post: &str, streams: &mut [TcpStream], last: &[u8]) -> usize {
    allocations(|| {
        publisher.write_all(post.as_bytes()).expect("it listens");
        read_until(publisher, b"}");
        streams.iter_mut().for_each(|stream| read_until(stream, last));
    })
}

/// The lowest count of several rounds: in some of them the history or the runtime grows a buffer.
fn least(kind: &Kind, publisher: &mut TcpStream, streams: &mut [TcpStream]) -> usize {
    let post = post(kind);
    (0..20).map(|_| deliver(publisher, &post, streams, kind.last)).min().expect("twenty")
}

/// One test, because the counters cover the whole process.
#[test]
fn a_delivery_allocates_nothing_and_an_open_stream_holds_a_bounded_part_of_few_blocks() {
    rlimit::increase_nofile_limit(u64::MAX).expect("more files");
    // First: nothing is freed meanwhile that another test has left.
    http2::is_bounded();
    let (address, _stop) = start();
    let bytes = check(address, &KEYS);
    assert!(bytes <= STREAM_BYTES, "{bytes} bytes a stream");
    // The memory of those streams is given back meanwhile, so the bytes of these are not known.
    check(address, &TOPIC);
    #[cfg(feature = "tls")]
    tls::check();
}

/// Returns the bytes that an open stream holds.
fn check(address: SocketAddr, kind: &Kind) -> f64 {
    let mut publisher = connect(address);
    let mut streams = vec![subscribe(address, kind)];
    let of_a_publish = least(kind, &mut publisher, &mut streams);

    let mut live = Vec::new();
    for count in [STREAMS / 8, STREAMS] {
        streams.reserve_exact(count - streams.len());
        while streams.len() < count {
            streams.push(subscribe(address, kind));
        }
        // Once this publish is delivered, the work of the new connections is finished.
        let of_all = least(kind, &mut publisher, &mut streams);
        let path = kind.stream;
        println!("{path}: allocations of a publish to 1: {of_a_publish}, to {count}: {of_all}");
        assert!(of_all <= of_a_publish, "{count} deliveries took {}", of_all - of_a_publish);
        live.push([&LIVE_BLOCKS, &LIVE_BYTES].map(|live| live.load(Relaxed) as f64));
    }
    let of_each = |n: usize| (live[1][n] - live[0][n]) / (STREAMS - STREAMS / 8) as f64;
    let (blocks, bytes) = (of_each(0), of_each(1));
    println!("{}: {bytes:.1} bytes in {blocks:.3} blocks for each open stream", kind.stream);
    assert!(blocks <= STREAM_BLOCKS, "{blocks} blocks a stream");
    bytes
}
