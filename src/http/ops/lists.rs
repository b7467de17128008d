//! The busiest orgs and topics, as JSON. A scan of the hub finds them, at most one a second, however many requests there
//! are; responses share its texts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use crate::hub::{Busiest, Busy, Hub, Numbers, Ranks, Visits};
use crate::sync::Mutex;
use crate::time::{Clock, Time};

/// The last scan, and the one that is under way.
#[derive(Debug, Default)]
pub(in crate::http) struct Lists(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Arc<Texts>>,
    /// When the next scan may begin.
    due: Time,
    /// Notified of the end of the scan that is under way.
    ended: Option<watch::Receiver<()>>,
    /// `None` while it is.
    visits: Option<Visits>,
}

/// What a scan has found.
#[derive(Debug)]
pub(in crate::http) struct Texts([[Bytes; 2]; 2]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum List {
    Orgs,
    Topics,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Order {
    Streams,
    Publishes,
}

/// A scan that is under way. It is over when this is dropped.
struct Scanning {
    lists: Arc<Lists>,
    visits: Visits,
    _end: watch::Sender<()>,
}

#[derive(Serialize)]
struct Orgs<'a> {
    total: usize,
    orgs: Vec<OrgRow<'a>>,
}

#[derive(Serialize)]
struct OrgRow<'a> {
    org: &'a str,
    members: usize,
    public: usize,
    publishes_per_second: f64,
}

#[derive(Serialize)]
struct Topics<'a> {
    total: usize,
    topics: Vec<TopicRow<'a>>,
}

#[derive(Serialize)]
struct TopicRow<'a> {
    org: &'a str,
    topic: &'a str,
    streams: usize,
    publishes_per_second: f64,
    bytes: usize,
}

/// How long it is to the next scan, at least and at most. In between, it is so many times as long as a scan takes that
/// scans have a sixteenth of the time.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
const SHARE: u32 = 16;

// ===== impl Lists =====

impl Lists {
    /// What the last scan has found, if it is new enough. Otherwise begins another one, unless that is under way.
    ///
    /// # Errors
    /// What is notified once that has ended. Inside a runtime.
    pub(in crate::http) fn newest(
        self: &Arc<Self>,
        hub: &Hub,
        clock: Clock,
    ) -> Result<Arc<Texts>, watch::Receiver<()>> {
        let begins = clock.now();
        let mut state = self.0.lock();
        if let Some(last) = state.last.as_ref().filter(|_| begins < state.due) {
            return Ok(last.clone());
        }
        if let Some(ended) = &state.ended {
            return Err(ended.clone());
        }
        let (end, ended) = watch::channel(());
        state.ended = Some(ended.clone());
        let visits = state.visits.take().unwrap_or_default();
        drop(state);
        let mut scanning = Scanning { lists: self.clone(), visits, _end: end };
        let hub = hub.clone();
        // Not in the request: one that is no longer polled would hold up all others.
        tokio::spawn(async move {
            let mut scan = scanning.visits.scan(&hub);
            while scan.step(clock.now()) {
                tokio::task::yield_now().await;
            }
            let texts = Arc::new(Texts::of(&scan.finish()));
            let now = clock.now();
            let pause = (now.since(begins) * SHARE).clamp(PAUSE.0, PAUSE.1);
            let mut state = scanning.lists.0.lock();
            (state.last, state.due) = (Some(texts), now.after(pause));
        });
        Err(ended)
    }

    /// What the last scan has found.
    pub(in crate::http) fn last(&self) -> Option<Arc<Texts>> {
        self.0.lock().last.clone()
    }
}

impl Drop for Scanning {
    fn drop(&mut self) {
        let mut state = self.lists.0.lock();
        state.ended = None;
        state.visits = Some(std::mem::take(&mut self.visits));
    }
}

// ===== impl Texts =====

impl Texts {
    fn of(Busiest { orgs, topics }: &Busiest) -> Self {
        let both = |ranks: &Ranks, text: fn(usize, &[Busy]) -> Bytes| {
            [&ranks.by_streams, &ranks.by_publishes].map(|rows| text(ranks.total, rows))
        };
        Self([both(orgs, orgs_text), both(topics, topics_text)])
    }

    pub(in crate::http) fn get(&self, list: List, order: Order) -> Bytes {
        self.0[list as usize][order as usize].clone()
    }
}

fn orgs_text(total: usize, rows: &[Busy]) -> Bytes {
    let rows = rows.iter().map(|Busy { org, numbers, .. }| {
        let Numbers { streams: members, public, publishes, .. } = *numbers;
        OrgRow { org: org.as_str(), members, public, publishes_per_second: publishes.per_second() }
    });
    to_json(&Orgs { total, orgs: rows.collect() })
}

fn topics_text(total: usize, rows: &[Busy]) -> Bytes {
    let rows = rows.iter().map(|Busy { org, topic, numbers }| {
        let Numbers { streams, publishes, bytes, .. } = *numbers;
        TopicRow {
            org: org.as_str(),
            topic: topic.as_ref().map_or("", |topic| topic.as_str()),
            streams,
            publishes_per_second: publishes.per_second(),
            bytes,
        }
    });
    to_json(&Topics { total, topics: rows.collect() })
}

fn to_json(list: &impl Serialize) -> Bytes {
    serde_json::to_vec(list).expect("text and numbers").into()
}

#[cfg(all(test, not(nudged_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::HubConfig;
    use crate::hub::View;

    async fn list(lists: &Arc<Lists>, hub: &Hub, clock: Clock) -> Arc<Texts> {
        match lists.newest(hub, clock) {
            Ok(texts) => texts,
            Err(mut ended) => {
                _ = ended.changed().await;
                lists.last().expect("it has ended")
            }
        }
    }

    /// Time stands still but for what it is advanced by.
    #[tokio::test(start_paused = true)]
    async fn there_is_one_scan_a_second_however_many_ask() {
        let (hub, clock) = (Hub::new(HubConfig::default()), Clock::start());
        let (lists, mut all) = (Arc::new(Lists::default()), Vec::new());
        for _ in 0..3 {
            let waiting: Vec<_> = (0..100)
                .map(|_| {
                    let (lists, hub) = (lists.clone(), hub.clone());
                    tokio::spawn(async move { list(&lists, &hub, clock).await })
                })
                .collect();
            let mut texts = Vec::new();
            for one in waiting {
                texts.push(one.await.expect("a list"));
            }
            tokio::time::advance(Duration::from_millis(990)).await;
            texts.push(list(&lists, &hub, clock).await);
            assert!(texts.iter().all(|one| Arc::ptr_eq(one, &texts[0])), "they share it");
            all.push(texts.swap_remove(0));
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!(!Arc::ptr_eq(&all[0], &all[1]) && !Arc::ptr_eq(&all[1], &all[2]));
    }

    /// SCENARIO: the client that has a scan begun goes away before it is over.
    /// BUG: the scan, a part of its request, stood still, and all others waited for it.
    /// FIX: it is a task of its own; and one that ends early, with its runtime, lets the next begin.
    #[test]
    fn a_scan_is_not_of_the_request_that_has_it_begun() {
        let (hub, clock) = (Hub::new(HubConfig::default()), Clock::start());
        let org = "acme".parse().expect("a name");
        let _stream = hub.subscribe(&org, View::Member, None, clock.now()).expect("open");
        let lists = Arc::new(Lists::default());
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
        let first = runtime();
        first.block_on(async {
            drop(lists.newest(&hub, clock).expect_err("none yet"));
            list(&lists, &hub, clock).await;
        });
        lists.0.lock().due = Time(0);
        let second = runtime();
        let ended = second.block_on(async { lists.newest(&hub, clock).expect_err("it is due") });
        drop(second);
        assert!(ended.has_changed().is_err(), "it has ended");
        let texts = first.block_on(list(&lists, &hub, clock));
        let text = texts.get(List::Orgs, Order::Streams);
        let expected = r#"{"total":1,"orgs":[{"org":"acme","members":1,"public":0,"publishes_per_second":0.0}]}"#;
        assert_eq!(text, expected);
    }
}
