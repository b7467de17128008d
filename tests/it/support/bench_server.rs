//! A server for the load generator. Each test defines its deliveries, including faulty ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nudged::bench::{Load, Options, Publish, Ramp, Summary};
use nudged::client::Verify;

use super::BOUND;

/// What the server does with a publish: which streams receive which texts.
pub(crate) type Deliver = fn(&mut [TcpStream], &str);

pub(crate) const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// A header field that publishes to `/private` need, and that no stream may have.
pub(crate) const CREDENTIAL: [&str; 2] = ["x-credential", "of publishers"];
pub(crate) const PACE: Ramp = Ramp { per_second: None, pending_max: 8 };

/// A server that ends with the test's process. Publishes come to `/publish`, and with [`CREDENTIAL`] to `/private`.
pub(crate) fn server(deliver: Deliver) -> String {
    server_with(BOUND, deliver)
}

/// The same; it closes a connection that is silent for `idle`.
pub(crate) fn server_with(idle: Duration, deliver: Deliver) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (subscribe, subscribed): (Sender<TcpStream>, Receiver<TcpStream>) = channel();
    let (publish, published) = channel::<(String, Sender<()>)>();
    thread::spawn(move || {
        let mut streams = Vec::new();
        for (text, done) in published {
            streams.extend(subscribed.try_iter());
            deliver(&mut streams, &text);
            done.send(()).unwrap();
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (subscribe, publish) = (subscribe.clone(), publish.clone());
            thread::spawn(move || serve(stream.unwrap(), idle, &subscribe, &publish));
        }
    });
    format!("http://{address}")
}

pub(crate) fn serve(
    mut stream: TcpStream,
    idle: Duration,
    subscribe: &Sender<TcpStream>,
    publish: &Sender<(String, Sender<()>)>,
) {
    stream.set_read_timeout(Some(idle)).unwrap();
    loop {
        let mut buffer = [0; 4096];
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.starts_with("GET /full ") {
            stream.write_all(b"HTTP/1.1 503 Full\r\ncontent-length: 0\r\n\r\n").unwrap();
            return;
        }
        let has_credential = text.contains(&CREDENTIAL.join(": "));
        if has_credential != text.starts_with("POST /private ") {
            return stream.write_all(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
        if text.starts_with("GET ") {
            // Subscribed first: a client that has the head gets every event.
            let mut other = stream.try_clone().unwrap();
            subscribe.send(stream).unwrap();
            return other.write_all(HEAD).unwrap();
        }
        let (done, wait) = channel();
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            return stream.write_all(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n").unwrap();
        };
        publish.send((body.to_owned(), done)).unwrap();
        wait.recv().unwrap();
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

pub(crate) fn event(text: &str) -> Vec<u8> {
    let event = format!("data: {text}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

pub(crate) fn address(base: &str) -> SocketAddr {
    base.strip_prefix("http://").unwrap().parse().unwrap()
}

pub(crate) fn to_all(streams: &mut [TcpStream], text: &str) {
    streams.iter_mut().for_each(|stream| stream.write_all(&event(text)).unwrap());
}

/// How long a load waits for events that never arrive.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(5);

pub(crate) fn options(base: &str, subscribers: usize) -> Options {
    Options {
        url: format!("{base}/stream"),
        verify: Verify::System,
        http2: None,
        subscribers,
        ramp: PACE,
        headers: Vec::new(),
        sources: Vec::new(),
        publish: Some(Publish {
            url: format!("{base}/publish"),
            body: r#"{"keys":["{n}"]}"#.into(),
            content_type: "application/json".into(),
            headers: Vec::new(),
            every: Duration::from_millis(2),
        }),
        duration: Some(Duration::from_millis(20)),
        processes: vec![std::process::id()],
        drain_timeout: BOUND,
    }
}

/// Each event reached each subscriber. Ten publishes are due in the time of [`options`]; a machine that pauses has time
/// for fewer.
pub(crate) fn assert_all_delivered(summary: &Summary, subscribers: usize) {
    let published = summary.published as usize;
    assert_eq!(summary.subscribers, subscribers, "{summary}");
    assert!((1..=10).contains(&published), "{summary}");
    assert_eq!(summary.tally.delivered as usize, published * subscribers, "{summary}");
    let counts = (&summary.latency, &summary.last_reached);
    let (Some(latency), Some(last_reached)) = counts else { panic!("no latencies: {summary}") };
    assert_eq!(
        (latency.count as usize, last_reached.count as usize),
        (published * subscribers, published)
    );
}

pub(crate) fn load(base: &str, subscribers: usize) -> Load {
    load_with(&options(base, subscribers))
}

pub(crate) fn load_with(options: &Options) -> Load {
    let subscribers = options.subscribers;
    let mut load = Load::new(options, Arc::default()).unwrap();
    load.open(subscribers, PACE, |_| {}).unwrap();
    assert_eq!(load.subscribers(), subscribers);
    load
}

/// Receives until the condition holds; fails if it never does.
pub(crate) fn until(load: &mut Load, holds: impl Fn(&Load) -> bool) {
    for _ in 0..1000 {
        if holds(load) {
            return;
        }
        load.wait(Some(Duration::from_millis(10))).unwrap();
    }
    panic!("{:?}", load.tally());
}
