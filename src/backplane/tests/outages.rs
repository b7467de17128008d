//! A broker that is away, or a way to it.

use super::*;

#[test]
fn a_node_that_is_cut_off_refuses_publishes_and_misses_nothing() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        broker.edit(|script| script.set_cut_off(1, true));
        until("it is noticed", || !nodes[1].backplane.state().is_connected).await;
        let start = Instant::now();
        let refused = nodes[1].publish("a").await;
        assert!(matches!(refused, Err(AppendError::NotAppended)), "{refused:?}");
        assert_eq!(start.elapsed().as_secs(), 5);
        let state = nodes[1].backplane.state();
        assert!(!state.is_connected && state.is_loaded && state.why.is_some(), "{state:?}");
        let mark = nodes[0].publish("b").await.expect("others go on").mark;
        seconds(30).await;
        broker.edit(|script| script.set_cut_off(1, false));
        until("it comes late", || nodes[1].hub.has_mark(mark)).await;
        nodes[1].publish("c").await.expect("it works again");
        assert_eq!((nodes[0].cuts(), nodes[1].cuts()), (0, 0));
    });
}

/// SCENARIO: the broker is down for longer than publishes wait, and a backend publishes an event of a topic.
/// BUG: the answer was that the event may have been stored, though it was never appended: the backend could not publish
/// it again without having it twice.
/// FIX: the answer is that nothing was stored, unless it was appended before.
#[test]
fn what_was_never_appended_is_not_stored() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        let records = broker.edit(|script| script.count(Kind::Lines));
        broker.edit(|script| script.set_acks(Acks::Swallowed));
        let appended = nodes[0].append(keys("appended"));
        sleep(Duration::from_millis(100)).await;
        broker.edit(|script| script.set_down(true));
        until("it is noticed", || !nodes[0].backplane.state().is_connected).await;
        let refused = nodes[0].backplane.append(event("run")).await;
        assert!(matches!(refused, Err(AppendError::NotAppended)), "{refused:?}");
        let refused = appended.await.expect("no panic");
        assert!(matches!(refused, Err(AppendError::Unavailable)), "{refused:?}");
        seconds(10).await;
        broker.edit(Script::heal);
        nodes[0].publish("after").await.expect("it goes on");
        assert_eq!(broker.edit(|script| script.count(Kind::Lines)), records + 1);
    });
}

#[test]
fn publishes_wait_for_a_broker_that_restarts_and_a_trusted_one_cuts_nothing() {
    test(async {
        let broker = Scripted::new();
        let nodes = [0, 1].map(|node| Node::start(&broker.trusting(), node));
        nodes[0].publish("before").await.expect("it is appended");
        broker.edit(|script| script.set_down(true));
        let waits = nodes[0].append(keys("meanwhile"));
        seconds(2).await;
        broker.edit(|script| {
            script.restart("run-2");
            script.set_down(false);
        });
        let mark = waits.await.expect("no panic").expect("it waited").mark;
        until("everywhere", || nodes[1].hub.has_mark(mark)).await;
        assert_eq!((nodes[0].cuts(), nodes[1].cuts()), (0, 0));
    });
}

#[test]
fn a_broker_that_is_down_for_minutes_costs_nothing_unless_records_were_evicted() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        nodes[0].publish("a").await.expect("it is appended");
        broker.edit(|script| script.set_down(true));
        seconds(180).await;
        broker.edit(|script| script.set_down(false));
        nodes[1].is_connected().await;
        nodes[1].publish("b").await.expect("it is appended");
        assert_eq!((nodes[0].cuts(), nodes[1].cuts()), (0, 0));
    });
}

#[test]
fn a_node_that_is_delivered_nothing_notices_by_its_beat_within_8_seconds() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 2).await;
        seconds(6).await;
        let start = Instant::now();
        broker.edit(|script| script.set_stalled(1, true));
        let mark = nodes[0].publish("a").await.expect("it is appended").mark;
        let opens = broker.edit(|script| script.opens());
        until("it opens the log again", || broker.edit(|script| script.opens()) > opens).await;
        assert!(!nodes[1].backplane.state().is_connected);
        assert!(start.elapsed() <= Duration::from_secs(8));
        broker.edit(|script| script.set_stalled(1, false));
        until("it has it", || nodes[1].hub.has_mark(mark)).await;
        assert_eq!(nodes[1].cuts(), 0);
    });
}

#[test]
fn a_broker_that_is_down_at_the_start_is_waited_for() {
    test(async {
        let broker = Scripted::new();
        broker.edit(|script| script.set_down(true));
        let node = Node::start(&broker, 0);
        seconds(60).await;
        let state = node.backplane.state();
        assert!(!state.is_loaded && state.why.is_some(), "{state:?}");
        let opens = broker.edit(|script| script.opens());
        assert!((30..200).contains(&opens), "{opens} attempts in a minute");
        broker.edit(|script| script.set_down(false));
        until("loaded", || node.backplane.state().is_loaded).await;
        assert_eq!(node.backplane.state().why, None);
    });
}

/// SCENARIO: the broker's disk is full: the log can be read, and refuses every record.
/// BUG: the log was opened again, and that was written, ten times a second.
/// FIX: the pauses between grow, as when the broker is down, unless what was appended has come back.
#[test]
fn a_log_that_refuses_every_record_is_not_opened_again_and_again() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_acks(Acks::Refused));
        let before = broker.edit(|script| script.opens());
        seconds(60).await;
        let opens = broker.edit(|script| script.opens()) - before;
        assert!((20..80).contains(&opens), "{opens} in a minute");
        broker.edit(|script| script.set_acks(Acks::Prompt));
        seconds(3).await;
        nodes[0].publish("after").await.expect("it goes on");
    });
}

/// SCENARIO: the broker is down for a minute, after a connection that was of use.
/// BUG: what had come back through that connection counted for each attempt since: each server tried 13 times a second.
/// FIX: an attempt to open the log has no answer of the one before.
#[test]
fn a_broker_that_is_down_is_not_tried_again_and_again() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        nodes[0].publish("a").await.expect("it is appended");
        let before = broker.edit(|script| {
            script.set_down(true);
            script.opens()
        });
        seconds(60).await;
        let opens = broker.edit(|script| script.opens()) - before;
        assert!((20..80).contains(&opens), "{opens} attempts in a minute");
    });
}
