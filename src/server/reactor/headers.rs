//! Connections of proxies that have not named their client: they wait here for the header of the PROXY protocol, and then
//! for their request as all others. As long as they do, they may be closed to make room, the oldest first.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::task::{Wake, Waker};

use mio::Token;

use super::waiting::Waiting;
use super::{READ_BYTES, Reactor};
use crate::config::PROXY_HEADER_BYTES_MAX;
use crate::hub::Hub;
use crate::server::conn_context::peer_of;
use crate::server::proxy_protocol::Received;
use crate::sync::{AtomicBool, Ordering};

/// The connections that wait for their header, some of which may have gone on.
#[derive(Debug)]
pub(super) struct AwaitedHeaders {
    /// In the order since when they wait, which is that in which they are closed.
    queue: VecDeque<Token>,
    evictions: Arc<Evictions>,
    /// Of all of them.
    waker: Waker,
}

/// Some of a worker's connections have been closed to make room.
#[derive(Debug)]
struct Evictions {
    are_noted: AtomicBool,
    hub: Hub,
}

// ===== impl AwaitedHeaders =====

impl AwaitedHeaders {
    pub(super) fn new(hub: Hub) -> Self {
        let evictions = Arc::new(Evictions { are_noted: AtomicBool::new(false), hub });
        let waker = Waker::from(evictions.clone());
        Self { queue: VecDeque::new(), evictions, waker }
    }

    pub(super) fn has_evicted(&self) -> bool {
        self.evictions.are_noted.load(Ordering::Acquire)
    }

    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }
}

impl Wake for Evictions {
    fn wake(self: Arc<Self>) {
        self.are_noted.store(true, Ordering::Release);
        self.hub.wake_driver();
    }
}

// ===== impl Reactor =====

impl Reactor {
    /// Whether the connection waits for its request and may be read. If it waits for its header, that is received first,
    /// and then the connection may be read at once: nothing announces what came with it. `closed` is whether its client
    /// sends no more.
    pub(super) fn receive_header(&mut self, token: Token, closed: bool) -> bool {
        let Some(waiting) = self.conns.waiting(token) else { return true };
        let accepted = &mut waiting.accepted;
        if !accepted.header.is_awaited() {
            return true;
        }
        if self.context.reactor.successor().is_some() {
            self.release(token);
            return false;
        }
        match accepted.header.receive(&accepted.socket, &mut self.scratch, closed) {
            Received::Waits => return false,
            // What has been closed to make room serves no request.
            Received::Client(_) if !accepted.admitted.note_busy() => {}
            Received::Client(Some(client)) if !accepted.admitted.set_peer(client) => {
                self.make_room(token);
                return false;
            }
            Received::Client(Some(_)) => return true,
            Received::Client(None) => {
                accepted.admitted.set_proxy(peer_of(&accepted.socket));
                return true;
            }
            Received::Refused(why) => self.context.refuse_header(why, &accepted.socket),
            Received::Ended => {}
        }
        self.conns.free(token);
        false
    }

    /// Has a connection wait for its header, if it still does.
    pub(super) fn await_header(&mut self, token: Token) {
        if let Some(waiting) = self.conns.waiting(token)
            && waiting.accepted.header.is_awaited()
        {
            waiting.accepted.admitted.note_idle(&self.headers.waker);
            self.headers.queue.push_back(token);
        }
    }

    /// Closes those of them that make room for others.
    pub(super) fn close_evicted(&mut self) {
        if !self.headers.has_evicted() {
            return;
        }
        self.headers.evictions.are_noted.store(false, Ordering::Release);
        while let Some(token) = self.headers.queue.front() {
            let token = *token;
            let waiting = self.conns.waiting(token);
            if let Some(waiting) = waiting.filter(|waiting| waiting.accepted.header.is_awaited()) {
                if !waiting.accepted.admitted.is_closed() {
                    break;
                }
                self.conns.free(token);
            }
            self.headers.queue.pop_front();
        }
    }

    /// Forgets those that wait no more.
    pub(super) fn forget_received(&mut self) {
        let mut queue = mem::take(&mut self.headers.queue);
        queue.retain(|token| {
            let waiting = self.conns.waiting(*token);
            waiting.is_some_and(|waiting| waiting.accepted.header.is_awaited())
        });
        self.headers.queue = queue;
        self.headers.shrink();
    }

    /// A client is beyond the limit of its address: a task waits for the place that its connection is to have.
    fn make_room(&mut self, token: Token) {
        let Some(Waiting { mut accepted, securing }) = self.conns.take_waiting(token) else {
            return;
        };
        if let Err(why) = self.conns.release(token, &mut accepted.socket) {
            return tracing::warn!(%why, "a connection is still watched");
        }
        let context = self.context.clone();
        tokio::spawn(async move {
            accepted.admitted.make_room().await;
            context.dispatch(accepted, securing.map(|securing| securing.handshake));
        });
    }
}

const _: () = assert!(PROXY_HEADER_BYTES_MAX <= READ_BYTES, "a header is looked at as a whole");
