//! Connects clients of cleartext HTTP/1 to a server over TLS or HTTP/2, so that the same tests cover every transport.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ALL_VERSIONS;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::Certificate;
use super::transport::Transport;

/// Serves until it is dropped.
pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _open: oneshot::Sender<()>,
}

/// Buffer size of a bridge's sockets: small compared with those of a server and a client.
const BUFFER: usize = 16 * 1024;

// ===== impl Bridge =====

impl Bridge {
    pub(crate) fn to(server: SocketAddr, transport: Transport) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let (open, closed) = oneshot::channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, server, transport, &counter) => {}
                    _ = closed => {}
                }
            });
        });
        Self { address, connections, _open: open }
    }

    /// Connections that this bridge has opened to the server or failed to open: no more are on their way when these
    /// are as many as its clients.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    transport: Transport,
    connections: &Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        client.set_nodelay(true).expect("a socket");
        SockRef::from(&client).set_send_buffer_size(BUFFER).expect("a socket");
        // A failure ends the connection, which the test sees.
        let connections = Arc::clone(connections);
        tokio::spawn(async move {
            let upstream = upstream(server, transport).await;
            connections.fetch_add(1, Ordering::Relaxed);
            match upstream {
                Ok(Upstream::Bytes(secure)) => _ = pass_bytes(client, secure).await,
                Ok(Upstream::Requests(io)) => _ = pass_requests(client, io).await,
                Err(_) => _ = SockRef::from(&client).set_linger(Some(Duration::ZERO)),
            }
        });
    }
}

/// A connection to the server, and how a client's bytes are passed on.
enum Upstream {
    Bytes(Box<TlsStream<TcpStream>>),
    Requests(Box<dyn Socket>),
}

async fn upstream(server: SocketAddr, transport: Transport) -> std::io::Result<Upstream> {
    Ok(match transport {
        Transport::Http1 | Transport::Tls => {
            Upstream::Bytes(Box::new(secure(server, "http/1.1").await?))
        }
        Transport::H2 => Upstream::Requests(Box::new(secure(server, "h2").await?)),
        Transport::H2c => Upstream::Requests(Box::new(connect(server).await?)),
    })
}

/// Copies bytes both ways, and ends each side as the other ended: closed or reset.
async fn pass_bytes(
    mut client: TcpStream,
    mut secure: Box<TlsStream<TcpStream>>,
) -> std::io::Result<()> {
    let passed = {
        let (from_client, to_client) = tokio::io::split(&mut client);
        let (from_server, to_server) = tokio::io::split(&mut *secure);
        let mut up = pin!(send(from_client, to_server));
        let mut down = pin!(answer(from_server, to_client));
        tokio::select! {
            Err(why) = &mut up => Err(why),
            Err(why) = &mut down => Err(why),
            else => Ok(()),
        }
    };
    if passed.as_ref().is_err_and(|why| why.kind() == ErrorKind::ConnectionReset) {
        for socket in [&client, secure.get_ref().0] {
            SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
        }
    }
    passed
}

/// Passes on what the client sends. A server that takes no more of it is no error: it may have answered.
async fn send(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut bytes = vec![0; BUFFER];
    loop {
        let read = client.read(&mut bytes).await?;
        let written = match read {
            0 => return server.shutdown().await.or(Ok(())),
            _ => server.write_all(&bytes[..read]).await,
        };
        if written.is_err() || server.flush().await.is_err() {
            return Ok(());
        }
    }
}

/// Passes on what the server sends, to its end.
async fn answer(
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}

async fn pass_requests(client: TcpStream, io: Box<dyn Socket>) -> hyper::Result<()> {
    let upstream = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = upstream.handshake(TokioIo::new(io)).await?;
    let service = service_fn(move |request| pass(request, sender.clone()));
    let downstream = http1::Builder::new().serve_connection(TokioIo::new(client), service);
    // When one of the two connections ends, so does the other.
    let (mut connection, mut downstream) = (pin!(connection), pin!(downstream));
    let mut upstream_ended = false;
    poll_fn(|cx| {
        if !upstream_ended && connection.as_mut().poll(cx).is_ready() {
            upstream_ended = true;
            downstream.as_mut().graceful_shutdown();
        }
        downstream.as_mut().poll(cx)
    })
    .await
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

async fn pass(
    request: Request<Incoming>,
    mut sender: http2::SendRequest<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("http://localhost{path}").parse::<Uri>().expect("a URL");
    head.version = Version::HTTP_2;
    head.headers.remove("host");
    head.headers.remove("connection");
    Ok(match sender.send_request(Request::from_parts(head, body)).await {
        Ok(mut response) => {
            *response.version_mut() = Version::HTTP_11;
            response.map(BodyExt::boxed)
        }
        Err(_) => {
            let nothing = Empty::new().map_err(|never| match never {}).boxed();
            let mut response = Response::new(nothing);
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

async fn connect(server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER as u32)?;
    let socket = socket.connect(server).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn secure(server: SocketAddr, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let config = Certificate::of_tests().trusting(default_provider(), ALL_VERSIONS, &[protocol]);
    let socket = connect(server).await?;
    let name = ServerName::from(server.ip());
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}
