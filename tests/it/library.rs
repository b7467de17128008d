//! The hub mounted in an application, under that application's own runtime, without workers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nudged::config::HubConfig;
use nudged::hub::{Hub, Keys, View};
use nudged::ids::OrgName;
use nudged::stream::{Clock, EventStream, drive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::BOUND;

#[derive(Clone)]
struct App {
    hub: Hub,
    clock: Clock,
}

async fn events(State(app): State<App>, Path(org): Path<String>, headers: HeaderMap) -> Response {
    let Ok(org) = org.parse::<OrgName>() else { return StatusCode::BAD_REQUEST.into_response() };
    let id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    match EventStream::open(&app.hub, &org, View::Member, id, app.clock.now()) {
        Ok(stream) => stream.into_response().map(axum::body::Body::new),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn save_post(State(app): State<App>, Path(org): Path<String>) -> StatusCode {
    let org = org.parse().expect("a valid name");
    let keys = Keys::new(["posts"], app.hub.config()).expect("within the limits");
    app.hub.publish(&org, &keys, app.clock.now());
    StatusCode::NO_CONTENT
}

async fn start() -> (App, SocketAddr) {
    let app = App { hub: Hub::new(HubConfig::default()), clock: Clock::start() };
    tokio::spawn(drive(app.hub.clone(), app.clock));
    let router = Router::new()
        .route("/{org}/changes", get(events))
        .route("/{org}/posts", post(save_post))
        .with_state(app.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (app, address)
}

async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buf = [0; 4096];
    while !text.contains(end) {
        let n = socket.read(&mut buf).await.expect("readable");
        assert!(n > 0, "the connection ended after {text:?}");
        text.push_str(std::str::from_utf8(&buf[..n]).expect("UTF-8"));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_axum_application_mounts_the_hub() {
    tokio::time::timeout(BOUND, async {
        let (app, address) = start().await;
        let mut browser = TcpStream::connect(address).await.expect("it listens");
        browser.write_all(b"GET /acme/changes HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("open");
        let greeting =
            read_until(&mut browser, "event: connected\ndata: {\"keepalive\":20}\n\n").await;
        assert!(greeting.contains("content-type: text/event-stream\r\n"), "{greeting}");
        assert_eq!(app.hub.seats(), 1);

        let mut backend = TcpStream::connect(address).await.expect("it listens");
        let request = b"POST /acme/posts HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n";
        backend.write_all(request).await.expect("open");
        let event = read_until(&mut browser, "data: {\"keys\":[\"posts\"]}\n\n").await;
        assert!(event.contains("event: invalidate\n"), "{event}");

        drop(browser);
        while app.hub.seats() > 0 {
            tokio::task::yield_now().await;
        }
        app.hub.close(app.clock.now());
    })
    .await
    .expect("within the bound");
}

/// Serves the member stream of acme to every request, by hyper.
async fn start_hyper(config: HubConfig) -> (App, SocketAddr) {
    let app = App { hub: Hub::new(config), clock: Clock::start() };
    tokio::spawn(drive(app.hub.clone(), app.clock));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let accepting = app.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let App { hub, clock } = accepting.clone();
            let service = service_fn(move |_| {
                let org = "acme".parse().expect("a name");
                let stream = EventStream::open(&hub, &org, View::Member, None, clock.now());
                async { Ok::<_, Infallible>(stream.expect("the hub is open").into_response()) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    (app, address)
}

async fn subscribe(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("open");
    let greeting =
        read_until(&mut socket, "event: connected\ndata: {\"keepalive\":1}\n\n\r\n").await;
    assert!(greeting.contains("content-type: text/event-stream\r\n"), "{greeting}");
    socket
}

/// [`EventStream`] is an ordinary body: hyper polls it, and drops it with its connection.
#[tokio::test]
async fn hyper_serves_an_event_stream_from_its_greeting_to_its_end() {
    let config = HubConfig { keepalive: Duration::from_secs(1), ..HubConfig::default() };
    tokio::time::timeout(BOUND, async {
        let (app, address) = start_hyper(config).await;
        let (mut stays, leaves) = (subscribe(address).await, subscribe(address).await);
        assert_eq!(app.hub.seats(), 2);
        drop(leaves);
        while app.hub.seats() > 1 {
            tokio::task::yield_now().await;
        }

        let keys = Keys::new(["posts"], app.hub.config()).expect("within the limits");
        let org = "acme".parse().expect("a name");
        app.hub.publish(&org, &keys, app.clock.now());
        let event = read_until(&mut stays, "data: {\"keys\":[\"posts\"]}\n\n\r\n").await;
        assert!(event.contains("event: invalidate\n"), "{event}");
        read_until(&mut stays, ": keepalive\n\r\n").await;

        app.hub.close(app.clock.now());
        read_until(&mut stays, "\r\n0\r\n\r\n").await;
        while app.hub.seats() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("within the bound");
}
