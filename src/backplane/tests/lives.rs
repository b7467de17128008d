//! Servers that are killed, stop, and end.

use super::*;

#[test]
fn the_client_of_a_node_that_is_killed_resumes_on_another() {
    test(async {
        let broker = Scripted::new();
        let mut nodes = Node::cluster(&broker, 2).await;
        let mark = nodes[0].publish("posts").await.expect("it is appended").mark;
        nodes.remove(0);
        let other = &nodes[0];
        let missed = other.publish("more").await.expect("it is appended").mark;
        let (id, now) = (Hub::member_id(&org(), mark), other.clock.now());
        let opened = other.hub.subscribe(&org(), View::Member, Some(id), now);
        let (subscription, greeting) = opened.expect("not closing");
        assert_eq!(greeting, Greeting::Resumed);
        assert_eq!(subscription.position(), id);
        assert!(missed.position > mark.position);
        // A node that starts now has it too, before it is ready.
        let third = Node::start(&broker, 2);
        until("loaded", || third.backplane.state().is_loaded).await;
        let opened = third.hub.subscribe(&org(), View::Member, Some(id), third.clock.now());
        assert_eq!(opened.expect("not closing").1, Greeting::Resumed);
    });
}

#[test]
fn a_node_that_stops_waits_for_what_was_appended_and_accepts_nothing_more() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_stalled(0, true));
        let last = nodes[0].append(keys("last"));
        sleep(Duration::from_millis(50)).await;
        nodes[0].backplane.stop();
        assert_eq!(nodes[0].publish("late").await.map(|_| ()), Err(AppendError::Stopping));
        seconds(1).await;
        broker.edit(|script| script.set_stalled(0, false));
        last.await.expect("no panic").expect("it came back");
        nodes[0].backplane.ended().await;
    });
}

#[test]
fn a_node_that_stops_without_its_broker_ends_after_the_timeout() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        broker.edit(|script| script.set_down(true));
        until("it is noticed", || !nodes[0].backplane.state().is_connected).await;
        let waits = nodes[0].append(keys("last"));
        sleep(Duration::from_millis(50)).await;
        nodes[0].backplane.stop();
        let start = Instant::now();
        nodes[0].backplane.ended().await;
        assert!(start.elapsed() <= Duration::from_secs(6));
        let refused = waits.await.expect("no panic");
        assert!(matches!(refused, Err(AppendError::NotAppended)), "{refused:?}");
    });
}

#[test]
fn it_runs_on_a_thread_of_its_own_and_ends_with_its_last_handle() {
    let (broker, clock) = (Scripted::new(), Clock::start());
    let hub = Hub::with_log(HubConfig::default(), 1, 1 << 20, Duration::ZERO);
    let backplane = Backplane::start(broker, &config(), hub.clone(), clock).expect("it starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let appended = backplane.append(keys("a")).await.expect("it is appended");
        assert!(hub.has_mark(appended.mark));
        backplane.stop();
        backplane.ended().await;
    });
}

/// SCENARIO: everything was read again, and an hour later a server is restarted.
/// BUG: it counted the barrier that it read, as if its pages had read everything again: an alert at each restart.
/// FIX: a server without streams yet has cut none.
#[test]
fn a_barrier_from_before_a_node_is_no_cut_of_it() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        nodes[0].backplane.barrier("restored").await.expect("it is appended");
        assert_eq!(nodes[0].cuts_for(CutReason::Barrier), 1);
        let later = Node::cluster(&broker, 1).await;
        assert_eq!(later[0].cuts(), 0);
        nodes[0].backplane.barrier("again").await.expect("it is appended");
        until("its barrier counts", || later[0].cuts() == 1).await;
    });
}

/// SCENARIO: a defect ends the thread that follows the log, after the broker has taken an event of a topic.
/// BUG: the publish was answered as those that come while the server stops, of which nothing is stored: the backend
/// published the event again, and its subscribers got it twice.
/// FIX: it is answered that the event may have been stored.
#[test]
fn what_was_appended_when_the_thread_dies_may_have_been_stored() {
    let (broker, clock) = (Scripted::new(), Clock::start());
    let hub = Hub::with_log(HubConfig::default(), 1, 1 << 20, Duration::ZERO);
    let backplane = Backplane::start(broker.clone(), &config(), hub, clock).expect("it starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        backplane.append(keys("a")).await.expect("it is appended");
        broker.edit(|script| script.set_acks(Acks::Panic));
        let refused = backplane.append(event("run")).await;
        assert!(matches!(refused, Err(AppendError::Unavailable)), "{refused:?}");
        backplane.ended().await;
        let refused = backplane.append(event("run")).await;
        assert!(matches!(refused, Err(AppendError::Stopping)), "{refused:?}");
    });
}

/// SCENARIO: the log loses records that only one server has read, and that server is asked to stop.
/// BUG: it stopped before it was sure of the loss, or before its barrier was stored. No other server could know.
/// FIX: it waits until its barrier has come back.
#[test]
fn a_node_that_stops_appends_its_barrier_for_a_loss_first() {
    test(async {
        for millis in [500, 2_050] {
            let broker = Scripted::new();
            let nodes = Node::cluster(&broker, 2).await;
            broker.edit(|script| script.set_cut_off(1, true));
            for n in 0..5 {
                nodes[0].publish(&format!("k{n}")).await.expect("it is appended");
            }
            broker.edit(|script| {
                script.truncate(script.newest() - 5);
                script.disconnect(0);
            });
            sleep(Duration::from_millis(millis)).await;
            nodes[0].backplane.stop();
            nodes[0].backplane.ended().await;
            broker.edit(|script| script.set_cut_off(1, false));
            until("the other one is cut", || nodes[1].cuts() == 1).await;
        }
    });
}

#[test]
fn a_node_that_stops_and_cannot_append_its_barrier_ends_too() {
    test(async {
        let broker = Scripted::new();
        let nodes = Node::cluster(&broker, 1).await;
        nodes[0].publish("lost").await.expect("it is appended");
        broker.edit(|script| {
            script.truncate(script.newest() - 1);
            script.set_acks(Acks::Refused);
            script.disconnect(0);
        });
        seconds(5).await;
        nodes[0].backplane.stop();
        let start = Instant::now();
        nodes[0].backplane.ended().await;
        assert!(start.elapsed() <= Duration::from_secs(11));
    });
}
