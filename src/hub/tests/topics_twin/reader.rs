//! The clients of topics, and what each of them may receive.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use super::Lane;
use super::log::Log;
use crate::hub::tests::Bell;
use crate::hub::{Frames, SocketId, Subscription, Taken};
use crate::ids::{Epoch, EventId};
use crate::metrics::CloseReason;
use crate::wire::{self, Frame, Parser};

/// One client of a topic, checked at every event.
pub(super) struct Reader {
    pub(super) number: u32,
    pub(super) ours: Subscription,
    pub(super) epoch: Epoch,
    /// The position of its last event, or of its greeting.
    pub(super) at: u64,
    /// What was lost before it got `connected`.
    excused: u64,
    pub(super) lane: Delivery,
    /// It asked for events, and there were none.
    pub(super) waits: bool,
    pub(super) deadline: Option<u64>,
    /// Its deadline has passed.
    pub(super) expired: bool,
    /// The last event was `closed`.
    pub(super) heard_closed: bool,
    /// An exclusive newcomer took its place.
    pub(super) replaced: bool,
    /// That newcomer, or its server, waits no longer.
    pub(super) put_out: bool,
    /// Of an exclusive one: the readers whose place it takes.
    pub(super) rivals: Option<HashSet<u32>>,
    /// Once its rivals are gone.
    pub(super) sole: bool,
    /// Woken when its last rival has gone.
    pub(super) sole_bell: Arc<Bell>,
    sole_waits: bool,
    /// Why its stream has ended.
    pub(super) over: Option<CloseReason>,
}

/// A client that has lost its stream.
#[derive(Clone, Debug)]
pub(super) struct Away {
    pub(super) topic: usize,
    pub(super) last: EventId,
}

#[derive(Clone)]
pub(super) enum Delivery {
    Task(Arc<Bell>),
    /// `room` is how many events its socket still takes.
    Socket {
        room: usize,
        blocked: bool,
    },
}

// ===== impl Reader =====

impl Reader {
    pub(super) fn new(number: u32, ours: Subscription, log: &Log, at: u64, lane: Lane) -> Self {
        let lane = match lane {
            Lane::Task => Delivery::Task(Arc::new(Bell(AtomicBool::new(false)))),
            Lane::Socket(room) => Delivery::Socket { room, blocked: false },
        };
        Self {
            number,
            ours,
            epoch: log.epoch,
            at,
            excused: log.lost(),
            lane,
            waits: false,
            deadline: None,
            expired: false,
            heard_closed: false,
            replaced: false,
            put_out: false,
            rivals: None,
            sole: true,
            sole_bell: Arc::new(Bell(AtomicBool::new(false))),
            sole_waits: false,
            over: None,
        }
    }

    pub(super) fn socket(&self) -> SocketId {
        SocketId(self.number)
    }

    /// Takes what there is for it, as far as its socket has room, or until its stream has ended.
    pub(super) fn take(&mut self, log: &Log) {
        match &mut self.lane {
            _ if self.over.is_some() || !self.sole => {}
            Delivery::Task(bell) => {
                let bell = bell.clone();
                while self.poll(log, &bell) {}
            }
            Delivery::Socket { .. } => while self.take_frames(log) {},
        }
    }

    /// One poll of its task. Returns whether there may be more.
    pub(super) fn poll(&mut self, log: &Log, bell: &Arc<Bell>) -> bool {
        bell.0.store(false, Ordering::Relaxed);
        let polled = self.ours.poll_next(&Waker::from(bell.clone()));
        let is_ready = polled.is_ready();
        self.waits = !is_ready;
        match polled {
            Poll::Ready(Some(frame)) => self.receive(&frame, log),
            Poll::Ready(None) => self.end(self.ours.ends_for(), log),
            // Its task closes the connection, which takes nothing.
            Poll::Pending if self.put_out => self.over = Some(CloseReason::Stalled),
            Poll::Pending => self.check_idle(log),
        }
        is_ready && self.over.is_none()
    }

    /// One take of the driver for its socket. Returns whether there may be more.
    fn take_frames(&mut self, log: &Log) -> bool {
        let (socket, before) = (self.socket(), self.ours.position().seq);
        let mut frames = Frames::new();
        let taken = self.ours.take_frames(socket, &mut frames);
        self.waits = taken == Taken::Idle;
        match taken {
            Taken::Idle => {
                assert!(frames.is_empty());
                self.check_idle(log);
                return false;
            }
            Taken::End(reason) => {
                assert!(frames.is_empty());
                self.end(reason, log);
                return false;
            }
            Taken::Some | Taken::Reread => assert!(!frames.is_empty()),
        }
        let mut reached = before;
        for (number, (seq, frame)) in frames.iter().enumerate() {
            if !self.has_room() {
                let reread = taken == Taken::Reread;
                self.ours.give_back(reached, reread, socket, number > 0);
                self.block();
                return false;
            }
            self.receive(frame, log);
            reached = *seq;
        }
        true
    }

    /// The driver writes events that a sweep took for it, and puts back what its socket does not take.
    pub(super) fn write(&mut self, frames: &[Frame], before: crate::ids::Seq, log: &Log) {
        self.waits = true;
        let mut reached = before;
        for (number, frame) in frames.iter().enumerate() {
            if !self.has_room() {
                let socket = self.socket();
                self.ours.give_back(reached, false, socket, number > 0);
                self.block();
                return;
            }
            self.receive(frame, log);
            reached = crate::ids::Seq(self.at);
        }
    }

    fn has_room(&mut self) -> bool {
        let Delivery::Socket { room, .. } = &mut self.lane else { return true };
        let has = *room > 0;
        *room = room.saturating_sub(1);
        has
    }

    fn block(&mut self) {
        self.waits = false;
        if let Delivery::Socket { blocked, .. } = &mut self.lane {
            *blocked = true;
        }
    }

    /// Its client reads, so that its socket has room.
    pub(super) fn make_room(&mut self, more: usize, log: &Log) {
        if let Delivery::Socket { room, blocked, .. } = &mut self.lane {
            *room += more;
            if more == 0 || !std::mem::replace(blocked, false) {
                return;
            }
            self.ours.unblock();
        }
        self.take(log);
    }

    /// Checks an event: the next one that is kept, or `connected` if one is lost that must not vanish.
    fn receive(&mut self, frame: &Frame, log: &Log) {
        let payload = frame.payload();
        let text = std::str::from_utf8(&payload).expect("UTF-8");
        assert!(!self.put_out && !self.expired, "an event after its end: {text}");
        assert!(!self.heard_closed, "an event after `closed`: {text}");
        let mut events = Vec::new();
        Parser::default().push(&payload, |event| events.push(event)).expect("small");
        let [wire::Event { name, data, id }] = &events[..] else { panic!("one event: {text:?}") };
        let id: EventId = id.parse().expect("an id");
        assert_eq!(id.epoch, self.epoch, "an event of another run");
        let (seq, at) = (id.seq.0, self.at);
        if name == "connected" {
            assert_eq!(data, "{\"keepalive\":100000}");
            assert!(!self.is_whole(log), "`connected` without a loss after {at}");
            // What follows is all that is kept: bulk events may come again.
            assert_eq!(Some(seq + 1), log.next(0), "the position before the oldest event");
            self.excused = log.lost();
        } else {
            assert!(seq > at, "{seq} again, after {at}");
            assert_eq!(text, log.text(seq), "another event");
            assert_eq!(log.next(at), Some(seq), "a kept event is skipped after {at}");
            let from = at.max(self.excused);
            let lost = (from + 1..seq).find(|lost| !log.is_bulk(*lost));
            assert_eq!(lost, None, "lost unnoticed between {at} and {seq}");
            self.heard_closed = name == "closed";
        }
        self.at = seq;
    }

    /// There is nothing for it.
    fn check_idle(&self, log: &Log) {
        assert_eq!(log.next(self.at), None, "nothing after {}", self.at);
        assert!(self.is_whole(log), "a loss after {} is not mentioned", self.at);
        let ends = self.put_out || self.replaced || self.expired || log.closed;
        assert!(!ends, "its end is due");
    }

    /// Whether nothing was lost after its position of which it does not know.
    pub(super) fn is_whole(&self, log: &Log) -> bool {
        log.lost() <= self.at.max(self.excused)
    }

    /// Its stream has ended, for a reason that there is.
    fn end(&mut self, reason: CloseReason, log: &Log) {
        match reason {
            CloseReason::Closed => {
                assert!(log.closed && self.heard_closed, "`closed` is its last event");
            }
            CloseReason::Replaced => assert!(self.replaced, "nothing replaces it"),
            CloseReason::MaxAge => assert!(self.expired),
            CloseReason::Stalled => assert!(self.put_out, "it need not go"),
            CloseReason::Drained => assert!(log.next(self.at).is_none() && self.is_whole(log)),
            other => panic!("it ended for {other:?}"),
        }
        self.over = Some(reason);
    }

    /// The driver ends its stream at once: at a deadline, or because it does not read and has to go.
    pub(super) fn cut(&mut self, reason: CloseReason, draining: bool) {
        let is_blocked = matches!(self.lane, Delivery::Socket { blocked: true, .. });
        let goes = self.put_out || is_blocked && (self.replaced || draining);
        match reason {
            CloseReason::MaxAge => assert!(self.expired, "before its deadline"),
            CloseReason::Stalled => assert!(goes, "it reads, or need not go"),
            other => panic!("it is cut for {other:?}"),
        }
        self.over = Some(reason);
    }

    /// Whether there is something for it, of which it has to be notified.
    pub(super) fn has_work(&self, log: &Log) -> bool {
        log.next(self.at).is_some()
            || !self.is_whole(log)
            || log.closed
            || self.replaced
            || self.expired
    }

    /// Looks whether its rivals are gone.
    pub(super) fn look_sole(&mut self) {
        if self.rivals.is_none() || self.sole {
            return;
        }
        self.sole_bell.0.store(false, Ordering::Relaxed);
        let polled = self.ours.poll_sole(&Waker::from(self.sole_bell.clone()));
        self.sole_waits = polled.is_pending();
        // One that is replaced itself may begin, and ends.
        let gone = self.rivals.as_ref().is_none_or(HashSet::is_empty);
        assert!(polled.is_pending() || gone || self.replaced, "a rival is left");
        assert!(polled.is_ready() || !gone, "no rival is left");
        self.sole = polled.is_ready();
    }

    /// One of its rivals has gone.
    pub(super) fn lose_rival(&mut self, number: u32) {
        let Some(rivals) = &mut self.rivals else { return };
        if rivals.remove(&number) && rivals.is_empty() && self.sole_waits {
            assert!(self.sole_bell.0.load(Ordering::Relaxed), "not woken when its rivals are gone");
        }
    }
}
