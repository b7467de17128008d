//! A stream that is polled, or dropped, while the task of its pulse looks at it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::{Duration, Pulse, Relaxed, TICKS, Tick};

/// Counts its wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn pulse() -> Pulse {
    Pulse::new(Duration::from_secs(15))
}

/// The task at a tick.
fn reach(pulse: &Pulse, tick: u32) {
    pulse.shared.advance(Tick(tick));
    while pulse.shared.turn() {}
}

/// Runs `stream` while the task reaches the tick at which a ping is due.
fn while_it_becomes_due<T>(pulse: &Pulse, stream: impl FnOnce() -> T) -> T {
    let task = pulse.clone();
    let task = loom::thread::spawn(move || reach(&task, TICKS));
    let value = stream();
    task.join().expect("no panic");
    value
}

#[test]
fn a_stream_that_waits_is_woken_for_its_ping() {
    loom::model(|| {
        let pulse = pulse();
        let beat = pulse.beat();
        let bell = Arc::new(Bell::default());
        let waker = bell.clone().into();
        let pinged = while_it_becomes_due(&pulse, || beat.poll_due(&waker));
        if !pinged {
            assert_eq!(bell.0.load(Relaxed), 1, "not woken");
            assert!(beat.poll_due(&waker), "woken too early");
        }
        // Both kinds of stream are looked at again, in time.
        assert!(!beat.poll_due(&waker));
        let before = bell.0.load(Relaxed);
        (TICKS + 1..=2 * TICKS).for_each(|tick| reach(&pulse, tick));
        assert_eq!(bell.0.load(Relaxed), before + 1, "not woken for the next");
    });
}

/// The byte counts as of the tick before, or as of this one.
#[test]
fn a_stream_with_a_byte_at_the_last_moment_is_looked_at_in_time() {
    loom::model(|| {
        let pulse = pulse();
        let beat = pulse.beat();
        while_it_becomes_due(&pulse, || beat.touch());
        let bell = Arc::new(Bell::default());
        let waker = bell.clone().into();
        let due = beat.touched.load(Relaxed) + TICKS;
        if due == TICKS {
            assert!(beat.poll_due(&waker));
        } else {
            assert!(!beat.poll_due(&waker));
            (TICKS + 1..=due).for_each(|tick| reach(&pulse, tick));
            assert_eq!(bell.0.load(Relaxed), 1, "not woken");
        }
    });
}

#[test]
fn a_stream_that_is_dropped_leaves_nothing_behind() {
    loom::model(|| {
        let pulse = pulse();
        let beat = pulse.beat();
        let bell = Arc::new(Bell::default());
        let waker = bell.clone().into();
        assert!(!beat.poll_due(&waker));
        drop(waker);
        while_it_becomes_due(&pulse, || {
            beat.end(true);
            drop(beat);
        });
        assert_eq!((pulse.open(), pulse.cancelled()), (0, 1));
        assert_eq!(Arc::strong_count(&bell), 1, "its waker is held");
        reach(&pulse, 2 * TICKS);
        assert_eq!(pulse.shared.state.lock().wheel.len(), 0);
    });
}
