//! A connection on which HTTP/1.1 is spoken, in the clear or within TLS.

use std::error::Error as _;
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::{Tls, hopeless};

/// Why nothing can be asked over a connection that had come about.
#[derive(Debug)]
pub(crate) enum Failure {
    /// TLS cannot come about; and what to do.
    Hopeless(String),
    /// TLS did not come about, this time.
    Tls(io::Error),
    /// It broke, or what came over it was not HTTP.
    Http(hyper::Error),
}

/// Makes it ready for requests. It lives as long as the sender and the bodies of the answers.
pub(crate) async fn speak(
    socket: TcpStream,
    tls: Option<&Tls>,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let Some(tls) = tls else { return speak_http(socket).await };
    match tls.connect(socket).await {
        Ok(stream) => speak_http(stream).await,
        Err(why) => Err(hopeless(&why).map_or_else(|| Failure::Tls(why), Failure::Hopeless)),
    }
}

async fn speak_http<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    // What goes wrong shows in the answer, too.
    tokio::spawn(async { connection.await.ok() });
    Ok(sender)
}

// ===== impl Failure =====

impl From<hyper::Error> for Failure {
    fn from(why: hyper::Error) -> Self {
        Self::Http(why)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hopeless(why) => f.write_str(why),
            Self::Tls(why) => write!(f, "TLS did not come about: {why}"),
            Self::Http(why) => {
                write!(f, "the connection broke: {why}")?;
                why.source().map_or(Ok(()), |cause| write!(f, ": {cause}"))?;
                let advice = "; if it speaks TLS, write https://";
                f.write_str(if why.is_parse() { advice } else { "" })
            }
        }
    }
}
