//! Requests and responses over HTTP/1.1, one after the other on one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::{HTTP_1, Tls};
use super::url::HttpUrl;
use super::{Endpoint, Error, Token, Verify};

/// A server, and the connection to it that the next request may use.
#[derive(Debug)]
pub(crate) struct Connection {
    url: HttpUrl,
    tls: Option<Tls>,
    idle: Option<SendRequest<Full<Bytes>>>,
}

/// The time limit for a TCP connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for the head of a response, and for a body that is not a stream.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest body that is read, except of a stream.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// After this long without data, the kernel probes whether the peer is alive, as in browsers.
const TCP_KEEPALIVE: Duration = Duration::from_secs(45);

pub(crate) const USER_AGENT: &str = concat!("nudged/", env!("CARGO_PKG_VERSION"));

/// The media type of a problem body (RFC 9457).
pub(super) const PROBLEM: &str = "application/problem+json";

/// What is used of a problem body.
#[derive(Deserialize, Default)]
pub(super) struct Problem {
    /// What kind of problem it is.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}

// ===== impl Connection =====

impl Connection {
    /// Connects when the first request is sent.
    pub(crate) fn new(url: HttpUrl, tls: Option<Tls>) -> Self {
        Self { url, tls, idle: None }
    }

    /// Sends the request, and returns when the head of the response has arrived. Uses the last connection
    /// again if its response was read to the end and the server has not closed it since.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let reusable = match self.idle.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match reusable {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await.map_err(Error::broken)?;
        self.idle = Some(sender);
        Ok(response)
    }

    /// Connects now, so that it is known that an error comes from before the request.
    async fn open(&mut self) -> Result<(), Error> {
        self.idle = Some(self.connect().await?);
        Ok(())
    }

    /// Does not use the last connection again.
    #[cfg(feature = "bench")]
    pub(crate) fn close(&mut self) {
        self.idle = None;
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let address = &self.url.address;
        let socket = within(CONNECT_TIMEOUT, address, TcpStream::connect(address)).await?;
        let socket = socket
            .and_then(|socket| {
                socket.set_nodelay(true)?;
                let keepalive =
                    TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
                SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
                Ok(socket)
            })
            .map_err(|why| Error::Connect { address: address.clone(), why })?;
        let Some(tls) = &self.tls else { return start_http(socket).await };
        start_http(tls.connect(socket).await?).await
    }
}

/// The connection lives as long as the sender and the bodies of its responses.
pub(super) async fn start_http<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Error::broken)?;
    // The response reports the same error.
    tokio::spawn(async { connection.await.ok() });
    Ok(sender)
}

/// Limits the wait for a server.
pub(crate) async fn within<T>(
    time: Duration,
    address: &str,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    #[expect(clippy::disallowed_methods, reason = "one of a client's few requests, not a stream")]
    let result = tokio::time::timeout(time, future).await;
    result.map_err(|_| Error::Timeout { address: address.to_owned(), after: time })
}

// ===== requests to an endpoint =====

/// A request with the fields that all have.
pub(super) fn request(url: &HttpUrl, token: Option<&Token>, method: Method) -> request::Builder {
    let request = Request::builder()
        .method(method)
        .uri(&url.path)
        .header(header::HOST, &url.authority)
        .header(header::USER_AGENT, USER_AGENT);
    match token {
        Some(token) => request.header(header::AUTHORIZATION, &token.0),
        None => request,
    }
}

/// Connects to the server of this URL.
pub(super) async fn open(url: &HttpUrl, verify: &Verify) -> Result<Connection, Error> {
    // The system's root certificates are read for each connection: they may have been replaced.
    let tls = Tls::of(url, verify, HTTP_1)?;
    let mut connection = Connection::new(url.clone(), tls);
    within(RESPONSE_TIMEOUT, &url.address, connection.open()).await??;
    Ok(connection)
}

/// Sends the request over this connection, which lives as long as the body of the response.
pub(super) async fn send(
    mut connection: Connection,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let address = connection.url.address.clone();
    within(RESPONSE_TIMEOUT, &address, connection.send(request)).await?
}

/// The body of a response that is not a stream; `None` if it is too large.
pub(super) async fn read_body(
    endpoint: &Endpoint,
    response: Response<Incoming>,
) -> Result<Option<Bytes>, Error> {
    let body = read_limited(response, BODY_BYTES_MAX);
    within(RESPONSE_TIMEOUT, &endpoint.url.as_url().address, body).await?
}

/// The body of a response; `None` if it has more than `max` bytes.
pub(crate) async fn read_limited(
    response: Response<Incoming>,
    max: usize,
) -> Result<Option<Bytes>, Error> {
    match Limited::new(response.into_body(), max).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(why) => why.downcast().map_or(Ok(None), |why| Err(Error::broken(*why))),
    }
}

/// The error for a response with an unexpected status.
pub(super) async fn refusal(endpoint: &Endpoint, response: Response<Incoming>) -> Error {
    let status = response.status();
    Error::Refused { status, detail: problem(endpoint, response).await.shown() }
}

/// The problem body of a response with an unexpected status. One that cannot be read is as none.
pub(super) async fn problem(endpoint: &Endpoint, response: Response<Incoming>) -> Problem {
    if content_type(response.headers()) != PROBLEM {
        return Problem::default();
    }
    let body = read_body(endpoint, response).await.ok().flatten();
    serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default()
}

impl Problem {
    /// What is shown of it.
    pub(super) fn shown(self) -> Option<String> {
        self.detail.or(self.title)
    }
}

/// The media type without its parameters; empty if there is none.
pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).map_or("", str::trim)
}
