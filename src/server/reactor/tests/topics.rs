//! Streams of topics on real sockets: their ends, and events between which others are missing.

use std::task::Waker;

use super::{Client, Rig, narrow_pair};
use crate::config::HubConfig;
use crate::hub::Start;
use crate::ids::{EventId, Topic};
use crate::metrics::{CloseReason, read};
use crate::stream::EventStream;
use crate::wire::{Message, Payload};

fn topic() -> Topic {
    Topic { org: "acme".parse().expect("a name"), name: "run".parse().expect("a name") }
}

impl Rig {
    fn keeping(topic_events: usize) -> Self {
        Self::new(HubConfig { topic_events, ..HubConfig::default() })
    }

    fn open_topic(&self, exclusive: bool) -> EventStream {
        let (hub, now) = (&self.hub, self.clock.now());
        EventStream::open_topic(hub, &topic(), Start::All, exclusive, now).expect("not closing")
    }

    /// Publishes an event of about this length. Those whose name begins with `b` are bulk.
    fn post(&self, name: &str, len: usize) {
        let text = "x".repeat(len);
        let message = Message::new(name, Payload::Text(&text), name.starts_with('b'), usize::MAX);
        let message = message.expect("a message");
        self.hub.publish_message(&topic(), &message, self.clock.now());
    }

    fn topics_closed(&self, reason: CloseReason) -> u64 {
        self.hub.counters().map(|c| read(&c.closed[2][reason as usize])).sum()
    }
}

fn names(client: &Client) -> Vec<&str> {
    client.events.iter().map(|event| &*event.name).collect()
}

/// All events, `closed`, and an orderly end, wherever a full socket splits the last bytes.
#[tokio::test]
async fn a_closed_topic_completes_the_body_of_a_client_that_reads_late() {
    for len in 1..32 {
        let mut rig = Rig::keeping(100);
        let mut client = rig.begin(rig.open_topic(false)).await;
        for _ in 0..60 {
            rig.post("output", 300 + len);
            rig.run().await;
        }
        assert_eq!(rig.hub.close_topic(&topic(), "done", rig.clock.now()), 1);
        rig.run().await;
        assert_eq!(rig.hub.seats(), 1, "its socket is full");
        rig.run_until(|| {
            client.read(211);
            client.unframed.ended
        })
        .await;
        assert_eq!(names(&client)[1..], [&["output"; 60][..], &["closed"]].concat());
        assert_eq!(client.events[61].data, r#"{"reason":"done"}"#);
        assert_eq!((rig.hub.seats(), rig.topics_closed(CloseReason::Closed)), (0, 1));
    }
}

/// The event of a replaced stream is no position.
#[tokio::test]
async fn a_replaced_stream_gets_closed_and_the_end_of_its_body() {
    let mut rig = Rig::keeping(100);
    let mut old = rig.begin(rig.open_topic(true)).await;
    rig.post("first", 1);
    rig.run_until(|| {
        old.read(4096);
        names(&old) == ["connected", "first"]
    })
    .await;
    let new = rig.open_topic(true);
    assert!(new.poll_sole(Waker::noop()).is_pending());
    rig.post("second", 1);
    rig.run_until(|| {
        old.read(4096);
        old.unframed.ended
    })
    .await;
    assert_eq!(names(&old), ["connected", "first", "closed"]);
    let [_, first, closed] = &old.events[..] else { panic!("{:?}", old.events) };
    assert_eq!((&*closed.data, &closed.id), (r#"{"reason":"replaced"}"#, &first.id));
    assert!(new.poll_sole(Waker::noop()).is_ready());
    assert_eq!(rig.topics_closed(CloseReason::Replaced), 1);
    let mut new = rig.begin(new).await;
    rig.run_until(|| {
        new.read(4096);
        names(&new) == ["connected", "first", "second"]
    })
    .await;
}

#[tokio::test]
async fn a_replaced_stream_whose_socket_is_full_is_reset_for_the_newcomer() {
    let mut rig = Rig::keeping(100);
    let (server, client) = narrow_pair();
    let _client = rig.begin_on((server, client), rig.open_topic(true)).await;
    for _ in 0..60 {
        rig.post("output", 2_000);
        rig.run().await;
    }
    let new = rig.open_topic(true);
    rig.run().await;
    assert!(new.poll_sole(Waker::noop()).is_pending(), "it takes nothing");
    new.end_rivals();
    rig.run().await;
    assert!(new.poll_sole(Waker::noop()).is_ready());
    assert_eq!((rig.hub.seats(), rig.topics_closed(CloseReason::Stalled)), (1, 1));
}

/// A client that reads too slowly, through a socket that is full again and again: events come in order and whole, and
/// none is missing without a `connected` but bulk ones.
#[tokio::test]
async fn no_event_of_a_topic_is_lost_unnoticed_but_bulk_ones() {
    for (kept, pace) in [(3, 700), (8, 800), (100, 3_000)] {
        let mut rig = Rig::keeping(kept);
        let mut client = rig.begin(rig.open_topic(false)).await;
        for n in 0..400usize {
            let name = if n % 3 == 0 { "bulk" } else { "event" };
            rig.post(name, 100 + n * 37 % 900);
            if n % 5 < 2 {
                rig.run().await;
            }
            client.read(n * 131 % pace);
        }
        rig.hub.close_topic(&topic(), "done", rig.clock.now());
        rig.run_until(|| {
            client.read(4096);
            client.unframed.ended
        })
        .await;
        // Without notice, no event may be missing between two that are not bulk.
        let (mut last, mut notified) = (0, false);
        for event in &client.events {
            let id: EventId = event.id.parse().expect("an id");
            match &*event.name {
                "connected" => notified = true,
                "bulk" => {}
                _ => {
                    let missing = (last + 1..id.seq.0).any(|seq| (seq - 1) % 3 != 0);
                    assert!(id.seq.0 > last && (notified || !missing), "{id} after {last}");
                    (last, notified) = (id.seq.0, false);
                }
            }
        }
        assert_eq!((names(&client).last(), last), (Some(&"closed"), 401));
        let connects = names(&client).iter().filter(|name| **name == "connected").count();
        assert_eq!(kept < 100, connects > 1, "{connects}");
    }
}
