//! A customer that has turned hostile, in the topics of its org.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Arena, add, crowd};
use crate::shared::http::get;
use crate::tokens;

const PAUSE: Duration = Duration::from_millis(2);

/// Pairs of workers that take each other's place as fast as they can. Each third one does not read.
pub(super) async fn replacing(arena: Arc<Arena>) {
    crowd(&arena, 30, PAUSE, |arena, number| async move {
        let path = format!("/api/evil/topics/worker-{}/events?exclusive", number / 2);
        let mut socket = open(&arena, &path).await?;
        if number.is_multiple_of(3) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return socket.set_zero_linger();
        }
        let mut bytes = [0; 4096];
        while socket.read(&mut bytes).await? > 0 {}
        Ok(())
    })
    .await;
}

/// Streams of topics that nothing is published to, each of another one, and since another time.
pub(super) async fn invented_topics(arena: Arc<Arena>) {
    let count = arena.sizes.scaled(64);
    crowd(&arena, count, PAUSE, |arena, number| async move {
        let [_, acts, ..] = arena.tally.read();
        let since = ["all", "now", "0", "18446744073709551616", "%00", "-1"][number % 6];
        let path = format!("/api/evil/topics/{number}-{acts}/events?since={since}");
        // Its port is free at once.
        open(&arena, &path).await?.set_zero_linger()
    })
    .await;
}

/// A stream that has begun.
async fn open(arena: &Arena, path: &str) -> io::Result<TcpStream> {
    let mut socket = arena.connect(arena.plain).await?;
    let fields =
        format!("accept: text/event-stream\r\nauthorization: Bearer {}\r\n", tokens::hostile());
    socket.write_all(get(path, &fields).as_bytes()).await?;
    add(&arena.tally.acts, 1);
    socket.read_u8().await?;
    add(&arena.tally.answers, 1);
    Ok(socket)
}
