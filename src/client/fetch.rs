//! What a server shows of itself: texts of a bounded size, requested again and again over one connection.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio::net::UnixStream;

use super::exchange::{self, Connection, within};
use super::url::HttpUrl;
use super::{BaseUrl, Endpoint, Error, Verify};

/// Gets texts, one after the other, over one connection as long as that lasts.
#[derive(Debug)]
pub struct Fetcher {
    server: Endpoint,
    timeout: Duration,
    connection: Option<Connection>,
}

/// Where to ask whether a server is ready.
#[derive(Clone, Debug)]
pub enum ProbeTarget {
    /// Over TCP, or over TLS with any certificate: the request has no secret, and the response none either.
    Url(BaseUrl),
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// Where a server says whether it is ready.
const READY: &str = "/readyz";

/// The largest body of the response.
const READY_BYTES_MAX: usize = 64 * 1024;

// ===== impl Fetcher =====

impl Fetcher {
    /// Connects with the first request. Each one has this time, a connect and the body included.
    pub fn new(server: Endpoint, timeout: Duration) -> Self {
        Self { server, timeout, connection: None }
    }

    /// Gets what is at this path, which begins with a slash, behind that of the server's URL.
    ///
    /// # Errors
    /// The server cannot be reached, does not respond in time, refuses, or has more than `max` bytes.
    pub async fn get(&mut self, path: &str, max: usize) -> Result<Bytes, Error> {
        let was_open = self.connection.is_some();
        match self.attempt(path, max).await {
            // The server may have closed it before it had the request.
            Err(Error::Broken(_)) if was_open => self.attempt(path, max).await,
            result => result,
        }
    }

    async fn attempt(&mut self, path: &str, max: usize) -> Result<Bytes, Error> {
        let url = self.server.url.at(path);
        // Kept again only if the response was read to its end.
        let connection = self.connection.take();
        let exchange = Box::pin(exchange_once(connection, &self.server, &url, max));
        let (connection, body) = within(self.timeout, &url.address, exchange).await??;
        self.connection = Some(connection);
        Ok(body)
    }
}

async fn exchange_once(
    connection: Option<Connection>,
    server: &Endpoint,
    url: &HttpUrl,
    max: usize,
) -> Result<(Connection, Bytes), Error> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => exchange::open(url, &server.verify).await?,
    };
    let response = connection.send(get(url, server)).await?;
    if response.status() != StatusCode::OK {
        return Err(exchange::refusal(server, response).await);
    }
    match exchange::read_limited(response, max).await? {
        Some(body) => Ok((connection, body)),
        None => Err(Error::BodyTooLarge { max }),
    }
}

fn get(url: &HttpUrl, server: &Endpoint) -> Request<Full<Bytes>> {
    let request = exchange::request(url, server.token.as_ref(), Method::GET);
    request.body(Full::default()).expect("a path of a URL and valid fields")
}

// ===== probe =====

/// Asks a server whether it is ready (`GET /readyz`).
///
/// # Errors
/// It cannot be reached, does not respond within `timeout`, or is not ready.
pub async fn probe(target: &ProbeTarget, timeout: Duration) -> Result<(), Error> {
    let (url, path) = match target {
        ProbeTarget::Url(url) => (url.clone(), None),
        // The name of the host is one that every server answers for.
        ProbeTarget::Unix(path) => ("http://localhost".parse().expect("a URL"), Some(path)),
    };
    let server = Endpoint { url, token: None, verify: Verify::None };
    let Some(path) = path else {
        return Fetcher::new(server, timeout).get(READY, READY_BYTES_MAX).await.map(drop);
    };
    let address = path.display().to_string();
    let ask = async {
        let url = server.url.at(READY);
        let socket = UnixStream::connect(path).await;
        let socket = socket.map_err(|why| Error::Connect { address: address.clone(), why })?;
        let mut sender = exchange::start_http(socket).await?;
        let response = sender.send_request(get(&url, &server)).await.map_err(Error::broken)?;
        match response.status() {
            StatusCode::OK => Ok(()),
            _ => Err(exchange::refusal(&server, response).await),
        }
    };
    within(timeout, &address, ask).await?
}
