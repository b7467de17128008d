//! The time that clients have. It does not pass while the process is paused, and what they have sent is read before it
//! is over.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::hub::Hub;
use crate::stream::Clock;

/// Makes the timers of one worker's connections.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    hub: Hub,
    clock: Clock,
}

/// Ends once this time has passed since its start and since the last pause.
pub(crate) struct Sleep {
    timer: Timer,
    inner: Pin<Box<tokio::time::Sleep>>,
    length: Duration,
    /// How often the runtime has looked at its sockets since the time was over.
    looks: u8,
    look: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

/// After a pause the runtime learns of sockets and timers at once, and runs the tasks in any order. After the first
/// look every task has run, the driver too, which notices the pause; after the second, tasks have run that had to
/// wait for another, such as a request for its connection.
const LOOKS: u8 = 3;

// ===== impl Timer =====

impl Timer {
    /// A timer for connections on the shard of this hub.
    pub(crate) fn new(hub: Hub, clock: Clock) -> Self {
        Self { hub, clock }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the exceptions are those of this type's callers"
    )]
    pub(crate) fn sleep(&self, length: Duration) -> Sleep {
        let inner = Box::pin(tokio::time::sleep(length));
        Sleep { timer: self.clone(), inner, length, looks: 0, look: None }
    }

    fn until(&self, deadline: std::time::Instant) -> Duration {
        Instant::from_std(deadline).saturating_duration_since(Instant::now())
    }
}

/// For hyper: its timeouts of request heads and pings.
impl hyper::rt::Timer for Timer {
    fn sleep(&self, length: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Self::sleep(self, length))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Self::sleep(self, self.until(deadline)))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(sleep) => sleep.get_mut().restart(self.until(deadline)),
            None => *sleep = hyper::rt::Timer::sleep_until(self, deadline),
        }
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

// ===== impl Sleep =====

impl Sleep {
    /// What `act` results in, unless this ends before it.
    pub(crate) async fn limit<T>(&mut self, act: impl Future<Output = T>) -> Option<T> {
        let mut act = pin!(act);
        poll_fn(|cx| match act.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Pin::new(&mut *self).poll(cx).map(|()| None),
        })
        .await
    }

    /// Begins again, with this length.
    pub(crate) fn restart(&mut self, length: Duration) {
        self.length = length;
        self.set(Instant::now() + length);
    }

    fn set(&mut self, until: Instant) {
        self.inner.as_mut().reset(until);
        (self.looks, self.look) = (0, None);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.get_mut();
        loop {
            ready!(sleep.inner.as_mut().poll(cx));
            let Timer { hub, clock } = &sleep.timer;
            let until = clock.instant(hub.resumed()) + sleep.length;
            if until > sleep.inner.deadline() {
                sleep.set(until);
                continue;
            }
            if let Some(look) = &mut sleep.look {
                ready!(look.as_mut().poll(cx));
                (sleep.looks, sleep.look) = (sleep.looks + 1, None);
            }
            if sleep.looks == LOOKS {
                return Poll::Ready(());
            }
            // The runtime wakes a task that yields once it has looked at its sockets.
            sleep.look = Some(Box::pin(tokio::task::yield_now()));
        }
    }
}

impl hyper::rt::Sleep for Sleep {}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;

    const LENGTH: Duration = Duration::from_secs(10);

    fn timer() -> Timer {
        Timer::new(Hub::new(HubConfig::default()), Clock::start())
    }

    fn is_over(sleep: &mut Sleep, cx: &mut Context<'_>) -> bool {
        Pin::new(sleep).poll(cx).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_arrived_can_be_read_before_the_time_is_over() {
        let (timer, mut polls) = (timer(), 0);
        let begun = Instant::now();
        timer
            .sleep(LENGTH)
            .limit(poll_fn(|_| {
                polls += u8::from(begun.elapsed() >= LENGTH);
                Poll::<()>::Pending
            }))
            .await;
        assert!(polls >= 3 && begun.elapsed() < LENGTH * 2, "{polls} polls");
    }

    /// The driver notices the pause after the timer was polled.
    #[tokio::test(start_paused = true)]
    async fn the_time_begins_again_after_a_pause() {
        let timer = timer();
        let mut sleeps = [timer.sleep(LENGTH), timer.sleep(LENGTH * 5)];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        tokio::time::advance(LENGTH * 3).await;
        assert!(!is_over(&mut sleeps[0], &mut cx), "it looks first");
        timer.hub.driver().resume(timer.clock.now());
        tokio::time::advance(LENGTH - Duration::from_millis(2)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
            assert!(!is_over(&mut sleeps[0], &mut cx));
        }
        tokio::time::advance(Duration::from_millis(4)).await;
        sleeps[0].limit(std::future::pending::<()>()).await;
        let begun = Instant::now();
        sleeps[1].limit(std::future::pending::<()>()).await;
        assert!(begun.elapsed() > LENGTH * 3, "{:?}", begun.elapsed());
    }
}
