//! An application that mounts nudged's hub in plain hyper, on one thread: the `Hub` holds the subscribers,
//! `drive` is the one task that delivers to them, and an `EventStream` is the body of a response.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nudged::config::HubConfig;
use nudged::hub::{Hub, Keys, View};
use nudged::ids::OrgName;
use nudged::stream::{Clock, EventStream, drive};
use serde::Deserialize;
use tokio::net::TcpSocket;
use tokio::runtime::Builder;

use crate::shared::process::given_port;

/// Shared by all requests: a clone is a handle of the same hub.
#[derive(Clone)]
struct App {
    hub: Hub,
    clock: Clock,
}

#[derive(Deserialize)]
struct Publish {
    keys: Vec<String>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A stream, or a short response.
type Body = Either<EventStream, Full<Bytes>>;

const PUBLISH_BYTES_MAX: usize = 64 * 1024;
/// After an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn serve() -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        // As in the others: every publish is an event, the history holds a whole flood, and a stream is silent for
        // 30 s at most.
        let (coalesce, history_events) = (Duration::ZERO, 4096);
        let keepalive = Duration::from_secs(30);
        let config = HubConfig { coalesce, history_events, keepalive, ..HubConfig::default() };
        let app = App { hub: Hub::new(config), clock: Clock::start() };
        tokio::spawn(drive(app.hub.clone(), app.clock));

        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, 1], given_port()).into())?;
        let listener = socket.listen(4096)?;
        println!("listening on http://{}", listener.local_addr()?);
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                // No descriptor is free, or a client was gone before it was accepted: the next one may be served.
                pause().await;
                continue;
            };
            if socket.set_nodelay(true).is_err() {
                continue;
            }
            let app = app.clone();
            let service = service_fn(move |request| app.clone().respond(request));
            let mut hyper = http1::Builder::new();
            hyper.timer(TokioTimer::new());
            // An error is the end of one connection; its stream, if it has one, is dropped with it.
            tokio::spawn(hyper.serve_connection(TokioIo::new(socket), service));
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "one timer, and only after an error")]
async fn pause() {
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

// ===== impl App =====

impl App {
    async fn respond(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().strip_prefix("/api/");
        let Some(org) = path.and_then(|path| path.strip_suffix("/events")) else {
            return Ok(status(StatusCode::NOT_FOUND));
        };
        let Ok(org) = org.parse() else { return Ok(status(StatusCode::BAD_REQUEST)) };
        Ok(match *request.method() {
            Method::GET => self.subscribe(&org, &request),
            Method::POST => match self.publish(&org, request.into_body()).await {
                Ok(()) => status(StatusCode::ACCEPTED),
                Err(_) => status(StatusCode::BAD_REQUEST),
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED),
        })
    }

    fn subscribe(&self, org: &OrgName, request: &Request<Incoming>) -> Response<Body> {
        let id = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        match EventStream::open(&self.hub, org, View::Member, id, self.clock.now()) {
            Ok(stream) => stream.into_response().map(Either::Left),
            Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    async fn publish(&self, org: &OrgName, body: Incoming) -> Result<(), BoxError> {
        let body = Limited::new(body, PUBLISH_BYTES_MAX).collect().await?.to_bytes();
        let publish: Publish = serde_json::from_slice(&body)?;
        let keys = Keys::new(publish.keys, self.hub.config())?;
        self.hub.publish(org, &keys, self.clock.now());
        Ok(())
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = status;
    response
}
