//! The backend that pages re-read from: it counts the requests, and answers each with the same few bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::shared::process::now;

/// It ends with the program.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    reads: Receiver<Instant>,
}

/// What ends a request, since none has a body.
const END: &[u8] = b"\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]";
const BUFFER: usize = 1024;

// ===== impl Backend =====

impl Backend {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (sender, reads) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        thread::spawn(move || runtime.block_on(serve(listener, sender)));
        Ok(Self { address, reads })
    }

    /// When each request came since the last call.
    pub(crate) fn take(&self) -> Vec<Instant> {
        self.reads.try_iter().collect()
    }
}

async fn serve(listener: std::net::TcpListener, reads: Sender<Instant>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        let reads = reads.clone();
        tokio::spawn(answer(socket, reads));
    }
}

/// Until the client closes.
async fn answer(mut socket: TcpStream, reads: Sender<Instant>) -> io::Result<()> {
    let mut pending = Vec::with_capacity(BUFFER);
    while socket.read_buf(&mut pending).await? > 0 {
        while let Some(at) = pending.windows(END.len()).position(|part| part == END) {
            pending.drain(..at + END.len());
            if reads.send(now()).is_err() {
                return Ok(());
            }
            socket.write_all(RESPONSE).await?;
        }
    }
    Ok(())
}
