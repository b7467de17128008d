//! Connections that end at moments that a server does not expect.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{Arena, REFUSED, add, crowd};
use crate::shared::http::get;
use crate::support::http2_client::{END_HEADERS, END_STREAM, PREFACE, frame, kind, request};

const PAUSE: Duration = Duration::from_millis(5);

/// How long the many streams are open before all of them are reset.
const OPEN: Duration = Duration::from_millis(700);

const PATH: &str = "/api/ends/public/events";

/// A request and the end of its connection, in one segment: a FIN, a RST, and over TLS a `close_notify`.
pub(super) async fn instant(arena: Arc<Arena>) {
    crowd(&arena, 20, PAUSE, |arena, number| async move {
        let stream = get(PATH, "accept: text/event-stream\r\n");
        let ordinary = get("/livez", "");
        add(&arena.tally.acts, 1);
        match number % 5 {
            0 => plain(&arena, stream.as_bytes(), false).await,
            1 => plain(&arena, stream.as_bytes(), true).await,
            2 => plain(&arena, ordinary.as_bytes(), false).await,
            3 => {
                let headers =
                    frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", PATH));
                let bytes = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[]), &headers].concat();
                plain(&arena, &bytes, number % 2 == 0).await
            }
            _ => secure(&arena, stream.as_bytes(), number % 2 == 0).await,
        }
    })
    .await;
}

/// Opens many streams, and resets all of them at once, again and again.
pub(super) async fn resets(arena: Arc<Arena>) {
    loop {
        let mut opening = JoinSet::new();
        for number in 0..arena.sizes.scaled(500) {
            let arena = arena.clone();
            opening.spawn(async move {
                let mut socket = arena.connect(arena.plain).await?;
                let path = format!("/api/resets-{}/public/events", number % 50);
                let stream = get(&path, "accept: text/event-stream\r\n");
                socket.write_all(stream.as_bytes()).await?;
                add(&arena.tally.acts, 1);
                socket.read_u8().await?;
                add(&arena.tally.answers, 1);
                socket.set_zero_linger()?;
                io::Result::Ok(socket)
            });
        }
        tokio::time::sleep(OPEN).await;
        let mut sockets = Vec::new();
        while let Some(opened) = opening.try_join_next() {
            match opened {
                Ok(Ok(socket)) => sockets.push(socket),
                _ => add(&arena.tally.ends, 1),
            }
        }
        drop((sockets, opening));
        tokio::time::sleep(REFUSED).await;
    }
}

async fn plain(arena: &Arena, bytes: &[u8], reset: bool) -> io::Result<()> {
    let mut socket = arena.connect(arena.plain).await?;
    socket.write_all(bytes).await?;
    if reset {
        return socket.set_zero_linger();
    }
    socket.shutdown().await?;
    drain(arena, &mut socket).await
}

/// The request, a `close_notify`, and the end of the connection.
async fn secure(arena: &Arena, bytes: &[u8], reset: bool) -> io::Result<()> {
    let (mut socket, mut session) = arena.connect_tls().await?.into_inner();
    session.writer().write_all(bytes)?;
    session.send_close_notify();
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records)?;
    }
    socket.write_all(&records).await?;
    if reset {
        return socket.set_zero_linger();
    }
    socket.shutdown().await?;
    drain(arena, &mut socket).await
}

/// Reads to the end.
async fn drain(arena: &Arena, socket: &mut (impl AsyncReadExt + Unpin)) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let mut answered = false;
    while socket.read(&mut bytes).await? > 0 {
        answered = true;
    }
    add(&arena.tally.answers, u64::from(answered));
    Ok(())
}
