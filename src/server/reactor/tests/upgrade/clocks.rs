//! Times that a stream has behind it, and before it, go on in the next process.

use super::*;

/// Keepalives come, and what does not read is cut, when it would have been.
#[tokio::test(start_paused = true)]
async fn clocks_go_on() {
    // The kernel may make room for more at any time, and then the time without progress begins anew.
    for _ in 0..5 {
        let (keepalive, stalled) = seconds_across_an_upgrade().await;
        assert!(keepalive.is_some_and(|second| (29..=41).contains(&second)), "{keepalive:?}");
        assert!(stalled.is_none_or(|second| second >= 60), "{stalled:?}");
        if stalled.is_some_and(|second| second <= 64) {
            return;
        }
    }
    panic!("it is cut later than after a minute without progress");
}

/// The seconds in which the keepalive of an idle stream comes, and in which one is cut that does not read. They change
/// the process in the 20th.
async fn seconds_across_an_upgrade() -> (Option<u32>, Option<u32>) {
    let config = HubConfig { keepalive: Duration::from_secs(40), ..uncoalesced(400) };
    let (mut rig, mut next) = two(config);
    let mut idle = rig.begin_on(wide_pair(), rig.open()).await;
    let _blocked = rig.begin(rig.open()).await;
    for n in 0..60 {
        rig.publish(&key(n));
        rig.run().await;
    }
    assert_eq!(rig.hub.seats(), 2);
    // The kernel takes some more for a while, with which the time without progress begins anew.
    for _ in 0..100 {
        rig.run().await;
        thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(1)).await;
        rig.run().await;
        // Its driver must not think that it was paused.
        next.run().await;
    }
    rig.run_until(|| {
        idle.read(1 << 16);
        idle.keys().len() == 60
    })
    .await;
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.sent.given, 2);
    drop(rig);
    let (mut keepalive, mut stalled) = (None, None);
    for second in 20..100 {
        next.run().await;
        // The kernel needs a moment to pass on what was sent.
        thread::sleep(Duration::from_millis(2));
        if idle.read(4096) > 0 {
            keepalive.get_or_insert(second);
        }
        if next.closed(CloseReason::Stalled) == 1 {
            stalled.get_or_insert(second);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    (keepalive, stalled)
}

/// SCENARIO: very many streams end in the same second, and the worker stops before it has ended all of them.
/// BUG: those that its wheel had given out would have had no deadline in the next process.
/// FIX: they are put back before.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_the_wheel_has_given_out_is_kept() {
    const SEATS: usize = 300;
    let (mut rig, mut next) = two(uncoalesced(8));
    let at = rig.clock.now().after(Duration::from_secs(5));
    let mut clients = Vec::new();
    for _ in 0..SEATS {
        let (server, client) = wide_pair();
        let deadline = Deadline { at, reason: CloseReason::MaxAge };
        rig.arrive(server, rig.open().with_deadline(deadline), 0);
        clients.push(client);
    }
    rig.run().await;
    for _ in 0..5 {
        next.run().await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    while rig.closed(CloseReason::MaxAge) == 0 {
        rig.driver.turn();
    }
    let ended = rig.closed(CloseReason::MaxAge);
    let (_ends, given) = rig.give(&next).await;
    assert_eq!(given.sent, SentStreams { given: SEATS as u64 - ended, kept: 0 });
    assert!(given.sent.given > 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    next.run().await;
    assert_eq!(next.closed(CloseReason::MaxAge), SEATS as u64, "with those that ended before");
    assert_eq!(next.hub.seats(), 0);
}
