//! The promises, and what of the answers they are about.

use std::time::Duration;

use crate::compare::reliability::client::End;
use crate::compare::reliability::crowd::{Fate, Fates};
use crate::compare::reliability::disconnect::{Received, come_back};
use crate::compare::reliability::gap::{come_from_elsewhere, miss_many, position_elsewhere};
use crate::compare::reliability::kill::restart;
use crate::compare::reliability::limit::{self, Published, limit_descriptors};
use crate::compare::reliability::resumed::Resumed;
use crate::compare::reliability::sigterm;
use crate::measure::Plan;
use crate::peer::Peer;
use crate::protocol::{Client, Notice};

/// What is promised, and what panics if it is not so.
pub(crate) type Promise = (&'static str, fn());

pub(crate) const PROMISES: [Promise; 7] = [
    ("what_is_published_during_a_disconnect_arrives_once", disconnect),
    ("a_gap_is_stated", gap),
    ("a_position_of_another_server_is_stated_to_be_unknown", unknown),
    ("beyond_the_limit_of_connections_a_browser_gets_a_retry_and_the_others_go_on", connections),
    ("at_the_limit_of_open_files_streams_go_on_and_there_is_room_once_some_end", descriptors),
    ("on_sigterm_streams_end_in_good_order_with_all_that_was_accepted_and_a_retry", stop),
    ("what_is_lost_by_a_kill_is_stated", kill),
];

const PLAN: Plan = Plan {
    subscribers: 0,
    singles: 0,
    workers: 1,
    rounds: 0,
    flood: 0,
    idle: Duration::ZERO,
    nudged_before: None,
    history: None,
    connections: None,
};

fn disconnect() {
    let received = come_back(&Peer::Nudged.start(&PLAN).unwrap(), Client::EventSource).unwrap();
    assert_eq!(received, Received { once: 10, ..Received::default() });
}

fn gap() {
    let server = Peer::Nudged.start(&Plan { history: Some(16), ..PLAN }).unwrap();
    let resumed = miss_many(&server, Client::EventSource).unwrap();
    assert_eq!(resumed, Resumed { missed: 40, replayed: 0, stated: Some(Notice::Reread) });
}

fn unknown() {
    let position = position_elsewhere(Peer::Nudged, &PLAN).unwrap();
    let server = Peer::Nudged.start(&PLAN).unwrap();
    let resumed = come_from_elsewhere(&server, Client::EventSource, &position).unwrap();
    assert_eq!(resumed, Resumed { missed: 5, replayed: 0, stated: Some(Notice::Reread) });
}

fn connections() {
    let server = Peer::Nudged.start(&Plan { connections: Some(100), ..PLAN }).unwrap();
    let limited = limit::observe(&server, &|_| {}).unwrap();
    let fates = [(Fate::Served, 100), (Fate::SentAway { has_retry: true }, 50)];
    assert_eq!(limited.fates, Fates::from(fates));
    assert_eq!(limited.published, Published::Accepted);
    assert_eq!(limited.received, (100, 100));
    assert!(limited.freed.is_some());
    assert_eq!(limited.received_after, (51, 51));
}

fn descriptors() {
    let mut server = Peer::Nudged.start(&PLAN).unwrap();
    limit_descriptors(&mut server).unwrap();
    let limited = limit::observe(&server, &|_| {}).unwrap();
    assert!(limited.fates[&Fate::Served] < 150, "{limited:?}");
    assert!(limited.freed.is_some(), "{limited:?}");
    assert_eq!(limited.received_after, (limited.received.1 - 50 + 1, limited.received.1 - 50 + 1));
}

fn stop() {
    let stopped = sigterm::observe(&mut Peer::Nudged.start(&PLAN).unwrap()).unwrap();
    assert_eq!(stopped.ends, [(End::Complete, 100)].into());
    assert_eq!(stopped.received, 100);
    // One is drawn at random, and may be that of before.
    assert!(stopped.retries.len() > 90, "{stopped:?}");
    assert!(stopped.exit.is_some_and(|(status, _)| status.success()), "{stopped:?}");
}

fn kill() {
    let mut server = Peer::Nudged.start(&PLAN).unwrap();
    let restarted = restart(&mut server, Client::EventSource).unwrap();
    assert_eq!((restarted.stated, restarted.silent, restarted.stuck), (3, 0, 0), "{restarted:?}");
}
