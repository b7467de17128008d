//! What outlives a process: saved and restored, exported and imported.

mod copies;
mod fixtures;
mod limits;
mod logs;
mod side;
mod streams;
mod twin;

use std::task::{Poll, Waker};
use std::time::Duration;

use crate::config::HubConfig;
use crate::hub::state::SeatState;
use crate::hub::{Hub, Keys, Subscription, View};
use crate::state::Record;
use crate::time::Time;

/// Text that a stream receives until there is nothing more.
fn received(stream: &mut Subscription) -> String {
    let mut text = String::new();
    while let Poll::Ready(Some(frame)) = stream.poll_next(Waker::noop()) {
        text += std::str::from_utf8(frame.bytes(false)).expect("UTF-8");
    }
    text
}

fn saved(hub: &Hub, now: Time) -> Vec<Record> {
    let mut records = Vec::new();
    let mut keep = |record| {
        records.push(record);
        Ok(())
    };
    hub.save(now, &mut keep).expect("to memory");
    records
}

/// Another process's hub, with what this one remembers.
fn moved(hub: &Hub, now: Time, shards: usize, later: Time) -> Hub {
    let other = Hub::with_shards(hub.config().clone(), shards);
    for record in saved(hub, now) {
        other.restore(record, Duration::ZERO, later).expect("valid");
    }
    other
}

fn publish(hub: &Hub, key: &str, now: Time) {
    let keys = Keys::new([key], hub.config()).expect("a key");
    hub.publish(&"acme".parse().expect("a name"), &keys, now);
}

fn hub() -> Hub {
    Hub::with_shards(HubConfig { coalesce: Duration::ZERO, ..HubConfig::default() }, 2)
}

fn exported(hub: &Hub, stream: &Subscription, now: Time) -> SeatState {
    hub.exporter().export(stream, now).expect("it can move")
}

#[test]
fn a_stream_goes_on_where_it_was() {
    let (hub, org) = (hub(), "acme".parse().expect("a name"));
    let (mut stream, _) = hub.subscribe(&org, View::Member, None, Time(0)).expect("open");
    publish(&hub, "a", Time(10));
    received(&mut stream);
    publish(&hub, "b", Time(20));
    let other = moved(&hub, Time(30), 1, Time(5_030));
    let state = exported(&hub, &stream, Time(30));
    let mut again = other.import(&state, Time(5_030)).expect("valid");
    assert_eq!(
        other.shard().tick(),
        Time(5_030).tick(),
        "no pause before the first turn of its driver"
    );
    publish(&hub, "c", Time(40));
    publish(&other, "c", Time(5_040));
    let expected = received(&mut stream);
    assert_eq!(expected.matches("invalidate").count(), 2);
    assert_eq!(received(&mut again), expected);
    assert_eq!(other.end_restore(Time(5_040)), 0);
    assert_eq!(other.seats(), 1);
}
