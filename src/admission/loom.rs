//! Explores with loom how a connection goes idle, is used again and ends while another looks for an idle one:
//! `RUSTFLAGS="--cfg nudged_loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --features server --lib loom`

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::closer::{Closer, Standing};
use super::places::Places;

/// Notes that it was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection that is idle and listed.
fn idle() -> (Arc<Places>, Arc<Closer>) {
    let places = Places::new(1, 4);
    let closer = Closer::new(places.clone(), Standing::Regular, None);
    closer.note_idle();
    (places, closer)
}

/// It is found, unless it was busy; then it is found the next time.
#[test]
fn loom_an_idle_connection_is_always_found() {
    loom::model(|| {
        let (places, closer) = idle();
        let used = thread::spawn({
            let closer = closer.clone();
            move || {
                let is_open = closer.note_busy();
                closer.note_idle();
                is_open
            }
        });
        let found = places.take_longest();
        let was_open = used.join().expect("no panic");
        assert!(found.is_some() || was_open, "closed without a trace");
        assert!(found.is_some() || places.take_longest().is_some(), "idle, and in no queue");
        assert!(closer.is_closed() && !closer.note_busy());
    });
}

/// The wait for the end of a closed connection ends, although the connection ends by itself meanwhile.
#[test]
fn loom_a_connection_that_is_closed_has_ended_or_will() {
    loom::model(|| {
        let (places, closer) = idle();
        let ending = thread::spawn({
            let closer = closer.clone();
            move || {
                closer.note_busy();
                closer.note_idle();
                closer.retire();
            }
        });
        let found = places.take_longest();
        ending.join().expect("no panic");
        if let Some(found) = found {
            let ended = pin!(found.ended()).poll(&mut Context::from_waker(Waker::noop()));
            assert!(ended.is_ready());
        }
        assert!(places.take_longest().is_none(), "it has ended");
    });
}

#[test]
fn loom_a_connection_that_is_closed_notices() {
    loom::model(|| {
        let (_places, closer) = idle();
        let closing = thread::spawn({
            let closer = closer.clone();
            move || closer.close()
        });
        let bell = Arc::new(Bell::default());
        let waker = bell.clone().into();
        let noticed = closer.poll_closed(&Context::from_waker(&waker));
        closing.join().expect("no panic");
        assert!(noticed == Poll::Ready(()) || bell.0.load(Ordering::Relaxed));
    });
}
