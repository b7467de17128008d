//! A connection whose header a task waits for: one that is beyond a limit, and may be closed to make room, or that comes
//! while the server drains. All others wait in the reactor.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;

use mio::net::TcpStream;
use tokio::io::Interest;

use super::{HeaderState, Received};
use crate::admission::Admitted;
use crate::config::PROXY_HEADER_BYTES_MAX;
use crate::server::conn_context::{ConnContext, peer_of};
use crate::server::reactor::Accepted;
use crate::server::tls::Handshake;

/// Spawns the task, which has the connection served from what follows the header.
pub(in crate::server) fn spawn(
    accepted: Accepted,
    handshake: Option<Handshake>,
    context: ConnContext,
) {
    let closer = accepted.admitted.closer();
    tokio::spawn(closer.guard(async move {
        if let Some(accepted) = receive(accepted, &context).await {
            context.dispatch(accepted, handshake);
        }
    }));
}

/// Notes the client that a header names; without one, the proxy itself, `own`, is the peer. Waits for a place, if the
/// client is beyond its limit.
pub(in crate::server) async fn identify(
    admitted: &Admitted,
    client: Option<IpAddr>,
    own: impl FnOnce() -> Option<IpAddr>,
) {
    match client {
        Some(client) if !admitted.set_peer(client) => admitted.make_room().await,
        Some(_) => {}
        None => admitted.set_proxy(own()),
    }
}

/// Receives the header; `None` if the connection is over.
async fn receive(accepted: Accepted, context: &ConnContext) -> Option<Accepted> {
    let Accepted { socket, admitted, mut header } = accepted;
    let socket = tokio::net::TcpStream::from_std(socket.into());
    let unwatched = |why: &io::Error| tracing::warn!(%why, "a connection could not be watched");
    let socket = socket.inspect_err(unwatched).ok()?;
    let limit = context.factory.config().head_timeout;
    let received = {
        let mut deadline = pin!(context.deadline(context.factory.timer(), limit));
        let mut looks = pin!(look(&socket, &mut header));
        poll_fn(|cx| match looks.as_mut().poll(cx) {
            Poll::Pending => deadline.as_mut().poll(cx).map(|()| None),
            received => received.map(Some),
        })
        .await
    };
    let socket = TcpStream::from_std(socket.into_std().inspect_err(unwatched).ok()?);
    match received {
        // What has been closed to make room serves no request.
        Some(Received::Client(client)) if admitted.note_busy() => {
            identify(&admitted, client, || peer_of(&socket)).await;
            return Some(Accepted { socket, admitted, header });
        }
        Some(Received::Refused(why)) => context.refuse_header(why, &socket),
        Some(Received::Client(_) | Received::Ended | Received::Waits) => {}
        // Its header is not late: there was less time for it.
        None if context.passes_on() => return Some(Accepted { socket, admitted, header }),
        None if *context.draining.borrow() => {}
        None => context.refuse_header(header.refusal(), &socket),
    }
    None
}

/// Looks at the socket until there is nothing to wait for any more.
async fn look(socket: &tokio::net::TcpStream, header: &mut HeaderState) -> Received {
    let mut bytes = vec![0; PROXY_HEADER_BYTES_MAX];
    loop {
        // The runtime reports the end again and again, whatever is left to be read before it.
        let Ok(ready) = socket.ready(Interest::READABLE).await else { return Received::Ended };
        let looked = socket.try_io(Interest::READABLE, || {
            match header.receive(socket, &mut bytes, ready.is_read_closed()) {
                Received::Waits => Err(ErrorKind::WouldBlock.into()),
                received => Ok(received),
            }
        });
        match looked {
            Ok(received) => return received,
            Err(why) if why.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Received::Ended,
        }
    }
}
