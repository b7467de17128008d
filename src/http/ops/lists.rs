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
