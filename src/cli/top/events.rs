//! What the screen waits for: looks at the server, keys, and signals.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Look, Looker, screen};

/// What changes the screen, or ends it.
#[derive(Debug)]
pub(super) enum Event {
    Look(Looked),
    Resized,
    /// A key that ends it.
    Quit,
    /// This signal ends it.
    Ended(u8),
    /// ^Z.
    Suspended,
    Continued,
}

/// Where they come from.
#[derive(Debug)]
pub(super) struct Events {
    looks: (Sender<Looked>, Receiver<Looked>),
    /// The sender goes to the thread that reads them, if there is one.
    keys: (Option<Sender<u8>>, Receiver<u8>),
    /// SIGHUP, SIGINT, SIGQUIT and SIGTERM.
    ends: [(Signal, SignalKind); 4],
    resized: Signal,
    suspended: Signal,
    continued: Signal,
    is_stopped: bool,
}

/// A look, or why there is none.
type Looked = Result<Look, String>;

/// Keys that wait.
const KEYS_MAX: usize = 16;

// ===== impl Events =====

impl Events {
    /// From here on none of the signals ends the process.
    pub(super) fn new() -> io::Result<Self> {
        let receive = |kind| signal(kind).map(|signal| (signal, kind));
        let raw = |number: Number| signal(SignalKind::from_raw(number.as_raw()));
        let ends = [
            receive(SignalKind::hangup())?,
            receive(SignalKind::interrupt())?,
            receive(SignalKind::quit())?,
            receive(SignalKind::terminate())?,
        ];
        let (keys, received) = channel(KEYS_MAX);
        Ok(Self {
            looks: channel(1),
            keys: (Some(keys), received),
            ends,
            resized: signal(SignalKind::window_change())?,
            suspended: raw(Number::TSTP)?,
            continued: raw(Number::CONT)?,
            is_stopped: false,
        })
    }

    /// Where standard input is no terminal, there are none.
    pub(super) fn read_keys(&mut self) -> io::Result<()> {
        match self.keys.0.take_if(|_| io::stdin().is_terminal()) {
            Some(keys) => screen::read_keys(move |key| keys.blocking_send(key).is_ok()),
            None => Ok(()),
        }
    }

    /// Looks at the server again and again, with this pause before each look.
    pub(super) fn look(&self, mut looker: Looker, pause: Duration) {
        let looks = self.looks.0.clone();
        tokio::spawn(async move {
            loop {
                #[expect(clippy::disallowed_methods, reason = "a client's pause, not a stream")]
                tokio::time::sleep(pause).await;
                if looks.send(looker.look().await).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Stops the process, as ^Z does for one that does not handle it; nothing but its continuation comes next.
    pub(super) fn stop(&mut self) {
        self.is_stopped = kill_process(getpid(), Number::STOP).is_ok();
    }

    pub(super) async fn next(&mut self) -> Event {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for (signal, kind) in &mut self.ends {
            if signal.poll_recv(cx).is_ready() {
                let number = u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX - 128);
                return Poll::Ready(Event::Ended(number));
            }
        }
        if self.continued.poll_recv(cx).is_ready() {
            self.is_stopped = false;
            return Poll::Ready(Event::Continued);
        }
        if self.is_stopped {
            return Poll::Pending;
        }
        if self.suspended.poll_recv(cx).is_ready() {
            return Poll::Ready(Event::Suspended);
        }
        match self.keys.1.poll_recv(cx) {
            Poll::Ready(Some(b'q' | b'Q')) => return Poll::Ready(Event::Quit),
            // Wakes for the next one.
            Poll::Ready(Some(_)) => return Poll::Ready(Event::Resized),
            // The terminal is gone.
            Poll::Ready(None) => return Poll::Ready(Event::Ended(HANGUP)),
            Poll::Pending => {}
        }
        if self.resized.poll_recv(cx).is_ready() {
            return Poll::Ready(Event::Resized);
        }
        self.looks.1.poll_recv(cx).map(|look| look.map_or(Event::Quit, Event::Look))
    }
}

/// SIGHUP: what a terminal that is gone sends.
const HANGUP: u8 = 1;
