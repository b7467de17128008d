//! What becomes of appends.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake};

use super::*;
use crate::sync::Mutex;

/// Looks at the queue when it is woken.
struct Looking {
    backplane: Backplane,
    seen_locked: Mutex<Vec<bool>>,
}

impl Wake for Looking {
    fn wake(self: Arc<Self>) {
        self.seen_locked.lock().push(self.backplane.is_queue_locked());
    }
}

#[test]
fn a_publish_is_acknowledged_once_it_has_come_back_and_every_node_has_it() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 3).await;
        let mark = nodes[0].publish("posts").await.expect("it is appended").mark;
        assert!(nodes[0].hub.has_mark(mark), "applied before it is acknowledged");
        for node in &nodes {
            until("everywhere", || node.hub.has_mark(mark)).await;
            assert_eq!(node.cuts(), 0);
        }
    });
}

#[test]
fn a_lost_acknowledgement_does_not_matter_and_a_swallowed_record_is_appended_again() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_acks(Acks::Lost));
        nodes[0].publish("a").await.expect("the record came back");
        broker.edit(|script| script.set_acks(Acks::Late(Duration::from_secs(10))));
        // The first occupies the connection until the log is opened again.
        let both = [nodes[0].append(keys("b")), nodes[0].append(keys("c"))];
        for append in both {
            append.await.expect("no panic").expect("the record came back");
        }
        broker.edit(|script| script.set_acks(Acks::Swallowed));
        let swallowed = nodes[0].append(keys("d"));
        seconds(1).await;
        broker.edit(|script| script.set_acks(Acks::Prompt));
        swallowed.await.expect("no panic").expect("it is appended again");
        assert_eq!(nodes[0].cuts(), 0);
    });
}

/// SCENARIO: a backend closes a topic, and the connection to the broker breaks before the record comes back. Another one
/// begins the topic anew.
/// BUG: only events were appended once. `close` was appended again, and the broker may have taken the first one late: the
/// second one removed the new topic. A claim that was there twice ended the stream that had replaced its own.
/// FIX: what would count again is appended once.
#[test]
fn what_would_count_twice_is_appended_once() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        for lines in [event("run"), close("run"), claim("run")] {
            broker.edit(|script| script.set_acks(Acks::Swallowed));
            let before = broker.edit(|script| script.count(Kind::Lines));
            let swallowed = nodes[0].append(lines.clone());
            seconds(1).await;
            broker.edit(|script| script.set_acks(Acks::Prompt));
            let refused = swallowed.await.expect("no panic");
            assert!(matches!(refused, Err(AppendError::Unavailable)), "{refused:?}");
            nodes[0].publish("later").await.expect("the log is followed again");
            let records = broker.edit(|script| script.count(Kind::Lines)) - before;
            assert_eq!(records, 1, "only the later one: {lines:?}");
        }
    });
}

#[test]
fn keys_are_appended_again_although_their_record_had_an_event() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_acks(Acks::Swallowed));
        let [event, keys] = [event("run"), keys("k")].map(|lines| nodes[0].append(lines));
        seconds(1).await;
        broker.edit(|script| script.set_acks(Acks::Prompt));
        keys.await.expect("no panic").expect("they are appended again");
        let refused = event.await.expect("no panic");
        assert!(matches!(refused, Err(AppendError::Unavailable)), "{refused:?}");
    });
}

#[test]
fn appends_that_come_together_are_one_record_each_with_its_place() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        let records = broker.edit(|script| script.count(Kind::Lines));
        let all = ["a", "b", "a", "a"].map(|topic| nodes[0].append(event(topic)));
        let (mut marks, mut later) = (Vec::new(), Vec::new());
        for append in all {
            let appended = append.await.expect("no panic").expect("it is appended");
            marks.push(appended.mark.position);
            later.push(appended.later);
        }
        assert_eq!(broker.edit(|script| script.count(Kind::Lines)), records + 1);
        assert_eq!(later, [2, 0, 1, 0]);
        assert!(marks.iter().all(|mark| *mark == marks[0]));
    });
}

#[test]
fn an_append_that_no_record_can_hold_is_refused_with_the_bound() {
    test(async {
        let broker = Scripted::new();
        broker.edit(|script| script.set_payload_max(1_000));
        let nodes = Node::cluster(&broker, 1).await;
        let mut lines = Lines::new();
        (0..100).for_each(|_| lines.extend(&keys("k")));
        let refused = nodes[0].backplane.append(lines).await;
        assert!(matches!(refused, Err(AppendError::TooLarge { max: 1_000 })), "{refused:?}");
        nodes[0].publish("small").await.expect("it is appended");
    });
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_down(true));
        let mut lines = Lines::new();
        (0..10_000).for_each(|_| lines.extend(&keys("a-key-of-some-length")));
        let all: Vec<_> = (0..100).map(|_| nodes[0].append(lines.clone())).collect();
        sleep(Duration::from_millis(1)).await;
        let refused = all.iter().filter(|append| append.is_finished()).count();
        let room = 16 * 1024 * 1024 / lines.len();
        assert_eq!(refused, 100 - room);
    });
}

/// SCENARIO: the broker takes records, and delivers none, while many publish.
/// BUG: the bound was for what was not appended yet. What was appended kept its memory until it came back, or for
/// `--backplane-timeout`, and did not count.
/// FIX: an append counts until it is answered.
#[test]
fn what_was_appended_and_has_not_come_back_counts() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_stalled(0, true));
        let mut lines = Lines::new();
        (0..10_000).for_each(|_| lines.extend(&keys("a-key-of-some-length")));
        let all: Vec<_> = (0..100).map(|_| nodes[0].append(lines.clone())).collect();
        let room = 16 * 1024 * 1024 / lines.len();
        sleep(Duration::from_millis(10)).await;
        let more = nodes[0].append(lines.clone());
        sleep(Duration::from_millis(10)).await;
        assert!(more.is_finished(), "there is no room");
        assert_eq!(all.iter().filter(|append| append.is_finished()).count(), 100 - room);
        broker.edit(|script| script.set_stalled(0, false));
        let mut accepted = 0;
        for append in all {
            accepted += usize::from(append.await.expect("no panic").is_ok());
        }
        assert_eq!(accepted, room);
        nodes[0].backplane.append(lines).await.expect("there is room again");
    });
}

/// SCENARIO: the broker comes back with a smaller bound of its records while a larger publish waits.
/// BUG: the publish was answered, and its task woken, under the lock of the queue, for which all publishers wait.
/// FIX: it is answered without the lock.
#[test]
fn what_has_become_too_large_is_answered_without_the_lock_of_the_queue() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_down(true));
        until("it is noticed", || !nodes[0].backplane.state().is_connected).await;
        let backplane = nodes[0].backplane.clone();
        let looking = Arc::new(Looking { backplane, seen_locked: Mutex::new(Vec::new()) });
        let waker = looking.clone().into();
        let mut waits = pin!(nodes[0].publish("a-key-of-some-length"));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        broker.edit(|script| {
            script.set_payload_max(10);
            script.set_down(false);
        });
        until("it is answered", || !looking.seen_locked.lock().is_empty()).await;
        let refused = waits.await;
        assert!(matches!(refused, Err(AppendError::TooLarge { max: 10 })), "{refused:?}");
        assert_eq!(*looking.seen_locked.lock(), [false]);
    });
}

/// SCENARIO: rows of an outbox that were taken out together are appended.
/// BUG: they lingered for more lines as a single publish does, so that a row was published 5 ms later for nothing.
/// FIX: what is many lines already is appended at once, with what waits before it.
#[test]
fn what_is_appended_at_once_does_not_linger_nor_does_what_waits_before_it() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        let before = broker.edit(|script| script.count(Kind::Lines));
        let start = Instant::now();
        let waits = nodes[0].append(keys("a"));
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "it lingers");
        nodes[0].backplane.append_at_once(keys("b")).await.expect("it is appended");
        waits.await.expect("no panic").expect("it is appended");
        assert!(start.elapsed() < BackplaneConfig::LINGER, "{:?}", start.elapsed());
        let records = broker.edit(|script| script.count(Kind::Lines)) - before;
        assert_eq!(records, 1, "both in one");

        // What comes later lingers again.
        let start = Instant::now();
        nodes[0].publish("c").await.expect("it is appended");
        assert!(start.elapsed() >= BackplaneConfig::LINGER, "{:?}", start.elapsed());
    });
}
