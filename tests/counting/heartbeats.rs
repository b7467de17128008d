//! The same for heartbeats: their pings, and what one costs.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use nudged::stream::{Heartbeat, Pulse};

use super::counting::{LIVE_BLOCKS, LIVE_BYTES, allocations};

pub(super) async fn are_bounded() {
    a_ping_allocates_nothing().await;
    dropped_ones_leave_nothing_behind().await;
    one_costs_at_most_96_bytes();
}

/// An event stream of another server, without an event.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn heartbeat(pulse: &Pulse) -> Heartbeat<Silent> {
    let response = Response::builder().header("content-type", "text/event-stream").body(Silent);
    Heartbeat::around(response.expect("a response"), pulse).into_body()
}

/// Neither the stream nor the task of the pulse allocates, however many streams there are.
async fn a_ping_allocates_nothing() {
    const PERIOD: Duration = Duration::from_secs(16);
    let mut cx = Context::from_waker(Waker::noop());
    for streams in [1, 2, 100, 10_000] {
        let pulse = Pulse::new(PERIOD);
        let mut task = pin!(pulse.drive());
        let mut bodies: Vec<_> = (0..streams).map(|_| heartbeat(&pulse)).collect();
        let mut during = 0;
        for second in 0..320 {
            let before = pulse.pings();
            tokio::time::advance(Duration::from_secs(1)).await;
            let count = allocations(|| {
                for _ in 0..streams / 256 + 2 {
                    assert!(task.as_mut().poll(&mut cx).is_pending());
                }
                for body in &mut bodies {
                    while Pin::new(&mut *body).poll_frame(&mut cx).is_ready() {}
                }
            });
            // The first rounds grow the buffers that are reused.
            if second >= 160 {
                during += count;
            }
            assert!(pulse.pings() == before || pulse.pings() == before + streams as u64);
        }
        println!("{} pings of {streams} streams, {during} allocations", pulse.pings());
        assert!(pulse.pings() >= 19 * streams as u64);
        assert_eq!(during, 0, "{streams} streams");
    }
}

/// Within one tick, and then over time.
async fn dropped_ones_leave_nothing_behind() {
    let pulse = Pulse::new(Duration::from_secs(15));
    let before = LIVE_BYTES.load(Relaxed);
    for _ in 0..20 {
        drop((0..10_000).map(|_| heartbeat(&pulse)).collect::<Vec<_>>());
    }
    let of_stale = LIVE_BYTES.load(Relaxed) - before;
    println!("{of_stale} bytes of 200,000 heartbeats that were dropped at once");
    assert!(of_stale <= 25_000 * 96, "{of_stale} bytes");
    tokio::spawn(pulse.drive());
    #[expect(clippy::disallowed_methods, reason = "the test waits, not the server")]
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = LIVE_BYTES.load(Relaxed);
    assert!(after <= before + 4 * 1024, "{before} bytes became {after}");
    assert_eq!((pulse.open(), pulse.cancelled()), (0, 200_000));
}

fn one_costs_at_most_96_bytes() {
    const STREAMS: usize = 100_000;
    let pulse = Pulse::new(Duration::from_secs(15));
    assert!(size_of::<Heartbeat<Silent>>() <= 16, "{} bytes", size_of::<Heartbeat<Silent>>());
    let mut bodies = Vec::with_capacity(STREAMS);
    let (bytes, blocks) = (LIVE_BYTES.load(Relaxed), LIVE_BLOCKS.load(Relaxed));
    bodies.extend((0..STREAMS).map(|_| heartbeat(&pulse)));
    let bytes = (LIVE_BYTES.load(Relaxed) - bytes) as f64 / STREAMS as f64;
    let blocks = (LIVE_BLOCKS.load(Relaxed) - blocks) as f64 / STREAMS as f64;
    println!("a heartbeat costs {bytes:.1} bytes beside its body, in {blocks:.3} blocks");
    assert!(bytes + size_of::<Heartbeat<Silent>>() as f64 <= 96.0, "{bytes:.1} bytes");
    assert!(blocks <= 1.01, "{blocks:.3} blocks");
}
