//! Allocations of HTTP/1 streams over real sockets, counted by the allocator: none for a delivery, and at most
//! one block that an open stream holds. The clients run in the same process and allocate nothing during a count.

mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use counting::{LIVE_BLOCKS, allocations};
use nudged::config::{Config, HubConfig};
use nudged::server::Server;
use tokio::sync::oneshot;

const BOUND: Duration = Duration::from_secs(20);
const GET: &[u8] = b"GET /api/acme/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
const POST: &[u8] = b"POST /api/acme/events HTTP/1.1\r\nhost: localhost\r\n\
    content-type: application/json\r\ncontent-length: 14\r\n\r\n{\"keys\":[\"a\"]}";
/// How each event ends, in its chunk.
const EVENT_END: &[u8] = b"\n\n\r\n";

/// Starts a server with one worker, which stops when the sender is dropped.
fn start() -> (SocketAddr, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config {
        listen: vec![([127, 0, 0, 1], 0).into()],
        workers: 1,
        drain_delay: Duration::ZERO,
        hub: HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() },
        ..Config::default()
    };
    let server = Server::bind(config).expect("a free port");
    let address = server.addresses()[0].socket;
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(server.run(async { _ = stopped.await }))
    });
    (address, stop)
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

fn subscribe(address: SocketAddr) -> TcpStream {
    let mut socket = connect(address);
    socket.write_all(GET).expect("it listens");
    read_until(&mut socket, EVENT_END);
    socket
}

/// Publishes an event and reads it on every stream. Returns the number of allocations.
fn deliver(publisher: &mut TcpStream, streams: &mut [TcpStream]) -> usize {
    allocations(|| {
        publisher.write_all(POST).expect("it listens");
        read_until(publisher, b"}");
        streams.iter_mut().for_each(|stream| read_until(stream, EVENT_END));
    })
}

/// The lowest count of several rounds: in some of them the history or the runtime grows a buffer.
fn least(publisher: &mut TcpStream, streams: &mut [TcpStream]) -> usize {
    (0..20).map(|_| deliver(publisher, streams)).min().expect("twenty")
}

/// One test, because the counters cover the whole process.
#[test]
fn a_delivery_allocates_nothing_and_an_open_stream_holds_at_most_one_block() {
    rlimit::increase_nofile_limit(u64::MAX).expect("more files");
    let (address, _stop) = start();
    let mut publisher = connect(address);
    let mut streams = vec![subscribe(address)];
    let of_a_publish = least(&mut publisher, &mut streams);

    let mut live = Vec::new();
    for count in [200, 1_200] {
        streams.reserve_exact(count - streams.len());
        while streams.len() < count {
            streams.push(subscribe(address));
        }
        // Once this publish is delivered, the work of the new connections is finished.
        let of_all = least(&mut publisher, &mut streams);
        println!("allocations of a publish to 1: {of_a_publish}, to {count}: {of_all}");
        assert!(of_all <= of_a_publish, "{count} deliveries took {}", of_all - of_a_publish);
        live.push(LIVE_BLOCKS.load(Relaxed));
    }
    let left = (live[1] as f64 - live[0] as f64) / 1_000.0;
    println!("blocks for each open stream: {left:.3}");
    assert!(left <= 1.0, "{left} blocks a stream");
}
