//! Which requests of an HTTP/2 connection are ready to be polled, and how much they may send before the connection has
//! taken it. One task polls the connection and its requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::sync::Mutex;

/// The queue of one connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadyQueue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Each request once, by its place among those of the connection. A place may have become free since.
    ready: VecDeque<u32>,
    /// The connection's task, if it has to be woken when there is one.
    task: Option<Waker>,
    /// How many frames may still be queued in this turn.
    frames: u32,
}

// ===== impl ReadyQueue =====

impl ReadyQueue {
    /// A request has to be polled.
    pub(super) fn push(&self, place: u32) {
        let task = {
            let mut state = self.0.lock();
            state.ready.push_back(place);
            state.task.take()
        };
        task.into_iter().for_each(Waker::wake);
    }

    /// The place of the next request, if it may send a frame in this turn.
    pub(crate) fn pop(&self) -> Option<u32> {
        let mut state = self.0.lock();
        if state.frames > 0 { state.ready.pop_front() } else { None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().ready.is_empty()
    }

    /// The connection has taken what its requests have sent: from now on they may send this number of frames.
    pub(crate) fn begin_turn(&self, frames: u32) {
        self.0.lock().frames = frames;
    }

    /// Whether another frame may be sent in this turn.
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().frames > 0
    }

    /// Frames are sent.
    pub(super) fn count(&self, frames: u32) {
        let mut state = self.0.lock();
        state.frames = state.frames.saturating_sub(frames);
    }

    /// The connection's task is running, and need not be woken.
    pub(crate) fn wake_up(&self) {
        let before = self.0.lock().task.take();
        drop(before);
    }

    /// The connection's task has nothing to do, and is woken by the next request that is ready; at once, if one is.
    pub(crate) fn sleep(&self, task: &Waker) {
        let mut state = self.0.lock();
        if state.ready.is_empty() {
            let before = state.task.replace(task.clone());
            drop(state);
            drop(before);
        } else {
            drop(state);
            task.wake_by_ref();
        }
    }
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use super::*;
    use crate::sync::Wakes;

    #[test]
    fn the_task_is_woken_once_and_only_if_it_sleeps() {
        let (queue, wakes) = (ReadyQueue::default(), Arc::new(Wakes::default()));
        let task = Waker::from(wakes.clone());
        let woken = || wakes.count();
        queue.sleep(&task);
        (0..3).for_each(|place| queue.push(place));
        assert_eq!(woken(), 1);
        queue.wake_up();
        queue.begin_turn(1);
        (0..3).for_each(|place| assert_eq!(queue.pop(), Some(place)));
        queue.sleep(&task);
        queue.wake_up();
        queue.push(3);
        assert_eq!(woken(), 1, "it runs");
        queue.sleep(&task);
        assert_eq!(woken(), 2, "it must not sleep");
    }

    #[test]
    fn no_request_follows_once_the_frames_of_a_turn_are_sent() {
        let queue = ReadyQueue::default();
        (0..2).for_each(|place| queue.push(place));
        assert_eq!(queue.pop(), None, "no turn has begun");
        queue.begin_turn(2);
        assert_eq!(queue.pop(), Some(0));
        queue.count(1);
        assert!(queue.has_room());
        queue.count(3);
        assert!(!queue.has_room());
        assert_eq!(queue.pop(), None);
        assert!(!queue.is_empty());
        queue.begin_turn(2);
        assert_eq!(queue.pop(), Some(1));
    }
}
