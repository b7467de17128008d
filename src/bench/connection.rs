//! A connection that a task serves, and the updates that its streams report.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender};

use super::error::Error;
use super::http1::{Requests, ResponseHead, is_last};
use super::{http2, now};
use crate::client::tls::{HTTP_2, Tls};
use crate::client::url::HttpUrl;
use crate::client::{self, TlsError};

/// Where all connections go, and what each stream requests.
#[derive(Debug)]
pub(crate) struct Route {
    url: HttpUrl,
    pub(crate) address: SocketAddr,
    tls: Option<Tls>,
    protocol: Protocol,
}

#[derive(Debug)]
enum Protocol {
    Http1 { requests: Requests },
    Http2 { request: Box<Request<()>>, streams: usize },
}

/// What happened to one stream.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) stream: usize,
    pub(crate) at: Instant,
    pub(crate) kind: UpdateKind,
}

#[derive(Clone, Debug)]
pub(crate) enum UpdateKind {
    /// A response with this status.
    Response(u16),
    /// A part of the body.
    Body(Bytes),
    /// The end, with the reason if there was an error.
    End(Option<String>),
    /// No stream of this server can be opened.
    Unusable(String),
}

/// Sends the updates of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    stream: usize,
    sender: Sender<Update>,
}

/// A socket, or TLS over one.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The read buffer of an HTTP/1.1 stream. Events are small, and each stream has one.
const BUFFER: usize = 2048;

// ===== impl Route =====

impl Route {
    /// `http2` is the number of streams per connection; `None` is HTTP/1.1.
    pub(crate) fn new(
        url: HttpUrl,
        address: SocketAddr,
        tls: Option<Tls>,
        http2: Option<usize>,
        headers: &[(String, String)],
    ) -> Result<Self, Error> {
        let protocol = match http2 {
            None => Protocol::Http1 { requests: Requests::new(&url, headers) },
            Some(streams) => {
                let request = http2::request(&url, headers)?.into();
                Protocol::Http2 { request, streams }
            }
        };
        Ok(Self { url, address, tls, protocol })
    }

    pub(crate) fn streams_per_connection(&self) -> usize {
        match self.protocol {
            Protocol::Http1 { .. } => 1,
            Protocol::Http2 { streams, .. } => streams,
        }
    }

    /// Returns how the streams of the connection end if it fails.
    async fn connect(&self, socket: std::net::TcpStream) -> Result<Box<dyn Io>, UpdateKind> {
        let socket = TcpStream::from_std(socket)?;
        socket.writable().await?;
        socket.take_error()?.map_or(Ok(()), Err)?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(socket)) };
        let stream = tls.connect(socket).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        if matches!(self.protocol, Protocol::Http2 { .. }) && !is_http2 {
            let why = TlsError::new("it does not speak HTTP/2 over TLS (ALPN)");
            return Err(client::Error::Tls { address: self.url.address.clone(), why }.into());
        }
        Ok(Box::new(stream))
    }
}

/// Connects, and starts the streams with these numbers.
pub(crate) async fn serve(
    route: Arc<Route>,
    socket: std::net::TcpStream,
    mut numbers: Receiver<usize>,
    sender: Sender<Update>,
) {
    let connected = route.connect(socket).await;
    match &route.protocol {
        Protocol::Http1 { requests } => {
            let Some(stream) = numbers.recv().await else { return };
            let reporter = Reporter { stream, sender };
            let end = match connected {
                Ok(socket) => receive(socket, &requests.of(stream), &reporter).await.into(),
                Err(end) => end,
            };
            reporter.report(end).await;
        }
        Protocol::Http2 { request, streams } => {
            let connected = match connected {
                Ok(socket) => http2::handshake(socket, *streams).await,
                Err(end) => Err(end),
            };
            let mut started = 0;
            while let Some(stream) = numbers.recv().await {
                let reporter = Reporter { stream, sender: sender.clone() };
                match &connected {
                    Ok(connection) => {
                        let request = http2::of_stream(request, &route.url, stream);
                        http2::start(connection, request, started, reporter).await;
                    }
                    Err(end) => reporter.report(end.clone()).await,
                }
                started += 1;
            }
        }
    }
}

/// Sends a request over HTTP/1.1 and reports its response to the end.
async fn receive(mut socket: Box<dyn Io>, request: &[u8], reporter: &Reporter) -> io::Result<()> {
    socket.write_all(request).await?;
    socket.flush().await?;
    let (mut head, mut is_open, mut buffer) = (ResponseHead::default(), false, [0; BUFFER]);
    loop {
        let mut body = match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            length => &buffer[..length],
        };
        if !is_open {
            let Some(end) = head.read(body) else { continue };
            is_open = true;
            reporter.report(UpdateKind::Response(head.status)).await;
            body = &body[end..];
        }
        reporter.report(UpdateKind::Body(Bytes::copy_from_slice(body))).await;
        if is_last(body) {
            return Ok(());
        }
    }
}

// ===== impl Reporter =====

impl Reporter {
    /// Without effect once the streams have been closed.
    pub(crate) async fn report(&self, kind: UpdateKind) {
        _ = self.sender.send(Update { stream: self.stream, at: now(), kind }).await;
    }
}

// ===== impl UpdateKind =====

impl From<io::Result<()>> for UpdateKind {
    fn from(end: io::Result<()>) -> Self {
        end.map_or_else(Self::from, |()| Self::End(None))
    }
}

impl From<io::Error> for UpdateKind {
    fn from(why: io::Error) -> Self {
        Self::End(Some(why.to_string()))
    }
}

impl From<client::Error> for UpdateKind {
    fn from(why: client::Error) -> Self {
        match why {
            client::Error::Tls { .. } => Self::Unusable(why.to_string()),
            why => Self::End(Some(why.to_string())),
        }
    }
}
