//! Heartbeats in hyper: clients that do not read, and clients that go.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nudged::stream::{Heartbeat, Pulse};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::support::BOUND;
use crate::wire::decoders::HttpxSse;

const PERIOD: Duration = Duration::from_secs(15);

/// Each event of a source.
const EVENT_LEN: usize = 16 << 10;

/// More of them than all buffers on the way hold.
const MANY: usize = 1_000;

/// A stream of so many events, which is silent then and does not end.
struct Source {
    left: usize,
    /// Counts the polls. Alive for as long as the body.
    polls: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    Http1,
    Http2,
}

// ===== impl Source =====

fn source(events: usize) -> (Source, Weak<AtomicUsize>) {
    let polls = Arc::new(AtomicUsize::new(0));
    let alive = Arc::downgrade(&polls);
    (Source { left: events, polls }, alive)
}

fn polls(source: &Weak<AtomicUsize>) -> usize {
    source.upgrade().expect("it is not dropped").load(SeqCst)
}

impl Body for Source {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.polls.fetch_add(1, SeqCst);
        let Some(left) = self.left.checked_sub(1) else { return Poll::Pending };
        self.left = left;
        let mut event = vec![b'x'; EVENT_LEN];
        event[..6].copy_from_slice(b"data: ");
        event[EVENT_LEN - 2..].copy_from_slice(b"\n\n");
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

// ===== a server and a client =====

trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for S {}

/// Serves one connection, with one response.
async fn serve(socket: impl Socket, version: Version, source: Source, pulse: Pulse) {
    let source = Mutex::new(Some(source));
    let service = service_fn(move |_: Request<Incoming>| {
        let source = source.lock().expect("no panic").take().expect("one request");
        let response = Response::builder().header("content-type", "text/event-stream");
        let response = Heartbeat::around(response.body(source).expect("a response"), &pulse);
        async { Ok::<_, Infallible>(response) }
    });
    let socket = TokioIo::new(socket);
    _ = match version {
        Version::Http1 => {
            server::conn::http1::Builder::new().serve_connection(socket, service).await
        }
        Version::Http2 => {
            let server = server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(socket, service).await
        }
    };
}

/// Requests the stream. Its connection ends with the task.
async fn get(socket: impl Socket, version: Version) -> (Incoming, tokio::task::AbortHandle) {
    let socket = TokioIo::new(socket);
    let request = Request::get("http://t/").header("host", "t").body(Empty::<Bytes>::new());
    let request = request.expect("a request");
    let (response, connection) = match version {
        Version::Http1 => {
            let (mut sender, connection) =
                client::conn::http1::handshake(socket).await.expect("a connection");
            let task = tokio::spawn(connection);
            (sender.send_request(request).await, task.abort_handle())
        }
        Version::Http2 => {
            let (mut sender, connection) =
                client::conn::http2::handshake(TokioExecutor::new(), socket)
                    .await
                    .expect("a connection");
            let task = tokio::spawn(connection);
            (sender.send_request(request).await, task.abort_handle())
        }
    };
    (response.expect("a response").into_body(), connection)
}

async fn read(body: &mut Incoming) -> Bytes {
    let frame = body.frame().await.expect("no end").expect("no error");
    frame.into_data().expect("data")
}

// ===== the tests =====

/// The client does not read for 200 periods. It gets what it missed then, without a ping in between, and a ping once it
/// has everything.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_gets_no_pings_and_nothing_more_is_taken_from_the_source() {
    for version in [Version::Http1, Version::Http2] {
        let pulse = Pulse::new(PERIOD);
        tokio::spawn(pulse.drive());
        let (near, far) = tokio::io::duplex(64 << 10);
        let (source, alive) = source(MANY);
        tokio::spawn(serve(far, version, source, pulse.clone()));
        let (mut body, _) = get(near, version).await;

        tokio::time::sleep(PERIOD * 100).await;
        let taken = polls(&alive);
        assert!(taken < MANY, "{version:?}: the buffers took everything");
        tokio::time::sleep(PERIOD * 100).await;
        assert_eq!((polls(&alive), pulse.pings()), (taken, 0), "{version:?}");

        let mut received = 0;
        while received < MANY * EVENT_LEN {
            received += read(&mut body).await.len();
        }
        assert_eq!(received, MANY * EVENT_LEN);
        assert_eq!(read(&mut body).await, ": ping\n\n");
        assert_eq!(read(&mut body).await, ": ping\n\n");
        assert_eq!(pulse.pings(), 2, "{version:?}");
    }
}

/// The source is silent, so that it is pings that fill the buffers.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_gets_only_the_pings_for_which_there_is_room() {
    let pulse = Pulse::new(PERIOD);
    tokio::spawn(pulse.drive());
    let (near, far) = tokio::io::duplex(256);
    let (source, alive) = source(0);
    tokio::spawn(serve(far, Version::Http1, source, pulse.clone()));
    let (mut body, _) = get(near, Version::Http1).await;

    tokio::time::sleep(PERIOD * 2_000).await;
    let (pings, taken) = (pulse.pings(), polls(&alive));
    assert!(pings < 1_000, "{pings} pings");
    tokio::time::sleep(PERIOD * 2_000).await;
    assert_eq!((pulse.pings(), polls(&alive)), (pings, taken));
    println!("{pings} pings were sent that are not received");
    let expected = ": ping\n\n".repeat(2 * usize::try_from(pings).expect("few"));
    let mut received = Vec::new();
    while received.len() < expected.len() {
        received.extend(read(&mut body).await);
    }
    assert_eq!(String::from_utf8(received).expect("text"), expected);
}

/// Events, each after a silence of more than two periods.
struct Slow {
    events: VecDeque<&'static str>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.sleep.as_mut().poll(cx));
        self.sleep = Box::pin(tokio::time::sleep(PERIOD * 5 / 2));
        let event = self.events.pop_front();
        Poll::Ready(event.map(|event| Ok(Frame::data(event.into()))))
    }
}

/// SCENARIO: clients with decoders that deviate from the standard read a stream that is silent between its events: one
/// dispatches at any empty line once it knows an id, another cuts at empty lines and expects `data` first.
#[tokio::test(start_paused = true)]
async fn decoders_in_use_get_the_same_events_as_without() {
    let with_ids = [
        "id: 0-0\ndata:\n\n",
        "retry: 500\n\n",
        "event: message\nid: 0-1\ndata: {}\n\n",
        "event: message\ndata: {}\n\n",
    ];
    let without = ["data: a\n\n", "data: b\n\n", "data: [DONE]\n\n"];
    for events in [&with_ids[..], &without] {
        let pulse = Pulse::new(PERIOD);
        tokio::spawn(pulse.drive());
        let sleep = Box::pin(tokio::time::sleep(PERIOD * 5 / 2));
        let body = Slow { events: events.iter().copied().collect(), sleep };
        let response = Response::builder().header("content-type", "text/event-stream").body(body);
        let body = Heartbeat::around(response.expect("a response"), &pulse).into_body();
        let with = body.collect().await.expect("no error").to_bytes();
        let with = String::from_utf8(with.into()).expect("text");
        assert_eq!(pulse.pings(), 2 * (events.len() as u64 + 1), "{with}");

        let expected = HttpxSse::default().decode(&events.concat());
        assert_eq!(HttpxSse::default().decode(&with), expected, "{with}");
        let by_block = |stream: &str| {
            let blocks = stream.split("\n\n").filter(|block| block.starts_with("data:"));
            blocks.map(str::to_owned).collect::<Vec<_>>()
        };
        if events == without {
            assert_eq!(by_block(&with), by_block(&events.concat()), "{with}");
        }
    }
}

/// Over sockets, in real time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_ends_the_inner_body() {
    let gone = async {
        let pulse = Pulse::new(Duration::from_millis(100));
        tokio::spawn(pulse.drive());
        for (n, version) in [(1, Version::Http1), (2, Version::Http2)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let (source, alive) = source(1);
            let server = pulse.clone();
            tokio::spawn(async move {
                let (socket, _) = listener.accept().await.expect("a connection");
                serve(socket, version, source, server).await;
            });
            let socket = TcpStream::connect(address).await.expect("it listens");
            let (mut body, connection) = get(socket, version).await;
            let mut received = Vec::new();
            while !received.ends_with(b": ping\n\n: ping\n\n") {
                received.extend(read(&mut body).await);
            }
            assert_eq!(received.len(), EVENT_LEN + 16);
            assert_eq!((pulse.open(), alive.strong_count()), (1, 1));

            drop(body);
            connection.abort();
            while alive.strong_count() > 0 || pulse.open() > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(pulse.cancelled(), n);
        }
    };
    tokio::time::timeout(BOUND, gone).await.expect("in time");
}
