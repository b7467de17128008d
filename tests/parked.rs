//! What parked streams allocate, counted by the allocator itself: nothing for a delivery, and at most
//! one block for as long as a stream is open. Real sockets, in one process: the clients allocate nothing
//! while it is counted.

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
const GET: &[u8] = b"GET /api/acme/events HTTP/1.1\r\nhost: t\r\n\r\n";
const POST: &[u8] = b"POST /api/acme/events HTTP/1.1\r\nhost: t\r\n\
    content-type: application/json\r\ncontent-length: 14\r\n\r\n{\"keys\":[\"a\"]}";
/// How each event ends, in its chunk.
const EVENT_END: &[u8] = b"\n\n\r\n";

/// A server that runs for as long as its test does, with one worker.
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

/// Reads until what came ends so.
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

/// Publishes, and has everybody hear it. Returns how many allocations that took.
fn deliver(publisher: &mut TcpStream, streams: &mut [TcpStream]) -> usize {
    allocations(|| {
        publisher.write_all(POST).expect("it listens");
        read_until(publisher, b"}");
        streams.iter_mut().for_each(|stream| read_until(stream, EVENT_END));
    })
}

/// The least of some rounds: the history and what the runtime keeps grow in some of them.
fn least(publisher: &mut TcpStream, streams: &mut [TcpStream]) -> usize {
    (0..20).map(|_| deliver(publisher, streams)).min().expect("twenty")
}

/// One test, because the counters are the process's.
#[test]
fn a_parked_stream_allocates_nothing_while_it_is_served_and_leaves_at_most_a_block() {
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
        // After this publish was answered and delivered, what the connects left unfinished is done.
        let of_all = least(&mut publisher, &mut streams);
        println!("allocations of a publish to 1: {of_a_publish}, to {count}: {of_all}");
        assert!(of_all <= of_a_publish, "{count} deliveries took {}", of_all - of_a_publish);
        live.push(LIVE_BLOCKS.load(Relaxed));
    }
    let left = (live[1] as f64 - live[0] as f64) / 1_000.0;
    println!("blocks for each parked stream: {left:.3}");
    assert!(left <= 1.0, "{left} blocks a stream");
}
