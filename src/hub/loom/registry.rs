//! A channel with a subscriber is never removed.

use std::task::Waker;
use std::time::Duration;

use super::{bell, hub, publish, subscribe, text};
use crate::config::HubConfig;
use crate::hub::{Hub, View};
use crate::time::{Tick, Time};

#[test]
fn evicting_idle_orgs_keeps_a_channel_with_a_subscriber() {
    loom::model(|| {
        let coalesce = Duration::ZERO;
        let hub = Hub::new(HubConfig { coalesce, idle_channels_max: 0, ..HubConfig::default() });
        drop(subscribe(&hub));
        let newcomer = hub.clone();
        let newcomer = loom::thread::spawn(move || {
            let org = "other".parse().expect("a name");
            newcomer.subscribe(&org, View::Member, None, Time(0)).expect("not closing").0
        });
        let mut subscription = subscribe(&hub);
        let other = newcomer.join().expect("no panic");
        publish(&hub, "a");
        let received = text(subscription.poll_next(Waker::noop()));
        assert!(received.is_some(), "its channel was removed");
        assert_eq!(hub.seats(), 2);
        drop(other);
    });
}

#[test]
fn tidying_keeps_a_channel_with_a_subscriber() {
    loom::model(|| {
        let hub = hub();
        drop(subscribe(&hub));
        let tidier = hub.clone();
        let tidier = loom::thread::spawn(move || tidier.driver().tidy(Tick(0), Time(u64::MAX)));
        let mut subscription = subscribe(&hub);
        tidier.join().expect("no panic");
        publish(&hub, "a");
        let (_, waker) = bell();
        assert!(text(subscription.poll_next(&waker)).is_some(), "its channel was removed");
    });
}
