//! One request on one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::connect::{Failure, speak};
use super::tls::{HTTP_1, Tls};
use super::{Broken, Error, Server};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the head of an answer may take, and the body of one that is not a stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, a stream aside.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// After this much silence the system asks whether the peer is still there, as browsers have it do.
const TCP_KEEPALIVE: Duration = Duration::from_secs(45);

/// What we show of a problem body (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// A request to this server, without what only one kind of request has.
pub(super) fn request(server: &Server, method: Method, path: &str) -> request::Builder {
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.url.prefix))
        .header(header::HOST, &server.url.authority)
        .header(header::USER_AGENT, concat!("nudged/", env!("CARGO_PKG_VERSION")));
    match &server.token {
        Some(token) => request.header(header::AUTHORIZATION, &token.0),
        None => request,
    }
}

/// Connects, asks, and returns with the head of the answer. The connection lives as long as its body.
pub(super) async fn send(
    server: &Server,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let address = &server.url.address;
    let tls = tls(server)?;
    let connect = TcpStream::connect(address);
    let stream = within(server, CONNECT_TIMEOUT, connect)
        .await?
        .and_then(|stream| {
            let keepalive =
                TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(stream)
        })
        .map_err(|why| Error::Connect { address: address.clone(), why })?;

    let answer = async {
        let mut sender = speak(stream, tls.as_ref()).await?;
        sender.send_request(request).await.map_err(Failure::Http)
    };
    within(server, ANSWER_TIMEOUT, answer).await?.map_err(|why| match why {
        Failure::Hopeless(why) => Error::Tls { address: address.clone(), why },
        why => Error::Broken(Broken(why)),
    })
}

/// The system's authorities are read anew for each connection: they may have changed meanwhile.
fn tls(server: &Server) -> Result<Option<Tls>, Error> {
    let Server { url, trust, .. } = server;
    let tls = url.is_secure.then(|| Tls::new(trust, url.host(), HTTP_1)).transpose();
    tls.map_err(|why| Error::Tls { address: url.address.clone(), why })
}

/// The whole body of an answer that is not a stream; nothing if it is larger than any of ours.
pub(super) async fn read_all(
    server: &Server,
    response: Response<Incoming>,
) -> Result<Option<Bytes>, Error> {
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect();
    match within(server, ANSWER_TIMEOUT, body).await? {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(why) => why.downcast::<hyper::Error>().map_or(Ok(None), |why| Err((*why).into())),
    }
}

/// An answer that was not hoped for, with what it says for itself. A reason that cannot be read does
/// not make it less of a refusal.
pub(super) async fn refused(server: &Server, response: Response<Incoming>) -> Error {
    let status = response.status();
    let detail = match content_type(response.headers()) {
        "application/problem+json" => problem(server, response).await,
        _ => None,
    };
    Error::Refused { status, detail }
}

async fn problem(server: &Server, response: Response<Incoming>) -> Option<String> {
    let body = read_all(server, response).await.ok()??;
    let problem: Problem = serde_json::from_slice(&body).ok()?;
    problem.detail.or(problem.title)
}

/// The media type without its parameters; empty if there is none.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).map_or("", str::trim)
}

/// Ends the waiting for a server that does not answer.
async fn within<T>(
    server: &Server,
    time: Duration,
    what: impl Future<Output = T>,
) -> Result<T, Error> {
    #[expect(clippy::disallowed_methods, reason = "a client's few waits, not the server's many")]
    let waited = tokio::time::timeout(time, what).await;
    let address = &server.url.address;
    waited.map_err(|_| Error::Silent { address: address.clone(), seconds: time.as_secs() })
}
