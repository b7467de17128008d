//! The thread that follows the log, on a scripted broker and with paused time: what happens to publishes, streams and
//! servers when the broker fails.

mod appends;
mod lives;
mod losses;
mod outages;
mod primaries;
mod records;

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;

use super::broker::{Entry, Kind, VERSION};
use super::follower::CutReason;
use super::scripted::{Acks, Script, Scripted};
use super::wait::sleep;
use super::{AppendError, Appended, Backplane};
use crate::config::{BackplaneConfig, HubConfig};
use crate::hub::record::Lines;
use crate::hub::{Hub, Keys, View};
use crate::ids::{OrgName, Topic};
use crate::metrics;
use crate::time::Clock;
use crate::wire::{Greeting, Payload};

/// One server, without sockets.
struct Node {
    hub: Hub,
    backplane: Backplane,
    clock: Clock,
}

type Result<T> = std::result::Result<T, AppendError>;

fn config() -> BackplaneConfig {
    let url = "nats://127.0.0.1".parse().expect("a URL");
    BackplaneConfig { tail_bytes: 1 << 20, ..BackplaneConfig::new(url) }
}

fn org() -> OrgName {
    "acme".parse().expect("a name")
}

fn keys(key: &str) -> Lines {
    let mut lines = Lines::new();
    lines.keys(&org(), &Keys::new([key], &HubConfig::default()).expect("a key"));
    lines
}

fn topic(name: &str) -> Topic {
    Topic { org: org(), name: name.parse().expect("a name") }
}

fn event(name: &str) -> Lines {
    let mut lines = Lines::new();
    lines.message(&topic(name), "output", Payload::Text("x"), false);
    lines
}

fn close(name: &str) -> Lines {
    let mut lines = Lines::new();
    lines.close(&topic(name), "done");
    lines
}

fn claim(name: &str) -> Lines {
    let mut lines = Lines::new();
    lines.exclusive(&topic(name), 7);
    lines
}

/// Runs a test with paused time.
fn test(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(work));
}

/// Waits for a condition, for 5 minutes of paused time at most.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(300), "in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

// ===== impl Node =====

impl Node {
    fn start(broker: &Scripted, node: usize) -> Self {
        let (config, clock) = (config(), Clock::start());
        let (tail, window) = (config.tail_bytes, Duration::from_secs(5));
        let hub = Hub::with_log(HubConfig::default(), 1, tail, window);
        let backplane = Backplane::start_local(broker.of_node(node), &config, hub.clone(), clock);
        Self { hub, backplane, clock }
    }

    /// Nodes that have loaded the log.
    async fn cluster(broker: &Scripted, count: usize) -> Vec<Self> {
        let nodes: Vec<_> = (0..count).map(|node| Self::start(broker, node)).collect();
        for node in &nodes {
            until("loaded", || node.backplane.state().is_loaded).await;
        }
        nodes
    }

    fn append(&self, lines: Lines) -> JoinHandle<Result<Appended>> {
        let backplane = self.backplane.clone();
        spawn_local(async move { backplane.append(lines).await })
    }

    async fn publish(&self, key: &str) -> Result<Appended> {
        self.backplane.append(keys(key)).await
    }

    /// All cuts, for whatever reason.
    fn cuts(&self) -> u64 {
        CutReason::ALL.iter().map(|reason| self.backplane.counters().cuts(*reason)).sum()
    }

    fn cuts_for(&self, reason: CutReason) -> u64 {
        assert_eq!(self.cuts(), self.backplane.counters().cuts(reason), "no other one");
        self.cuts()
    }

    async fn has_read(&self, broker: &Scripted) {
        let newest = broker.edit(|script| script.newest());
        let read = || self.hub.applied().is_some_and(|mark| mark.position >= newest);
        until("it has read everything", read).await;
    }

    async fn is_connected(&self) {
        until("connected", || self.backplane.state().is_connected).await;
    }
}
