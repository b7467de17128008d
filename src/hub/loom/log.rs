//! Records of a shared log reach each stream, whatever is opened, filled or cut concurrently.

use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::{org, subscribe, sweep, text};
use crate::config::{HubConfig, PublicOrgs, PublicPolicy};
use crate::hub::{CommandPasses, Hub, Subscription, View};
use crate::ids::{EventId, Mark, StreamHash};
use crate::time::Time;
use crate::wire::Greeting;

const FIRST: Mark = Mark { tag: 11, position: 1 };
const SECOND: Mark = Mark { tag: 12, position: 2 };

/// The log from before was longer.
const BARRIER: Mark = Mark { tag: 99, position: 1 };

/// A hub that has applied the first record.
fn hub() -> Hub {
    let config = HubConfig {
        coalesce: Duration::ZERO,
        public: PublicPolicy { orgs: PublicOrgs::All, keys: ["a"].iter().collect() },
        ..HubConfig::default()
    };
    let hub = Hub::with_log(config, 1, 1 << 16, Duration::ZERO);
    hub.begin_log(1);
    hub.apply(FIRST, &Bytes::new(), Time(0));
    hub
}

fn apply(hub: &Hub) {
    let lines = Bytes::from_static(b"{\"org\":\"acme\",\"keys\":[\"a\"]}\n");
    hub.apply(SECOND, &lines, Time(0));
}

fn open(hub: &Hub, view: View, mark: Mark) -> (Subscription, Greeting) {
    let stream = match view {
        View::Public => StreamHash::of_public("acme"),
        _ => StreamHash::of_members("acme"),
    };
    hub.subscribe(&org(), view, Some(mark.id(stream, 0)), Time(0)).expect("not closing")
}

/// Whether a client resumes that has this last id.
fn resumes(hub: &Hub, id: EventId) -> bool {
    let resumed = hub.subscribe(&org(), View::Member, Some(id), Time(0));
    resumed.expect("not closing").1 == Greeting::Resumed
}

/// The id that it gives a client last.
fn last_id(text: &str) -> Option<EventId> {
    let id = text.lines().filter_map(|line| line.strip_prefix("id: ")).last()?;
    Some(id.parse().expect("an id"))
}

fn take(stream: &mut Subscription) -> String {
    let texts = std::iter::from_fn(|| text(stream.poll_next(Waker::noop())));
    texts.collect()
}

/// The id that an idle client would get now.
fn ping(stream: &Subscription) -> Option<EventId> {
    let payload = stream.keepalive_frame().payload();
    let text = std::str::from_utf8(&payload).expect("UTF-8");
    Some(text.strip_prefix("id: ")?.lines().next()?.parse().expect("an id"))
}

/// A client comes back to an org that has no channel, or to its public feed that there was not, while a record is applied.
#[test]
fn a_client_that_resumes_during_a_record_gets_it_once() {
    for view in [View::Member, View::Public] {
        loom::model(move || {
            let hub = hub();
            let other = (view == View::Public).then(|| subscribe(&hub));
            let follower = hub.clone();
            let follower = loom::thread::spawn(move || apply(&follower));
            let (mut stream, greeting) = open(&hub, view, FIRST);
            assert_eq!(greeting, Greeting::Resumed);
            let (_, id) = stream.begin(greeting, None);
            let early = take(&mut stream);
            assert!(id.seq.0 < 2, "it has not received the record yet");
            let ping = ping(&stream);
            follower.join().expect("no panic");
            sweep(&hub);
            let late = take(&mut stream);
            assert_eq!((early.clone() + &late).matches("[\"a\"]").count(), 1, "{early}, {late}");
            if ping.is_some_and(|id| id.seq.0 == SECOND.position) {
                assert!(late.is_empty(), "it had the id of what it had not received");
            }
            drop(other);
        });
    }
}

/// Two threads create the org's channel, one of them for a position.
#[test]
fn a_channel_is_filled_before_anyone_sees_it() {
    loom::model(|| {
        let hub = hub();
        apply(&hub);
        let backend = hub.clone();
        let backend = loom::thread::spawn(move || backend.position(&org(), Time(0)).member.id);
        let (mut stream, greeting) = open(&hub, View::Member, FIRST);
        assert_eq!(greeting, Greeting::Resumed);
        assert!(take(&mut stream).contains("[\"a\"]"));
        let id = backend.join().expect("no panic");
        assert_eq!(id, Hub::member_id(&org(), SECOND));
    });
}

/// A client comes back with an id from before, and another one is idle, while the log begins anew.
#[test]
fn a_cut_reaches_whatever_is_open_or_opens() {
    loom::model(|| {
        let hub = hub();
        let mut idle = subscribe(&hub);
        let follower = hub.clone();
        let follower = loom::thread::spawn(move || {
            follower.cut(BARRIER, Time(0));
        });
        let ping = ping(&idle);
        let (mut back, greeting) = open(&hub, View::Member, FIRST);
        let (greeting, id) = back.begin(greeting, None);
        follower.join().expect("no panic");
        let mut passes = CommandPasses::default();
        let mut batch = crate::hub::Batch::default();
        while passes.turn(&hub.driver(), Time(0), &mut batch, |batch| {
            batch.wake();
            batch.clear();
        }) {}
        let barrier = Hub::member_id(&org(), BARRIER);
        assert_ne!(ping, Some(barrier), "it has not re-read");
        assert!(take(&mut idle).contains("event: connected\n"));
        let late = take(&mut back);
        let re_reads = late.contains("event: connected\n");
        assert!(re_reads || greeting == Greeting::Connected, "it is not notified of the cut");
        assert!(resumes(&hub, last_id(&late).unwrap_or(id)), "it would re-read once more");
        if id == barrier {
            assert_eq!(greeting, Greeting::Connected);
        }
        assert_eq!(open(&hub, View::Member, FIRST).1, Greeting::Connected);
        assert_eq!(open(&hub, View::Member, BARRIER).1, Greeting::Resumed);
    });
}
