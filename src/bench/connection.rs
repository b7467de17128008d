//! One HTTP/2 connection of the load generator, and the streams that it carries.

use std::io;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderName, HeaderValue, Request, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender};

use super::http2::{Heard, What};
use super::now;
use super::target::{Error, Target};
use crate::client::tls::{HTTP_2, Tls, hopeless};

/// Where all connections go, and what each stream asks for.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) target: Target,
    tls: Option<Tls>,
    pub(crate) streams_per_connection: usize,
    request: Request<()>,
}

/// Why a stream did not come about.
#[derive(Clone)]
enum Failure {
    /// This time.
    Once(String),
    /// However often it is tried.
    Always(String),
}

/// Bytes that a connection may bring before they are taken in: enough that the streams of one do not
/// hold each other up.
const CONNECTION_WINDOW: u32 = 1 << 20;

// ===== impl Route =====

impl Route {
    pub(crate) fn new(
        target: Target,
        tls: Option<Tls>,
        streams_per_connection: usize,
        headers: &[(String, String)],
    ) -> Result<Self, Error> {
        let scheme = if target.is_secure { "https" } else { "http" };
        let mut request = Request::get(format!("{scheme}://{}{}", target.authority, target.path))
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-cache");
        for (name, value) in headers {
            let wrong = || Error::Settings(format!("{name}: {value}: not a header field"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            request = request.header(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        let request = request.body(()).map_err(|why| Error::Settings(why.to_string()))?;
        Ok(Self { target, tls, streams_per_connection, request })
    }

    async fn connect(&self, socket: std::net::TcpStream) -> Result<SendRequest<Bytes>, Failure> {
        let once = |why: io::Error| Failure::Once(why.to_string());
        let socket = TcpStream::from_std(socket).map_err(once)?;
        socket.writable().await.map_err(once)?;
        socket.take_error().and_then(|why| why.map_or(Ok(()), Err)).map_err(once)?;
        socket.set_nodelay(true).map_err(once)?;
        let most = self.streams_per_connection;
        let Some(tls) = &self.tls else { return speak(socket, most).await };
        let stream = tls.connect(socket).await.map_err(|why| match hopeless(&why) {
            Some(why) => Failure::Always(why),
            None => once(why),
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            return Err(Failure::Always("it does not speak HTTP/2 over TLS (ALPN)".into()));
        }
        speak(stream, most).await
    }
}

/// Brings the connection to where requests can be sent. It lives until its streams are over.
async fn speak<S>(stream: S, streams: usize) -> Result<SendRequest<Bytes>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new();
    builder.initial_connection_window_size(CONNECTION_WINDOW).enable_push(false);
    // Events are small, and a flood of them is what is measured: the window is bound enough.
    builder.data_frame_budget(usize::MAX);
    // Until the server says how many it allows.
    builder.initial_max_send_streams(streams);
    let (sender, connection) = builder.handshake(stream).await.map_err(Failure::once)?;
    // Its error is the same that the streams report.
    tokio::spawn(async { connection.await.ok() });
    Ok(sender)
}

/// Opens a connection and begins the streams with these numbers, until there will be no more.
pub(crate) async fn carry(
    route: Route,
    socket: std::net::TcpStream,
    mut numbers: Receiver<usize>,
    tell: Sender<Heard>,
) {
    let sender = route.connect(socket).await;
    let mut begun = 0;
    while let Some(number) = numbers.recv().await {
        let response = match &sender {
            Ok(sender) => ask(sender, &route.request, begun).map_err(Failure::Once),
            Err(why) => Err(why.clone()),
        };
        begun += 1;
        match response {
            Ok(response) => _ = tokio::spawn(follow(number, response, tell.clone())),
            Err(why) => hear(number, &tell, why.into()).await,
        }
    }
}

fn ask(
    sender: &SendRequest<Bytes>,
    request: &Request<()>,
    begun: usize,
) -> Result<ResponseFuture, String> {
    let allowed = sender.current_max_send_streams();
    if begun >= allowed {
        return Err(format!(
            "the server allows {allowed} streams on a connection (--streams-per-connection)"
        ));
    }
    let (response, _) = sender.clone().send_request(request.clone(), true).map_err(explain)?;
    Ok(response)
}

/// Tells of a stream until its end.
async fn follow(number: usize, response: ResponseFuture, tell: Sender<Heard>) {
    let end = listen(number, response, &tell).await;
    hear(number, &tell, What::End(end.err().map(explain))).await;
}

async fn listen(
    number: usize,
    response: ResponseFuture,
    tell: &Sender<Heard>,
) -> Result<(), h2::Error> {
    let (status, mut body) = {
        let response = response.await?;
        (response.status().as_u16(), response.into_body())
    };
    hear(number, tell, What::Answer(status)).await;
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        let length = bytes.len();
        hear(number, tell, What::Body(bytes)).await;
        body.flow_control().release_capacity(length)?;
    }
    Ok(())
}

/// Whom nobody hears any more comes to an end with the runtime.
async fn hear(number: usize, tell: &Sender<Heard>, what: What) {
    _ = tell.send(Heard { number, at: now(), what }).await;
}

fn explain(why: h2::Error) -> String {
    match why.reason() {
        Some(Reason::REFUSED_STREAM) => {
            format!("{why}; it may allow fewer (--streams-per-connection)")
        }
        _ => why.to_string(),
    }
}

// ===== impl Failure =====

impl Failure {
    fn once(why: h2::Error) -> Self {
        Self::Once(explain(why))
    }
}

impl From<Failure> for What {
    fn from(why: Failure) -> Self {
        match why {
            Failure::Once(why) => Self::End(Some(why)),
            Failure::Always(why) => Self::Hopeless(why),
        }
    }
}
