//! A stream over HTTP/2, on a connection that it shares with others.

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderName, HeaderValue, Request, header};

use super::connection::{Io, Reporter, UpdateKind};
use super::error::Error;
use crate::client::url::HttpUrl;

/// The flow-control window of a connection, large enough that its streams do not block each other.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// A request for a stream.
pub(crate) fn request(url: &HttpUrl, headers: &[(String, String)]) -> Result<Request<()>, Error> {
    let mut request = Request::get(url.to_string())
        .header(header::ACCEPT, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-cache");
    for (name, value) in headers {
        // The value may be secret.
        let wrong = |what: &str| Error::Settings(format!("{what} of a header field is invalid"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("the name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong("the value"))?;
        request = request.header(name, value);
    }
    request.body(()).map_err(|why| Error::Settings(why.to_string()))
}

/// The request of the stream with this number.
pub(crate) fn of_stream(request: &Request<()>, url: &HttpUrl, number: usize) -> Request<()> {
    let mut request = request.clone();
    if let Some(url) = url.of_stream(number) {
        *request.uri_mut() = url.to_string().parse().expect("a number is valid in a path");
    }
    request
}

/// The connection lives until its streams have ended. Returns how they end if the handshake fails.
pub(crate) async fn handshake(
    socket: Box<dyn Io>,
    streams: usize,
) -> Result<SendRequest<Bytes>, UpdateKind> {
    let mut builder = Builder::new();
    builder.initial_connection_window_size(CONNECTION_WINDOW).enable_push(false);
    // h2 would close a connection with many small frames, which floods have; the window is a bound.
    builder.data_frame_budget(usize::MAX);
    // Until the server's settings arrive.
    builder.initial_max_send_streams(streams);
    let connected = builder.handshake(socket).await;
    let (sender, connection) = connected.map_err(|why| UpdateKind::End(Some(explain(&why))))?;
    // Its streams report the same error.
    tokio::spawn(async { connection.await.ok() });
    Ok(sender)
}

/// Sends the request, after as many others as have been `started`, and spawns a task that reports the
/// response.
pub(crate) async fn start(
    connection: &SendRequest<Bytes>,
    request: Request<()>,
    started: usize,
    reporter: Reporter,
) {
    match send(connection, request, started) {
        Ok(response) => _ = tokio::spawn(follow(response, reporter)),
        Err(why) => reporter.report(UpdateKind::End(Some(why))).await,
    }
}

fn send(
    connection: &SendRequest<Bytes>,
    request: Request<()>,
    started: usize,
) -> Result<ResponseFuture, String> {
    let allowed = connection.current_max_send_streams();
    if started >= allowed {
        return Err(format!(
            "the server allows {allowed} streams per connection (--streams-per-connection)"
        ));
    }
    let sent = connection.clone().send_request(request, true);
    sent.map(|(response, _)| response).map_err(|why| explain(&why))
}

async fn follow(response: ResponseFuture, reporter: Reporter) {
    let end = receive(response, &reporter).await;
    reporter.report(UpdateKind::End(end.err().map(|why| explain(&why)))).await;
}

async fn receive(response: ResponseFuture, reporter: &Reporter) -> Result<(), h2::Error> {
    let (status, mut body) = {
        let response = response.await?;
        (response.status().as_u16(), response.into_body())
    };
    reporter.report(UpdateKind::Response(status)).await;
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        let length = bytes.len();
        reporter.report(UpdateKind::Body(bytes)).await;
        body.flow_control().release_capacity(length)?;
    }
    Ok(())
}

fn explain(why: &h2::Error) -> String {
    match why.reason() {
        Some(Reason::REFUSED_STREAM) => {
            format!("{why}; it may allow fewer (--streams-per-connection)")
        }
        _ => why.to_string(),
    }
}
