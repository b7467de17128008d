//! Successors that are gone, or that do not answer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use http::{StatusCode, header};

use super::*;
use crate::hub::View;

/// Takes what it is sent, and answers nothing by itself.
#[derive(Clone, Debug, Default)]
struct Silent {
    sent: Arc<Mutex<Vec<u64>>>,
}

/// Cannot be reached.
#[derive(Debug)]
struct Full;

// ===== impl Silent =====

impl Silent {
    fn sent(&self) -> usize {
        self.sent.lock().len()
    }
}

impl OperationSender for Silent {
    fn send(&self, number: u64, _: &Operation) -> Result<(), String> {
        self.sent.lock().push(number);
        Ok(())
    }
}

impl OperationSender for Full {
    fn send(&self, _: u64, _: &Operation) -> Result<(), String> {
        Err("its socket is full".into())
    }
}

fn silent() -> (Silent, Arc<Operations>) {
    let sender = Silent::default();
    (sender.clone(), Arc::new(Operations::new(sender, Clock::start())))
}

fn hub() -> Hub {
    Hub::new(HubConfig::default())
}

fn publish() -> Request {
    Request::Topic(topic("acme", "run"), r#"{"event":"a","text":"b"}"#.into())
}

/// Whether it is pending after one poll.
async fn is_pending(future: &mut Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

async fn problem(response: Response<http_body_util::Full<Bytes>>) -> serde_json::Value {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(header::RETRY_AFTER), "{response:?}");
    serde_json::from_str(&text(response).await).expect("JSON")
}

/// A client that must not do a thing twice repeats a 503 unless it is of the kind that may be done.
#[tokio::test(start_paused = true)]
async fn what_is_sent_and_not_answered_may_have_been_done() {
    for ends in [false, true] {
        let ((sender, operations), hub) = (silent(), hub());
        let successor = OnceLock::from(operations.clone());
        let request = publish();
        let mut response = pin!(respond(publisher(&hub, &successor), &request, Time(0)));
        assert!(is_pending(&mut response).await && sender.sent() == 1);
        let begun = tokio::time::Instant::now();
        if ends {
            operations.end();
        }
        let problem = problem(response.await).await;
        assert_eq!(problem["type"], "backplane-unavailable", "{problem}");
        assert!(problem["detail"].as_str().expect("text").contains("may have been done"));
        let waited = begun.elapsed();
        assert_eq!(waited >= ANSWER_MAX, !ends, "{waited:?}");
        assert!(waited < ANSWER_MAX * 2, "{waited:?}");
        assert_eq!(hub.topics(), 0, "no hub but that of the successor has it");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sent_has_not_been_done() {
    let full = Arc::new(Operations::new(Full, Clock::start()));
    let (ended_outlet, ended) = silent();
    ended.end();
    for operations in [full, ended] {
        let (hub, successor) = (hub(), OnceLock::from(operations.clone()));
        for request in [
            publish(),
            Request::Org(org("acme"), r#"{"keys":["a"]}"#.into()),
            Request::Lines(r#"{"org":"acme","keys":["a"]}"#.into()),
            Request::Close(topic("acme", "run"), String::new()),
            Request::Command(Command::RereadAll),
        ] {
            let response = respond(publisher(&hub, &successor), &request, Time(0)).await;
            let problem = problem(response).await;
            assert!(problem.get("type").is_none(), "{problem}");
        }
        assert!(operations.pending.lock().sent.is_empty());
    }
    assert_eq!(ended_outlet.sent(), 0);
}

/// The successor has other limits than it was thought to have.
#[tokio::test(start_paused = true)]
async fn what_is_refused_has_not_been_done() {
    let ((_, operations), hub) = (silent(), hub());
    let successor = OnceLock::from(operations.clone());
    let request = publish();
    let mut response = pin!(respond(publisher(&hub, &successor), &request, Time(0)));
    assert!(is_pending(&mut response).await);
    operations.answer(1, Some(Done::default()));
    assert!(is_pending(&mut response).await, "that was another one");
    operations.answer(0, None);
    assert!(problem(response.await).await.get("type").is_none());
}

/// Also those count whose clients have gone: the successor has still to read them.
#[tokio::test(start_paused = true)]
async fn so_many_are_in_flight_and_the_others_wait_for_their_turn() {
    let ((sender, operations), hub) = (silent(), hub());
    for _ in 0..IN_FLIGHT_MAX {
        let mut abandoned = pin!(operations.perform(Operation::RereadAll, &hub));
        assert!(is_pending(&mut abandoned).await);
        tokio::task::yield_now().await;
    }
    let mut next = pin!(operations.perform(Operation::RereadAll, &hub));
    assert!(is_pending(&mut next).await);
    assert_eq!(sender.sent(), IN_FLIGHT_MAX);
    operations.answer(7, Some(Done::default()));
    assert!(is_pending(&mut next).await);
    assert_eq!(sender.sent(), IN_FLIGHT_MAX + 1);
    let done = Done { id: None, streams: 3 };
    operations.answer(IN_FLIGHT_MAX as u64, Some(done));
    assert_eq!(next.await, Ok(done));
    // And those that have no turn in time are not sent.
    operations.perform(Operation::RereadAll, &hub).await.expect_err("no answer");
    let late = operations.perform(Operation::RereadAll, &hub).await;
    assert_eq!((late, sender.sent()), (Err(Failed::NotDone), IN_FLIGHT_MAX + 2));
}

/// SCENARIO: all clients are to re-read everything, for which the orgs are visited a part at a time, and another process
/// takes over in between.
/// BUG: the rest of the orgs re-read in the old process, which has no streams any more.
/// FIX: the successor has all of them re-read.
#[tokio::test(start_paused = true)]
async fn a_reread_of_all_begins_again_in_the_successor() {
    let (old, new, now) = (hub(), hub(), Arc::new(AtomicU64::new(0)));
    let streams: Vec<_> = (0..500)
        .map(|n| {
            let org = org(&format!("org-{n}"));
            [&old, &new].map(|hub| hub.subscribe(&org, View::Member, None, Time(0)).expect("open"))
        })
        .collect();
    let (successor, request) = (OnceLock::new(), Request::Command(Command::RereadAll));
    let mut response = pin!(respond(publisher(&old, &successor), &request, Time(0)));
    assert!(is_pending(&mut response).await, "it visits the orgs in parts");
    successor.set(loopback(&new, &now)).expect("the first");
    let before = new.position(&org("org-499"), Time(0));
    assert_eq!(text(response.await).await, r#"{"streams":500}"#);
    assert_ne!(new.position(&org("org-499"), Time(0)), before, "its ids begin anew");
    drop(streams);
}
