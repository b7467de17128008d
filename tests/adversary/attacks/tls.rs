//! Attacks on the TLS address.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::empty_records::NOTHING;
use super::{Arena, add, crowd};
use crate::shared::http::get;

/// What reads the log. It goes on once the attack ends.
struct Reader<'a>(&'a Arena);

const PAUSE: Duration = Duration::from_millis(20);

/// How long the log is not read, and then read again.
const UNREAD: Duration = Duration::from_secs(2);

/// KeyUpdates that rustls accepts between two records of data.
const UPDATES: usize = 32;

/// What is encrypted before it is sent at once, so that the server and not the attacker works.
const BURST_BYTES: usize = 1 << 20;

/// Records that carry nothing: half of the connections before a request, half on an open stream.
pub(super) async fn key_updates(arena: Arc<Arena>) {
    crowd(&arena, 6, PAUSE, |arena, number| async move {
        let (mut socket, mut session) = arena.handshake(&arena.emptying).await?.into_inner();
        if number.is_multiple_of(2) {
            let stream = get("/api/updates/public/events", "accept: text/event-stream\r\n");
            session.writer().write_all(stream.as_bytes())?;
        }
        loop {
            let encrypt = move || {
                let mut burst = Vec::new();
                while burst.len() < BURST_BYTES {
                    for _ in 0..UPDATES {
                        session.refresh_traffic_keys().map_err(io::Error::other)?;
                    }
                    session.writer().write_all(&[NOTHING])?;
                    while session.wants_write() {
                        session.write_tls(&mut burst)?;
                    }
                }
                io::Result::Ok((session, burst))
            };
            let encrypted = tokio::task::spawn_blocking(encrypt).await;
            let burst;
            (session, burst) = encrypted.map_err(io::Error::other)??;
            add(&arena.tally.acts, (burst.len() / 1024) as u64);
            socket.write_all(&burst).await?;
            // What it has sent has no bound for this client.
            while socket.try_read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
        }
    })
    .await;
}

/// Handshakes that begin like one, each of which is a line of the log, while what reads the log stops for two seconds
/// of four.
pub(super) async fn unread_log(arena: Arc<Arena>) {
    let bad_handshakes = crowd(&arena, arena.sizes.scaled(64), PAUSE, |arena, _| async move {
        let mut socket = arena.connect(arena.tls).await?;
        socket.write_all(b"\x16\x03\x01\x00\x10no client's hello").await?;
        add(&arena.tally.acts, 1);
        let received = socket.read(&mut [0; 256]).await?;
        add(&arena.tally.answers, u64::from(received > 0));
        socket.set_zero_linger()
    });
    let reader = Reader(&arena);
    let stops = async {
        for stops in [true, false].into_iter().cycle() {
            reader.stop(stops);
            tokio::time::sleep(UNREAD).await;
        }
    };
    tokio::join!(bad_handshakes, stops);
}

// ===== impl Reader =====

impl Reader<'_> {
    fn stop(&self, stops: bool) {
        self.0.log.paused.store(stops, Ordering::Relaxed);
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.stop(false);
    }
}
