//! Floods of requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Arena, add, crowd};
use crate::shared::http::get;
use crate::tokens;

/// Requests that are sent without waiting for their responses.
const PIPELINE: usize = 16;

const PAUSE: Duration = Duration::from_millis(2);

/// 300 connections that pipeline 16 probes each.
pub(super) async fn pipelined(arena: Arc<Arena>) {
    let count = arena.sizes.scaled(300);
    crowd(&arena, count, PAUSE, |arena, _| async move {
        let mut socket = arena.connect(arena.plain).await?;
        let requests = get("/livez", "").repeat(PIPELINE);
        loop {
            add(&arena.tally.acts, PIPELINE as u64);
            socket.write_all(requests.as_bytes()).await?;
            read_responses(&mut socket, PIPELINE).await?;
            add(&arena.tally.answers, PIPELINE as u64);
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}

/// Connects that ask for a stream with something that is no token.
pub(super) async fn bad_tokens(arena: Arc<Arena>) {
    let count = arena.sizes.scaled(64);
    crowd(&arena, count, PAUSE, |arena, _| async move {
        let mut socket = arena.connect(arena.plain).await?;
        ask(&arena, &mut socket, "authorization: Bearer bad\r\n").await?;
        // Its port is free at once.
        socket.set_zero_linger()
    })
    .await;
}

/// Tokens that look right, as many in each request as are tried, on connections that stay. Their keys are verified, or
/// fetched.
pub(super) async fn forged_tokens(arena: Arc<Arena>) {
    crowd(&arena, 16, PAUSE, |arena, number| async move {
        let mut socket = arena.connect(arena.plain).await?;
        let [bearer, one, other] = [0, 1, 2].map(|more| tokens::forged(number + more));
        let credentials = format!(
            "authorization: Bearer {bearer}\r\ncookie: nudged_token={one}; nudged_token={other}\r\n"
        );
        loop {
            ask(&arena, &mut socket, &credentials).await?;
        }
    })
    .await;
}

async fn ask(arena: &Arena, socket: &mut TcpStream, credentials: &str) -> io::Result<()> {
    let fields = format!("accept: text/event-stream\r\n{credentials}");
    socket.write_all(get("/api/big/events", &fields).as_bytes()).await?;
    add(&arena.tally.acts, 1);
    read_responses(socket, 1).await?;
    add(&arena.tally.answers, 1);
    Ok(())
}

/// Reads until this many responses have begun.
async fn read_responses(socket: &mut TcpStream, count: usize) -> io::Result<()> {
    let (mut received, mut bytes) = (String::new(), [0; 4096]);
    while received.matches("HTTP/1.1 ").count() < count {
        match socket.read(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => received.push_str(&String::from_utf8_lossy(&bytes[..length])),
        }
    }
    Ok(())
}
