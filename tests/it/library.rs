//! The hub mounted in an axum application, under that application's own runtime, without workers.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nudged::config::HubConfig;
use nudged::hub::{Hub, Keys, View};
use nudged::ids::OrgName;
use nudged::stream::{Clock, EventStream, drive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
    let org = org.parse().expect("the test's own");
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
#[expect(clippy::disallowed_methods, reason = "the bound of a test")]
async fn an_axum_application_mounts_the_hub() {
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        let (app, address) = start().await;
        let mut browser = TcpStream::connect(address).await.expect("it listens");
        browser.write_all(b"GET /acme/changes HTTP/1.1\r\nhost: t\r\n\r\n").await.expect("open");
        let greeting = read_until(&mut browser, "event: connected\ndata: {}\n\n").await;
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
