//! Input over HTTP: paths, ids, and whole connections over loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join;
use http::{HeaderValue, Method, Request, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::config::{Config, HubConfig};
use crate::http::{App, Grant, Reject, Route, ServiceFactory, route as our_route};
use crate::hub::{Hub, Keys, View};
use crate::ids::{EventId, OrgName, Seq};
use crate::server::acceptor::Acceptor;
use crate::server::conn_context::ConnContext;
use crate::server::reactor::{Accepted, Handle, Reactor};
use crate::stream::{Clock, EventStream, drive_with};
use crate::time::Time;

// ===== paths =====

/// A method, a space and a path: our router agrees with a naive reading of the table.
pub fn route(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let ours = our_route(&method, path);
    let segments: Vec<&str> = path.split('/').collect();
    let (allow, org) = match segments[..] {
        ["", "livez" | "readyz" | "metrics"] => ("GET, HEAD", None),
        ["", "api", "events"] => ("POST", None),
        ["", "api", org, "events"] => ("GET, HEAD, POST", Some(org)),
        ["", "api", org, "public", "events"] => ("GET, HEAD", Some(org)),
        _ => return assert!(matches!(ours, Err(Reject::NotFound)), "{ours:?}"),
    };
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return assert!(matches!(&ours, Err(Reject::Method { allow: ours }) if *ours == allow));
    }
    let Some(segment) = org else {
        return assert!(matches!(
            ours,
            Ok(Route::Live | Route::Ready | Route::Metrics | Route::PublishBatch)
        ));
    };
    let decoded = String::from_utf8(percent_decode(segment.as_bytes())).ok();
    let expected = decoded.and_then(|name| name.parse::<OrgName>().ok());
    let found = match ours {
        Ok(Route::Stream { org, .. } | Route::StreamHead { org, .. } | Route::Publish { org }) => {
            Some(org)
        }
        Err(Reject::Org(_)) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(found, expected);
}

/// RFC 3986, 2.1; anything but an escape is left unchanged.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let (mut decoded, mut rest) = (Vec::new(), text);
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, digit(tail.first()), digit(tail.get(1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(16 * high + low).expect("two digits"));
                rest = &tail[2..];
            }
            _ => decoded.push(*first),
        }
    }
    decoded
}

// ===== ids =====

/// The id that a client received last, as a header and in the query. Each `@` stands for the epoch, which no fuzzer
/// guesses. The history covers the events 2 to 4 of 4.
pub fn last_event_id(input: &[u8]) {
    let config = HubConfig { coalesce: Duration::ZERO, history_events: 3, ..HubConfig::default() };
    let hub = Hub::new(config.clone());
    let org: OrgName = "acme".parse().expect("a name");
    let observer = hub.subscribe(&org, View::Member, None, Time(0)).expect("open").0;
    for key in ["a", "b", "c", "d"] {
        hub.publish(&org, &Keys::new([key], &config).expect("a key"), Time(0));
    }
    let epoch = observer.position().epoch;
    let id = |seq| EventId { epoch, seq: Seq(seq) }.to_string();
    let name = id(0).replace("-0", "");
    let last = String::from_utf8_lossy(input).replace('@', &name);
    if let Ok(parsed) = last.parse::<EventId>() {
        assert_eq!(parsed.to_string(), last, "one spelling for one position");
    }
    let missed = (1..=4).find(|seq| id(*seq) == last).map(|seq| 4 - seq);

    let (factory, _) = factory(&hub);
    let admitted = factory.admit(Ipv4Addr::LOCALHOST.into()).now_or_never().flatten();
    let service = factory.service(admitted.expect("there is room"));
    let mut query = form_urlencoded::Serializer::new(String::new());
    let query = query.append_pair("last_event_id", &last).finish();
    let in_query = format!("/api/acme/events?{query}").parse::<Uri>();
    let requests = [
        in_query.ok().map(|uri| Request::builder().uri(uri)),
        HeaderValue::from_str(&last)
            .ok()
            .filter(|value| value.to_str().is_ok())
            .map(|value| Request::builder().uri("/").header("last-event-id", value)),
    ];
    let opened = requests.into_iter().flatten().map(|request| {
        let request = request.body(()).expect("its parts are valid");
        let opened = service.open(&org, View::Member, &request, &Grant::everyone());
        opened.map(|(stream, _)| stream)
    });
    let directly = EventStream::open(&hub, &org, View::Member, Some(&last), Time(0));
    for mut stream in opened.chain([directly.map_err(|_| Reject::Draining)]).flatten() {
        let greeting = stream.greet().expect("a greeting").payload();
        let name = if missed.is_some() { "event: resumed\n" } else { "event: connected\n" };
        assert!(String::from_utf8_lossy(&greeting).contains(name), "{greeting:?} to {last:?}");
        let mut events = 0;
        while let Poll::Ready(Some(_)) = stream.subscription().poll_next(Waker::noop()) {
            events += 1;
        }
        assert_eq!(events, missed.unwrap_or(0), "{last:?}");
    }
    drop(observer);
    assert_eq!(hub.seats(), 0);
}

// ===== connections =====

/// Any bytes into a connection: the response is HTTP, the connection ends, and no seat is left. The first byte is the
/// length of the pieces.
pub fn http_bytes(input: &[u8]) {
    let Some((piece_len, bytes)) = input.split_first() else { return };
    let piece_len = usize::from(*piece_len).max(1);
    // Virtual time, in which waiting for a timeout takes no real time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let hub = Hub::new(HubConfig::default());
    let answers = runtime.block_on(exchange(bytes, piece_len, &hub));
    assert_eq!(hub.seats(), 0, "a seat leaked");
    if bytes.starts_with(PREFACE) {
        check_frames(&answers);
    } else {
        check_answers(&answers);
    }
}

/// Sends the bytes, then closes the sending half, and returns everything received until nothing more happens.
#[expect(clippy::disallowed_methods, reason = "virtual time: bounds the exchange")]
async fn exchange(bytes: &[u8], piece_len: usize, hub: &Hub) -> Vec<u8> {
    // Rust's `main` ignores SIGPIPE, which a write to a closed socket raises; the `main` of a fuzzer does not.
    _ = signal(SignalKind::pipe());
    let (factory, admission) = factory(hub);
    let (_draining, draining) = watch::channel(false);
    let context = ConnContext { factory, reactor: Handle::new(hub.clone()), draining };
    let acceptor = Acceptor::new(context.clone());
    let factory = context.factory.clone();
    let reactor = Reactor::new(context).expect("a poller");
    // Its keepalives detect disconnected clients that hyper does not notice, because they sent more than it read.
    let driver = tokio::spawn(drive_with(hub.clone(), Clock::start(), reactor));
    let (mut client, socket) = pair().expect("a connection on loopback");
    // The first piece may be a complete request, which the reactor serves without hyper.
    let mut pieces = bytes.chunks(piece_len);
    let first = client.write_all(pieces.next().unwrap_or_default()).await;
    first.expect("it is short, and the connection is open");
    let admitted = factory.admit(Ipv4Addr::LOCALHOST.into()).await;
    let admitted = admitted.expect("no address has a limit");
    acceptor.dispatch(Accepted { socket, admitted }, None);
    let client = async move {
        let (mut from, mut to) = client.into_split();
        let mut answers = Vec::new();
        let send = async {
            for piece in pieces {
                if to.write_all(piece).await.is_err() {
                    break; // the server may close at any time
                }
            }
            _ = to.shutdown().await;
        };
        let both = async { join(send, from.read_to_end(&mut answers)).await };
        _ = timeout(TIMEOUT, both).await;
        answers
    };
    let answers = client.await;
    // Virtual time passes at once. Real time does too, because the kernel may need some to pass on the client's end.
    for _ in 0..2 * TIMEOUT.as_secs() {
        if admission.connections() == 0 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(admission.connections(), 0, "a connection outlives its client");
    driver.abort();
    _ = driver.await;
    answers
}

fn factory(hub: &Hub) -> (ServiceFactory, Admission) {
    let config = Config::default();
    let admission = Admission::new(&config, 1_024);
    let app = Arc::new(App::new(config, hub.clone(), Clock::start(), admission.clone()));
    (ServiceFactory::new(app, hub.clone()), admission)
}

/// Both ends of a connection on loopback.
fn pair() -> std::io::Result<(tokio::net::TcpStream, mio::net::TcpStream)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let client = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok((tokio::net::TcpStream::from_std(client)?, mio::net::TcpStream::from_std(server)))
}

/// The connection preface of an HTTP/2 client (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const TIMEOUT: Duration = Duration::from_secs(120);

/// Responses one after the other; the last one may be cut off.
fn check_answers(mut rest: &[u8]) {
    while !rest.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let status = response.parse(rest).expect("a response is HTTP");
        let httparse::Status::Complete(head_len) = status else { panic!("a head was cut") };
        rest = &rest[head_len..];
        let field = |name: &str| {
            let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
            field.map(|field| std::str::from_utf8(field.value).expect("our fields are text"))
        };
        let code = response.code.expect("complete");
        assert!(
            matches!(
                code,
                100 | 200 | 202 | 400 | 404 | 405 | 408 | 413 | 414 | 415 | 422 | 431 | 501
            ),
            "{code}"
        );
        if rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            continue; // to HEAD; no body of ours begins like this
        }
        rest = match (field("content-length"), field("transfer-encoding")) {
            (Some(len), None) => {
                let len: usize = len.parse().expect("a length");
                assert!(rest.is_empty() || rest.len() >= len, "a body of {len} bytes was cut");
                &rest[len.min(rest.len())..]
            }
            (None, Some("chunked")) => after_chunks(rest),
            (None, None) => {
                assert!(
                    code == 100
                        || code == 400
                        || code == 431
                        || code == 414
                        || response.version == Some(0),
                    "{code}"
                );
                if code == 200 { &[] } else { rest }
            }
            other => panic!("{other:?}"),
        };
    }
}

/// Frames one after the other, SETTINGS first (RFC 9113, 3.4 and 4.1); the last one may be cut off.
fn check_frames(mut rest: &[u8]) {
    const SETTINGS: u8 = 4;
    const LAST_TYPE: u8 = 9;
    const FRAME_LEN_MAX: usize = 16_384;
    assert!(rest.get(3).is_none_or(|kind| *kind == SETTINGS), "SETTINGS comes first");
    while let [a, b, c, kind, _, reserved, ..] = *rest {
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        assert!(len <= FRAME_LEN_MAX, "a frame of {len} bytes");
        assert!(kind <= LAST_TYPE && reserved & 0x80 == 0, "no frame: {kind} {reserved}");
        rest = rest.get(9 + len..).unwrap_or_default();
    }
}

/// The bytes after a chunked body (RFC 9112, 7.1), which the end of the connection may cut off between chunks.
fn after_chunks(mut rest: &[u8]) -> &[u8] {
    while !rest.is_empty() {
        let Ok(httparse::Status::Complete((start, len))) = httparse::parse_chunk_size(rest) else {
            panic!("no chunk: {:?}", String::from_utf8_lossy(rest))
        };
        let end = start + usize::try_from(len).expect("it is in memory");
        assert_eq!(&rest[end..end + 2], b"\r\n", "a chunk has the announced size");
        rest = &rest[end + 2..];
        if len == 0 {
            break;
        }
    }
    rest
}
