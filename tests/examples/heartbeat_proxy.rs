//! A reverse proxy that puts heartbeats around the event streams of a server that cannot be changed, so that nothing
//! between that server and its clients ends a stream because it is silent.
//!
//! ```sh
//! cargo run --example heartbeat_proxy -- 127.0.0.1:8080 http://127.0.0.1:9000 5s
//! ```
//!
//! It stands beside its server, behind the proxy that has TLS, names and limits. It buffers nothing: each side is read
//! as fast as the other one takes it, and a client that leaves ends its request to the server at once. The guide
//! `src/guide/heartbeats.md` says where it helps and where it does not.

use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nudged::stream::{Heartbeat, Pulse};
use tokio::net::{TcpListener, TcpStream};

struct Proxy {
    upstream: Authority,
    client: Client<HttpConnector, Incoming>,
    pulse: Pulse,
}

/// What the upstream sends, with heartbeats if it is an event stream; or the text of an error.
type Body = Either<Heartbeat<Incoming>, Full<Bytes>>;

const USAGE: &str = "usage: heartbeat_proxy LISTEN UPSTREAM PING
       heartbeat_proxy 127.0.0.1:8080 http://127.0.0.1:9000 5s";

/// Fields that concern one connection, beside those that `connection` names (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into()).collect();
    let why = match &arguments[..] {
        [listen, upstream, ping] => match run(listen, upstream, ping).await {
            Ok(never) => match never {},
            Err(why) => why,
        },
        _ => format!("it takes three arguments, not {}", arguments.len()),
    };
    eprintln!("{why}\n{USAGE}");
    ExitCode::from(2)
}

/// Serves until the process ends.
#[expect(clippy::disallowed_methods, reason = "where no connection can be accepted, this waits")]
async fn run(listen: &str, upstream: &str, ping: &str) -> Result<Infallible, String> {
    let proxy = Arc::new(Proxy::new(upstream, ping)?);
    let listening = TcpListener::bind(listen).await;
    let listener = listening.map_err(|why| format!("cannot listen on {listen:?}: {why}"))?;
    let address = listener.local_addr().map_err(|why| why.to_string())?;
    println!("listening on http://{address}");
    loop {
        match listener.accept().await {
            Ok((socket, _)) => _ = tokio::spawn(serve(Arc::clone(&proxy), socket)),
            Err(why) => {
                eprintln!("cannot accept a connection: {why}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// When the client leaves, hyper drops the future of its request or the body of its response, and that drops the
/// connection to the upstream.
async fn serve(proxy: Arc<Proxy>, socket: TcpStream) {
    _ = socket.set_nodelay(true);
    let service = service_fn(|request| async { Ok::<_, Infallible>(proxy.forward(request).await) });
    let mut http = http1::Builder::new();
    // An error ends this connection, and its client sees that.
    _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
}

// ===== impl Proxy =====

impl Proxy {
    fn new(upstream: &str, ping: &str) -> Result<Self, String> {
        let upstream = parse_upstream(upstream)?;
        let pulse = Pulse::new(parse_ping(ping)?);
        tokio::spawn(pulse.drive());
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let mut client = Client::builder(TokioExecutor::new());
        // A connection that is kept may be closed by the upstream just as the next request is sent.
        let client = client.pool_max_idle_per_host(0).build(connector);
        Ok(Self { upstream, client, pulse })
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        self.redirect(&mut request);
        let mut response = match self.client.request(request).await {
            Ok(response) => response,
            Err(why) => {
                eprintln!("502 for {path}: {}", causes(&why));
                let mut response = Response::new(Either::Right("no answer from upstream\n".into()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                return response;
            }
        };
        // That of the upstream is between the two (RFC 9110, section 2.5).
        *response.version_mut() = Version::HTTP_11;
        let headers = response.headers_mut();
        remove_hop_by_hop(headers);
        if headers.get(header::CONTENT_TYPE).is_some_and(is_event_stream) {
            // nginx, in front of this, passes it on without buffering it.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        Heartbeat::around(response, &self.pulse).map(Either::Left)
    }

    /// Makes it a request to the upstream.
    fn redirect(&self, request: &mut Request<Incoming>) {
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.upstream.clone());
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(uri).expect("it has all of its parts");
        *request.version_mut() = Version::HTTP_11;
        let length = request.body().size_hint().exact();
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        if length.is_none() {
            // Without it hyper would send no body with a GET.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // A compressed stream has no place for heartbeats.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It was chunked, whatever its length says (RFC 9112, section 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    let named = headers.get_all(header::CONNECTION).into_iter();
    let named = named.filter_map(|names| names.to_str().ok()).flat_map(|names| names.split(','));
    let named: Vec<HeaderName> = named.filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whatever its parameters are.
fn is_event_stream(content_type: &HeaderValue) -> bool {
    let name = b"text/event-stream";
    content_type.as_bytes().get(..name.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(name))
}

fn parse_upstream(upstream: &str) -> Result<Authority, String> {
    let uri = upstream.parse::<Uri>().map_err(|why| format!("UPSTREAM {upstream:?}: {why}"))?;
    let host = uri.host().unwrap_or_default();
    let authority = uri.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    // A user's name, or a port that is no port, would be left out.
    if upstream.trim_end_matches('/') == format!("http://{authority}") {
        return authority.parse().map_err(|why| format!("UPSTREAM {upstream:?}: {why}"));
    }
    Err(format!("UPSTREAM {upstream:?}: it has to be http://HOST:PORT, without a path"))
}

fn parse_ping(ping: &str) -> Result<Duration, String> {
    let period = humantime::parse_duration(ping).map_err(|why| format!("PING {ping:?}: {why}"))?;
    let (min, max) = (Pulse::PERIOD_MIN, Pulse::PERIOD_MAX);
    match period {
        _ if (min..=max).contains(&period) => Ok(period),
        _ => Err(format!("PING {ping:?}: it has to be from {min:?} to {max:?}")),
    }
}

/// The error, and what it comes from.
fn causes(mut error: &dyn Error) -> String {
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
        error = cause;
    }
    text
}
