//! A session that receives the notifications of the table's trigger, so that the table is looked at at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::Shared;
use super::connection::{Connector, Down, Session};
use super::sql::{COMMAND, HAS_TRIGGER};
use crate::backplane::outage::{Ended, Outage};
use crate::backplane::wait::{Either, either, sleep};
use crate::sync::Ordering;

/// How often the session is asked whether it is there.
const CHECK: Duration = Duration::from_secs(10);

/// The first pause before another attempt, and the longest one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Listens again and again. Polling goes on meanwhile, so nothing is lost.
pub(super) async fn listen(connector: &Connector, shared: &Shared) {
    let (mut outage, mut pause) = (Outage::default(), BACKOFF.0);
    let mut has_warned = false;
    loop {
        let down = match session(connector, &shared.wake, &mut has_warned).await {
            Ok(session) => {
                match outage.end() {
                    Some(Ended::Start) => {
                        tracing::info!("notifications of the outbox are received")
                    }
                    Some(Ended::Outage) => {
                        tracing::warn!("notifications of the outbox are received")
                    }
                    None => {}
                }
                pause = BACKOFF.0;
                shared.is_listening.store(true, Ordering::Relaxed);
                // What was committed before.
                shared.wake.notify_one();
                let down = follow(session).await;
                shared.is_listening.store(false, Ordering::Relaxed);
                down
            }
            Err(down) => down,
        };
        if outage.go_on(&down.0, shared.clock.elapsed()) {
            let why = down.0;
            tracing::warn!(
                why,
                "no notifications of the outbox; it is looked at every 100 ms instead, or more often"
            );
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn session(
    connector: &Connector,
    notified: &Arc<Notify>,
    has_warned: &mut bool,
) -> Result<Session, Down> {
    let session = connector.connect(notified).await?;
    if session.is_pooled().await? {
        let why =
            "a pooler does not pass notifications; name the database itself with --outbox-direct";
        return Err(Down(why.into()));
    }
    let has_trigger: bool = session
        .query_one(HAS_TRIGGER, &[])
        .await?
        .try_get(0)
        .map_err(|why| super::connection::in_words(&why))?;
    if !has_trigger && !*has_warned {
        *has_warned = true;
        let command = COMMAND.replace("outbox-sql", "outbox-sql --notify");
        tracing::warn!("nothing notifies of rows in the outbox; the trigger is made by: {command}");
    }
    session.run("LISTEN nudged_outbox").await?;
    Ok(session)
}

/// Returns when the session is of no use any more.
async fn follow(mut session: Session) -> Down {
    loop {
        if let Either::Left(down) = either(session.ended(), sleep(CHECK)).await {
            return down;
        }
        if let Err(down) = session.run("SELECT 1").await {
            return down;
        }
    }
}
