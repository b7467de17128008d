//! Reports the progress of a stream that hyper serves over HTTP/2 to its seat. hyper does not say why it
//! dropped a body, and asks for no more of one while the client's flow-control window is shut.

use std::sync::Arc;
use std::task::{Wake, Waker};

use bytes::{Buf, Bytes};

use super::EventStream;
use super::ready_queue::ReadyQueue;
use crate::hub::SeatHandle;
use crate::metrics::CloseReason;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};

/// Watches the stream that one request over HTTP/2 may open, and is the request's waker. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct StreamMonitor(Arc<Shared>);

/// All in one allocation, of which there is one for each open request.
#[derive(Debug)]
struct Shared {
    /// The stream's seat, which may have been freed.
    seat: Mutex<Option<SeatHandle>>,
    /// Bytes were written since this was last asked. hyper writes under a lock of its own, so this is all
    /// that may be done there.
    progressed: AtomicBool,
    /// There is a response.
    responded: AtomicBool,
    /// The request is in its connection's queue.
    ready: AtomicBool,
    /// Its place among the requests of its connection.
    place: AtomicU32,
    queue: ReadyQueue,
}

/// Bytes of a body, whose monitor learns that they are written. Over HTTP/2 that is when the client has
/// room: hyper takes a whole event in hand for the first byte of room, and asks for the next.
#[derive(Debug)]
pub(crate) struct MonitoredBytes {
    bytes: Bytes,
    monitor: Option<StreamMonitor>,
}

/// Frames of a response that is no stream: its head, its body, and its end.
const RESPONSE_FRAMES: u32 = 3;

// ===== impl StreamMonitor =====

impl StreamMonitor {
    /// Of a request that has no place yet.
    pub(crate) fn new(queue: ReadyQueue) -> Self {
        Self(Arc::new(Shared {
            seat: Mutex::new(None),
            progressed: AtomicBool::new(false),
            responded: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            place: AtomicU32::new(0),
            queue,
        }))
    }

    /// Gives the request its place, and has it polled for the first time.
    pub(crate) fn begin(&self, place: u32) {
        self.0.place.store(place, Ordering::Relaxed);
        self.0.wake_by_ref();
    }

    /// The waker of the request, which is about to be polled.
    pub(crate) fn waker(&self) -> Waker {
        // Acquires, because a thread that has found it ready does not queue it again: the poll has to see why it was woken.
        self.0.ready.swap(false, Ordering::AcqRel);
        self.0.clone().into()
    }

    /// Whether the request is to be polled again.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// Watches this stream from now on.
    pub(crate) fn watch(&self, stream: &mut EventStream) {
        *self.0.seat.lock() = Some(stream.subscription().handle());
    }

    /// Notes that there is a response: to the request of a stream, or an ordinary one.
    pub(crate) fn note_response(&self) {
        self.0.responded.store(true, Ordering::Relaxed);
        let is_stream = self.0.seat.lock().is_some();
        self.0.queue.count(if is_stream { 1 } else { RESPONSE_FRAMES });
    }

    /// Whether the response is a stream, once there is one.
    pub(crate) fn response(&self) -> Option<bool> {
        self.0.responded.load(Ordering::Relaxed).then(|| self.0.seat.lock().is_some())
    }

    /// Whether the stream may send a frame now. If not, it is polled again.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = self.0.queue.has_room();
        if !has_room {
            self.0.wake_by_ref();
        }
        has_room
    }

    /// Whether the stream has to end because its client has read nothing for too long, nor since this was
    /// last asked.
    pub(crate) fn is_stalled(&self) -> bool {
        let progressed = self.0.progressed.swap(false, Ordering::Relaxed);
        self.0.seat.lock().as_ref().is_some_and(|seat| seat.is_stalled(progressed))
    }

    /// Called when the request that serves the stream goes idle: unsent data now waits for flow control.
    pub(crate) fn note_idle(&self) {
        if let Some(seat) = &*self.0.seat.lock() {
            seat.rest();
        }
    }

    /// Records why the stream will end, unless a reason is known.
    pub(crate) fn note(&self, reason: CloseReason) {
        if let Some(seat) = &*self.0.seat.lock() {
            seat.note(reason);
        }
    }
}

// ===== impl Shared =====

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.ready.swap(true, Ordering::AcqRel) {
            self.queue.push(self.place.load(Ordering::Relaxed));
        }
    }
}

// ===== impl MonitoredBytes =====

impl MonitoredBytes {
    /// Bytes of a body, which is that of a stream if it has a monitor.
    pub(crate) fn new(bytes: Bytes, monitor: Option<&StreamMonitor>) -> Self {
        if let Some(StreamMonitor(shared)) = monitor {
            shared.queue.count(1);
        }
        Self { bytes, monitor: monitor.cloned() }
    }
}

impl Buf for MonitoredBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(monitor) = &self.monitor {
            monitor.0.progressed.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, nudged_loom))]
mod loom_tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

    use loom::thread;

    use super::*;

    /// Counts its wakes.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, StdOrdering::Relaxed);
        }
    }

    /// SCENARIO: another thread has something for a request, and wakes it while its connection's task is about to poll
    /// it.
    /// BUG: the thread found it queued, so that it queued it no more, and the poll did not see what the thread had
    /// written: the request waited for ever.
    /// FIX: the poll acquires what those have written that found the request queued.
    #[test]
    fn loom_a_request_sees_what_it_was_woken_for_or_is_queued_again() {
        loom::model(|| {
            let (queue, task) = (ReadyQueue::default(), Arc::new(Task::default()));
            let monitor = StreamMonitor::new(queue.clone());
            monitor.begin(0);
            let written = Arc::new(AtomicU32::new(0));
            let waker: Waker = monitor.0.clone().into();
            let other = thread::spawn({
                let written = written.clone();
                move || {
                    written.store(1, Ordering::Relaxed);
                    waker.wake();
                }
            });
            queue.begin_turn(1);
            assert_eq!(queue.pop(), Some(0));
            let _waker = monitor.waker();
            let seen = written.load(Ordering::Relaxed) == 1;
            queue.sleep(&task.clone().into());
            other.join().expect("no panic");
            let woken = task.0.load(StdOrdering::Relaxed) == 1;
            assert!(seen || woken && !queue.is_empty(), "a wake was lost");
        });
    }

    /// Two threads wake two requests of a connection whose task goes to sleep.
    #[test]
    fn loom_the_task_of_requests_that_are_ready_never_sleeps() {
        loom::model(|| {
            let (queue, task) = (ReadyQueue::default(), Arc::new(Task::default()));
            queue.wake_up();
            let others = [0, 1].map(|place| {
                let monitor = StreamMonitor::new(queue.clone());
                thread::spawn(move || monitor.begin(place))
            });
            queue.begin_turn(2);
            let mut places: Vec<_> = queue.pop().into_iter().collect();
            queue.sleep(&task.clone().into());
            others.into_iter().for_each(|other| other.join().expect("no panic"));
            let slept = task.0.load(StdOrdering::Relaxed) == 0;
            assert!(!slept || queue.is_empty(), "it sleeps beside a request");
            queue.begin_turn(2);
            places.extend(std::iter::from_fn(|| queue.pop()));
            places.sort_unstable();
            assert_eq!(places, [0, 1], "each once");
        });
    }
}
