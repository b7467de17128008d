//! The reactor on real sockets, with a driver that the tests run step by step, so that nothing depends on time.

mod ends;
#[cfg(feature = "tls")]
mod handshakes;
mod headers;
mod input;
#[cfg(feature = "tls")]
mod sealed;
mod stalls;
mod topics;
#[cfg(target_os = "linux")]
mod upgrade;
mod waiting;
mod writes;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::sync::watch;
use tokio::task::yield_now;

use super::Reactor;
use super::handle::Handle;
use super::transport::Transport;
use crate::admission::{Admission, ConnPermit};
use crate::config::{Config, HubConfig};
use crate::http::{App, Fields, Handoff, ServiceFactory};
use crate::hub::{Deadline, Hub, Keys, View};
use crate::ids::OrgName;
use crate::metrics::{CloseReason, read};
use crate::server::conn_context::ConnContext;
use crate::stream::{Clock, Driver, EventStream};
use crate::wire::{Event, Parser};

/// A hub, its driver, and a reactor.
struct Rig {
    hub: Hub,
    clock: Clock,
    handle: Handle,
    driver: Driver<Reactor>,
    admission: Admission,
    org: OrgName,
    context: ConnContext,
    /// Open for as long as the worker does not drain.
    _draining: watch::Sender<bool>,
}

/// A socket in whose place this takes bytes, so that neither what it takes nor when depends on the kernel. Counts the
/// bytes that are read from it.
#[derive(Debug)]
pub(crate) struct Metered {
    pub(super) socket: mio::net::TcpStream,
    meter: Meter,
    read: Arc<AtomicUsize>,
}

/// What counts the bytes that were taken.
#[derive(Debug)]
enum Meter {
    /// So many more are taken, and thrown away.
    Room(Arc<AtomicUsize>),
    /// Those that the socket takes, which are added up here.
    Socket(Arc<AtomicUsize>),
}

/// The client's end of a stream.
pub(super) struct Client {
    socket: TcpStream,
    /// The body so far, its chunk framing checked and removed.
    unframed: Unframer,
    parser: Parser,
    events: Vec<Event>,
}

/// Parses the HTTP/1.1 head and the chunk framing strictly.
#[derive(Default)]
struct Unframer {
    raw: Vec<u8>,
    head: Option<String>,
    ended: bool,
}

// ===== impl Rig =====

impl Rig {
    fn new(hub: HubConfig) -> Self {
        Self::with(Config { hub, ..Config::default() })
    }

    fn with(config: Config) -> Self {
        let (hub, clock) = (Hub::new(config.hub.clone()), Clock::start());
        Self::on(hub, config, clock)
    }

    fn on(hub: Hub, config: Config, clock: Clock) -> Self {
        let (context, admission, draining) = context_with(config, &hub, clock);
        let handle = context.reactor.clone();
        let reactor = Reactor::new(context.clone()).expect("a poller").beside(draining.clone());
        let driver = Driver::new(hub.clone(), clock, reactor);
        let org = "acme".parse().expect("a name");
        Self { hub, clock, handle, driver, admission, org, context, _draining: draining }
    }

    fn open(&self) -> EventStream {
        let (hub, now) = (&self.hub, self.clock.now());
        EventStream::open(hub, &self.org, View::Member, None, now).expect("not closing")
    }

    /// Opens a stream in the reactor on a new connection, which is soon full. Returns the client's end of it.
    async fn begin(&mut self, stream: EventStream) -> Client {
        self.begin_on(narrow_pair(), stream).await
    }

    async fn begin_on(
        &mut self,
        (server, client): (TcpStream, Client),
        stream: EventStream,
    ) -> Client {
        self.arrive(server, stream, 0);
        self.run().await;
        client
    }

    /// Hands a stream to the reactor. Its client has sent `surplus` bytes after the request.
    fn arrive(&self, server: TcpStream, stream: EventStream, surplus: usize) {
        self.hand_off(Transport::Plain(watched(server)), stream, surplus);
    }

    fn hand_off(&self, transport: Transport, stream: EventStream, surplus: usize) {
        let (fields, permit) = (Fields::default(), ConnPermit::default());
        let handoff = Handoff { stream, chunked: true, fields, surplus, permit };
        self.handle.hand_off(transport, handoff);
    }

    fn publish(&self, key: &str) {
        let keys = Keys::new([key], self.hub.config()).expect("within the limits");
        self.hub.publish(&self.org, &keys, self.clock.now());
    }

    /// Runs the driver until `done`, within a bound. The kernel needs a moment to deliver bytes, so the poller is
    /// polled repeatedly.
    async fn run_until(&mut self, mut done: impl FnMut() -> bool) {
        for _ in 0..20_000 {
            self.run().await;
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("not done within twenty seconds");
    }

    async fn run(&mut self) {
        while self.driver.turn() {}
        // The runtime polls its own poller, which reports the readiness of the reactor's.
        yield_now().await;
        while self.driver.turn() {}
    }

    fn closed(&self, reason: CloseReason) -> u64 {
        self.hub.counters().map(|c| read(&c.closed[0][reason as usize])).sum()
    }
}

/// The shared state of the connections of a worker with this hub.
fn context(hub: &Hub, clock: Clock) -> (ConnContext, Admission, watch::Sender<bool>) {
    context_with(Config::default(), hub, clock)
}

fn context_with(
    config: Config,
    hub: &Hub,
    clock: Clock,
) -> (ConnContext, Admission, watch::Sender<bool>) {
    // The clients name any host.
    let config = Config { insecure_open: true, ..config };
    let admission = Admission::new(&config, 1_024);
    let app = Arc::new(App::new(config, hub.clone(), clock, admission.clone()));
    let factory = ServiceFactory::new(app, hub.clone());
    let (sender, draining) = watch::channel(false);
    (ConnContext { factory, reactor: Handle::new(hub.clone()), draining }, admission, sender)
}

/// Two ends of a connection with buffers as small as the kernel makes them.
pub(super) fn narrow_pair() -> (TcpStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    SockRef::from(&listener).set_send_buffer_size(1).expect("inherited by the accepted socket");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(1).expect("before connecting, to bound the window");
    // With the 64 KiB segments of loopback, so small a window would, once closed, reopen only by a timer.
    socket.set_tcp_mss(536).expect("before connecting");
    socket.connect(&listener.local_addr().expect("bound").into()).expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    (server, Client::new(socket.into()))
}

/// Two ends of a connection whose buffers hold more than a test writes: whatever is written is taken at once.
pub(super) fn wide_pair() -> (TcpStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (server, _) = listener.accept().expect("accepted");
    (server, Client::new(client))
}

/// A socket as the reactor takes it.
fn watched(socket: TcpStream) -> mio::net::TcpStream {
    socket.set_nonblocking(true).expect("a socket");
    mio::net::TcpStream::from_std(socket)
}

/// Writes until the socket is full, and returns the number of bytes. The kernel may still make room for more.
fn fill(mut server: &TcpStream) -> usize {
    server.set_nonblocking(true).expect("a socket");
    std::iter::from_fn(|| server.write(&[b'x'; 512]).ok()).sum()
}

// ===== impl Metered =====

impl Metered {
    /// A transport that takes so many bytes.
    pub(super) fn with_room(room: &Arc<AtomicUsize>) -> Transport {
        let (socket, _client) = narrow_pair();
        let (socket, meter) = (watched(socket), Meter::Room(room.clone()));
        Transport::Metered(Box::new(Self { socket, meter, read: Arc::default() }))
    }

    /// A socket in whose place everything is taken, and whose bytes are counted as they are read.
    pub(super) fn reading(socket: TcpStream, read: &Arc<AtomicUsize>) -> Transport {
        let (socket, room) = (watched(socket), Arc::new(AtomicUsize::new(usize::MAX)));
        Transport::Metered(Box::new(Self { socket, meter: Meter::Room(room), read: read.clone() }))
    }

    /// A socket whose bytes are counted as it takes them.
    pub(super) fn counted(socket: TcpStream, taken: &Arc<AtomicUsize>) -> Transport {
        let (socket, meter) = (watched(socket), Meter::Socket(taken.clone()));
        Transport::Metered(Box::new(Self { socket, meter, read: Arc::default() }))
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &self.meter {
            Meter::Room(room) => {
                let taken = bytes.len().min(room.load(Relaxed));
                if taken == 0 && !bytes.is_empty() {
                    return Err(std::io::ErrorKind::WouldBlock.into());
                }
                room.fetch_sub(taken, Relaxed);
                Ok(taken)
            }
            Meter::Socket(taken) => {
                let written = self.socket.write(bytes)?;
                taken.fetch_add(written, Relaxed);
                Ok(written)
            }
        }
    }

    pub(super) fn discard(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.socket.read(bytes)?;
        self.read.fetch_add(read, Relaxed);
        Ok(read)
    }
}

// ===== impl Client =====

impl Client {
    fn new(socket: TcpStream) -> Self {
        socket.set_nonblocking(true).expect("a socket");
        Self {
            socket,
            unframed: Unframer::default(),
            parser: Parser::default(),
            events: Vec::new(),
        }
    }

    /// Reads up to `most` available bytes.
    fn read(&mut self, most: usize) -> usize {
        let mut buf = vec![0; most];
        let mut read = 0;
        while read < most
            && let Ok(n @ 1..) = self.socket.read(&mut buf[read..])
        {
            read += n;
        }
        self.receive(&buf[..read]);
        read
    }

    /// These bytes of the response have arrived.
    fn receive(&mut self, bytes: &[u8]) {
        self.unframed.raw.extend_from_slice(bytes);
        for chunk in self.unframed.chunks() {
            self.parser.push(&chunk, |event| self.events.push(event)).expect("small events");
        }
    }

    /// Reads `len` bytes that were written before the stream.
    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.set_nonblocking(false).expect("a socket");
        self.socket.read_exact(&mut bytes).expect("bytes from before the stream");
        self.socket.set_nonblocking(true).expect("a socket");
        bytes
    }

    fn keys(&self) -> Vec<&str> {
        let invalidations = self.events.iter().filter(|event| event.name == "invalidate");
        invalidations
            .map(|event| &event.data[r#"{"keys":[""#.len()..event.data.len() - 3])
            .collect()
    }
}

impl Unframer {
    fn chunks(&mut self) -> Vec<Vec<u8>> {
        if self.head.is_none() {
            let Some(end) = self.raw.windows(4).position(|w| w == b"\r\n\r\n") else {
                return vec![];
            };
            let head = self.raw.drain(..end + 4).collect();
            self.head = Some(String::from_utf8(head).expect("ASCII"));
        }
        let mut chunks = Vec::new();
        while let Some(line) = self.raw.windows(2).position(|w| w == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..line]).expect("ASCII");
            assert!(size == "0" || size.starts_with(|digit| digit != '0'), "{size:?}");
            let size = usize::from_str_radix(size, 16).expect("hexadecimal");
            if self.raw.len() < line + 2 + size + 2 {
                break;
            }
            let chunk: Vec<u8> = self.raw.drain(..line + 2 + size + 2).skip(line + 2).collect();
            let data = chunk.strip_suffix(b"\r\n").expect("CRLF after the chunk");
            assert!(!self.ended, "a chunk after the last one");
            self.ended = data.is_empty();
            chunks.push(data.to_vec());
        }
        chunks
    }
}

fn uncoalesced(history_events: usize) -> HubConfig {
    let key_bytes_max = 1 << 20;
    HubConfig {
        coalesce: Duration::ZERO,
        history_events,
        key_bytes_max,
        event_bytes_max: 2 * key_bytes_max,
        ..HubConfig::default()
    }
}
