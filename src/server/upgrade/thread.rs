//! Threads that may block, beside the thread of the server's signals, which waits for them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::thread;

use tokio::sync::oneshot;

use super::control::Control;
use crate::server::ServeError;
use crate::server::serving::{Stop, Watched};

/// What a thread reports, or why it has failed.
pub(super) type Reported<T> = Result<T, String>;

/// Runs it on a thread of its own, which may go on after its report.
pub(super) fn on_thread<T: Send + 'static>(
    work: impl FnOnce(oneshot::Sender<Reported<T>>) + Send + 'static,
) -> oneshot::Receiver<Reported<T>> {
    let (report, reported) = oneshot::channel();
    let thread = thread::Builder::new().name("nudged-upgrade".into());
    // Without a thread the report is lost, which is noticed.
    if let Err(why) = thread.spawn(move || work(report)) {
        tracing::error!(%why, "a thread could not be created");
    }
    reported
}

/// Waits for the report. If the server is stopped meanwhile, or `watched` ends, the control socket is shut, with which the
/// upgrade fails, unless it is done already.
///
/// # Errors
/// A part of the server has ended.
pub(super) async fn wait<T>(
    reported: oneshot::Receiver<Reported<T>>,
    control: &Control,
    watched: Option<&mut Watched>,
    stop: &mut Stop<'_, impl Future<Output = ()>>,
) -> Result<Reported<T>, ServeError> {
    let mut is_stopped = false;
    let reported = async {
        let mut reported = pin!(reported);
        poll_fn(|cx| {
            if !is_stopped && stop.poll(cx).is_ready() {
                is_stopped = true;
                control.shutdown();
            }
            reported.as_mut().poll(cx)
        })
        .await
    };
    let reported = match watched {
        Some(watched) => {
            let reported = watched.unless_one_ends(reported).await;
            reported.inspect_err(|_| control.shutdown())?
        }
        None => reported.await,
    };
    Ok(match reported {
        Ok(Err(_)) if is_stopped => Err("the server is stopped".into()),
        Ok(reported) => reported,
        Err(_) => Err("its thread has ended; see the log".into()),
    })
}
