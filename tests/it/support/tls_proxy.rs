//! A proxy that terminates TLS and HTTP/2 for a server without either.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use nudged::client::Verify;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ALL_VERSIONS, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use super::temp_dir::TempDir;

/// Ends with the test's process.
pub(crate) struct TlsProxy {
    pub(crate) address: SocketAddr,
    trust: Verify,
}

/// Streams that an HTTP/2 connection may have.
pub(crate) const STREAMS_MAX: u32 = 8;

const SERVER: &str = "basicConstraints=critical,CA:FALSE";
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE";

// ===== impl TlsProxy =====

impl TlsProxy {
    /// Starts a proxy to this address, with a certificate for this name
    /// (`IP:127.0.0.1`, `DNS:example.org`).
    pub(crate) fn start(name: &str, to: SocketAddr) -> Self {
        Self::start_with(&[&format!("subjectAltName={name}"), SERVER], to, ALL_VERSIONS)
    }

    /// The same with a certificate that may sign others.
    pub(crate) fn start_as_authority(name: &str, to: SocketAddr) -> Self {
        Self::start_with(&[&format!("subjectAltName={name}"), AUTHORITY], to, ALL_VERSIONS)
    }

    /// The same for 127.0.0.1, with one version of TLS only.
    pub(crate) fn start_version(
        version: &'static SupportedProtocolVersion,
        to: SocketAddr,
    ) -> Self {
        Self::start_with(&["subjectAltName=IP:127.0.0.1", SERVER], to, &[version])
    }

    fn start_with(
        extensions: &[&str],
        to: SocketAddr,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound");
        let dir = TempDir::new();
        let pair = Certificate::make_with(extensions, dir.path(), "a proxy");
        let trust = Verify::authorities(pair.certificate.as_ref()).expect("a certificate");
        let chain = CertificateDer::pem_file_iter(&pair.certificate).expect("a file");
        let chain = chain.collect::<Result<_, _>>().expect("certificates");
        let private = PrivateKeyDer::from_pem_file(&pair.key).expect("a key");
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(versions)
            .expect("versions that there are")
            .with_no_client_auth();
        let mut config = config.with_single_cert(chain, private).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        std::thread::spawn(move || runtime.block_on(serve(listener, acceptor, to)));
        Self { address, trust }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Verification that accepts its certificate only.
    pub(crate) fn trust(&self) -> Verify {
        self.trust.clone()
    }
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    while let Ok((socket, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust the certificate closes the connection.
            let Ok(mut outer) = acceptor.accept(socket).await else { return };
            if outer.get_ref().1.alpn_protocol() == Some(b"h2") {
                return relay(outer, to).await;
            }
            let mut inner = TcpStream::connect(to).await.expect("the server listens");
            tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok();
        });
    }
}

/// Forwards each request of an HTTP/2 connection to the server over HTTP/1.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(stream: S, to: SocketAddr) {
    let mut builder = Builder::new();
    let handshake = builder.max_concurrent_streams(STREAMS_MAX).handshake(stream).await;
    let mut connection = handshake.expect("HTTP/2");
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        // Ends with an error when the client leaves early.
        tokio::spawn(async move { relay_one(&path, respond, to).await.ok() });
    }
}

async fn relay_one(
    path: &str,
    mut respond: SendResponse<Bytes>,
    to: SocketAddr,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = handshake(TokioIo::new(TcpStream::connect(to).await?)).await?;
    tokio::spawn(connection);
    let answer = sender.send_request(Request::get(path).body(Empty::<Bytes>::new())?).await?;
    let head = Response::builder().status(answer.status()).body(())?;
    let mut send = respond.send_response(head, false)?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => send.send_data(frame.into_data().unwrap_or_default(), false)?,
            Err(_) => {
                send.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
    send.send_data(Bytes::new(), true)?;
    Ok(())
}
