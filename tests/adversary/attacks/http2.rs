//! Attacks over HTTP/2, whose clients answer every PING.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Arena, Io, add, crowd};
use crate::support::http2_client::{
    ACK, END_HEADERS, END_STREAM, PREFACE, WIDE, block, frame, kind, request,
};
use crate::tokens;

/// A connection, frame by frame.
struct Frames {
    socket: Box<dyn Io>,
    /// What the window of the connection lets this client send.
    credit: usize,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Requests on one connection, which is the server's limit.
const REQUESTS: u32 = 256;

const PAUSE: Duration = Duration::from_millis(50);

/// The body of a publish that has no end.
const UNFINISHED: usize = 60_000;

/// A response each that the server cannot send.
pub(super) async fn shut_windows(arena: Arc<Arena>) {
    let count = arena.sizes.scaled(64);
    crowd(&arena, count, PAUSE, |arena, number| async move {
        let path = if number % 2 == 0 { "/livez" } else { "/api/shut/public/events" };
        // Of each path half are behind TLS.
        unread(&arena, number / 2, path, 1).await
    })
    .await;
}

/// Long responses that the server cannot send.
pub(super) async fn unread_metrics(arena: Arc<Arena>) {
    crowd(&arena, 16, PAUSE, |arena, number| async move {
        unread(&arena, number, "/metrics", REQUESTS).await
    })
    .await;
}

async fn unread(arena: &Arena, number: usize, path: &str, count: u32) -> io::Result<()> {
    let mut frames = Frames::begin(arena.connect_http2(number).await?, 0).await?;
    for number in 0..count {
        let flags = END_STREAM | END_HEADERS;
        frames.send(kind::HEADERS, flags, number * 2 + 1, &request("GET", path)).await?;
        add(&arena.tally.acts, 1);
    }
    loop {
        frames.receive(arena).await?;
    }
}

/// Publishes whose bodies have begun, with a token that is valid for another org.
pub(super) async fn unfinished_publishes(arena: Arc<Arena>) {
    crowd(&arena, 8, PAUSE, |arena, number| async move {
        let mut frames = Frames::begin(arena.connect_http2(number).await?, WIDE).await?;
        let token = format!("Bearer {}", tokens::hostile());
        let head = [request("POST", "/api/evil/events"), block(&[("authorization", &token)])];
        let head = head.concat();
        for number in 0..REQUESTS {
            let stream = number * 2 + 1;
            frames.send(kind::HEADERS, END_HEADERS, stream, &head).await?;
            for part in vec![b' '; UNFINISHED].chunks(15_000) {
                while frames.credit < part.len() {
                    frames.receive(&arena).await?;
                }
                frames.credit -= part.len();
                frames.send(kind::DATA, 0, stream, part).await?;
            }
            add(&arena.tally.acts, 1);
        }
        loop {
            frames.receive(&arena).await?;
        }
    })
    .await;
}

/// More streams of one address than it may have, on few connections.
pub(super) async fn many_streams(arena: Arc<Arena>) {
    crowd(&arena, 4, PAUSE, |arena, _| async move {
        let socket = arena.connect_from(250, arena.plain).await?;
        let mut frames = Frames::begin(Box::new(socket), WIDE).await?;
        for number in 0..REQUESTS {
            let get = request("GET", &format!("/api/many-{number}/public/events"));
            frames.send(kind::HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &get).await?;
            add(&arena.tally.acts, 1);
        }
        loop {
            frames.receive(&arena).await?;
        }
    })
    .await;
}

// ===== impl Frames =====

impl Frames {
    /// With this window for each stream, and the largest for the connection.
    async fn begin(mut socket: Box<dyn Io>, window: u32) -> io::Result<Self> {
        let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
        let grant = (WIDE - 65_535).to_be_bytes();
        let begin = [
            PREFACE,
            &frame(kind::SETTINGS, 0, 0, &settings),
            &frame(kind::WINDOW_UPDATE, 0, 0, &grant),
        ];
        socket.write_all(&begin.concat()).await?;
        socket.flush().await?;
        Ok(Self { socket, credit: 65_535 })
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&frame(kind, flags, stream, payload)).await?;
        self.socket.flush().await
    }

    /// Reads a frame, and does what a client has to.
    async fn receive(&mut self, arena: &Arena) -> io::Result<()> {
        let Frame { kind, flags, stream, payload } = self.read().await?;
        match kind {
            kind::SETTINGS if flags & ACK == 0 => self.send(kind, ACK, 0, &[]).await,
            kind::PING if flags & ACK == 0 => self.send(kind, ACK, 0, &payload).await,
            kind::WINDOW_UPDATE if stream == 0 => {
                let granted = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                self.credit += granted as usize;
                Ok(())
            }
            kind::HEADERS => {
                add(&arena.tally.answers, 1);
                Ok(())
            }
            kind::GOAWAY => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}
