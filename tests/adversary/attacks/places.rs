//! Connections and streams that do nothing but take a place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{Arena, Io, add, crowd};
use crate::shared::http::get;
use crate::stage::{BIG, ORG_PUBLIC_MAX};

/// How long a wave of silent connections stays, and how long after it they are away: so the other attacks find places
/// too.
const STAY: Duration = Duration::from_secs(6);
const AWAY: Duration = Duration::from_secs(3);

const PAUSE: Duration = Duration::from_millis(20);

/// More silent connections than the server has places left, on both of its addresses, a few of them behind TLS.
pub(super) async fn silence(arena: Arc<Arena>) {
    loop {
        let mut wave = JoinSet::new();
        for number in 0..arena.sizes.spare() * 4 / 3 {
            let arena = arena.clone();
            wave.spawn(async move {
                let mut socket: Box<dyn Io> = match number % 8 {
                    0 | 2 | 4 | 6 => Box::new(arena.connect(arena.plain).await?),
                    7 => Box::new(arena.connect_tls().await?),
                    _ => Box::new(arena.connect(arena.tls).await?),
                };
                add(&arena.tally.acts, 1);
                held(&arena, &mut socket).await
            });
        }
        tokio::time::sleep(STAY).await;
        drop(wave);
        tokio::time::sleep(AWAY).await;
    }
}

/// Strangers on the public streams of an org, twice as many as it may have.
pub(super) async fn public_streams(arena: Arc<Arena>) {
    crowd(&arena, 2 * ORG_PUBLIC_MAX, PAUSE, |arena, _| async move {
        let mut socket = arena.connect(arena.plain).await?;
        let path = format!("/api/{BIG}/public/events");
        socket.write_all(get(&path, "accept: text/event-stream\r\n").as_bytes()).await?;
        add(&arena.tally.acts, 1);
        held(&arena, &mut socket).await
    })
    .await;
}

/// Half a hello, half a head, and half a head behind TLS.
pub(super) async fn halves(arena: Arc<Arena>) {
    let count = arena.sizes.scaled(150);
    crowd(&arena, count, PAUSE, |arena, number| async move {
        let head = get("/livez", "");
        let half = &head.as_bytes()[..head.len() / 2];
        add(&arena.tally.acts, 1);
        match number % 3 {
            0 => {
                let mut socket = arena.connect(arena.tls).await?;
                let name = ServerName::from(arena.tls.ip());
                let session = ClientConnection::new(arena.config.clone(), name);
                let mut hello = Vec::new();
                session.map_err(io::Error::other)?.write_tls(&mut hello)?;
                socket.write_all(&hello[..hello.len() / 2]).await?;
                held(&arena, &mut socket).await
            }
            1 => {
                let mut socket = arena.connect(arena.plain).await?;
                socket.write_all(half).await?;
                held(&arena, &mut socket).await
            }
            _ => {
                let mut session = arena.connect_tls().await?;
                session.write_all(half).await?;
                session.flush().await?;
                held(&arena, &mut session).await
            }
        }
    })
    .await;
}

/// Reads until the server ends the connection.
pub(super) async fn held(arena: &Arena, socket: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let (mut bytes, mut answered) = ([0; 4096], false);
    while socket.read(&mut bytes).await? > 0 {
        add(&arena.tally.answers, u64::from(!answered));
        answered = true;
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
